"""results.jsonl: one line a run, with the curves of what is measured; and lines as arrays by arm and seed.

All figures, tables and verdicts are made of these lines alone.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rljax.errors import UserError
from rljax.training import journal, launch

Line = dict[str, Any]
MEASURES = {  # a short name -> the key of an evaluation
    "pass@1": "eval/pass@1",
    "greedy": "eval/greedy",
    "length": "eval/response_length/mean",
    "median length": "eval/response_length/median",
    "p95 length": "eval/response_length/p95",
    "length of right": "eval/response_length/correct",
    "length of wrong": "eval/response_length/wrong",
    "truncated": "eval/truncated",
    "jumps": "eval/strategy/jump",
    "retries": "eval/strategy/retry",
    "facts right": "eval/facts_right",
    "verdicts right": "eval/verdicts_right",
}
KEPT = ("eval/pass@", "eval/cons@", "eval/greedy", "eval/response_length/", "eval/truncated", "eval/strategy/",
        "eval/level/", "eval/behaviour/", "eval/facts_right", "eval/verdicts_right")  # fmt: skip


def metric(name: str) -> str:
    """The key that a measure's name stands for: of ``MEASURES``, "pass@8", "level 3", or a key itself."""
    if name.startswith("level "):
        return f"eval/level/{name[6:]}/pass@1"
    return MEASURES.get(name, name if "/" in name else f"eval/{name}")


def line_of(folder: Path, stage: str, arm: str, seed: int, changes: Sequence[str]) -> Line:
    """What a finished run left behind. Raises UserError where it left no evaluation."""
    records = [r for r in journal.read_records(folder / "metrics.jsonl") if r["stage"] == stage and "eval/pass@1" in r]
    if not records:
        raise UserError(f"{folder}: there is no evaluation of stage {stage!r}: remove the folder and run it again")
    keys = [k for k in records[-1] if k.startswith(KEPT) and not k.endswith(("/se", "/questions")) and "/try_" not in k]
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
    key, out = metric(measure), {}
    for line in lines:
        column = line["curves"].get(key)
        if line["arm"] == arm and column and column[place] is not None:
            out[line["seed"]] = float(column[place])
    return out


def curves(lines: Sequence[Line], arm: str, measure: str) -> tuple[list[int], list[list[float]]]:
    """(steps, a curve a seed) of one arm, nan where a value is missing; seeds that were evaluated at other steps are left out."""
    mine = [line for line in lines if line["arm"] == arm and metric(measure) in line["curves"]]
    steps = mine[0]["steps"] if mine else []
    rows = [line["curves"][metric(measure)] for line in mine if line["steps"] == steps]
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
        one = lambda m, place, line=line: (line["curves"].get(metric(m)) or [None])[place]
        rows.append([line["arm"], line["seed"], *(one(m, p) for m in measures for p in (0, -1)), line["minutes"]])
    return header, rows
