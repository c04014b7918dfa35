"""The jailed process of the tests, which call the functions of a program in another process.

The tests contain the expected results, so they are never in the process of the program. Each use of a name of the
program sends a request through the channel. The reply is plain data, or a handle that equals nothing. The verdicts go
to the supervisor, through a pipe that the program does not have.
"""

import builtins
import importlib
import os
import random
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

from rljax.verifiers.jail.messages import REPORT, read_payload, receive_message, send_message

NUMBER_KEY = " number"  # the attribute for the number of a handle; no program can have one with this name
# Exceptions that would control the loops of a test instead of failing it
CONTROL_FLOW_EXCEPTIONS = (StopIteration, StopAsyncIteration, GeneratorExit)
# Methods of plain data by which a test checks a result: the program must not decide "assert f(1).startswith('a')"
JUDGING_METHODS = frozenset(
    n for t in (str, float, set) for n in dir(t) if n.startswith("is") or n.endswith(("with", "ion", "ence"))
)


class Handle:
    """An object in the process of the program that is not plain data."""

    def __init__(self, number: int):
        self.__dict__[NUMBER_KEY] = number

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return request("call", self, list(arguments), named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in JUDGING_METHODS:
            raise AttributeError(name)
        return request("attribute", self, name)

    def __iter__(self) -> Iterator[Any]:
        iterator, end = request("iterate", self), object()
        while (item := request("next", iterator, default=end)) is not end:
            yield item

    def __next__(self) -> Any:
        end = object()
        if (item := request("next", self, default=end)) is end:
            raise StopIteration
        return item

    def __getitem__(self, key: Any) -> Any:
        return request("item", self, key)

    def __len__(self) -> int:
        return request("length", self)

    def __str__(self) -> str:
        return request("str", self)

    def __repr__(self) -> str:
        return request("repr", self)

    def __float__(self) -> float:
        return request("float", self)

    def __int__(self) -> int:
        return request("int", self)

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return id(self)


def handle_number(thing: object) -> int:
    """The number of a handle that is sent back. Raises TypeError for an object that the test made itself."""
    if type(thing) is Handle:
        return thing.__dict__[NUMBER_KEY]
    raise TypeError(f"a {type(thing).__name__} cannot be passed to the program")


def request(operation: str, *arguments: Any, default: Any = None) -> Any:
    """The result of an operation in the process of the program. If that process is gone, this one exits too.

    ``default`` is returned at the end of an iterator.
    """
    try:
        send_message([operation, *arguments], handle_number)
        kind, *rest = receive_message(Handle)
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
        exit_program_gone()
    raise rebuild_exception(name, text)


def rebuild_exception(name: Any, text: Any) -> Exception:
    """An exception of the program as a builtin exception of this process."""
    kind = getattr(builtins, name, None) if isinstance(name, str) else None
    if (
        not (isinstance(kind, type) and issubclass(kind, Exception))
        or issubclass(kind, CONTROL_FLOW_EXCEPTIONS)
        or kind is Exception
    ):
        return RuntimeError(f"{name}: {text}")
    try:
        return kind(text)
    except TypeError:  # an exception type that needs more than a text
        return RuntimeError(f"{name}: {text}")


def report_verdict(verdict: str) -> None:
    """Write a line to the supervisor."""
    os.write(REPORT, verdict.encode() + b"\n")


def exit_program_gone() -> NoReturn:
    """End the process at once, so that no ``except`` of a test can catch it."""
    report_verdict("gone")
    os._exit(0)


def run_assertions() -> None:
    """Run one case after another, each in its own namespace, and report the verdicts."""
    cases = read_payload()
    request("names")
    report_verdict("ready")  # the program has executed its definitions
    for case in cases:
        report_verdict(grade_case(*case))
    os._exit(0)


def grade_case(setup: str, test: str, names: list[str], modules: list[str], entry: str) -> str:
    """The verdict of one test: "passed" if it runs to its end."""
    random.seed(0)
    namespace: dict[str, Any] = {"__name__": "test"}
    sys.modules["test"] = type(sys)("test")
    try:
        namespace |= {name: importlib.import_module(name) for name in modules}
        exec(compile(setup, "<setup>", "exec"), namespace)
        wanted = [n for n in names if n == entry or n not in namespace]  # the names of the setup come from the setup
        found = request("names", *wanted)
        namespace |= {n: found[n] for n in wanted if n in found}  # no others, or a program could supply its own "abs"
        exec(compile(test, "<test>", "exec"), namespace)
    except AssertionError:
        return "wrong"
    except MemoryError:
        return "memory"
    except BaseException:
        return "error"
    return "passed"
