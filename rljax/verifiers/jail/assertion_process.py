"""The jailed process of the tests, which call the functions of a program in another process.

The tests contain the expected results, so they are never in the process of the program. Each use of a name of the
program sends a request through the channel. The reply is plain data, or a handle that equals nothing. The verdicts go
to the supervisor, through a pipe that the program does not have.

What is left to the program: the methods of objects whose class the test itself names, a function that a function
returned, and the text of ``str(x)`` beside the items of the same ``x``.
"""

import builtins
import importlib
import os
import random
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

from rljax.verifiers.jail import plain_data
from rljax.verifiers.jail.messages import GO, REPORT, read_payload, receive_message, send_message

STATE_KEY = " state"  # the attribute for the state of a handle; no program can have one with this name
OPEN_ROLES = ("name", "object")  # the test names these objects, or what they belong to
# Exceptions that would control the loops of a test instead of failing it
CONTROL_FLOW_EXCEPTIONS = (StopIteration, StopAsyncIteration, GeneratorExit)
# Methods of plain data by which a test checks a result: the program must not decide "assert f(1).startswith('a')"
JUDGING_METHODS = frozenset(
    n for t in (str, float, set) for n in dir(t) if n.startswith("is") or n.endswith(("with", "ion", "ence"))
)


class Handle:
    """An object in the process of the program that is not plain data. Its role says what a test may do with it.

    role            what it is                                          what a test may use
    "name"          a global name of the program                        call, attributes, items
    "object"        an instance of a class that the test names,         call, attributes, items
                    and the objects in its attributes
    "result"        what a function or a method returned                call, iteration, items by index, str, int, float
    "part"          an attribute of a result                            the same, but no call

    A test expects plain data from a function. A method of the result would be written by the program, and could say
    that the result is right: ``answer(7).equals(5)``. So a result has no methods. Its items are read once, so that
    ``len(x)``, ``x[0]`` and ``list(x)`` agree, as they do for plain data.
    """

    def __init__(self, number: int, role: str = "result"):
        self.__dict__[STATE_KEY] = State(number, role)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        state = state_of(self)
        if state.role == "part":
            raise TypeError("a result of the program is compared as plain data: its methods cannot be called")
        return with_role(request("call", self, list(arguments), named), "object" if state.is_class else "result")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in JUDGING_METHODS:
            raise AttributeError(name)
        role = "object" if state_of(self).role in OPEN_ROLES else "part"
        found = with_role(request("attribute", self, name), role)
        if isinstance(found, Handle) and role == "object":
            state_of(found).is_class = is_class_name(name)
        return found

    def __iter__(self) -> Iterator[Any]:
        state = state_of(self)
        if state.role in OPEN_ROLES:
            return iterate(request("iterate", self)[0])
        start_reading(self)
        return drain(state) if state.is_stream else replay(state)

    def __next__(self) -> Any:
        if state_of(self).role not in OPEN_ROLES:
            start_reading(self, stream=True)
            return next(drain(state_of(self)))
        return next(iterate(self))

    def __getitem__(self, key: Any) -> Any:
        if state_of(self).role in OPEN_ROLES:
            return with_role(request("item", self, key), "object")
        if not isinstance(key, int | slice):
            raise TypeError("a result of the program is compared as plain data: it has no keys, only an index")
        return read_all(self)[key]

    def __len__(self) -> int:
        return request("length", self) if state_of(self).role in OPEN_ROLES else len(read_all(self))

    def __str__(self) -> str:
        return convert(self, "str")

    def __repr__(self) -> str:
        return convert(self, "repr")

    def __float__(self) -> float:
        return convert(self, "float")

    def __int__(self) -> int:
        return convert(self, "int")

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return id(self)


class State:
    """What this process knows about a handle."""

    def __init__(self, number: int, role: str):
        self.number, self.role = number, role
        self.is_class = False  # a call makes an "object"
        self.iterator: Any = None  # the handle of the iterator, after the first use of the items
        self.is_stream = False  # an iterator, whose items are given once
        self.ended = False  # the iterator has no more items
        self.items: list[Any] = []  # those that were read
        self.converted: dict[str, Any] = {}


def state_of(handle: Handle) -> State:
    return handle.__dict__[STATE_KEY]


def with_role(value: Any, role: str) -> Any:
    """A reply of the program; if it is a handle, it gets this role."""
    if isinstance(value, Handle):
        state_of(value).role = role
    return value


def is_class_name(name: str) -> bool:
    """True for ``Stack`` and ``_Node``: a class is recognized by its capital letter."""
    return name.lstrip("_")[:1].isupper()


def iterate(iterator: Handle) -> Iterator[Any]:
    """The items that an iterator of the program gives from now on."""
    end = object()
    while (item := request("next", iterator, default=end)) is not end:
        yield item


def start_reading(handle: Handle, stream: bool = False) -> None:
    """Decide at the first use of its items whether a result is an iterator or a sequence."""
    state = state_of(handle)
    if state.iterator is None:
        state.iterator, state.is_stream = (handle, True) if stream else request("iterate", handle)
    elif stream and not state.is_stream:
        raise TypeError("a result that was read as a sequence is not an iterator")


def drain(state: State) -> Iterator[Any]:
    """The items that are left of an iterator. One that has ended stays so."""
    while not state.ended:
        item = request("next", state.iterator, default=state)
        state.ended = item is state
        if not state.ended:
            yield item


def replay(state: State) -> Iterator[Any]:
    """The items of a sequence, each of which is asked for only once."""
    place, end = 0, object()
    while place < len(state.items) or (item := request("next", state.iterator, default=end)) is not end:
        if place == len(state.items):
            state.items.append(item)
        yield state.items[place]
        place += 1


def read_all(handle: Handle) -> list[Any]:
    """All items of a sequence. Raises TypeError for an iterator, which has no length and no index."""
    start_reading(handle)
    if state_of(handle).is_stream:
        raise TypeError("an iterator has no length and no index")
    return list(replay(state_of(handle)))


def convert(handle: Handle, operation: str) -> Any:
    """A result as str, int or float: the same at each use."""
    state = state_of(handle)
    if state.role in OPEN_ROLES:
        return request(operation, handle)
    if operation not in state.converted:
        state.converted[operation] = request(operation, handle)
    return state.converted[operation]


def handle_number(thing: object) -> int:
    """The number of a handle that is sent back. Raises TypeError for an object that the test made itself."""
    if type(thing) is Handle:
        return state_of(thing).number
    raise TypeError(f"a {type(thing).__name__} cannot be passed to the program")


def request(operation: str, *arguments: Any, default: Any = None) -> Any:
    """The result of an operation in the process of the program. If that process is gone, this one exits too.

    ``default`` is returned at the end of an iterator.
    """
    try:
        send_message([operation, *arguments], handle_number)
        kind, *rest = receive_message(Handle, plain_data.TypeName)
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


def name_handle(value: Any, name: str) -> Any:
    """The value of a global name of the program, which the test may use as an object if it is a handle."""
    if isinstance(value, Handle):
        state_of(value).role, state_of(value).is_class = "name", is_class_name(name)
    return value


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
        if not os.read(GO, 1):  # until the supervisor has read the report
            break
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
        namespace |= {
            n: name_handle(found[n], n) for n in wanted if n in found
        }  # no others, or a program could supply its own "abs"
        exec(compile(test, "<test>", "exec"), namespace)
    except AssertionError:
        return "wrong"
    except MemoryError:
        return "memory"
    except BaseException:
        return "error"
    return "passed"
