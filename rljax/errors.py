"""What a person who runs an experiment sees when it ends early: errors of one line, and a closed stdout without a traceback."""

import contextlib
import os
import re
import select
import sys
from collections.abc import Iterator

LONGEST_WORD = 200  # characters without a space that a message repeats


class UserError(Exception):
    """Something outside the program is wrong: a config, a data file, a checkpoint, a prompt, a device layout.

    The message is one line: what is wrong, where, and how to mend it. ``experiments`` print it without a traceback and
    exit with status 1; every other exception is a defect and keeps its traceback. Line breaks in the message become spaces, and
    the middle of a word that nobody would read is left out: both may come from a value that the message repeats.
    """

    def __init__(self, message: str):
        words = re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda word: f"{word[0][:60]}...{word[0][-20:]}", message)
        super().__init__(" ".join(words.splitlines()))


@contextlib.contextmanager
def allow_closed_stdout() -> Iterator[None]:
    """Stop printing quietly where the reader of stdout closes it, as ``head`` does. Other broken pipes are raised."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        if not discard_closed_stdout():
            raise


def discard_closed_stdout() -> bool:
    """Whether the reader of stdout is gone. If it is, discard what is printed from now on.

    Call it after a BrokenPipeError, which may also come from another pipe, such as that of a worker process.
    """
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # an error of the pipe is reported although no event is asked for
    closed = any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    if closed:  # Python flushes stdout at exit, which would fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return closed
