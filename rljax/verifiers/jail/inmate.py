"""Inside the jail: a program that reads and prints, or one whose functions the examiner calls.

Nothing here is secret from the program and nothing here is to be trusted: the program can change all of it. What it can
not do is say more than bytes, to ``stdout`` or along the wire, and those are judged elsewhere.
"""

import atexit
import builtins
import contextlib
import operator
import os
import random
import struct
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any

from rljax.verifiers.jail import plain

STDIN, STDOUT, STDERR, TEXT, WIRE, REPORT = range(6)  # the file descriptors of every inmate
OUT_OF_MEMORY = 77  # exit status; no more than a hint

# Messages: a length, then plain data


def send(message: object, keep: plain.Keep = plain.no_handles, fd: int = WIRE) -> None:
    data = plain.encode(message, keep)
    data = memoryview(struct.pack("<I", len(data)) + data)
    while data:
        data = data[os.write(fd, data) :]


def receive(find: plain.Find = plain.no_objects, fd: int = WIRE) -> Any:
    """The next message; raises EOFError where the other side is gone, ValueError where it talks nonsense."""
    (size,) = struct.unpack("<I", exactly(4, fd))
    if size > 2 * plain.LARGEST:
        raise ValueError("a message that is too large")
    return plain.decode(exactly(size, fd), find)


def exactly(size: int, fd: int) -> bytes:
    out = bytearray()
    while len(out) < size:
        part = os.read(fd, min(size - len(out), 1 << 20))
        if not part:
            raise EOFError
        out += part
    return bytes(out)


def own_text() -> Any:
    """What this inmate was given to run."""
    parts = []
    while part := os.pread(TEXT, 1 << 20, sum(map(len, parts))):
        parts.append(part)
    os.close(TEXT)
    return plain.decode(b"".join(parts))


def open_streams() -> None:
    """Fresh stdin and stdout: the ones of the process that was copied belong to other files."""
    sys.stdin = sys.__stdin__ = open(STDIN, encoding="utf-8", closefd=False)
    sys.stdout = sys.__stdout__ = open(STDOUT, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.__stderr__ = open(STDERR, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.argv = ["program.py"]
    random.seed(0)  # a program that is right by luck is so always, or never


# Running


def define(name: str, setup: str, program: str) -> dict[str, Any]:
    """Run the text of a module, and return its names."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    space = module.__dict__
    if setup:
        exec(compile(setup.encode("utf-8", "surrogatepass"), "<setup>", "exec"), space)
    exec(compile(program.encode("utf-8", "surrogatepass"), "<program>", "exec"), space)
    return space


def leave(task: Callable[[], object]) -> None:
    """Do a task and end the process as Python does after a script."""
    try:
        code = finish(task)
        getattr(threading, "_shutdown", int)()  # waits for threads
        atexit._run_exitfuncs()
        flush()
    except MemoryError:
        code = OUT_OF_MEMORY
    except BaseException:
        code = 1
    os._exit(code)


def flush() -> None:
    """Hand on what was printed, also where a program has put something else in place of stdout."""
    for stream in (sys.stdout, sys.__stdout__, sys.stderr):
        with contextlib.suppress(Exception):
            if stream:
                stream.flush()


def finish(task: Callable[[], object]) -> int:
    """Exit status of a task."""
    try:
        task()
    except SystemExit as e:
        if e.code is not None and not isinstance(e.code, int):
            print(e.code, file=sys.stderr)
        return 0 if e.code is None else e.code & 255 if isinstance(e.code, int) else 1
    except MemoryError:
        return OUT_OF_MEMORY
    except BaseException as e:
        own = e.__traceback__
        for _ in range(3):  # from here to the program
            own = own and own.tb_next
        traceback.print_exception(type(e), e, own, limit=-8)
        return 1
    return 0


def script() -> None:
    """A program that reads stdin and writes stdout."""
    open_streams()
    leave(lambda: define("__main__", *own_text()))


def module() -> None:
    """A program whose functions are called from outside. It's no ``__main__``: it is imported, as it were."""
    open_streams()
    leave(lambda: answer(define("solution", *own_text())))


def answer(space: dict[str, Any]) -> None:
    """Do what the examiner asks, until it is gone."""
    things: list[object] = []

    def keep(thing: object) -> int:
        things.append(thing)
        return len(things) - 1

    for request in requests(lambda handle: things[handle]):
        try:
            reply: Any = ["value", perform(space, *request)]
        except StopIteration:
            reply = ["stop"]
        except BaseException as e:
            reply = failure(e)
        flush()
        try:
            send(reply, keep)
        except ValueError as e:
            send(failure(e))


def requests(find: plain.Find) -> Iterator[Any]:
    while True:
        try:
            request = receive(find)
        except EOFError:
            return
        yield request


OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda function, arguments, named: function(*arguments, **named),
    "attribute": getattr,
    "item": operator.getitem,
    "iterate": iter,
    "next": next,
    "length": len,
    "str": str,
    "repr": repr,
    "float": float,
    "int": int,
}


def perform(space: dict[str, Any], operation: str, *arguments: Any) -> Any:
    """One request. "names" asks for global names: those that the program has, with their values."""
    if operation == "names":
        return {name: space[name] for name in arguments if name in space}
    return OPERATIONS[operation](*arguments)


def failure(e: BaseException) -> list[str]:
    """An exception as a message: the nearest builtin type, and what it says."""
    base = next(t for t in type(e).__mro__ if getattr(builtins, t.__name__, None) is t)
    try:
        text = str(e)[:1000]
        print(f"{type(e).__name__}: {text}", file=sys.stderr, flush=True)
    except BaseException:
        text = ""
    return ["raise", base.__name__, text]
