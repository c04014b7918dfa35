"""Prints the alarms of a stage while it trains: one line each, with what to try. ``rljax.metrics.alarms`` finds them."""

from collections.abc import Callable, Iterable

from rljax.metrics.alarms import Alarm, Record, Watch, see


class AlarmPrinter:
    """Sees each record of a stage as it is written. ``before`` are those of the run before this process.

    Alarms of ``before`` were printed then, so they are not printed again.
    """

    def __init__(self, stage: str, before: Iterable[Record], print_line: Callable[[str], None]):
        self.stage, self.print_line, self.watch = stage, print_line, Watch()
        for record in before:
            if record.get("stage") == stage:
                self.watch, _ = see(self.watch, record)

    def see(self, record: Record) -> None:
        """Print the alarms that begin with a record."""
        self.watch, found = see(self.watch, record)
        for alarm in found:
            self.print_line(describe_alarm(self.stage, alarm))


def describe_alarm(stage: str, alarm: Alarm) -> str:
    """An alarm as one line."""
    return f"{stage} {alarm.step}: ALARM, {alarm.name}: {alarm.text}"
