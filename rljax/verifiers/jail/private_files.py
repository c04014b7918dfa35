"""The folder of the programs as a file system of its own, in memory: the kernel bounds its bytes and its files.

Every block counts: also those of a file that was removed while it is open, and those that fallocate reserves. It needs
CAP_SYS_ADMIN or a user namespace, and the mount is seen by this process and its children alone.
"""

import ctypes
import os

from rljax.verifiers.jail.libc import libc

CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_REC, MS_PRIVATE = 2, 4, 8, 32, 1 << 14, 1 << 18
MNT_DETACH = 2
CAP_SYS_ADMIN = 21
FOLDER_ITSELF = 1  # the folder is one of its files
ROOM_FOR_FOLDERS = 1 << 20  # bytes beyond the limit; other file systems count folders too


def enter_mount_namespace() -> None:
    """Mounts of this process are from now on seen by itself and its children alone. Raises OSError where that cannot be."""
    if os.geteuid() == 0 and has_capability(CAP_SYS_ADMIN):
        check(libc().unshare(CLONE_NEWNS))
    else:
        user, group = os.geteuid(), os.getegid()
        check(libc().unshare(CLONE_NEWUSER | CLONE_NEWNS))
        for name, text in [("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")]:
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    mount("none", "/", None, MS_REC | MS_PRIVATE, None)


def mount_folder(path: str, size: int, files: int, again: bool = False) -> None:
    """Mount a file system in memory for ``size`` bytes in ``files`` files; ``again`` changes the numbers of a mount."""
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | (MS_REMOUNT if again else 0)
    mount("tmpfs", path, "tmpfs", flags, f"size={size + ROOM_FOR_FOLDERS},nr_inodes={files + FOLDER_ITSELF},mode=700")


def unmount_folder(path: str) -> None:
    check(libc().umount2(path.encode(), MNT_DETACH))


def is_full(folder: int) -> bool:
    """Whether no block or no file is left in a mounted folder."""
    found = os.fstatvfs(folder)
    return found.f_bfree == 0 or found.f_ffree == 0


def has_capability(number: int) -> bool:
    """Whether this process has a capability."""
    with open("/proc/self/status") as status:
        held = next((int(line.split()[1], 16) for line in status if line.startswith("CapEff")), 0)
    return bool(held >> number & 1)


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None) -> None:
    encode = lambda text: None if text is None else text.encode()
    check(libc().mount(encode(source), encode(target), encode(kind), ctypes.c_ulong(flags), encode(data)))


def check(result: int) -> None:
    """Raise OSError where a call of libc failed."""
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
