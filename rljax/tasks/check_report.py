"""The report of a check: a table of what a task holds, and one line for each fault."""

import dataclasses
from collections.abc import Callable

from rljax.structs import Problems
from rljax.tasks.task import Record, Task


@dataclasses.dataclass
class CheckReport:
    """What a check found: ``rows`` (what, result) for a table, and one line for each fault."""

    name: str
    rows: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    faults: list[str] = dataclasses.field(default_factory=list)

    def add_row(self, what: str, result: str) -> None:
        self.rows.append((what, result))

    def add_fault(self, fault: str, count: int = 1, of: int = 0) -> None:
        """Note a fault, with how often it came up among ``of`` cases; nothing where ``count`` is 0."""
        if count:
            self.faults.append(f"{fault} ({count:,} of {of:,})" if of else fault)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """The task under check, and training problems of it with a demonstration of each."""

    task: Task
    problem_fn: Callable[..., Problems]  # compiled once
    seed: int
    problems: Problems
    records: list[Record]
    texts: list[str]  # of demonstrations, without the stop token
    ids: list[list[int]]  # of demonstrations, with it


def format_report(report: CheckReport) -> str:
    """The report as text: a table of two columns, then one line for each fault."""
    width = max((len(what) for what, _ in report.rows), default=0)
    lines = [f"task {report.name}", *(f"  {what:<{width}}  {result}" for what, result in report.rows)]
    lines += [f"wrong: {fault}" for fault in report.faults] or ["all checks passed"]
    return "\n".join(lines)


def describe_exception(e: BaseException) -> str:
    """An exception in one line, with the place where it was raised."""
    place = e.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f" (in {place.tb_frame.f_code.co_name}, line {place.tb_lineno})" if place else ""
    return f"{type(e).__name__}: {' '.join(str(e).split())[:200]}{where}"


def share(part: int, whole: int) -> str:
    """ "12 of 48, 25.0 %"."""
    return f"{part:,} of {whole:,}" + (f", {part / whole:.1%}" if whole else "")
