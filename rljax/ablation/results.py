"""results.jsonl: the result of each run is one line. Here are also its values by arm and seed.

All figures, tables and verdicts are made from these lines alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np

from rljax.errors import UserError
from rljax.json_lines import format_json_lines
from rljax.report.measures import find_measure
from rljax.training import journal
from rljax.training.versions import source_commit


class RunResult(TypedDict):
    """The result of one run: a line of results.jsonl."""

    arm: str
    seed: int
    changes: list[str]  # the settings that the arm changes
    stage: str
    steps: list[int]  # the steps that were evaluated; the first is 0, before training
    curves: dict[str, list[float | None]]  # {metric of metrics.jsonl: its value at each of these steps}
    minutes: float | None
    commit: str | None


def read_run_result(folder: Path, stage: str, arm: str, seed: int, changes: Sequence[str]) -> RunResult:
    """The result of a finished run, read from its workdir. Raises UserError if there is no evaluation."""
    records = [r for r in journal.read_records(folder / "metrics.jsonl") if r["stage"] == stage and "eval/pass@1" in r]
    if not records:
        raise UserError(f"{folder}: there is no evaluation of stage {stage!r}, remove the folder and run the arm again")
    is_detail = lambda key: key.endswith(("/se", "/questions")) or "/try_" in key  # only a part of another metric
    keys = [key for key in records[-1] if key.startswith("eval/") and not is_detail(key)]
    seconds = [r["seconds"] for r in journal.read_records(folder / "timings.jsonl") if r["stage"] == stage]
    return RunResult(
        arm=arm,
        seed=seed,
        changes=list(changes),
        stage=stage,
        steps=[r["step"] for r in records],
        curves={key: [r.get(key) for r in records] for key in keys},
        minutes=round(seconds[-1] / 60, 2) if seconds else None,
        commit=source_commit(),
    )


def write_results(path: Path, results: Sequence[RunResult]) -> None:
    """Write results.jsonl."""
    journal.replace_text(path, format_json_lines(results))


def read_results(path: str | Path) -> list[RunResult]:
    """The results of all runs in a results.jsonl. Raises UserError if the file has none."""
    records = journal.read_records(path)
    if not records or any("curves" not in record for record in records):
        raise UserError(f"{path}: there are no results of an ablation, write them with `rljax ablate`")
    return cast(list[RunResult], records)


def values_by_seed(results: Sequence[RunResult], arm: str, measure: str, evaluation: int = -1) -> dict[int, float]:
    """{seed: value} of a measure of one arm. Seeds without a value are left out.

    ``evaluation`` is the index of an evaluation: -1 is the last one, 0 the one before training.
    """
    key, values = find_measure(measure).key, {}
    for result in results:
        curve = result["curves"].get(key)
        value = curve[evaluation] if curve else None
        if result["arm"] == arm and value is not None:
            values[result["seed"]] = float(value)
    return values


def arm_values(results: Sequence[RunResult], arm: str, measure: str, evaluation: int = -1) -> np.ndarray:
    """The values [seeds] of ``values_by_seed``."""
    return np.array([*values_by_seed(results, arm, measure, evaluation).values()])


def arm_curves(results: Sequence[RunResult], arm: str, measure: str) -> tuple[list[int], list[list[float]]]:
    """``(steps [n], curves [seeds][n])`` of a measure of one arm. A missing value is nan.

    Seeds that were evaluated at other steps than the first seed are left out.
    """
    key = find_measure(measure).key
    arm_results = [result for result in results if result["arm"] == arm and key in result["curves"]]
    steps = arm_results[0]["steps"] if arm_results else []
    curves = [result["curves"][key] for result in arm_results if result["steps"] == steps]
    return steps, [[float("nan") if value is None else float(value) for value in curve] for curve in curves]


def describe_seed_count(results: Sequence[RunResult]) -> str:
    """The number of seeds of each arm: "4 seeds", or "2 to 3 seeds" if the arms differ."""
    counts = [sum(result["arm"] == arm for result in results) for arm in arm_names(results)]
    fewest, most = min(counts), max(counts)
    return f"{most} seed{'s' * (most != 1)}" if fewest == most else f"{fewest} to {most} seeds"


def arm_names(results: Sequence[RunResult]) -> list[str]:
    """The names of the arms, in the order of their first results."""
    return list(dict.fromkeys(result["arm"] for result in results))


def results_table(results: Sequence[RunResult], measures: Sequence[str]) -> tuple[list[str], list[list[Any]]]:
    """(header, rows) of a table with a row for each run: every measure before and after training."""
    header = ["arm", "seed", *(f"{m} {when}" for m in measures for when in ("before", "after")), "minutes"]
    rows = []
    for result in results:
        row: list[Any] = [result["arm"], result["seed"]]
        for measure in measures:
            curve = result["curves"].get(find_measure(measure).key) or [None]
            row += [curve[0], curve[-1]]
        rows.append([*row, result["minutes"]])
    return header, rows
