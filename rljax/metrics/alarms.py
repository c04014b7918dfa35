"""Alarms: what goes wrong in a run of RL, found in the records of metrics.jsonl alone.

    find_alarms(records)  ->  [Alarm(step=24, name="entropy collapse", text="entropy fell from 1.1 to 0.06 nats: ...")]

Each rule has a threshold at which it begins and one at which it ends. It must hold for several records in a row, is told
once, and again only after it has ended. ``RULES`` look at training. ``FIRST_RULES`` look at the policy that RL starts from:
at the evaluation of step 0, and at what ``rljax check`` measures. Both say with the words of ``MENDS`` what to try. The
thresholds are chosen so that the default run of each task raises none: they mean that something is broken, not that a run
learns slowly.
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from rljax.metrics.alarm_rules import RULES, Past, Record, number
from rljax.metrics.first_rules import FIRST_RULES


class Alarm(NamedTuple):
    """Something that went wrong, in one line that says what and what to try."""

    step: int
    name: str
    text: str


class Watch(NamedTuple):
    """What has been seen so far; ``see`` returns the next one."""

    past: Past = Past()
    counts: Mapping[str, int] = {}  # {rule: records in a row that speak against its present state}
    active: frozenset[str] = frozenset()


def see(watch: Watch, record: Record) -> tuple[Watch, list[Alarm]]:
    """(the watch after a record, alarms that begin with it)."""
    counts, active, found = dict(watch.counts), set(watch.active), []
    for rule in (*RULES, *FIRST_RULES):
        value = rule.measure(watch.past, record)
        if value is None:
            continue
        on = rule.name in active
        against = value < rule.ends if on else value >= rule.begins
        counts[rule.name] = counts.get(rule.name, 0) + 1 if against else 0
        if counts[rule.name] >= rule.patience:
            counts[rule.name] = 0
            active ^= {rule.name}
            if not on:
                first, now = watch.past.at_start(rule.key), number(record, rule.key)
                values = {"value": value, "first": math.nan if first is None else first, "now": now or 0.0}
                text = rule.text(record) if callable(rule.text) else rule.text
                found.append(Alarm(int(record["step"]), rule.name, text.format(**values)))
    return Watch(watch.past.with_record(record), counts, frozenset(active)), found


def find_alarms(records: Iterable[Record], stage: str = "rl") -> list[Alarm]:
    """The alarms of a run's records, in their order."""
    watch, out = Watch(), []
    for record in records:
        if record.get("stage", stage) == stage:
            watch, found = see(watch, record)
            out += found
    return out
