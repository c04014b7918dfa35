"""The zygotes of a process as it sees them: started when needed, one a core, replaced when they die, gone when it ends."""

import atexit
import contextlib
import functools
import json
import math
import os
import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rljax.errors import UserError
from rljax.verifiers.jail import confinement
from rljax.verifiers.jail.cases import Limits

PATIENCE = 60.0  # seconds that a zygote has to start, or to do the little that it is asked
START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from rljax.verifiers.jail import zygote; del sys.path[0]; "
    "zygote.main(*sys.argv[2:])"
)


class Died(Exception):
    """A zygote is no more."""


class Zygote:
    """One zygote process, started when first asked and again whenever it has died; one caller at a time."""

    def __init__(self, isolation: confinement.Isolation):
        self.isolation = isolation
        self.process: subprocess.Popen[bytes] | None = None
        self.folder, self.control = "", socket.socket()
        self.pending, self.ended = b"", False
        self.exits: dict[int, tuple[int, float]] = {}  # process number -> its status, seconds of CPU time

    def start(self) -> None:
        """See that it runs."""
        if self.process is not None and self.process.poll() is None:
            return
        self.stop()
        self.folder = tempfile.mkdtemp(prefix="rljax-sandbox-")
        os.chmod(self.folder, 0o711)
        self.control, theirs = socket.socketpair()
        self.pending, self.ended, self.exits = b"", False, {}
        work = os.path.join(self.folder, "work")
        env = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": work, "TMPDIR": work}
        env["MALLOC_ARENA_MAX"] = "1"  # or each thread of a program takes 64 MiB of its address space
        env |= {name: os.environ[name] for name in ["LD_LIBRARY_PATH"] if name in os.environ}  # of Python itself
        command = [sys.executable, "-S", "-s", "-P", "-B", "-c", START, str(Path(__file__).parents[3])]
        command += [self.folder, json.dumps(self.isolation)]
        with theirs:
            self.process = subprocess.Popen(
                command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=env, cwd="/", start_new_session=True
            )
        self.control.settimeout(PATIENCE)
        try:
            problem = self.hear()["problem"]
        except Died:
            problem = f"{sys.executable} does not start without its environment"
        if problem:
            self.stop()
            raise UserError(f"programs cannot be jailed here: {problem}")

    def stop(self) -> None:
        """End it and all that it has started."""
        if self.process is None:
            return
        self.control.close()  # it sees the end, and cleans up
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.process.kill()
        self.process.wait()
        self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def hear(self) -> dict[str, Any]:
        """Its next message."""
        while b"\n" not in self.pending:
            try:
                data = self.control.recv(1 << 16)
            except OSError as e:
                raise Died from e
            if not data:
                raise Died
            self.pending += data
        line, _, self.pending = self.pending.partition(b"\n")
        message = json.loads(line)
        if "status" in message:
            self.exits[message["pid"]] = message["status"], message["cpu"]
        self.ended |= "ended" in message
        return message

    def hear_rest(self) -> None:
        """The messages that came together with others."""
        while b"\n" in self.pending:
            self.hear()

    def tell(self, message: dict[str, Any], files: list[int]) -> None:
        try:
            socket.send_fds(self.control, [json.dumps(message).encode() + b"\n"], files)
        except OSError as e:
            raise Died from e

    def fork(self, role: str, files: list[int], limits: Limits, times: int) -> int:
        """Process number of a new inmate."""
        seconds = math.ceil(limits.cpu_seconds * times) + 1
        bounds = {"cpu_seconds": seconds, "memory": limits.memory, "file_size": limits.folder}
        self.tell({"fork": role, "limits": bounds}, files)
        while True:
            message = self.hear()
            if "status" not in message:
                return message["pid"]

    def end(self) -> None:
        """End all inmates; their exits are known then."""
        self.ended = False
        self.tell({"end": True}, [])
        while not self.ended:
            self.hear()


class Pool(NamedTuple):
    size: int
    free: "queue.LifoQueue[Zygote]"


STARTING = threading.Lock()


def pool(isolation: confinement.Isolation) -> Pool:
    """The zygotes of this process."""
    with STARTING:
        return pool_of(os.getpid(), isolation)


@functools.cache
def pool_of(pid: int, isolation: confinement.Isolation) -> Pool:
    """The zygotes of a process, one a core; a forked copy of it gets its own."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    zygotes = [Zygote(isolation) for _ in range(cores)]
    free: queue.LifoQueue[Zygote] = queue.LifoQueue()
    for zygote in zygotes:
        free.put(zygote)
    atexit.register(lambda: os.getpid() == pid and [z.stop() for z in zygotes])
    return Pool(cores, free)


@contextlib.contextmanager
def borrowed(isolation: confinement.Isolation) -> Iterator[Zygote]:
    """A zygote for a while; waits for one that is free."""
    free = pool(isolation).free
    zygote = free.get()
    try:
        zygote.start()
        yield zygote
    except BaseException:  # whatever it was, it may be in the midst of something
        zygote.stop()
        raise
    finally:
        free.put(zygote)
