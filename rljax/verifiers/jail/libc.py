"""Calls of the C library and of the kernel that Python does not offer."""

import ctypes
import functools
import os
import sys


@functools.cache
def libc() -> ctypes.CDLL:
    out = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux":
        out.syscall.restype = ctypes.c_long
    return out


def syscall(number: int, *arguments) -> int:
    """Make a system call; raises OSError if it fails."""
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    out = libc().syscall(ctypes.c_long(number), *wide)
    if out < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return out


def prctl(option: int, value: int) -> None:
    """Set a property of this process; does nothing if the system is not Linux."""
    if sys.platform == "linux" and libc().prctl(option, ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3):
        code = ctypes.get_errno()
        raise OSError(code, f"prctl {option}: {os.strerror(code)}")
