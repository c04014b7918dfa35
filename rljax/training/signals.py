"""Being asked to stop: by a person (SIGINT), a cluster (SIGTERM) or a terminal that closes (SIGHUP). The run says one line.

Where nothing would be lost, the program ends at once: while it starts, compiles, or evaluates what is saved already. After the
first step of a stage it ends after the step or the evaluation that runs, and saves. A second signal ends it at once, and so does
the end of ``checkpoint.grace``, the seconds that a cluster leaves before it kills. Finished checkpoints stay whole in every case.

No exception ends the program: one that is raised in a callback of a library would be swallowed. And Python runs a signal
handler only between two of its own instructions, so not while XLA compiles for minutes. A thread therefore reads the signals
too: it says that one has come, and ends the program where the main thread cannot.
"""

import contextlib
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from tqdm import tqdm

from rljax.distributed import processes

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STATUS = 130  # exit status of a program that was asked to stop
GRACE = 3.0  # seconds that the main thread has to end the program before the other thread does
SAME = 1.0  # seconds within which signals are copies of one: a scheduler and a launcher both pass it on
STOPPED = "stopped by {signal}: what was finished is saved, and the same command continues from there"

Line = Callable[[], str]  # made when it is printed; "{signal}" in it is the name of the signal


class Interrupted(Exception):
    """The run was asked to stop; everything up to here is on disk."""


class StopRequests:
    """What SIGINT, SIGTERM and SIGHUP do. An object of this class is the signal handler while ``stop_requests`` runs.

    ``end(line)`` prints the line and ends the program. ``announce(line)`` prints one.
    """

    def __init__(
        self,
        end: Callable[[str], object],
        announce: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ):
        self.end, self.announce, self.clock = end, announce, clock
        self.asked = threading.Event()
        self.line: Line = lambda: STOPPED  # said when the program ends at once
        self.later: Line | None = None  # said when it ends later; None: it ends at once
        self.grace = 0.0  # seconds after which the program ends although a step runs; 0: never
        self.ending = threading.Lock()  # held by the thread that ends the program
        self.came: list[tuple[float, int]] = []  # (time, number) of each signal, as the thread reads them
        self.handled: list[float] = []  # when Python handled each, in the main thread

    def is_set(self) -> bool:
        """Whether the run was asked to stop after its step."""
        return self.asked.is_set()

    @contextlib.contextmanager
    def stage(self, line: Line) -> Iterator[None]:
        """Say ``line`` where the program ends at once in this block, whose end also ends what ``defer`` began."""
        before = self.line, self.later, self.grace
        self.line = line
        try:
            yield
        finally:
            self.line, self.later, self.grace = before

    def defer(self, later: Line, grace: float = 0.0) -> None:
        """From now on the first signal only sets ``asked``, and ``later`` is said: there is something to save.

        ``grace`` seconds after it the program ends in any case, unless it is 0.
        """
        self.later, self.grace = later, grace

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal, in the main thread."""
        now = self.clock()
        if self.handled and now - self.handled[-1] < SAME:
            return
        self.handled.append(now)
        self.asked.set()
        if len(self.handled) > 1 or self.later is None:
            self.end_now(number)

    def note(self, number: int) -> None:
        """A signal has come, says the thread. The first is announced unless it ends the program at once."""
        now = self.clock()
        if self.came and now - self.came[-1][0] < SAME:
            return
        self.came.append((now, number))
        if len(self.came) == 1 and self.later is not None:
            self.announce(self.later().replace("{signal}", signal.Signals(number).name))

    def seconds_until_end(self) -> float | None:
        """Seconds until the thread ends the program; None where there is no need to."""
        if not self.came or signal.getsignal(self.came[-1][1]) is not self:  # another handler has taken over
            return None
        first = self.later is not None and len(self.came) == 1
        if first and not self.grace:
            return None
        return max(0.0, self.came[-1][0] + (self.grace if first else GRACE) - self.clock())

    def check(self) -> None:
        """End the program where the main thread has not done so in time."""
        if self.seconds_until_end() == 0.0:
            self.end_now(self.came[-1][1])

    def end_now(self, number: int) -> None:
        if self.ending.acquire(blocking=False):
            self.end(self.line().replace("{signal}", signal.Signals(number).name))


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Handle SIGINT, SIGTERM and SIGHUP while the block runs. A block in the block of another shares its object.

    A SIGHUP that is ignored, as under ``nohup``, stays ignored. In another thread than the main one nothing is handled, and
    nobody is asked to stop.
    """
    current = signal.getsignal(signal.SIGTERM)
    if isinstance(current, StopRequests):
        yield current
        return
    requests = StopRequests(end_program, announce_in_primary)
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    before = {n: signal.signal(n, requests) for n in SIGNALS if n != signal.SIGHUP or not ignored}
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=watch, args=(reader, requests), name="signals", daemon=True)
    thread.start()
    try:
        yield requests
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        writer.close()  # the thread reads the end
        thread.join(timeout=5)
        reader.close()


def watch(reader: socket.socket, requests: StopRequests) -> None:
    """Tell ``requests`` of each signal, until the other end of ``reader`` is closed."""
    while True:
        if select.select([reader], [], [], requests.seconds_until_end())[0]:
            numbers = reader.recv(64)
            if not numbers:
                return
            for number in set(numbers) & set(SIGNALS):
                requests.note(number)
        requests.check()


def end_program(line: str) -> None:
    """Print the line and end this process, without Python's exit handlers: threads that compile would make them wait."""
    processes.exit_with_line(line, STATUS, at_once=True)


def announce_in_primary(line: str) -> None:
    """Print a line above the progress bar, in process 0."""
    if processes.is_primary():
        tqdm.write(line, file=sys.stderr)
