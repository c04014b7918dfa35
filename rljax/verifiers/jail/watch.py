"""Watching jailed processes from outside: their CPU time, what they print, what they write to their folder.

Inmates are judged by the CPU time that they used, so that a verdict does not depend on what else the machine does; wall
time only ends those that wait for ever.
"""

import contextlib
import fcntl
import os
import select
import sys
import tempfile
import time
from collections.abc import Callable

from rljax.verifiers.jail.cases import Limits
from rljax.verifiers.jail.pool import Zygote

TICK = 0.05  # seconds between looks at the clocks of an inmate


class Watch:
    """One inmate, or a program and its examiner, under watch."""

    def __init__(self, zygote: Zygote, limits: Limits, cap: int):
        self.zygote, self.limits, self.cap = zygote, limits, cap
        self.taken: dict[int, bytearray] = {}
        self.loose: set[int] = set()  # files that have not been given away yet
        self.poll = select.poll()
        self.poll.register(zygote.control, select.POLLIN)
        self.inmates: dict[int, float] = {}  # process number -> its CPU time when the case began
        self.deadline = time.monotonic() + limits.wall_seconds

    def open(self) -> tuple[int, int]:
        """A pipe that is watched: (end to read, end to give away)."""
        mine, theirs = os.pipe()
        os.set_blocking(mine, False)
        self.poll.register(mine, select.POLLIN)
        self.taken[mine] = bytearray()
        return mine, self.hold(theirs)

    def hold(self, fd: int) -> int:
        """Remember a file until it is given away."""
        self.loose.add(fd)
        return fd

    def add(self, role: str, files: list[int], times: int = 1) -> int:
        """Start an inmate with these files, which are its own then."""
        pid = self.zygote.fork(role, files, self.limits, times)
        self.inmates[pid] = 0.0
        self.loose -= set(files)
        for fd in files:
            os.close(fd)
        return pid

    def clock(self, pid: int) -> float:
        """Seconds of CPU time that an inmate has used."""
        if pid in self.zygote.exits:
            return self.zygote.exits[pid][1]
        with contextlib.suppress(OSError):
            if sys.platform == "linux":
                return time.clock_gettime(~pid << 3 | 2)  # the clock of another process
        return self.inmates[pid]

    def begin(self) -> None:
        """The clocks of a case start now."""
        self.deadline = time.monotonic() + self.limits.wall_seconds
        for pid in self.inmates:
            self.inmates[pid] = self.clock(pid)

    def spent(self, pid: int) -> float:
        return self.clock(pid) - self.inmates[pid]

    def wait(self, done: Callable[[], bool], outputs: list[int]) -> str:
        """Watch until something is done, or something is not allowed: its verdict, else ""."""
        looked = time.monotonic()
        self.zygote.hear_rest()
        while not done():
            for fd, _ in self.poll.poll(TICK * 1000):
                if fd == self.zygote.control.fileno():
                    self.zygote.hear()
                else:
                    self.take(fd)
            self.zygote.hear_rest()
            if sum(len(self.taken[fd]) for fd in outputs) > self.cap:
                return "output"
            if time.monotonic() - looked > TICK:
                looked = time.monotonic()
                if verdict := self.trespass(looked):
                    return verdict
        return ""

    def take(self, fd: int) -> None:
        """Read what there is; of what is too much, only enough to know it."""
        with contextlib.suppress(BlockingIOError):
            while len(self.taken[fd]) <= self.cap:
                data = os.read(fd, 1 << 16)
                if not data:
                    with contextlib.suppress(KeyError):
                        self.poll.unregister(fd)
                    return
                self.taken[fd] += data

    def trespass(self, now: float) -> str:
        if any(self.spent(pid) > self.limits.cpu_seconds for pid in self.inmates) or now > self.deadline:
            return "timeout"
        return "output" if too_full(os.path.join(self.zygote.folder, "work"), self.limits) else ""

    def close(self) -> None:
        for fd in {*self.taken, *self.loose}:
            os.close(fd)


def too_full(folder: str, limits: Limits) -> bool:
    """Is there more in the folder than is allowed?"""
    folders, size, count = [folder], 0, 0
    try:
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    size, count = size + entry.stat(follow_symlinks=False).st_blocks * 512, count + 1
                    if count > limits.files or size > limits.folder + (1 << 20):
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
    except FileNotFoundError:  # removed meanwhile
        return False
    except OSError:  # a folder that only the program can look into
        return True
    return False


# Files to hand over


def sealed(data: bytes) -> int:
    """A file in memory that can be read and not changed."""
    if sys.platform != "linux":
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.seek(0)
            return os.dup(file.fileno())
    fd = os.memfd_create("text", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return fd


def nothing() -> int:
    return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
