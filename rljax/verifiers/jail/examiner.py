"""Inside another jail: tests, which call a program that runs elsewhere.

The tests know what is right, so they are never where the program is. Each name that they take from the program stands
for a question along the wire; what comes back is plain data, or a handle that is equal to nothing. Verdicts go to the
one who ordered the examination, along a pipe that the program does not hold.
"""

import builtins
import importlib
import os
import random
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

from rljax.verifiers.jail import inmate

NUMBER = " number"  # where a handle keeps its number: no attribute that a program can have
# Exceptions that would steer the loops of a test rather than fail it
CONTROL = (StopIteration, StopAsyncIteration, GeneratorExit)
# Methods of plain data that a test asks to judge a result: "assert f(1).startswith('a')" must not be for the program to say
JUDGING = frozenset(
    n for t in (str, float, set) for n in dir(t) if n.startswith("is") or n.endswith(("with", "ion", "ence"))
)


class Handle:
    """A thing of the program's that is no plain data."""

    def __init__(self, number: int):
        self.__dict__[NUMBER] = number

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return ask("call", self, list(arguments), named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in JUDGING:
            raise AttributeError(name)
        return ask("attribute", self, name)

    def __iter__(self) -> Iterator[Any]:
        iterator, end = ask("iterate", self), object()
        while (item := ask("next", iterator, default=end)) is not end:
            yield item

    def __next__(self) -> Any:
        end = object()
        if (item := ask("next", self, default=end)) is end:
            raise StopIteration
        return item

    def __getitem__(self, key: Any) -> Any:
        return ask("item", self, key)

    def __len__(self) -> int:
        return ask("length", self)

    def __str__(self) -> str:
        return ask("str", self)

    def __repr__(self) -> str:
        return ask("repr", self)

    def __float__(self) -> float:
        return ask("float", self)

    def __int__(self) -> int:
        return ask("int", self)

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return id(self)


def number(thing: object) -> int:
    """The handle of a thing that is to travel back; what was made by the test itself cannot travel."""
    if type(thing) is Handle:
        return thing.__dict__[NUMBER]
    raise TypeError(f"a {type(thing).__name__} cannot be passed to the program")


def ask(operation: str, *arguments: Any, default: Any = None) -> Any:
    """A question to the program, and its answer. Where the program is gone, so is this examination."""
    try:
        inmate.send([operation, *arguments], number)
        kind, *rest = inmate.receive(Handle)
        if kind == "value" and len(rest) == 1:
            return rest[0]
        if kind == "raise":
            name, text = rest
        elif kind == "stop":
            if default is not None:
                return default
            name, text = "RuntimeError", "StopIteration"
        else:
            raise OSError
    except (OSError, EOFError, ValueError):
        gone()
    raise imitation(name, text)


def imitation(name: Any, text: Any) -> Exception:
    """The exception of a program, as one of ours."""
    kind = getattr(builtins, name, None) if isinstance(name, str) else None
    if not (isinstance(kind, type) and issubclass(kind, Exception)) or issubclass(kind, CONTROL) or kind is Exception:
        return RuntimeError(f"{name}: {text}")
    try:
        return kind(text)
    except TypeError:  # one that wants more than a text
        return RuntimeError(f"{name}: {text}")


def report(verdict: str) -> None:
    os.write(inmate.REPORT, verdict.encode() + b"\n")


def gone() -> NoReturn:
    """No ``except`` of a test may see this end."""
    report("gone")
    os._exit(0)


def examine() -> None:
    """Judge case after case; each in names of its own."""
    cases = inmate.own_text()
    ask("names")
    report("ready")  # the program has been defined
    for case in cases:
        report(judge(*case))
    os._exit(0)


def judge(setup: str, test: str, names: list[str], modules: list[str], entry: str) -> str:
    """Run one test: "passed" where it came to its end."""
    random.seed(0)
    space: dict[str, Any] = {"__name__": "test"}
    sys.modules["test"] = type(sys)("test")
    try:
        space |= {name: importlib.import_module(name) for name in modules}
        exec(compile(setup, "<setup>", "exec"), space)
        wanted = [n for n in names if n == entry or n not in space]  # what the setup defines is the setup's
        there = ask("names", *wanted)
        space |= {n: there[n] for n in wanted if n in there}  # and no name beyond: "abs" would be welcome
        exec(compile(test, "<test>", "exec"), space)
    except AssertionError:
        return "wrong"
    except MemoryError:
        return "memory"
    except BaseException:
        return "error"
    return "passed"
