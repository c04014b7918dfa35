"""The system calls that a jailed program may make: an allow-list, compiled into a filter (BPF) that the kernel runs.

Any other call fails with EPERM. So a program cannot start processes or programs, open sockets, send signals to other
processes, mount, change the owner or mode of files, trace, or use rare interfaces of the kernel. A call by the numbers
of another machine (32-bit code, x32) kills the process.
"""

import functools
import platform
import struct

# name, number on x86-64, number on aarch64 ("-": the machine does not have the call)

ALLOWED_CALLS = """
read 0 63; write 1 64; readv 19 65; writev 20 66; pread64 17 67; pwrite64 18 68; preadv 295 69; pwritev 296 70
close 3 57; close_range 436 436; lseek 8 62; sendfile 40 71; copy_file_range 326 285; open 2 -; openat 257 56
creat 85 -; stat 4 -; fstat 5 80; lstat 6 -; fstatat 262 79; statx 332 291; access 21 -; faccessat 269 48
faccessat2 439 439; readlink 89 -; readlinkat 267 78; statfs 137 43; fstatfs 138 44; getdents 78 -; getdents64 217 61
getcwd 79 17; chdir 80 49; fchdir 81 50; mkdir 83 -; mkdirat 258 34; rmdir 84 -; unlink 87 -; unlinkat 263 35
rename 82 -; renameat 264 38; renameat2 316 276; ftruncate 77 46; fsync 74 82; fdatasync 75 83
umask 95 166; flock 73 32; dup 32 23; dup2 33 -; dup3 292 24; pipe 22 -; pipe2 293 59; eventfd 284 -; eventfd2 290 19
poll 7 -; ppoll 271 73; select 23 -; pselect6 270 72; epoll_create 213 -; epoll_create1 291 20; epoll_ctl 233 21
epoll_wait 232 -; epoll_pwait 281 22; shutdown 48 210; recvfrom 45 207; getsockname 51 204; getsockopt 55 209
mmap 9 222; mprotect 10 226; munmap 11 215; mremap 25 216; madvise 28 233; brk 12 214
membarrier 324 283; futex 202 98; set_robust_list 273 99; get_robust_list 274 100; rseq 334 293
set_tid_address 218 96; arch_prctl 158 -; sched_yield 24 124; sched_getaffinity 204 123; nanosleep 35 101
clock_nanosleep 230 115; clock_gettime 228 113; clock_getres 229 114; gettimeofday 96 169; time 201 -; times 100 153
getitimer 36 102; setitimer 38 103; alarm 37 -; pause 34 -; rt_sigaction 13 134; rt_sigprocmask 14 135
rt_sigreturn 15 139; rt_sigpending 127 136; rt_sigsuspend 130 133; rt_sigtimedwait 128 137; sigaltstack 131 132
restart_syscall 219 128; getpid 39 172; getppid 110 173; gettid 186 178; getuid 102 174; geteuid 107 175
getgid 104 176; getegid 108 177; getresuid 118 148; getresgid 120 150; getgroups 115 158; getpgid 121 155
getpgrp 111 -; getsid 124 156; getrlimit 97 163; setrlimit 160 164; getrusage 98 165; getcpu 309 168; sysinfo 99 179
uname 63 160; getrandom 318 278; exit 60 93; exit_group 231 94; wait4 61 260; waitid 247 95
"""

OWN_PID = 0x7FFEFDFC  # stands for the id of the process itself; no process has this id

# Calls that are allowed if one argument has one of these values: name x86-64 aarch64, index of the argument, values

CALLS_WITH_ALLOWED_ARGUMENT = [
    ("kill 62 129", 0, [OWN_PID]),
    ("tgkill 234 131", 0, [OWN_PID]),
    ("prlimit64 302 261", 0, [0, OWN_PID]),
    ("prctl 157 167", 0, [15, 16]),  # PR_SET_NAME, PR_GET_NAME: of a thread
    ("socketpair 53 199", 0, [1]),  # AF_UNIX: event loops wake themselves with a pair
    ("fcntl 72 25", 1, [0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032, 1034]),  # not F_SETOWN, by which the kernel sends signals
    (
        "ioctl 16 29",
        1,
        [0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451],
    ),  # terminal size and mode, non-blocking, close on exec
]
CALL_WITHOUT_ADDRESS = ("sendto 44 206", 4)  # only through a connected socket
CLONE_THREAD, CLONE_NAMESPACES = (
    0x10000,
    0x7E020080,
)  # flags of clone: threads are allowed, processes and namespaces are not
CLONE = "clone 56 220"
FALLOCATE = "fallocate 285 47"
CALL = {"x86_64": 317, "aarch64": 277}  # the number of seccomp itself
# These fail with ENOSYS, so that glibc uses older calls, whose arguments can be checked
MISSING_CALLS = "clone3 435 435; openat2 437 437"

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL, EPERM, ENOSYS, EOPNOTSUPP, ASK = 0x7FFF0000, 0x80000000, 0x50001, 0x50026, 0x5005F, 0x7FC00000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
X32 = 0x40000000


def is_supported() -> bool:
    """True if this machine is in the tables."""
    return struct.calcsize("P") == 8 and platform.machine() in AUDIT_ARCH


def call_numbers(table: str) -> list[int]:
    """The call numbers of a table on this machine."""
    column = 1 + list(AUDIT_ARCH).index(platform.machine())
    words = [entry.split() for entry in table.replace("\n", ";").split(";") if entry.strip()]
    return [int(w[column]) for w in words if w[column] != "-"]


def instruction(code: int, value: int, if_so: int = 0, if_not: int = 0) -> bytes:
    """One BPF instruction. ``if_so`` and ``if_not`` are the numbers of instructions to skip."""
    return struct.pack("<HBBI", code, if_so, if_not, value)


def load_argument(n: int, high: bool = False) -> bytes:
    """The instruction that loads the low or high half of argument ``n`` of the call."""
    return instruction(LOAD, 16 + 8 * n + 4 * high)


def filter_for_process(pid: int, own_files: bool) -> bytes:
    """The filter for the process ``pid``."""
    return filter_template(own_files).replace(struct.pack("<I", OWN_PID), struct.pack("<I", pid))


def filter_for_clone() -> bytes:
    """A filter that lets each clone wait for the process that has the descriptor of the filter. It allows other calls."""
    out = [instruction(LOAD, 4), instruction(EQUAL, AUDIT_ARCH[platform.machine()], 0, 3), instruction(LOAD, 0)]
    out += [instruction(EQUAL, call_numbers(CLONE)[0], 0, 1), instruction(RETURN, ASK), RETURN_ALLOW]
    return b"".join(out)


@functools.cache
def filter_template(own_files: bool) -> bytes:
    """The filter with ``OWN_PID`` in place of the process id.

    ``own_files``: the file system of the program is its own. Else fallocate, which fills a disk at no cost, is refused.
    """
    out = [
        instruction(LOAD, 4),
        instruction(EQUAL, AUDIT_ARCH[platform.machine()], 1, 0),
        instruction(RETURN, KILL),
        instruction(LOAD, 0),
    ]
    if platform.machine() == "x86_64":
        out += [instruction(AT_LEAST, X32, 0, 1), instruction(RETURN, KILL)]
    for number in call_numbers(ALLOWED_CALLS):
        out += [instruction(EQUAL, number, 0, 1), instruction(RETURN, ALLOW)]
    for number in call_numbers(MISSING_CALLS):
        out += [instruction(EQUAL, number, 0, 1), instruction(RETURN, ENOSYS)]
    out += [
        instruction(EQUAL, call_numbers(FALLOCATE)[0], 0, 1),
        instruction(RETURN, ALLOW if own_files else EOPNOTSUPP),
    ]
    for name, n, values in CALLS_WITH_ALLOWED_ARGUMENT:
        checks = [instruction(EQUAL, v, 0, 1) + instruction(RETURN, ALLOW) for v in values]
        out += rules_for_call(name, [load_argument(n), *checks])
    name, n = CALL_WITHOUT_ADDRESS
    out += rules_for_call(
        name,
        [
            load_argument(n),
            instruction(EQUAL, 0, 0, 3),
            load_argument(n, high=True),
            instruction(EQUAL, 0, 0, 1),
            RETURN_ALLOW,
        ],
    )
    out += rules_for_call(
        CLONE,
        [
            load_argument(0),
            instruction(ANY_BIT, CLONE_NAMESPACES, 2, 0),
            instruction(ANY_BIT, CLONE_THREAD, 0, 1),
            RETURN_ALLOW,
        ],
    )
    return b"".join([*out, instruction(RETURN, EPERM)])


RETURN_ALLOW = instruction(RETURN, ALLOW)


def rules_for_call(name: str, instructions: list[bytes]) -> list[bytes]:
    """Instructions that run for one call only. The call fails with EPERM if they do not return."""
    body = b"".join([*instructions, instruction(RETURN, EPERM)])
    return [instruction(EQUAL, call_numbers(name)[0], 0, len(body) // 8), body]
