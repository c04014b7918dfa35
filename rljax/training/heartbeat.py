"""A sign of life: one line after 30 seconds without any output, which says what the run is doing.

    with start_heartbeat(speaks=is_primary()) as heartbeat:
        with heartbeat.phase("reading weights"):
            ...
        with heartbeat.phase("rl step 1 of 40: compiling and running the first step"):
            heartbeat.update("rl 12/40, loss 0.123")  # replaces the text of the innermost phase

The 30 seconds count from the last output, whichever phase it was in. So a run that is never silent for so long prints
nothing more than without a heartbeat. Whoever prints calls ``note_output``.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

INTERVAL = 30.0  # seconds

Text = str | Callable[[], str]  # a function is called when its line is printed


class Heartbeat:
    """What the run is doing, and when something was last printed. Without ``start_heartbeat`` it never prints by itself."""

    def __init__(
        self,
        write: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
        interval: float = INTERVAL,
    ):
        self.write, self.clock, self.interval = write, clock, interval
        self.lock = threading.Lock()
        self.phases: list[tuple[Text, float]] = [("starting", clock())]  # (text, when it began), the innermost last
        self.last_output = clock()

    @contextlib.contextmanager
    def phase(self, text: Text) -> Iterator[None]:
        """Say this while the block runs. Phases may be nested; the innermost is the one that is printed."""
        with self.lock:
            self.phases.append((text, self.clock()))
            depth = len(self.phases)
        try:
            yield
        finally:
            with self.lock:
                del self.phases[depth - 1 :]

    def update(self, text: Text) -> None:
        """Replace the text of the innermost phase, which keeps its start."""
        with self.lock:
            self.phases[-1] = (text, self.phases[-1][1])

    def doing(self) -> str:
        """The text of the innermost phase."""
        with self.lock:
            text = self.phases[-1][0]
        return text() if callable(text) else text

    def note_output(self) -> None:
        """Something else has just been printed: the interval begins anew."""
        self.last_output = self.clock()

    def seconds_until_due(self) -> float:
        return self.last_output + self.interval - self.clock()

    def check(self) -> None:
        """Print one line if nothing was printed for the interval."""
        if self.seconds_until_due() > 0:
            return
        with self.lock:
            text, began = self.phases[-1]
        if callable(text):
            line = text()
        else:
            line = f"{text}, {format_duration(self.clock() - began)} so far"
        self.note_output()
        self.write(line)


@contextlib.contextmanager
def start_heartbeat(
    speaks: bool = True,
    write: Callable[[str], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    interval: float = INTERVAL,
    wait: Callable[[float], bool] | None = None,
) -> Iterator[Heartbeat]:
    """A heartbeat that a thread watches until the block ends. Where ``speaks`` is False nothing is ever printed.

    ``write`` prints a line; by default above the progress bar, on the standard output that there is now. ``wait(seconds)``
    sleeps and returns whether to stop; tests give their own.
    """
    heartbeat = Heartbeat(write or line_writer(), clock, interval)
    if not speaks:
        yield heartbeat
        return
    stop = threading.Event()
    sleep = wait or stop.wait

    def watch() -> None:
        while not sleep(max(heartbeat.seconds_until_due(), 0.1)):
            heartbeat.check()

    thread = threading.Thread(target=watch, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield heartbeat
    finally:
        stop.set()
        thread.join(timeout=5)


def line_writer() -> Callable[[str], None]:
    """A function that prints a line above the progress bar, on today's standard output even where it is redirected later."""
    stream = sys.stdout

    def write(line: str) -> None:
        tqdm.write(line, file=stream)
        stream.flush()

    return write


def progress_line(stage: str, step: int, steps: int, metrics: dict[str, float], seconds_per_step: float) -> str:
    """ "rl 12/40, loss 0.123, 4.1 s a step, about 2 min left"; without the times where ``seconds_per_step`` is NaN."""
    parts = [f"{stage} {step}/{steps}"]
    parts += [f"{name} {metrics[name]:.3f}" for name in ("loss", "reward") if name in metrics]
    if seconds_per_step == seconds_per_step:
        left = format_duration(seconds_per_step * (steps - step))
        parts += [f"{seconds_per_step:.2g} s a step" if seconds_per_step < 10 else f"{seconds_per_step:.0f} s a step"]
        parts += [f"about {left} left"]
    return ", ".join(parts)


def format_duration(seconds: float) -> str:
    """ "45 s", "2 min" or "1 h 5 min"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
