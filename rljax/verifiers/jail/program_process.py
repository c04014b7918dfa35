"""The jailed process of a program: one that reads stdin and prints, or one whose functions the tests call.

Nothing here is secret from the program, and nothing here is trusted, as the program can change all of it. It can only
send bytes, to stdout or through the channel, and these are checked in other processes.
"""

import atexit
import builtins
import contextlib
import linecache
import operator
import os
import random
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any

from rljax.verifiers.jail import plain_data
from rljax.verifiers.jail.messages import STDERR, STDIN, STDOUT, read_payload, receive_message, send_message

OUT_OF_MEMORY = 77  # exit status; only a hint, as the program can exit with any status


def open_streams() -> None:
    """Open stdin, stdout and stderr anew: those of the forked zygote belong to other files."""
    sys.stdin = sys.__stdin__ = open(STDIN, encoding="utf-8", closefd=False)
    sys.stdout = sys.__stdout__ = open(STDOUT, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.__stderr__ = open(STDERR, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.argv = ["program.py"]
    random.seed(0)  # so that a program that depends on luck has the same outcome each time


# Running the program


def execute_source(name: str, setup: str, program: str) -> dict[str, Any]:
    """Run the setup and the program as a module; returns its global names."""
    module = types.ModuleType(name)
    module.__file__ = "<program>"
    sys.modules[name] = module
    namespace = module.__dict__
    text = program.encode("utf-8", "replace").decode()
    linecache.cache["<program>"] = len(text), None, text.splitlines(keepends=True), "<program>"  # for inspect.getsource
    if setup:
        exec(compile(setup.encode("utf-8", "surrogatepass"), "<setup>", "exec"), namespace)
    exec(compile(program.encode("utf-8", "surrogatepass"), "<program>", "exec"), namespace)
    return namespace


def run_and_exit(task: Callable[[], object]) -> None:
    """Run a task and end the process as Python does after a script."""
    try:
        code = run_for_exit_status(task)
        getattr(threading, "_shutdown", int)()  # waits for threads
        atexit._run_exitfuncs()
        flush_streams()
    except MemoryError:
        code = OUT_OF_MEMORY
    except BaseException:
        code = 1
    os._exit(code)


def flush_streams() -> None:
    """Write out what was printed, also if the program has replaced ``sys.stdout``."""
    for stream in (sys.stdout, sys.__stdout__, sys.stderr):
        with contextlib.suppress(Exception):
            if stream:
                stream.flush()


def run_for_exit_status(task: Callable[[], object]) -> int:
    """The exit status of a task. The traceback of an exception is printed from the frame of the program on."""
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
        for _ in range(3):  # the frames of this function, of the task and of execute_source
            own = own and own.tb_next
        traceback.print_exception(type(e), e, own, limit=-8)
        return 1
    return 0


def run_script() -> None:
    """Run a program that reads stdin and writes stdout."""
    open_streams()
    run_and_exit(lambda: execute_source("__main__", *read_payload()))


def serve_module() -> None:
    """Run a program whose functions are called by tests. Its name is not ``__main__``, as if it were imported."""
    open_streams()
    run_and_exit(lambda: serve_requests(execute_source("solution", *read_payload())))


# Calls from the tests


def serve_requests(namespace: dict[str, Any]) -> None:
    """Perform the requests of the tests until their process ends."""
    objects: list[object] = []

    def store(thing: object) -> int:
        objects.append(thing)
        return len(objects) - 1

    for request in read_requests(lambda handle: objects[handle]):
        try:
            reply: Any = ["value", perform_request(namespace, *request)]
        except StopIteration:
            reply = ["stop"]
        except BaseException as e:
            reply = describe_exception(e)
        flush_streams()
        try:
            send_message(reply, store)
        except ValueError as e:
            send_message(describe_exception(e))


def read_requests(find: plain_data.FindObject) -> Iterator[Any]:
    """The requests of the tests, until the channel is closed."""
    while True:
        try:
            request = receive_message(find)
        except EOFError:
            return
        yield request


OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda function, arguments, named: function(*arguments, **named),
    "attribute": getattr,
    "item": operator.getitem,
    "iterate": lambda thing: [iterator := iter(thing), iterator is thing],
    "next": next,
    "length": len,
    "str": str,
    "repr": repr,
    "float": float,
    "int": int,
}


def perform_request(namespace: dict[str, Any], operation: str, *arguments: Any) -> Any:
    """The result of one request. "names" asks for those global names that the program has, with their values."""
    if operation == "names":
        return {name: namespace[name] for name in arguments if name in namespace}
    return OPERATIONS[operation](*arguments)


def describe_exception(e: BaseException) -> list[str]:
    """An exception as a message: the nearest builtin type, and its text."""
    base = next(t for t in type(e).__mro__ if getattr(builtins, t.__name__, None) is t)
    try:
        text = str(e)[:1000]
        print(f"{type(e).__name__}: {text}", file=sys.stderr, flush=True)
    except BaseException:
        text = ""
    return ["raise", base.__name__, text]
