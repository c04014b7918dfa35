"""Work aside of the device: reading a checkpoint, compiling a program. The device goes on with other requests meanwhile.

A request's work yields an ``Aside``, and goes on when it is done. Whoever drives the work may do it in another thread; where nobody
does, it is done when its result is wanted.
"""

from collections.abc import Callable, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class Aside:
    """A call that does not need the device for itself."""

    def __init__(self, call: Callable[[], Any]):
        self.call, self.done = call, False
        self.value, self.error = None, None

    def run(self) -> None:
        """Make the call. What it raises is kept for whoever wants the result."""
        try:
            self.value = self.call()
        except BaseException as e:
            self.error = e
        self.done = True

    def result(self) -> Any:
        """What the call returned. Raises what it raised."""
        if not self.done:
            self.run()
        if self.error is not None:
            raise self.error
        return self.value


def do_aside(call: Callable[[], T]) -> Generator[Aside, None, T]:
    """Part of a request's work: ``value = yield from do_aside(call)``."""
    job = Aside(call)
    yield job
    return job.result()
