"""The pool of zygotes of this process: one per core, started when needed, replaced when they die, ended at exit."""

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

REPLY_TIMEOUT_SECONDS = 60.0  # for a zygote to start or to answer
START_CODE = (
    "import sys; sys.path.insert(0, sys.argv[1]); from rljax.verifiers.jail import zygote; del sys.path[0]; "
    "zygote.main(*sys.argv[2:])"
)


class ZygoteDied(Exception):
    """A zygote has ended unexpectedly."""


class Exit(NamedTuple):
    """How a jailed process ended."""

    status: int
    seconds: float  # of CPU time
    peak: int  # bytes, the most that it had in memory, with what it inherited


class ZygoteClient:
    """A client of one zygote process, which is started at the first use and after it died. One caller at a time."""

    def __init__(self, isolation: confinement.Isolation):
        self.isolation = isolation
        self.process: subprocess.Popen[bytes] | None = None
        self.folder, self.control = "", socket.socket()
        self.pending, self.ended = b"", False
        self.full = False  # the folder of the programs that have just ended was full
        self.exits: dict[int, Exit] = {}  # by process id
        self.inherited = 0  # bytes of memory that a jailed process inherits

    def start(self) -> None:
        """Start the zygote if it does not run. Raises UserError if this machine cannot jail programs."""
        if self.process is not None and self.process.poll() is None:
            return
        self.stop()
        self.folder = tempfile.mkdtemp(prefix="rljax-sandbox-")
        os.chmod(self.folder, 0o711)
        self.control, theirs = socket.socketpair()
        self.pending, self.ended, self.exits = b"", False, {}
        work = os.path.join(self.folder, "work")
        env = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": work, "TMPDIR": work}
        env["MALLOC_ARENA_MAX"] = "1"  # otherwise each thread takes 64 MiB of address space
        env |= {
            name: os.environ[name] for name in ["LD_LIBRARY_PATH"] if name in os.environ
        }  # Python itself may need it
        command = [sys.executable, "-S", "-s", "-P", "-B", "-c", START_CODE, str(Path(__file__).parents[3])]
        command += [self.folder, json.dumps(self.isolation)]
        with theirs:
            self.process = subprocess.Popen(
                command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=env, cwd="/", start_new_session=True
            )
        self.control.settimeout(REPLY_TIMEOUT_SECONDS)
        try:
            said = self.receive_message()
            problem, self.inherited = said["problem"], said["resident"]
        except ZygoteDied:
            problem = f"{sys.executable} does not start without its environment"
        if problem:
            self.stop()
            raise UserError(f"programs cannot be jailed here: {problem}")

    def stop(self) -> None:
        """End the zygote and all processes that it has started."""
        if self.process is None:
            return
        self.control.close()  # the zygote notices, and cleans up
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.process.kill()
        self.process.wait()
        self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def receive_message(self) -> dict[str, Any]:
        """The next message of the zygote. Raises ZygoteDied."""
        while b"\n" not in self.pending:
            try:
                data = self.control.recv(1 << 16)
            except OSError as e:
                raise ZygoteDied from e
            if not data:
                raise ZygoteDied
            self.pending += data
        line, _, self.pending = self.pending.partition(b"\n")
        message = json.loads(line)
        if "status" in message:
            self.exits[message["pid"]] = Exit(message["status"], message["cpu"], message["peak"])
        if "ended" in message:
            self.ended, self.full = True, message["full"]
        return message

    def receive_pending(self) -> None:
        """Process the messages that have arrived already."""
        while b"\n" in self.pending:
            self.receive_message()

    def send_message(self, message: dict[str, Any], files: list[int]) -> None:
        try:
            socket.send_fds(self.control, [json.dumps(message).encode() + b"\n"], files)
        except OSError as e:
            raise ZygoteDied from e

    def fork(self, role: str, files: list[int], limits: Limits, times: int) -> int:
        """Fork a jailed process with these open files; returns its process id. It gets ``times`` the CPU time."""
        seconds = math.ceil(limits.cpu_seconds * times) + 1
        bounds = {"cpu_seconds": seconds, "memory": limits.memory, "file_size": limits.folder, "files": limits.files}
        self.send_message({"fork": role, "limits": bounds}, files)
        while True:
            message = self.receive_message()
            if "status" not in message:
                return message["pid"]

    def kill_all(self) -> None:
        """Kill all jailed processes of the zygote. Their exits are known afterwards."""
        self.ended = False
        self.send_message({"end": True}, [])
        while not self.ended:
            self.receive_message()


class Pool(NamedTuple):
    size: int
    free: "queue.LifoQueue[ZygoteClient]"


POOL_LOCK = threading.Lock()


def get_pool(isolation: confinement.Isolation) -> Pool:
    """The pool of this process."""
    with POOL_LOCK:
        return make_pool(os.getpid(), isolation)


@functools.cache
def make_pool(pid: int, isolation: confinement.Isolation) -> Pool:
    """The pool of the process ``pid``, with one zygote per core. A forked child gets its own."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    zygotes = [ZygoteClient(isolation) for _ in range(cores)]
    free: queue.LifoQueue[ZygoteClient] = queue.LifoQueue()
    for zygote in zygotes:
        free.put(zygote)
    atexit.register(lambda: os.getpid() == pid and [z.stop() for z in zygotes])
    return Pool(cores, free)


@contextlib.contextmanager
def borrow_zygote(isolation: confinement.Isolation) -> Iterator[ZygoteClient]:
    """Borrow a free zygote; waits until there is one."""
    free = get_pool(isolation).free
    zygote = free.get()
    try:
        zygote.start()
        yield zygote
    except BaseException:  # after any error, the state of the zygote is unknown
        zygote.stop()
        raise
    finally:
        free.put(zygote)
