"""Which system calls a jailed program may make: an allow-list, compiled into the filter that the kernel runs.

Whatever is not on the list fails with EPERM, as if the program had no right to it: no process, no program, no socket, no
signal to another, no mount, no change of owner or mode of a file, no tracing, no kernel interface that few use. A call by
the numbers of another machine (32-bit code, x32) ends the process.
"""

import functools
import platform
import struct

# name, number on x86-64, number on aarch64 ("-": the machine has no such call)

FREE = """
read 0 63; write 1 64; readv 19 65; writev 20 66; pread64 17 67; pwrite64 18 68; preadv 295 69; pwritev 296 70
close 3 57; close_range 436 436; lseek 8 62; sendfile 40 71; copy_file_range 326 285; open 2 -; openat 257 56
creat 85 -; stat 4 -; fstat 5 80; lstat 6 -; fstatat 262 79; statx 332 291; access 21 -; faccessat 269 48
faccessat2 439 439; readlink 89 -; readlinkat 267 78; statfs 137 43; fstatfs 138 44; getdents 78 -; getdents64 217 61
getcwd 79 17; chdir 80 49; fchdir 81 50; mkdir 83 -; mkdirat 258 34; rmdir 84 -; unlink 87 -; unlinkat 263 35
rename 82 -; renameat 264 38; renameat2 316 276; ftruncate 77 46; fallocate 285 47; fsync 74 82; fdatasync 75 83
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

OWN_PID = 0x7FFEFDFC  # stands for the number of the process itself; no process has it

# Calls that are allowed where one argument has one of these values: name x86-64 aarch64, which argument, its values

ONE_ARGUMENT = [
    ("kill 62 129", 0, [OWN_PID]),
    ("tgkill 234 131", 0, [OWN_PID]),
    ("prlimit64 302 261", 0, [0, OWN_PID]),
    ("prctl 157 167", 0, [15, 16]),  # the name of a thread
    ("socketpair 53 199", 0, [1]),  # AF_UNIX: an event loop wakes itself by one
    ("fcntl 72 25", 1, [0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032, 1034]),  # F_SETOWN would let the kernel send signals
    ("ioctl 16 29", 1, [0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451]),  # of a terminal, non-blocking, close on exec
]
NO_ADDRESS = ("sendto 44 206", 4)  # only along what is connected already
THREAD, NAMESPACES = 0x10000, 0x7E020080  # flags of clone: a thread is allowed, a process or namespace is not
CLONE = "clone 56 220"
ABSENT = "clone3 435 435; openat2 437 437"  # ENOSYS: glibc falls back to the older call, which can be checked

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x50001, 0x50026
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
X32 = 0x40000000


def known() -> bool:
    """Is there a table for this machine?"""
    return struct.calcsize("P") == 8 and platform.machine() in AUDIT_ARCH


def numbers(table: str) -> list[int]:
    """The numbers of the calls in a table on this machine."""
    column = 1 + list(AUDIT_ARCH).index(platform.machine())
    words = [entry.split() for entry in table.replace("\n", ";").split(";") if entry.strip()]
    return [int(w[column]) for w in words if w[column] != "-"]


def step(code: int, value: int, if_so: int = 0, if_not: int = 0) -> bytes:
    """One instruction; ``if_so`` and ``if_not`` say how many of the next are skipped."""
    return struct.pack("<HBBI", code, if_so, if_not, value)


def argument(n: int, high: bool = False) -> bytes:
    """Load half of an argument of the call."""
    return step(LOAD, 16 + 8 * n + 4 * high)


def program(pid: int) -> bytes:
    """The filter for process ``pid``."""
    return template().replace(struct.pack("<I", OWN_PID), struct.pack("<I", pid))


@functools.cache
def template() -> bytes:
    """The filter for any process."""
    out = [step(LOAD, 4), step(EQUAL, AUDIT_ARCH[platform.machine()], 1, 0), step(RETURN, KILL), step(LOAD, 0)]
    if platform.machine() == "x86_64":
        out += [step(AT_LEAST, X32, 0, 1), step(RETURN, KILL)]
    for number in numbers(FREE):
        out += [step(EQUAL, number, 0, 1), step(RETURN, ALLOW)]
    for number in numbers(ABSENT):
        out += [step(EQUAL, number, 0, 1), step(RETURN, ENOSYS)]
    for name, n, values in ONE_ARGUMENT:
        checks = [step(EQUAL, v, 0, 1) + step(RETURN, ALLOW) for v in values]
        out += only_for(name, [argument(n), *checks])
    name, n = NO_ADDRESS
    out += only_for(name, [argument(n), step(EQUAL, 0, 0, 3), argument(n, high=True), step(EQUAL, 0, 0, 1), ALLOWED])
    out += only_for(CLONE, [argument(0), step(ANY_BIT, NAMESPACES, 2, 0), step(ANY_BIT, THREAD, 0, 1), ALLOWED])
    return b"".join([*out, step(RETURN, EPERM)])


ALLOWED = step(RETURN, ALLOW)


def only_for(name: str, steps: list[bytes]) -> list[bytes]:
    """Steps that are taken for one call, which fails where they end without a verdict."""
    body = b"".join([*steps, step(RETURN, EPERM)])
    return [step(EQUAL, numbers(name)[0], 0, len(body) // 8), body]
