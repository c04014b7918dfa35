"""Monitors jailed processes from outside: their CPU time, what they print, what they write to their folder.

Processes are limited by the CPU time that they use, so that a verdict does not depend on other work of the machine. The
limit of wall time only ends processes that wait for ever. It counts the time that this process watched them and saw all
of them asleep: neither a pause of this process (SIGSTOP, a suspended job) nor one that waits for a core adds to it.
"""

import contextlib
import fcntl
import os
import resource
import select
import sys
import tempfile
import time
from collections.abc import Callable

from rljax.verifiers.jail.cases import Limits
from rljax.verifiers.jail.pool import ZygoteClient

POLL_SECONDS = 0.05  # between two checks of the limits


class Monitor:
    """Monitors the process of a program, and the process of its tests if there is one."""

    def __init__(self, zygote: ZygoteClient, limits: Limits, output_cap: int):
        self.zygote, self.limits, self.output_cap = zygote, limits, output_cap
        self.received: dict[int, bytearray] = {}  # file descriptor of a pipe -> what was read from it
        self.owned_fds: set[int] = set()  # to be closed here, until they are given to a process
        self.poll = select.poll()
        self.poll.register(zygote.control, select.POLLIN)
        self.cpu_at_start: dict[int, float] = {}  # process id -> its CPU time when the case began
        self.waited = 0.0  # seconds in which all processes were asleep

    def open_pipe(self) -> tuple[int, int]:
        """A pipe that is monitored: (end to read here, end to give to a process)."""
        mine, theirs = os.pipe()
        os.set_blocking(mine, False)
        self.poll.register(mine, select.POLLIN)
        self.received[mine] = bytearray()
        return mine, self.own(theirs)

    def own(self, fd: int) -> int:
        """Close this file at the end, unless it is given to a process."""
        self.owned_fds.add(fd)
        return fd

    def start_process(self, role: str, files: list[int], times: int = 1) -> int:
        """Start a jailed process with these files, which are closed here; returns its process id."""
        pid = self.zygote.fork(role, files, self.limits, times)
        self.cpu_at_start[pid] = 0.0
        self.owned_fds -= set(files)
        for fd in files:
            os.close(fd)
        return pid

    def cpu_seconds(self, pid: int) -> float:
        """CPU time that a process has used since it started."""
        if pid in self.zygote.exits:
            return self.zygote.exits[pid].seconds
        with contextlib.suppress(OSError):
            if sys.platform == "linux":
                return time.clock_gettime(~pid << 3 | 2)  # the CPU clock of another process
        return self.cpu_at_start[pid]

    def begin_case(self, outputs: list[int]) -> None:
        """Restart all clocks, and forget what was printed: the limits are those of one case."""
        for fd in outputs:
            self.received[fd].clear()
        self.waited = 0.0
        for pid in self.cpu_at_start:
            self.cpu_at_start[pid] = self.cpu_seconds(pid)

    def cpu_seconds_of_case(self, pid: int) -> float:
        """CPU time that a process has used since the case began."""
        return self.cpu_seconds(pid) - self.cpu_at_start[pid]

    def wait_until(self, done: Callable[[], bool], outputs: list[int]) -> str:
        """Wait until ``done()`` or until a limit is exceeded; returns the verdict for the limit, or ""."""
        self.zygote.receive_pending()
        checked = time.monotonic()
        while not done():
            for fd, _ in self.poll.poll(POLL_SECONDS * 1000):
                if fd == self.zygote.control.fileno():
                    self.zygote.receive_message()
                else:
                    self.read_available(fd)
            self.zygote.receive_pending()
            if sum(len(self.received[fd]) for fd in outputs) > self.output_cap:
                return "output"
            now = time.monotonic()
            if now - checked > POLL_SECONDS and not done():
                verdict, checked = self.check_limits(now - checked), now
                if verdict:
                    return verdict
        return ""

    def read_available(self, fd: int) -> None:
        """Read what a pipe holds; of too much output, only enough to exceed the limit."""
        with contextlib.suppress(BlockingIOError):
            while len(self.received[fd]) <= self.output_cap:
                data = os.read(fd, 1 << 16)
                if not data:
                    with contextlib.suppress(KeyError):
                        self.poll.unregister(fd)
                    return
                self.received[fd] += data

    def check_limits(self, seconds: float) -> str:
        """The verdict for a limit of time or files that is exceeded, or "". ``seconds`` have passed since the last check."""
        if any(self.cpu_seconds_of_case(pid) > self.limits.cpu_seconds for pid in self.cpu_at_start):
            return "timeout"
        if any(self.exceeds_memory(memory_in_use(pid)) for pid in self.cpu_at_start):
            return "memory"
        if all(map(is_asleep, self.cpu_at_start)):
            self.waited += min(seconds, 2 * POLL_SECONDS)
        if self.waited > self.limits.wall_seconds:
            return "timeout"
        if self.zygote.isolation.own_files:  # the kernel bounds it, and it cannot be seen from here
            return ""
        return "output" if exceeds_folder_limits(os.path.join(self.zygote.folder, "work"), self.limits) else ""

    def exceeds_memory(self, size: int) -> bool:
        """Whether a process with so many bytes in memory has more than the limit beside what it inherited."""
        return size > self.limits.memory + self.zygote.inherited

    def close(self) -> None:
        for fd in {*self.received, *self.owned_fds}:
            os.close(fd)


def is_asleep(pid: int) -> bool:
    """True if no thread of a process runs, or would run if a core were free. True also where that is not known."""
    with contextlib.suppress(OSError, IndexError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/stat", "rb") as file:
                if file.read().rpartition(b")")[2].split()[0] in (b"R", b"D"):
                    return False
    return True


def memory_in_use(pid: int) -> int:
    """Bytes that a process has in memory; 0 where that is not known."""
    with contextlib.suppress(OSError, IndexError, ValueError), open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()
    return 0


def exceeds_folder_limits(folder: str, limits: Limits) -> bool:
    """True if a folder holds more files or bytes than the limits allow."""
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
    except FileNotFoundError:  # removed in the meantime
        return False
    except OSError:  # a folder that only the program may list
        return True
    return False


# Files that are given to a process


def make_sealed_file(data: bytes) -> int:
    """The descriptor of a file in memory that can be read but not changed."""
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


def open_null() -> int:
    return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
