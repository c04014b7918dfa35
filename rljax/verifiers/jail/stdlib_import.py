"""The standard library for jailed processes: preloaded modules, and an importer that reads from an open folder.

The importer uses a file descriptor, as the user of a jail may have no access to the path of the folder.
"""

import contextlib
import functools
import importlib
import importlib.machinery
import importlib.util
import os
import re
import sys
import sysconfig
from collections.abc import Callable
from typing import Any

STDLIB_FD = 60  # file descriptor of the folder in a jailed process
STDLIB_PATH = sysconfig.get_path("stdlib")
PRELOADED_MODULES = """abc argparse array ast asyncio base64 binascii bisect bz2 calendar cmath codecs collections collections.abc
contextlib contextvars copy csv ctypes dataclasses datetime dbm.dumb decimal difflib enum fractions functools gc hashlib heapq
html inspect io itertools json keyword linecache locale logging lzma math multiprocessing.pool numbers operator pickle pprint queue random
re secrets shelve shutil site sqlite3 statistics string struct sys tempfile textwrap threading time timeit tokenize traceback types
typing unicodedata unittest uuid warnings weakref xml.etree.ElementTree zipfile zlib zoneinfo encodings.idna"""
SKIPPED_EXTENSIONS = re.compile(
    r"_?test|_ctypes_test|_test|_tkinter|_curses|readline|nis|ossaudiodev|xx|_xx|_dbm|_gdbm|_ssl"
)


class StdlibLoader(importlib.machinery.SourceFileLoader):
    """Loads modules from an open folder."""

    def get_data(self, path: str) -> bytes:
        fd = os.open(os.path.relpath(path, STDLIB_PATH), os.O_RDONLY | os.O_CLOEXEC, dir_fd=STDLIB_FD)
        with open(fd, "rb") as file:
            return file.read()

    def path_stats(self, path: str) -> dict[str, Any]:
        found = os.stat(os.path.relpath(path, STDLIB_PATH), dir_fd=STDLIB_FD)
        return {"mtime": found.st_mtime, "size": found.st_size}

    def set_data(self, path: str, data: bytes, *, _mode: int = 0o666) -> None:
        """Writes no bytecode."""


class StdlibFinder:
    """Finds modules in the standard library."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        relative = name.replace(".", "/")
        for file, package in [(f"{relative}/__init__.py", True), (f"{relative}.py", False)]:
            with contextlib.suppress(OSError, ValueError):
                os.stat(file, dir_fd=STDLIB_FD)
                location = os.path.join(STDLIB_PATH, file)
                folders = [os.path.dirname(location)] if package else None
                loader = StdlibLoader(name, location)
                return importlib.util.spec_from_file_location(
                    name, location, loader=loader, submodule_search_locations=folders
                )
        return None


def preload_stdlib() -> None:
    """Import what programs use. Extension modules must be loaded now, as a jailed process may not reach them."""
    native = os.path.join(STDLIB_PATH, "lib-dynload")
    files = os.listdir(native) if os.path.isdir(native) else []
    names = [f.split(".")[0] for f in sorted(files) if not SKIPPED_EXTENSIONS.match(f)]
    for name in [*PRELOADED_MODULES.split(), *names]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    import ctypes
    import site

    site.setquit()  # defines exit() and quit()
    with contextlib.suppress(OSError):
        ctypes.CDLL("libgcc_s.so.1")  # glibc needs it to cancel threads
    importlib.import_module("encodings.idna")
    "".encode("idna")
    sys.meta_path.insert(2, StdlibFinder)
    adapt_stdlib()


def adapt_stdlib() -> None:
    """Let parts of the library do without rights that a jail does not give, where nothing is lost.

    A jail has one process, so locks between processes are locks between threads: multiprocessing.pool.ThreadPool needs
    them. No mode and no time of a file may be changed there: shutil.copy and shelve do not insist.
    """
    import dbm.dumb
    import multiprocessing.context
    import multiprocessing.pool
    import shutil
    import threading

    for name in ("Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier"):
        make = getattr(threading, name)
        setattr(multiprocessing.context.BaseContext, name, lambda self, *given, make=make: make(*given))
    owners: list[Any] = [shutil, shutil, dbm.dumb._Database]  # type: ignore[attr-defined]
    for owner, name in zip(owners, ("copymode", "copystat", "_chmod"), strict=True):
        setattr(owner, name, tolerate_refusal(getattr(owner, name)))


def tolerate_refusal(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, without a PermissionError."""

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        with contextlib.suppress(PermissionError):
            return function(*given, **named)

    return call
