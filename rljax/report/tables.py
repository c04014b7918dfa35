"""The tables of a run's page: (caption, header, rows) each."""

from collections.abc import Sequence
from typing import Any

from rljax import metrics
from rljax.report.measures import find_measure
from rljax.report.records import Record, Run
from rljax.report.texts import evaluations

Table = tuple[str, list[str], list[list[Any]]]
COLUMNS = 5  # evaluations that have a column
KINDS = {"": "share", "/per_response": "per response", "/per_1k": "per 1,000 tokens"}
BEHAVIOURS = (
    "Behaviours before and after RL: share of responses, times per response, times in 1,000 tokens. What ends in _proxy is "
    "found by an expression that stands in for a judge (docs/behaviours.md)"
)


def run_tables(records: Run, start: str, questions: int | None) -> list[Table]:
    """The held-out measures of an RL run over its steps, and its behaviours; ``start`` names the model before RL."""
    rows = evaluations(records)
    keys = list(dict.fromkeys(k for r in rows for k in r if k.startswith("eval/")))
    counted = [k for k in keys if k.startswith("eval/behaviour/")]
    tables = [measures_table(rows, [k for k in keys if k not in counted], start, questions)]
    return tables + ([behaviours_table(rows[0], rows[-1], counted)] if counted else [])


def measures_table(rows: Sequence[Record], keys: Sequence[str], start: str, questions: int | None) -> Table:
    """One row for each held-out measure, a column for each quarter of RL. A strategy that was never seen has no row."""
    last = len(rows) - 1
    chosen = [rows[i] for i in sorted({round(i * last / (COLUMNS - 1)) for i in range(COLUMNS)})]
    body = []
    for key in keys:
        never = key.startswith("eval/strategy/") and not any(r.get(key) for r in rows)
        if not never and not key.endswith(("/se", "/questions")):
            body.append([find_measure(key).header, *(format_cell(r, key, questions) for r in chosen)])
    caption = f"Held-out measures. RL step {rows[0]['step']} is before RL ({start}); ± is half of the 95 % interval over questions."
    return f"{caption} ↑ or ↓: which way is better", ["measure", *(f"RL step {r['step']}" for r in chosen)], body


def format_cell(record: Record, key: str, questions: int | None) -> str | None:
    """The value of a measure and the half-width of its interval, as in "93.5% ± 1.4%"; None where there is no value."""
    value, error = record.get(key), record.get(f"{key}/se")
    if value is None:
        return None
    m = find_measure(key)
    count = record.get(f"{key.removesuffix('/pass@1')}/questions", questions)
    half = metrics.half_width(error, None if count is None else int(count)) if error is not None else float("nan")
    return m.format(value) + (f" ± {m.format(half)}" if half == half else "")


def behaviours_table(first: Record, last: Record, keys: Sequence[str]) -> Table:
    """A row for each behaviour: share, times per response and per 1,000 tokens, each before and after RL."""
    names = [k for k in keys if k.count("/") == 2]
    header = ["behaviour", *(f"{kind}, {when}" for kind in KINDS.values() for when in ("before", "after"))]
    rows = [[k.split("/")[2], *(r.get(k + end) for end in KINDS for r in (first, last))] for k in names]
    return BEHAVIOURS, header, rows
