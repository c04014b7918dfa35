"""The tables of a run's report: (caption, header, rows) each."""

from collections.abc import Sequence
from typing import Any

from rljax import metrics
from rljax.report.measures import find_measure
from rljax.report.records import Record, Run
from rljax.report.texts import rl_evaluations

Table = tuple[str, list[str], list[list[Any]]]
COLUMNS = 5  # evaluations with a column
RATES = {"": "share", "/per_response": "per response", "/per_1k": "per 1,000 tokens"}  # {end of a key: its rate}
BEHAVIOURS = (
    "Behaviours before and after RL: share of responses, times per response, times per 1,000 tokens. A name with _proxy is "
    "found by a regular expression where the original work used a judge (docs/behaviours.md)"
)


def run_tables(records: Run, start: str, questions: int | None) -> list[Table]:
    """The tables of held-out measures and of behaviours. ``start`` is the name of the model before RL."""
    rows = rl_evaluations(records)
    keys = list(dict.fromkeys(k for r in rows for k in r if k.startswith("eval/")))
    behaviours = [k for k in keys if k.startswith("eval/behaviour/")]
    tables = [measures_table(rows, [k for k in keys if k not in behaviours], start, questions)]
    return tables + ([behaviours_table(rows[0], rows[-1], behaviours)] if behaviours else [])


def measures_table(rows: Sequence[Record], keys: Sequence[str], start: str, questions: int | None) -> Table:
    """One row for each held-out measure, ``COLUMNS`` evaluations as columns. A strategy that never occurred has no row."""
    last = len(rows) - 1
    chosen = [rows[i] for i in sorted({round(i * last / (COLUMNS - 1)) for i in range(COLUMNS)})]
    body = []
    for key in keys:
        unused_strategy = key.startswith("eval/strategy/") and not any(r.get(key) for r in rows)
        if not unused_strategy and not key.endswith(("/se", "/questions")):
            body.append([find_measure(key).header, *(format_cell(r, key, questions) for r in chosen)])
    caption = f"Held-out measures. RL step {rows[0]['step']} is before RL ({start}); ± is the half-width of the 95 % interval over questions."
    return f"{caption} ↑ or ↓: which way is better", ["measure", *(f"RL step {r['step']}" for r in chosen)], body


def format_cell(record: Record, key: str, questions: int | None) -> str | None:
    """The value of a measure with the half-width of its 95 % interval, as in "93.5% ± 1.4%"; None without a value."""
    value, error = record.get(key), record.get(f"{key}/se")
    if value is None:
        return None
    m = find_measure(key)
    count = record.get(f"{key.removesuffix('/pass@1')}/questions", questions)
    half = metrics.half_width(error, None if count is None else int(count)) if error is not None else float("nan")
    return m.format(value) + (f" ± {m.format(half)}" if half == half else "")


def behaviours_table(first: Record, last: Record, keys: Sequence[str]) -> Table:
    """One row for each behaviour: its three rates, each before and after RL."""
    names = [k for k in keys if k.count("/") == 2]
    header = ["behaviour", *(f"{kind}, {when}" for kind in RATES.values() for when in ("before", "after"))]
    rows = [[k.split("/")[2], *(r.get(k + end) for end in RATES for r in (first, last))] for k in names]
    return BEHAVIOURS, header, rows
