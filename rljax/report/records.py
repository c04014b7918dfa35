"""Records of metrics.jsonl -> arrays.

A run is the list of its records. ``runs`` is a list of runs, one for each seed.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rljax import metrics
from rljax.metrics.intervals import confidence_bands, half_width

Record = Mapping[str, Any]
Run = Sequence[Record]
Sample = Mapping[str, Any]  # one line of samples/*.jsonl: one attempt at one problem


def read_series(run: Run, key: str, stage: str = "rl") -> dict[int, float]:
    """{step: value} of one key, sorted by step. Of two records of a step the later one counts."""
    rows = [r for r in run if r.get("stage") == stage and r.get(key) is not None]
    return dict(sorted({int(r["step"]): float(r[key]) for r in rows if np.isfinite(r[key])}.items()))


def stack_runs(runs: Sequence[Run], key: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps [n], values [runs, n]) of one key, NaN where a run has no value at a step."""
    rows = [read_series(run, key) for run in runs]
    steps = sorted(set().union(*rows)) if rows else []
    values = np.array([[row.get(s, np.nan) for s in steps] for row in rows])
    return np.array(steps, float), values.reshape(len(rows), len(steps))


def mean_and_half_width(
    values: np.ndarray, standard_errors: np.ndarray | None = None, questions: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(mean [n], half-width of its 95 % interval [n]) of values [runs, n]; NaN where the interval is not known.

    Several runs: the interval over runs. One run: the interval over its questions, from ``standard_errors`` [n] and the
    number of questions (None: a large number).
    """
    if len(values) == 1:
        error = np.full(values.shape[1], np.nan) if standard_errors is None else standard_errors
        return values[0], half_width(1.0, questions) * error
    mean, low, high = confidence_bands(values)
    return mean, (high - low) / 2


def find_keys(runs: Sequence[Run], pattern: str) -> dict[str, str]:
    """{match of the pattern's group: key} over all RL records, in order of appearance."""
    keys = {}
    for key in all_keys(runs):
        if match := re.fullmatch(pattern, key):
            keys[match[1]] = key
    return keys


def all_keys(runs: Iterable[Run]) -> list[str]:
    """The keys of all RL records that have a finite value somewhere, in order of appearance."""
    rows = (r for run in runs for r in run if r.get("stage") == "rl")
    return list(dict.fromkeys(k for r in rows for k, v in r.items() if isinstance(v, int | float) and np.isfinite(v)))


def find_cons_key(runs: Sequence[Run]) -> str:
    """The key "eval/cons@k" with the largest k; "" where no run has one."""
    return metrics.find_cons_key(all_keys(runs))


def group_by_problem(samples: Iterable[Sample]) -> dict[int, list[Sample]]:
    """{number of the problem: its attempts}."""
    out: dict[int, list[Sample]] = {}
    for sample in samples:
        out.setdefault(sample["problem"], []).append(sample)
    return out
