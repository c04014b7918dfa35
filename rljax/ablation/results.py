"""results.jsonl: one line a run, with the curves of what is measured; and lines as arrays by arm and seed.

All figures, tables and verdicts are made of these lines alone.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rljax.errors import UserError
from rljax.report.measures import find_measure
from rljax.training import journal, launch

Line = dict[str, Any]


def line_of(folder: Path, stage: str, arm: str, seed: int, changes: Sequence[str]) -> Line:
    """What a finished run left behind. Raises UserError where it left no evaluation."""
    records = [r for r in journal.read_records(folder / "metrics.jsonl") if r["stage"] == stage and "eval/pass@1" in r]
    if not records:
        raise UserError(f"{folder}: there is no evaluation of stage {stage!r}: remove the folder and run it again")
    of_parts = lambda k: k.endswith(("/se", "/questions")) or "/try_" in k
    keys = [k for k in records[-1] if k.startswith("eval/") and not of_parts(k)]
    seconds = [r["seconds"] for r in journal.read_records(folder / "timings.jsonl") if r["stage"] == stage]
    return {
        "arm": arm,
        "seed": seed,
        "changes": list(changes),
        "stage": stage,
        "steps": [r["step"] for r in records],
        "curves": {k: [r.get(k) for r in records] for k in keys},
        "minutes": round(seconds[-1] / 60, 2) if seconds else None,
        "commit": launch.commit(),
    }


def write(path: Path, lines: Sequence[Line]) -> None:
    journal.replace_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def read(path: str | Path) -> list[Line]:
    """The lines of a results file. Raises UserError where there are none."""
    found = journal.read_records(path)
    if not found or any("curves" not in line for line in found):
        raise UserError(f"{path}: holds no results of an ablation; write them with python -m experiments.ablate")
    return found


def values(lines: Sequence[Line], arm: str, measure: str, place: int = -1) -> dict[int, float]:
    """{seed: value} of one arm at one of its evaluations: the last, or 0 for the one before it learned anything."""
    key, out = find_measure(measure).key, {}
    for line in lines:
        column = line["curves"].get(key)
        if line["arm"] == arm and column and column[place] is not None:
            out[line["seed"]] = float(column[place])
    return out


def curves(lines: Sequence[Line], arm: str, measure: str) -> tuple[list[int], list[list[float]]]:
    """(steps, a curve a seed) of one arm, nan where a value is missing; seeds that were evaluated at other steps are left out."""
    mine = [line for line in lines if line["arm"] == arm and find_measure(measure).key in line["curves"]]
    steps = mine[0]["steps"] if mine else []
    rows = [line["curves"][find_measure(measure).key] for line in mine if line["steps"] == steps]
    return steps, [[float("nan") if v is None else float(v) for v in row] for row in rows]


def seeds_said(lines: Sequence[Line]) -> str:
    """How many seeds the arms have: "4 seeds", or "2 to 3 seeds" where some have more."""
    counts = [sum(line["arm"] == arm for line in lines) for arm in arms_in(lines)]
    few, many = min(counts), max(counts)
    return f"{many} seed{'s' * (many != 1)}" if few == many else f"{few} to {many} seeds"


def arms_in(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(line["arm"] for line in lines))


def table(lines: Sequence[Line], measures: Sequence[str]) -> tuple[list[str], list[list[Any]]]:
    """(header, one row a run): every measure before and after."""
    header = ["arm", "seed", *(f"{m} {when}" for m in measures for when in ("before", "after")), "minutes"]
    rows = []
    for line in lines:
        one = lambda m, place, line=line: (line["curves"].get(find_measure(m).key) or [None])[place]
        rows.append([line["arm"], line["seed"], *(one(m, p) for m in measures for p in (0, -1)), line["minutes"]])
    return header, rows
