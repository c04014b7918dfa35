"""What happens in a worker process of ``workers``: it imports the task, leaves signals to the main process, and ends with it."""

import contextlib
import fcntl
import multiprocessing
import os
import select
import signal
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import wait

from rljax.options import load_plugins
from rljax.rewards.scoring import Score

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def prepare_process(plugins: Sequence[str]) -> None:
    """Load the plug-ins; leave signals to the main process; end with it; print to stderr alone.

    A terminal and a scheduler send a signal to all processes of a run. A worker that obeyed would leave the responses of the
    last step unscored.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    with contextlib.suppress(OSError):  # the run's stdout is for the run: a verifier that prints must not spoil it
        os.dup2(2, 1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        end_with(parent.sentinel)
    load_plugins(plugins)


def end_with(sentinel: int) -> None:
    """End this process when the main one has gone, however it went: nobody would read what is verified here.

    The kernel sends SIGKILL when the other end of the pipe closes. It needs no thread of Python, which a verifier that
    never leaves its C code (a regular expression, a huge number) would keep from running. PR_SET_PDEATHSIG would not do: it
    means the thread that started this process, and that one ends earlier. Where the kernel has no such signal, a thread waits.
    """
    if sys.platform == "linux":
        fcntl.fcntl(sentinel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(sentinel, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)
        if select.select([sentinel], [], [], 0)[0]:  # it closed before
            os._exit(1)
    threading.Thread(target=exit_after, args=(sentinel,), daemon=True).start()


def exit_after(sentinel: int) -> None:
    """End this process when the other end of this pipe closes."""
    wait([sentinel])
    os._exit(1)


def import_task(score: Score) -> None:
    """Do nothing: ``score`` has been unpickled for this call, which imports the task."""
