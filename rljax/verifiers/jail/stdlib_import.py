"""The standard library for jailed processes: preloaded modules, and an importer that reads from an open folder.

The importer uses a file descriptor, as the user of a jail may have no access to the path of the folder.
"""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import os
import re
import sys
import sysconfig
from typing import Any

STDLIB_FD = 60  # file descriptor of the folder in a jailed process
STDLIB_PATH = sysconfig.get_path("stdlib")
PRELOADED_MODULES = """abc argparse array ast asyncio base64 binascii bisect bz2 calendar cmath codecs collections collections.abc
contextlib contextvars copy csv ctypes dataclasses datetime decimal difflib enum fractions functools gc hashlib heapq
html inspect io itertools json keyword linecache locale logging lzma math numbers operator pickle pprint queue random
re secrets shutil site statistics string struct sys tempfile textwrap threading time timeit tokenize traceback types
typing unicodedata unittest uuid warnings weakref xml.etree.ElementTree zipfile zlib zoneinfo encodings.idna"""
SKIPPED_EXTENSIONS = re.compile(
    r"_?test|_ctypes_test|_test|_tkinter|_curses|readline|nis|ossaudiodev|xx|_xx|_dbm|_gdbm|_ssl|_sqlite3"
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
