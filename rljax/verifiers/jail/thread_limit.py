"""The limit of threads of one jailed process, without root: the kernel asks the zygote before it makes a thread.

RLIMIT_NPROC counts all processes of a user, so it cannot limit one process of a user that has others. Here a filter of
system calls makes each clone wait (SECCOMP_RET_USER_NOTIF, Linux 5.5). The zygote counts the threads of the process,
and answers "go on" or EAGAIN. The arguments of the call cannot change in the meantime, as they are in registers.
"""

import array
import ctypes
import errno
import fcntl
import os
import socket
import struct

from rljax.verifiers.jail import seccomp
from rljax.verifiers.jail.libc import prctl, syscall

MAX_THREADS = 64  # at once
MAX_STARTED = 5000  # in all, where /proc hides how many there are
NEW_LISTENER, SET_NO_NEW_PRIVS = 8, 38
RECEIVE, SEND = 0xC0502100, 0xC0182101  # ioctl: the next call that waits, and the answer
REQUEST, REPLY, REQUEST_BYTES = "<QI", "<QqiI", 80
GO_ON = 1


def install_filter(handoff: int) -> None:
    """In a jailed process: let each clone wait for the zygote, which gets the descriptor to answer by a socket.

    Raises OSError where the kernel cannot do that.
    """
    prctl(SET_NO_NEW_PRIVS, 1)
    steps = ctypes.create_string_buffer(seccomp.filter_for_clone())
    program = struct.pack("<HxxxxxxQ", (len(steps) - 1) // 8, ctypes.addressof(steps))
    listener = syscall(seccomp.CALL[os.uname().machine], 1, NEW_LISTENER, ctypes.create_string_buffer(program))
    with socket.socket(fileno=os.dup(handoff)) as channel:
        socket.send_fds(channel, [b"x"], [listener])
    os.close(listener)


class ThreadCounter:
    """The zygote's side for one jailed process."""

    def __init__(self, pid: int, listener: int):
        self.pid, self.listener, self.started = pid, listener, 0

    def answer(self) -> bool:
        """Answer the next call that waits. False where the process is gone."""
        request = array.array("B", bytes(REQUEST_BYTES))
        try:
            fcntl.ioctl(self.listener, RECEIVE, request)
            number = struct.unpack_from(REQUEST, request)[0]
            allowed = self.allows_one_more()
            reply = struct.pack(REPLY, number, 0, 0 if allowed else -errno.EAGAIN, GO_ON if allowed else 0)
            fcntl.ioctl(self.listener, SEND, reply)
        except OSError as e:  # ENOENT: the call was interrupted, or its process killed
            return e.errno in (errno.ENOENT, errno.EINTR)
        self.started += allowed
        return True

    def allows_one_more(self) -> bool:
        try:
            return os.stat(f"/proc/{self.pid}/task").st_nlink - 2 < MAX_THREADS
        except OSError:
            return self.started < MAX_STARTED

    def close(self) -> None:
        os.close(self.listener)
