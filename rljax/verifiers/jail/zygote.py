"""The zygote: a clean Python process with the standard library loaded, from which jailed processes are forked.

Every program can read the memory that it inherits from the zygote, so the zygote holds no secret: programs and tests
are passed on to the jailed processes as open files. The zygote kills and reaps what it has forked, empties the folder
after each run, and ends when its parent ends.

    control socket, one JSON object a line:  {"fork": role, ...} + files -> {"pid": n}, later {"pid": n, "status": ...}
                                             {"end": true} -> {"ended": true}
"""

import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
from typing import Any

from rljax.verifiers.jail import assertion_process, confinement, libc, private_files, program_process, thread_limit
from rljax.verifiers.jail.stdlib_import import STDLIB_FD, STDLIB_PATH, preload_stdlib

RULESET_FD, FOLDER_FD, HANDOFF_FD = 61, 62, 63  # file descriptors of a jailed process, above those that it is given
ROLES = {
    "script": program_process.run_script,
    "module": program_process.serve_module,
    "assertions": assertion_process.run_assertions,
}
PARENT_CHECK_MILLISECONDS = 2000  # it checks so often whether the parent is alive


class ZygoteServer:
    """The state of the zygote: its living children, and the jails for programs and for tests."""

    def __init__(self, control: socket.socket, folder: str, isolation: confinement.Isolation):
        self.control, self.pid = control, os.getpid()
        self.children: set[int] = set()
        self.poll = select.poll()
        self.handoffs: dict[int, tuple[int, socket.socket]] = {}  # descriptor -> (process id, socket)
        self.counters: dict[int, thread_limit.ThreadCounter] = {}  # by descriptor
        self.counts_threads = isolation.counts_threads and isolation.seccomp
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self.mounted, self.room = (folder if isolation.own_files else ""), (4 << 20, 64)  # bytes, files
        if self.mounted:
            private_files.enter_mount_namespace()
            private_files.mount_folder(folder, *self.room)
        self.folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self.stdlib = os.open(STDLIB_PATH, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY)
        user = 60000 + os.getpid() * 2 % 5000 if isolation.own_user else None
        self.program_jail = confinement.prepare_jail(isolation, self.folder, user)
        self.assertions_jail = confinement.prepare_jail(isolation, None, None if user is None else user + 1)
        self.wakeup_fd, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(self.wakeup_fd, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.poll.register(self.control, select.POLLIN)
        self.poll.register(self.wakeup_fd, select.POLLIN)

    def send_message(self, **message: Any) -> None:
        """Send a JSON object to the parent."""
        with contextlib.suppress(OSError):  # the parent has ended; ``serve`` notices it
            self.control.sendall(json.dumps(message).encode() + b"\n")

    def send_exit(self, pid: int, status: int, usage: resource.struct_rusage) -> None:
        """Tell the parent how a child has ended, its CPU time in seconds and the most memory that it had, in bytes."""
        cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
        self.send_message(pid=pid, status=status, cpu=cpu, peak=peak)

    def fork(self, role: str, files: list[int], limits: dict[str, int]) -> None:
        """Fork a jailed process with these open files, and tell the parent its process id."""
        room = limits["file_size"], limits.pop("files")
        if self.mounted and room != self.room:
            private_files.mount_folder(self.mounted, *room, again=True)
            self.room = room
        ours, theirs = socket.socketpair() if self.counts_threads else (None, None)
        pid = os.fork()
        if pid == 0:
            self.enter_role(role, files, limits, theirs)
        self.children.add(pid)
        if ours and theirs:
            theirs.close()
            self.handoffs[ours.fileno()] = pid, ours
            self.poll.register(ours, select.POLLIN)
        for fd in files:
            os.close(fd)
        self.send_message(pid=pid)

    def enter_role(self, role: str, files: list[int], limits: dict[str, int], handoff: socket.socket | None) -> None:
        """Run in the child after a fork; does not return."""
        with contextlib.suppress(BaseException):
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            jail = self.assertions_jail if role == "assertions" else self.program_jail
            wanted = dict(enumerate(files)) | {STDLIB_FD: self.stdlib, FOLDER_FD: jail.folder}
            if jail.ruleset is not None:
                wanted[RULESET_FD] = jail.ruleset
            if handoff:
                wanted[HANDOFF_FD] = handoff.detach()
            rearrange_fds(wanted)
            place = jail._replace(folder=FOLDER_FD, ruleset=jail.ruleset and RULESET_FD)
            confinement.enter_jail(place, **limits, handoff=HANDOFF_FD if HANDOFF_FD in wanted else None)
            os.closerange(RULESET_FD, FOLDER_FD + 1)
            if os.getppid() != self.pid:
                os._exit(70)  # the zygote ended before PDEATHSIG was set
            if role in ROLES:
                ROLES[role]()
            os._exit(0)
        os._exit(70)

    def reap_children(self) -> None:
        """Reap the children that have ended, and tell the parent."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.wakeup_fd, 4096)
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid in self.children:
                    self.children.remove(pid)
                    self.send_exit(pid, status, usage)

    def kill_all(self) -> bool:
        """Kill all children and empty the folder. Returns whether the folder was full, where it has a size of its own."""
        for pid in self.children:
            kill_process(pid)
        while self.children:
            pid, status, usage = os.wait4(-1, 0)
            if pid in self.children:
                self.children.remove(pid)
                self.send_exit(pid, status, usage)
        while orphans := list_children():  # without seccomp, children may fork; their orphans become ours
            for pid in orphans:
                kill_process(pid)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
        for fd in [*self.handoffs, *self.counters]:
            self.forget(fd)
        full = bool(self.mounted) and private_files.is_full(self.folder)
        empty_folder(self.folder)
        return full

    def answer_thread(self, fd: int, events: int) -> None:
        """Handle what has arrived from the kernel about the threads of a process."""
        if fd in self.handoffs:
            pid, channel = self.handoffs[fd]
            received = socket.recv_fds(channel, 1, 1)[1]
            self.forget(fd)
            if received:
                self.counters[received[0]] = thread_limit.ThreadCounter(pid, received[0])
                self.poll.register(received[0], select.POLLIN)
        elif not events & select.POLLIN or not self.counters[fd].answer():
            self.forget(fd)  # the process is gone

    def forget(self, fd: int) -> None:
        """Close a descriptor about the threads of a process."""
        self.poll.unregister(fd)
        if fd in self.handoffs:
            self.handoffs.pop(fd)[1].close()
        else:
            self.counters.pop(fd).close()

    def serve(self) -> None:
        """Handle requests until the parent ends."""
        parent, rest = os.getppid(), b""
        while os.getppid() == parent:
            ready = dict(self.poll.poll(PARENT_CHECK_MILLISECONDS))
            for fd in ready.keys() - {self.wakeup_fd, self.control.fileno()}:
                self.answer_thread(fd, ready[fd])
            if self.wakeup_fd in ready:
                self.reap_children()
            if self.control.fileno() in ready:
                data, files, _, _ = socket.recv_fds(self.control, 1 << 16, 16)
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self.handle_request(json.loads(line), files)

    def handle_request(self, request: dict[str, Any], files: list[int]) -> None:
        if "end" in request:
            self.send_message(ended=True, full=self.kill_all())
        else:
            self.fork(request["fork"], files, request["limits"])

    def try_jails(self) -> str:
        """Enter each jail once in a child; returns a description of the problem, or ""."""
        for jail in (self.program_jail, self.assertions_jail):
            pid = os.fork()
            if pid == 0:
                with contextlib.suppress(BaseException):
                    confinement.enter_jail(jail, cpu_seconds=10, memory=1 << 28, file_size=1 << 20)
                    os._exit(0)
                os._exit(70)
            if os.waitpid(pid, 0)[1] != 0:
                return "the kernel refuses a part of the jail that it claims to have"
        return ""


def rearrange_fds(wanted: dict[int, int]) -> None:
    """Make these the only open files of the process. ``wanted`` maps each new descriptor to the present one."""
    high = max(*wanted, *wanted.values()) + 1
    for fd in wanted.values():
        os.dup2(fd, high, inheritable=False)
        high += 1
    for fd, copy in zip(wanted, range(high - len(wanted), high), strict=True):
        os.dup2(copy, fd, inheritable=fd < 3)
    last = -1
    for fd in [*sorted(wanted), min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 16)]:
        if last + 1 < fd:  # not closerange(0, 0), which would close all
            os.closerange(last + 1, fd)
        last = fd


def kill_process(pid: int) -> None:
    """Kill a process and its group."""
    for how in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            how(pid, signal.SIGKILL)


def list_children() -> list[int]:
    """The process ids of the children of this process."""
    with contextlib.suppress(OSError):
        with open("/proc/thread-self/children") as file:
            return [int(pid) for pid in file.read().split()]
    return []


def empty_folder(folder: int) -> None:
    """Remove everything in a folder, of any depth and any mode, with one open folder at a time."""
    os.fchmod(folder, 0o700)
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
    path: list[tuple[str, list[str]]] = [
        ("", remove_files(here))
    ]  # from the top to here: (name, folders in it that are not removed yet)
    while True:
        name, inner = path[-1]
        if inner:
            os.chmod(inner[-1], 0o700, dir_fd=here)
            there = os.open(inner[-1], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            path.append((inner.pop(), remove_files(there)))
        elif name:
            there = os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
            os.rmdir(name, dir_fd=there)
            path.pop()
        else:
            break
        os.close(here)
        here = there
    os.close(here)


def remove_files(folder: int) -> list[str]:
    """Remove the files in a folder; returns the names of the folders in it."""
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, _ in (f for f in found if not f[1]):
        os.unlink(name, dir_fd=folder)
    return [name for name, is_folder in found if is_folder]


def main(folder: str, isolation: str) -> None:
    """Run a zygote that is controlled through the socket at stdin."""
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    libc.prctl(confinement.SET_SUBREAPER, 1)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # kill jailed processes first, not the training
    preload_stdlib()
    zygote = ZygoteServer(control, os.path.join(folder, "work"), confinement.Isolation(*json.loads(isolation)))
    gc.collect()
    gc.freeze()
    zygote.send_message(problem=zygote.try_jails(), resident=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    with contextlib.suppress(ConnectionError):
        zygote.serve()
    zygote.kill_all()
    with contextlib.suppress(OSError):
        if zygote.mounted:
            os.close(zygote.folder)
            private_files.unmount_folder(zygote.mounted)
        os.rmdir(os.path.join(folder, "work"))
        os.rmdir(folder)
