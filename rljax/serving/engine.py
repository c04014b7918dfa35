"""The device works for one thread, which goes round the requests: a little of each, so that none waits for another's end.

A request's work is a generator. What it yields is told to whoever asked; between two yields it has the device for itself. Where
it yields an ``Aside``, this is done in another thread, and the request has no turn until then. A request that nobody waits for
any longer is closed before its next turn.
"""

import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from rljax.errors import UserError
from rljax.serving.aside import Aside

RUNNING = 4  # requests that have a turn, and memory for their attempts; as many may have work aside
ASIDE = 2  # threads for such work
WAITING = 64  # requests that wait for a place among them


Work = Generator[Any, None, None]


class BusyError(UserError):
    """Too many requests wait."""


class Told(NamedTuple):
    """What the device says of a request: a value that its work yielded, its end, or why it ended early."""

    value: Any = None
    ended: bool = False
    error: UserError | None = None


class Ticket:
    """One request in the queue."""

    def __init__(self, work: Work, tell: Callable[[Told], None], wake: Callable[[], None]):
        self.work, self.tell, self.wake = work, tell, wake
        self.stopped, self.is_aside = False, False

    def stop(self) -> None:
        """Nobody waits any longer: the work is closed before its next turn."""
        self.stopped = True
        self.wake()

    def has_turn(self) -> bool:
        """Whether there is something to do for the device's thread."""
        return self.stopped or not self.is_aside


class Engine:
    """The queue and its thread. ``submit`` and ``count`` may be called from any thread, ``tell`` is called from its own."""

    def __init__(self, running: int = RUNNING, waiting: int = WAITING):
        self.most_running, self.most_waiting = running, waiting
        self.running: list[Ticket] = []
        self.waiting: deque[Ticket] = deque()
        self.changed = threading.Condition()
        self.others = ThreadPoolExecutor(ASIDE, "aside")
        self.closed = False
        self.thread = threading.Thread(target=self._run, name="device", daemon=True)
        self.thread.start()

    def submit(self, work: Work, tell: Callable[[Told], None]) -> Ticket:
        """Let the device work on this. Raises BusyError where too many wait already."""
        ticket = Ticket(work, tell, self._wake)
        with self.changed:
            self.waiting = deque(t for t in self.waiting if not t.stopped)
            if self.closed or len(self.waiting) >= self.most_waiting:
                raise BusyError(f"{len(self.waiting)} requests wait already: try again later")
            self.waiting.append(ticket)
            self.changed.notify_all()
        return ticket

    def count(self) -> dict[str, int]:
        """How many requests have a turn, how many have work aside, and how many wait for their first turn."""
        with self.changed:
            aside = sum(not t.has_turn() for t in self.running)
            waiting = sum(not t.stopped for t in self.waiting)
            return {"running": len(self.running) - aside, "preparing": aside, "waiting": waiting}

    def wait_until_idle(self, timeout: float) -> bool:
        """Whether no request is left within so many seconds."""
        with self.changed:
            return self.changed.wait_for(lambda: not self.running and not self.waiting, timeout)

    def close(self) -> None:
        """End the thread after its current turn. Requests that are left are told so."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        self.thread.join()
        self.others.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        while self._admit():
            for ticket in list(self.running):
                if self.closed:
                    break
                if ticket.has_turn() and self._take_turn(ticket):
                    with self.changed:
                        self.running.remove(ticket)
                        self.changed.notify_all()
        for ticket in [*self.running, *self.waiting]:
            ticket.work.close()
            ticket.tell(Told(ended=True, error=BusyError("the playground was closed")))

    def _admit(self) -> bool:
        """Give places to those who wait longest. Waits while there is nothing to do; False where the engine was closed."""
        with self.changed:
            while not self.closed:
                while self.waiting and self._has_place():
                    ticket = self.waiting.popleft()
                    if not ticket.stopped:
                        self.running.append(ticket)
                if any(t.has_turn() for t in self.running):
                    return True
                self.changed.notify_all()
                self.changed.wait()
        return False

    def _has_place(self) -> bool:
        """Whether one more request may have a turn. One that has work aside takes the place of none, while they are not many."""
        with_turn = sum(t.has_turn() for t in self.running)
        return with_turn < self.most_running and len(self.running) < 2 * self.most_running

    def _wake(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def _set_aside(self, ticket: Ticket, job: Aside) -> None:
        """Do something for a request in another thread."""

        def run() -> None:
            if not ticket.stopped:
                job.run()
            ticket.is_aside = False
            self._wake()

        ticket.is_aside = True
        self.others.submit(run)

    def _take_turn(self, ticket: Ticket) -> bool:
        """Whether the request has come to its end. One that fails costs the others nothing."""
        try:
            if ticket.stopped:
                ticket.work.close()
                return True
            value = next(ticket.work)
            if isinstance(value, Aside):
                self._set_aside(ticket, value)
            else:
                ticket.tell(Told(value))
            return False
        except StopIteration:
            ticket.tell(Told(ended=True))
        except UserError as e:
            ticket.tell(Told(ended=True, error=e))
        except Exception as e:  # a defect: its traceback is for the terminal
            traceback.print_exc(file=sys.stderr)
            ticket.tell(Told(ended=True, error=UserError(f"internal error: {type(e).__name__}, see the terminal")))
        return True
