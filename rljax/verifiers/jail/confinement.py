"""Confinement of a process before it runs untrusted code: the process gives up its rights to the kernel.

``probe_isolation`` finds out what this machine offers, ``prepare_jail`` prepares a jail once, and ``enter_jail`` enters
it: resource limits, another user if the caller is root, no capabilities, Landlock (files, network, signals), and a
filter of system calls (``seccomp``). The process cannot undo any of it. All of it works in an ordinary container.
"""

import contextlib
import ctypes
import functools
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rljax.verifiers.jail import private_files, seccomp, thread_limit
from rljax.verifiers.jail.libc import prctl, syscall

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # system calls of Landlock; the same on every machine
CAPSET = {"x86_64": 126, "aarch64": 91}
SET_PDEATHSIG, SET_DUMPABLE, SET_NO_NEW_PRIVS, SET_SUBREAPER = 1, 4, 38, 36
STACK_BYTES = 64 << 20
ROOM_FOR_STACKS = (
    288 << 20
)  # bytes of address space beyond the memory: threading.stack_size(256 << 20) uses little of it
MAX_OPEN_FILES = 64

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG, REFER, TRUNCATE = 16, 32, 128, 256, 1 << 13, 1 << 14
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
LANDLOCK_NETWORK = 3  # the rights to bind and connect TCP sockets
LANDLOCK_SCOPES = 3  # restrict abstract sockets and signals
HIDDEN_FOLDERS = ("site-packages", "dist-packages")  # installed packages could contain the answers
NEEDED_CAPABILITIES = (0, 1, 3, 5, 6, 7)  # chown, dac_override, fowner, kill, setgid, setuid


class Isolation(NamedTuple):
    """The mechanisms that isolate a program on this machine."""

    landlock: int  # version of the interface; 0 for none. 3 is complete for files, 4 adds TCP, 6 adds signals
    seccomp: bool
    own_user: bool  # programs run as a user of their own, else as the user of the caller
    own_files: bool = False  # their folder is a file system of its own, whose bytes the kernel bounds
    counts_threads: bool = False  # the kernel asks before each thread of a program

    @property
    def missing(self) -> list[str]:
        """The necessary mechanisms that the machine does not have."""
        return [name for name, there in [("Landlock", self.landlock), ("seccomp", self.seccomp)] if not there]

    @property
    def gaps(self) -> list[str]:
        """What a hostile program can do here that it could not do on another machine."""
        files = "write more than its limit of files for a twentieth of a second, and more in files that it removes while open"
        threads = "start as many threads as this user may have"
        found = [(files, self.own_files), (threads, self.counts_threads or self.own_user)]
        return [gap for gap, prevented in found if not prevented]


class Jail(NamedTuple):
    """A jail that a process can enter."""

    isolation: Isolation
    folder: int  # file descriptor of the working folder
    ruleset: int | None  # file descriptor of the Landlock ruleset
    user: int | None  # user id and group id; None for those of the caller
    base: int  # bytes of address space that are used before a program starts


@functools.cache
def probe_isolation() -> Isolation:
    """The isolation that this machine offers."""
    if sys.platform != "linux" or not seccomp.is_supported():
        return Isolation(landlock=0, seccomp=False, own_user=os.geteuid() == 0)
    version, filters = 0, False
    with contextlib.suppress(OSError):
        version = syscall(CREATE_RULESET, None, 0, 1)
    with contextlib.suppress(OSError):
        filters = syscall(seccomp.CALL[os.uname().machine], 2, 0, ctypes.byref(ctypes.c_uint32(seccomp.KILL))) == 0
    return Isolation(version, filters, can_change_user(), *probe_limits())


PROBE_CODE = (
    "import sys; sys.path.insert(0, sys.argv[1]); from rljax.verifiers.jail import confinement; "
    "print(confinement.try_limits(sys.argv[2]))"
)


def probe_limits() -> tuple[bool, bool]:
    """(own_files, counts_threads) of an ``Isolation``: another process tries both, as they cannot be undone."""
    with tempfile.TemporaryDirectory(prefix="rljax-probe-") as folder:
        command = [sys.executable, "-S", "-s", "-P", "-B", "-c", PROBE_CODE, str(Path(__file__).parents[3]), folder]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/", text=True)
    found = done.stdout.split()
    return "files" in found, "threads" in found


def try_limits(folder: str) -> str:
    """Which of "files" and "threads" the kernel bounds for this process, which is changed by that."""
    found = []
    with contextlib.suppress(OSError):
        if os.geteuid() != 0 or not can_change_user() or private_files.has_capability(private_files.CAP_SYS_ADMIN):
            private_files.enter_mount_namespace()
            private_files.mount_folder(folder, 1 << 20, 8)
            private_files.unmount_folder(folder)
            found.append("files")
    with contextlib.suppress(OSError):
        ours, theirs = socket.socketpair()
        thread_limit.install_filter(theirs.fileno())
        found += ["threads"] if socket.recv_fds(ours, 1, 1)[1] else []
    return " ".join(found)


def can_change_user() -> bool:
    """True if this process may start processes as another user, kill them and remove their files."""
    if os.geteuid() != 0:
        return False
    with open("/proc/self/uid_map") as lines:  # a user namespace may have no other user
        known = any(int(first) <= 60000 and 65000 < int(first) + int(n) for first, _, n in map(str.split, lines))
    return known and all(map(private_files.has_capability, NEEDED_CAPABILITIES))


# Preparation


def prepare_jail(isolation: Isolation, folder: int | None, user: int | None) -> Jail:
    """Prepare a jail. ``folder`` is the descriptor of the folder that can be written; None for no such folder."""
    rules = make_landlock_ruleset(isolation.landlock, folder) if isolation.landlock else None
    place = os.open("/", os.O_RDONLY | os.O_DIRECTORY) if folder is None else folder
    if folder is not None and user is not None:
        os.fchown(folder, user, user)
    if isolation.seccomp:
        seccomp.filter_template(isolation.own_files)  # made once, not in each child
    return Jail(isolation, place, rules, user, address_space_bytes())


def make_landlock_ruleset(version: int, folder: int | None) -> int:
    """The descriptor of a Landlock ruleset: the standard library can be read, and one folder written.

    The ruleset restricts every right that this version of the kernel knows.
    """
    rights = (1 << 13 if version < 2 else 1 << 14 if version < 3 else 1 << 15 if version < 5 else 1 << 16) - 1
    size = 8 if version < 4 else 16 if version < 6 else 24
    attributes = struct.pack("<QQQ", rights, LANDLOCK_NETWORK, LANDLOCK_SCOPES)[:size]
    out = syscall(CREATE_RULESET, attributes, size, 0)
    for path, allowed in readable_paths():
        with contextlib.suppress(FileNotFoundError), open_path(path) as place:
            add_landlock_rule(out, place, allowed & rights)
    if folder is not None:
        mine = WRITE_FILE | READ_FILE | READ_DIR | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE
        add_landlock_rule(out, folder, mine & rights)
    return out


def readable_paths() -> Iterator[tuple[str, int]]:
    """(path, rights) of everything that a program may read."""
    for folder in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}:
        if os.path.isfile(os.path.join(folder, "os.py")):
            for entry in os.scandir(folder):
                if entry.name not in HIDDEN_FOLDERS:
                    yield entry.path, READ_FILE | READ_DIR if entry.is_dir() else READ_FILE
    yield "/usr/share/zoneinfo", READ_FILE | READ_DIR
    yield "/dev/urandom", READ_FILE
    yield "/dev/null", READ_FILE | WRITE_FILE


@contextlib.contextmanager
def open_path(path: str) -> Iterator[int]:
    place = os.open(path, getattr(os, "O_PATH", 0) | os.O_CLOEXEC)
    try:
        yield place
    finally:
        os.close(place)


def add_landlock_rule(rules: int, place: int, rights: int) -> None:
    syscall(ADD_RULE, rules, 1, struct.pack("<Qi", rights, place), 0)


def address_space_bytes() -> int:
    """Bytes of address space that this process uses."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 256 << 20


# Entering


def enter_jail(jail: Jail, cpu_seconds: int, memory: int, file_size: int, handoff: int | None = None) -> None:
    """Give up every right that a program does not need. Raises OSError if the kernel refuses a step.

    ``memory`` and ``file_size`` are in bytes. The address space has room for stacks beside the memory; the supervisor bounds
    the memory that is really used. ``handoff`` is a socket to the zygote, for the limit of threads.
    """
    os.fchdir(jail.folder)
    lower_limit(
        resource.RLIMIT_CPU, cpu_seconds
    )  # a soft limit equal to the hard one: SIGKILL, which cannot be handled
    lower_limit(resource.RLIMIT_FSIZE, file_size)
    lower_limit(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    lower_limit(resource.RLIMIT_CORE, 0)
    lower_limit(resource.RLIMIT_MEMLOCK, 0)
    lower_limit(resource.RLIMIT_STACK, STACK_BYTES)
    if sys.platform == "linux":
        lower_limit(resource.RLIMIT_AS, jail.base + memory + ROOM_FOR_STACKS)
        lower_limit(resource.RLIMIT_MSGQUEUE, 0)
    if jail.user is not None:  # the limit counts all processes of the user, so it needs a user of its own
        lower_limit(resource.RLIMIT_NPROC, thread_limit.MAX_THREADS)
        os.setgroups([])
        os.setgid(jail.user)
        os.setuid(jail.user)
    prctl(SET_PDEATHSIG, signal.SIGKILL)  # after the change of user, which would undo it
    prctl(SET_DUMPABLE, 0)
    prctl(SET_NO_NEW_PRIVS, 1)
    if sys.platform == "linux" and os.uname().machine in CAPSET:
        syscall(CAPSET[os.uname().machine], struct.pack("<II", 0x20080522, 0), bytes(24))
    if jail.ruleset is not None:
        syscall(RESTRICT_SELF, jail.ruleset, 0)
    if handoff is not None:
        thread_limit.install_filter(handoff)
        os.close(handoff)
    if jail.isolation.seccomp:
        steps = ctypes.create_string_buffer(seccomp.filter_for_process(os.getpid(), jail.isolation.own_files))
        pointer = ctypes.addressof(steps)
        filters = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", (len(steps) - 1) // 8, pointer))
        syscall(seccomp.CALL[os.uname().machine], 1, 0, filters)


def lower_limit(kind: int, value: int) -> None:
    """Set the soft and the hard limit; a hard limit that is lower already stays."""
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))
