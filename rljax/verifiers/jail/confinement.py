"""What a process gives up before it runs the code of a stranger: rights that only the kernel can take away.

``probe`` says what this machine offers, ``cell`` prepares a jail once, and ``enter`` goes in: own session, resource
limits, another user where the caller is root, no capabilities, Landlock (files, network, signals), and an allow-list of
system calls (``seccomp``). Nothing of it can be undone by the process, and all of it works in an ordinary container.
"""

import contextlib
import ctypes
import functools
import os
import resource
import signal
import struct
import sys
import sysconfig
from collections.abc import Iterator
from typing import NamedTuple

from rljax.verifiers.jail import seccomp

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # Landlock; the same numbers on every machine
CAPSET = {"x86_64": 126, "aarch64": 91}
SECCOMP = {"x86_64": 317, "aarch64": 277}
SET_PDEATHSIG, SET_DUMPABLE, SET_NO_NEW_PRIVS, SET_SUBREAPER = 1, 4, 38, 36
STACK = 64 << 20
OPEN_FILES = 64
THREADS = 64

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG, REFER, TRUNCATE = 16, 32, 128, 256, 1 << 13, 1 << 14
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
NETWORK = 3  # binding and connecting of TCP sockets
SCOPES = 3  # abstract sockets, signals
PRIVATE = ("site-packages", "dist-packages")  # installed packages may bring the very answers a program is to find
ROOT_NEEDS = (0, 1, 3, 5, 6, 7)  # capabilities: chown, read all, own all, kill, setgid, setuid


class Isolation(NamedTuple):
    """What holds a program on this machine."""

    landlock: int  # version of the kernel's interface; 0: none. 3 is complete for files, 4 adds TCP, 6 signals
    seccomp: bool
    own_user: bool  # programs run as a user of their own; otherwise as the one who calls

    @property
    def missing(self) -> list[str]:
        return [name for name, there in [("Landlock", self.landlock), ("seccomp", self.seccomp)] if not there]


class Cell(NamedTuple):
    """A jail that is ready to be entered."""

    isolation: Isolation
    folder: int  # file descriptors: of the one folder that can be written,
    ruleset: int | None  # and of Landlock's rules
    user: int | None
    base: int  # bytes of address space that are in use before a program starts


@functools.cache
def libc() -> ctypes.CDLL:
    out = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux":
        out.syscall.restype = ctypes.c_long
    return out


def syscall(number: int, *arguments) -> int:
    """A system call; raises OSError where it fails."""
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    out = libc().syscall(ctypes.c_long(number), *wide)
    if out < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return out


def prctl(option: int, value: int) -> None:
    """Set a property of this process; no more than a good intention where the system is not Linux."""
    if sys.platform == "linux" and libc().prctl(option, ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3):
        code = ctypes.get_errno()
        raise OSError(code, f"prctl {option}: {os.strerror(code)}")


@functools.cache
def probe() -> Isolation:
    """What this machine offers."""
    if sys.platform != "linux" or not seccomp.known():
        return Isolation(landlock=0, seccomp=False, own_user=os.geteuid() == 0)
    version, filters = 0, False
    with contextlib.suppress(OSError):
        version = syscall(CREATE_RULESET, None, 0, 1)
    with contextlib.suppress(OSError):
        filters = syscall(SECCOMP[os.uname().machine], 2, 0, ctypes.byref(ctypes.c_uint32(seccomp.KILL))) == 0
    return Isolation(version, filters, own_user=can_change_user())


def can_change_user() -> bool:
    """May this process start others as another user, and still kill them and remove their files?"""
    if os.geteuid() != 0:
        return False
    with open("/proc/self/status") as status:
        held = next((int(line.split()[1], 16) for line in status if line.startswith("CapEff")), 0)
    with open("/proc/self/uid_map") as lines:  # a user namespace may know no other user
        known = any(int(first) <= 60000 and 65000 < int(first) + int(n) for first, _, n in map(str.split, lines))
    return known and all(held >> bit & 1 for bit in ROOT_NEEDS)


# Before


def cell(isolation: Isolation, folder: int | None, user: int | None) -> Cell:
    """Prepare a jail: ``folder`` is what can be written in it, None for nothing."""
    rules = ruleset(isolation.landlock, folder) if isolation.landlock else None
    place = os.open("/", os.O_RDONLY | os.O_DIRECTORY) if folder is None else folder
    if folder is not None and user is not None:
        os.fchown(folder, user, user)
    if isolation.seccomp:
        seccomp.template()  # made once, not in each child
    return Cell(isolation, place, rules, user, address_space())


def ruleset(version: int, folder: int | None) -> int:
    """Landlock's rules: the standard library can be read, one folder written. Every right the kernel knows is ruled."""
    rights = (1 << 13 if version < 2 else 1 << 14 if version < 3 else 1 << 15 if version < 5 else 1 << 16) - 1
    size = 8 if version < 4 else 16 if version < 6 else 24
    attributes = struct.pack("<QQQ", rights, NETWORK, SCOPES)[:size]
    out = syscall(CREATE_RULESET, attributes, size, 0)
    for path, allowed in readable():
        with contextlib.suppress(FileNotFoundError), opened(path) as place:
            allow(out, place, allowed & rights)
    if folder is not None:
        mine = WRITE_FILE | READ_FILE | READ_DIR | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE
        allow(out, folder, mine & rights)
    return out


def readable() -> Iterator[tuple[str, int]]:
    """What any program may read, with the rights to it."""
    for folder in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}:
        if os.path.isfile(os.path.join(folder, "os.py")):
            for entry in os.scandir(folder):
                if entry.name not in PRIVATE:
                    yield entry.path, READ_FILE | READ_DIR if entry.is_dir() else READ_FILE
    yield "/usr/share/zoneinfo", READ_FILE | READ_DIR
    yield "/dev/urandom", READ_FILE
    yield "/dev/null", READ_FILE | WRITE_FILE


@contextlib.contextmanager
def opened(path: str) -> Iterator[int]:
    place = os.open(path, getattr(os, "O_PATH", 0) | os.O_CLOEXEC)
    try:
        yield place
    finally:
        os.close(place)


def allow(rules: int, place: int, rights: int) -> None:
    syscall(ADD_RULE, rules, 1, struct.pack("<Qi", rights, place), 0)


def address_space() -> int:
    """Bytes of address space of this process."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 256 << 20


# Going in


def enter(where: Cell, cpu_seconds: int, memory: int, file_size: int) -> None:
    """Give up every right that a program does not need. Raises OSError where the kernel refuses one."""
    os.fchdir(where.folder)
    lower(resource.RLIMIT_CPU, cpu_seconds)  # soft and hard are one: SIGKILL, which no handler sees
    lower(resource.RLIMIT_FSIZE, file_size)
    lower(resource.RLIMIT_NOFILE, OPEN_FILES)
    lower(resource.RLIMIT_CORE, 0)
    lower(resource.RLIMIT_MEMLOCK, 0)
    lower(resource.RLIMIT_STACK, STACK)
    if sys.platform == "linux":
        lower(resource.RLIMIT_AS, where.base + memory)
        lower(resource.RLIMIT_MSGQUEUE, 0)
    if where.user is not None:  # the limit counts all processes of a user, so it is fair to one of its own only
        lower(resource.RLIMIT_NPROC, THREADS)
        os.setgroups([])
        os.setgid(where.user)
        os.setuid(where.user)
    prctl(SET_PDEATHSIG, signal.SIGKILL)  # a change of user would have undone it
    prctl(SET_DUMPABLE, 0)
    prctl(SET_NO_NEW_PRIVS, 1)
    if sys.platform == "linux" and os.uname().machine in CAPSET:
        syscall(CAPSET[os.uname().machine], struct.pack("<II", 0x20080522, 0), bytes(24))
    if where.ruleset is not None:
        syscall(RESTRICT_SELF, where.ruleset, 0)
    if where.isolation.seccomp:
        steps = ctypes.create_string_buffer(seccomp.program(os.getpid()))
        pointer = ctypes.addressof(steps)
        filters = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", (len(steps) - 1) // 8, pointer))
        syscall(SECCOMP[os.uname().machine], 1, 0, filters)


def lower(kind: int, value: int) -> None:
    """Set both limits, or leave a hard limit that is lower already."""
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))
