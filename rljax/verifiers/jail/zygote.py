"""The process that inmates are copied from: a clean Python with the standard library at hand, one a core.

Its memory is what every program can read, so it holds nothing: texts and tests come to the inmates themselves, as open
files that are only passed on. It kills and buries what it has forked, empties the folder after each, and ends when the
one who started it does.

    control socket, one JSON object a line:  {"fork": role, ...} + files -> {"pid": n}, later {"pid": n, "status": ...}
                                             {"end": true} -> {"ended": true}
"""

import contextlib
import gc
import importlib
import importlib.machinery
import importlib.util
import json
import os
import re
import resource
import select
import signal
import socket
import sys
import sysconfig
from typing import Any

from rljax.verifiers.jail import confinement, examiner, inmate

MODULES = """abc argparse array ast asyncio base64 binascii bisect bz2 calendar cmath codecs collections collections.abc
contextlib contextvars copy csv ctypes dataclasses datetime decimal difflib enum fractions functools gc hashlib heapq
html inspect io itertools json keyword linecache locale logging lzma math numbers operator pickle pprint queue random
re secrets shutil site statistics string struct sys tempfile textwrap threading time timeit tokenize traceback types
typing unicodedata unittest uuid warnings weakref xml.etree.ElementTree zipfile zlib zoneinfo encodings.idna"""
UNWANTED = re.compile(
    r"_?test|_ctypes_test|_test|_tkinter|_curses|readline|nis|ossaudiodev|xx|_xx|_dbm|_gdbm|_ssl|_sqlite3"
)
STDLIB, RULESET, FOLDER = 60, 61, 62  # file descriptors of an inmate, above those that it is given
ROLES = {"script": inmate.script, "module": inmate.module, "examiner": examiner.examine}
WATCH = 2000  # milliseconds between looks whether the parent is alive


# The standard library by file descriptor: a user of its own may have no way to the folder


class Reader(importlib.machinery.SourceFileLoader):
    """Reads modules relative to an open folder."""

    def get_data(self, path: str) -> bytes:
        fd = os.open(os.path.relpath(path, HOME), os.O_RDONLY | os.O_CLOEXEC, dir_fd=STDLIB)
        with open(fd, "rb") as file:
            return file.read()

    def path_stats(self, path: str) -> dict[str, Any]:
        found = os.stat(os.path.relpath(path, HOME), dir_fd=STDLIB)
        return {"mtime": found.st_mtime, "size": found.st_size}

    def set_data(self, path: str, data: bytes, *, _mode: int = 0o666) -> None:
        """Nothing is to be written."""


class Library:
    """Finds modules in the standard library."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        relative = name.replace(".", "/")
        for file, package in [(f"{relative}/__init__.py", True), (f"{relative}.py", False)]:
            with contextlib.suppress(OSError, ValueError):
                os.stat(file, dir_fd=STDLIB)
                where = os.path.join(HOME, file)
                folders = [os.path.dirname(where)] if package else None
                loader = Reader(name, where)
                return importlib.util.spec_from_file_location(
                    name, where, loader=loader, submodule_search_locations=folders
                )
        return None


HOME = sysconfig.get_path("stdlib")


def preload() -> None:
    """Import what programs use; what is written in C must be loaded now, as later it may be out of reach."""
    native = os.path.join(HOME, "lib-dynload")
    files = os.listdir(native) if os.path.isdir(native) else []
    names = [f.split(".")[0] for f in sorted(files) if not UNWANTED.match(f)]
    for name in [*MODULES.split(), *names]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    import ctypes
    import site

    site.setquit()  # exit() and quit()
    with contextlib.suppress(OSError):
        ctypes.CDLL("libgcc_s.so.1")  # glibc wants it where a thread is cancelled
    importlib.import_module("encodings.idna")
    "".encode("idna")
    sys.meta_path.insert(2, Library)


# Forking


class Zygote:
    """The state of this process: who is alive, and the jails."""

    def __init__(self, control: socket.socket, folder: str, isolation: confinement.Isolation):
        self.control, self.own = control, os.getpid()
        self.living: set[int] = set()
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self.folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self.library = os.open(HOME, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY)
        user = 60000 + os.getpid() * 2 % 5000 if isolation.own_user else None
        self.program = confinement.cell(isolation, self.folder, user)
        self.test = confinement.cell(isolation, None, None if user is None else user + 1)
        self.woken, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(self.woken, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def say(self, **message: Any) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more: ``serve`` will see it
            self.control.sendall(json.dumps(message).encode() + b"\n")

    def fork(self, role: str, files: list[int], limits: dict[str, int]) -> None:
        pid = os.fork()
        if pid == 0:
            self.become(role, files, limits)
        self.living.add(pid)
        for fd in files:
            os.close(fd)
        self.say(pid=pid)

    def become(self, role: str, files: list[int], limits: dict[str, int]) -> None:
        """The child's side of a fork; does not return."""
        with contextlib.suppress(BaseException):
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            where = self.test if role == "examiner" else self.program
            wanted = dict(enumerate(files)) | {STDLIB: self.library, FOLDER: where.folder}
            if where.ruleset is not None:
                wanted[RULESET] = where.ruleset
            arrange(wanted)
            confinement.enter(where._replace(folder=FOLDER, ruleset=where.ruleset and RULESET), **limits)
            os.closerange(RULESET, FOLDER + 1)
            if os.getppid() != self.own:
                os._exit(70)  # it ended before it could be the death of us
            if role in ROLES:
                ROLES[role]()
            os._exit(0)
        os._exit(70)

    def reap(self) -> None:
        """Bury who has died and tell of it."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.woken, 4096)
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid in self.living:
                    self.living.remove(pid)
                    self.say(pid=pid, status=status, cpu=usage.ru_utime + usage.ru_stime)

    def end(self) -> None:
        """Nobody is left alive, and nothing in the folder."""
        for pid in self.living:
            kill(pid)
        while self.living:
            pid, status, usage = os.wait4(-1, 0)
            if pid in self.living:
                self.living.remove(pid)
                self.say(pid=pid, status=status, cpu=usage.ru_utime + usage.ru_stime)
        while orphans := children():  # without seccomp there may be some; they have come to us
            for pid in orphans:
                kill(pid)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
        empty(self.folder)

    def serve(self) -> None:
        """Do what is asked until the parent is gone."""
        poll, parent, rest = select.poll(), os.getppid(), b""
        poll.register(self.control, select.POLLIN)
        poll.register(self.woken, select.POLLIN)
        while os.getppid() == parent:
            ready = {fd for fd, _ in poll.poll(WATCH)}
            if self.woken in ready:
                self.reap()
            if self.control.fileno() in ready:
                data, files, _, _ = socket.recv_fds(self.control, 1 << 16, 16)
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self.obey(json.loads(line), files)

    def obey(self, request: dict[str, Any], files: list[int]) -> None:
        if "end" in request:
            self.end()
            self.say(ended=True)
        else:
            self.fork(request["fork"], files, request["limits"])

    def trial(self) -> str:
        """Go to jail once to see that it can be done; what went wrong, if anything."""
        for where in (self.program, self.test):
            pid = os.fork()
            if pid == 0:
                with contextlib.suppress(BaseException):
                    confinement.enter(where, cpu_seconds=10, memory=1 << 28, file_size=1 << 20)
                    os._exit(0)
                os._exit(70)
            if os.waitpid(pid, 0)[1] != 0:
                return "the kernel refuses a part of the jail that it claims to have"
        return ""


def arrange(wanted: dict[int, int]) -> None:
    """Make these the only open files: number -> the open file that is to have it."""
    high = max(*wanted, *wanted.values()) + 1
    for fd in wanted.values():
        os.dup2(fd, high, inheritable=False)
        high += 1
    for fd, copy in zip(wanted, range(high - len(wanted), high), strict=True):
        os.dup2(copy, fd, inheritable=fd < 3)
    last = -1
    for fd in [*sorted(wanted), min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 16)]:
        if last + 1 < fd:  # closerange(0, 0) would close them all
            os.closerange(last + 1, fd)
        last = fd


def kill(pid: int) -> None:
    for how in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            how(pid, signal.SIGKILL)


def children() -> list[int]:
    with contextlib.suppress(OSError):
        with open("/proc/thread-self/children") as file:
            return [int(pid) for pid in file.read().split()]
    return []


def empty(folder: int) -> None:
    """Remove all that is in a folder, however deep and whatever its modes. One folder is open at a time."""
    os.fchmod(folder, 0o700)
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
    way: list[tuple[str, list[str]]] = [("", strip(here))]  # from the top to here: names, and folders yet to be removed
    while True:
        name, inner = way[-1]
        if inner:
            os.chmod(inner[-1], 0o700, dir_fd=here)
            there = os.open(inner[-1], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            way.append((inner.pop(), strip(there)))
        elif name:
            there = os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
            os.rmdir(name, dir_fd=there)
            way.pop()
        else:
            break
        os.close(here)
        here = there
    os.close(here)


def strip(folder: int) -> list[str]:
    """Remove the files of a folder; the names of the folders in it."""
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, _ in (f for f in found if not f[1]):
        os.unlink(name, dir_fd=folder)
    return [name for name, is_folder in found if is_folder]


def main(folder: str, isolation: str) -> None:
    """Serve the one at the other end of stdin."""
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    confinement.prctl(confinement.SET_SUBREAPER, 1)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # rather an inmate than the training
    preload()
    zygote = Zygote(control, os.path.join(folder, "work"), confinement.Isolation(*json.loads(isolation)))
    gc.collect()
    gc.freeze()
    zygote.say(problem=zygote.trial())
    with contextlib.suppress(ConnectionError):
        zygote.serve()
    zygote.end()
    with contextlib.suppress(OSError):
        os.rmdir(os.path.join(folder, "work"))
        os.rmdir(folder)
