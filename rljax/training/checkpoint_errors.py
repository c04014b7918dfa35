"""What an error while checkpoints are read or written proves.

A file that can be read and holds something else than was written is damaged. A disk that answers with an input/output error, a
missing permission, a time-out or too little memory says nothing about the data: the run stops, and touches nothing.
"""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from rljax.errors import UserError

CANNOT_READ = (PermissionError, TimeoutError, InterruptedError, MemoryError, ConnectionError)
IS_DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ENAMETOOLONG}  # of a file that was opened
# Errors of the system under a program: a disk, a network, permissions. A missing file may be a defect of the program.
SYSTEM_ERRORS = (
    *(errno.EIO, errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENAMETOOLONG),
)
# Status names of TensorStore and XLA: another try, another user or another machine may succeed.
UNPROVEN = ("PERMISSION_DENIED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "ABORTED")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OS_ERROR = re.compile(r"(?:OS error |os_error_code=')(\d+)")  # in the messages of TensorStore
ARRAY = re.compile(r'(?:reading|writing) "([^"]+?)(?:/[\d.]+|/\.zarray)?" in OCDBT')
STATUS = re.compile("[A-Z_]{4,}: ")  # at the beginning of a message of TensorStore
FILE = re.compile(r'"(/[^"\\]+)')


class SaveError(UserError):
    """A checkpoint could not be written. Threads of the storage library may never end, so the program must end at once."""


class DamagedError(ValueError):
    """The files of a checkpoint can be read, but they are not what was written."""


class OtherStateError(ValueError):
    """A checkpoint is whole, but of another step, stage or run, or of other arrays than this run has."""


def chain(e: BaseException) -> Iterator[BaseException]:
    """The exception, and those that it came from."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [e]
    while todo:
        current = todo.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        todo += [*getattr(current, "exceptions", ()), current.__context__, current.__cause__]


def proves_damage(e: Exception, folder: Path) -> bool:
    """Whether an exception from reading a checkpoint means that its files are damaged.

    Storage libraries turn errors of the system into errors of other types. So every file of the checkpoint is also read here,
    without a library.
    """
    for cause in chain(e):
        if isinstance(cause, CANNOT_READ):
            return False
        if isinstance(cause, OSError) and cause.errno is not None and cause.errno not in IS_DAMAGE:
            return False
        if any(int(number) not in IS_DAMAGE for number in OS_ERROR.findall(str(cause))):
            return False
        if any(name in str(cause) for name in UNPROVEN):
            return False
    return unreadable_file(folder) is None


def unreadable_file(folder: Path) -> OSError | None:
    """The error of the first file below a folder that the system does not let us read; None where all can be read."""
    try:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                with path.open("rb") as f:
                    while f.read(1 << 24):
                        pass
    except OSError as e:
        return e
    return None


def describe_error(e: BaseException) -> str:
    """One line, at most 300 characters, with the file and the system's reason where an error has them."""
    causes = list(chain(e))
    for cause in reversed(causes):
        if isinstance(cause, OSError) and cause.strerror:
            return f"{cause.filename}: {cause.strerror}" if cause.filename else cause.strerror
    for cause in reversed(causes):
        os_error, status = OS_ERROR.search(str(cause)), STATUS.match(str(cause))
        array, files = ARRAY.search(str(cause)), FILE.findall(str(cause))
        if os_error or (status and array):
            reason = os.strerror(int(os_error[1])) if os_error else (status or [""])[0].strip(": ")
            where = [f"array {array[1]}"] if array else []
            return ", ".join([*where, f"{files[-1]}: {reason}" if files else reason])
    return first_line(e)[:300]


def first_line(e: BaseException) -> str:
    """The first line of an exception's message, at most 200 characters; its type's name where it has no message."""
    return (str(e).strip().splitlines() or [type(e).__name__])[0][:200]


def is_full(e: BaseException) -> bool:
    """Whether an error says that the disk, the quota or the largest size of a file is reached."""
    for cause in chain(e):
        numbers = [getattr(cause, "errno", None), *map(int, OS_ERROR.findall(str(cause)))]
        if any(n in FULL for n in numbers) or any(words in str(cause) for words in ("No space left", "File too large")):
            return True
    return False
