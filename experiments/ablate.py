"""Seeds x settings: the same run many times, as processes; curves with bands and a table.

    python -m experiments.ablate --config configs/shop.py --workdir runs/seeds --seeds 3
    python -m experiments.ablate ... --vary rl.algorithm=dr_grpo,grpo,rloo --vary rl.group_size=8,16 --processes 2
    python -m experiments.ablate ... --vary "rl.row.surrogate=ppo_clip(low=0.2, high=0.28),cispo,gspo"

Every combination of the varied settings is an arm; every arm runs the whole job once a seed, in a folder of its own.
Finished runs are not done again, stopped ones continue. What several arms share, they compile once.
"""

import itertools
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from rljax import figures, journal, launch, report
from rljax.errors import UserError
from rljax.structs import ConfigTree

COLUMNS = {
    "pass@1 before": ("eval/pass@1", 0),
    "pass@1": ("eval/pass@1", -1),
    "cons": ("cons", -1),
    "greedy": ("eval/greedy", -1),
    "length before": ("eval/response_length/mean", 0),
    "length": ("eval/response_length/mean", -1),
    "p95 length": ("eval/response_length/p95", -1),
    "jumps before": ("eval/strategy/jump", 0),
    "jumps": ("eval/strategy/jump", -1),
    "truncated": ("eval/truncated", -1),
}


def run(config: ConfigTree, workdir: Path, seeds: int, processes: int, vary: list[str], script: str) -> None:
    arms = [dict(zip(keys(vary), values, strict=True)) for values in itertools.product(*map(choices, vary))]
    jobs = [(arm, config.seed + n) for arm in arms for n in range(seeds)]
    launch.check_names([f"--config.{k}=" for arm in arms for k in arm], config)
    with ThreadPoolExecutor(processes) as pool:
        failed = [f for f in pool.map(lambda job: one_run(workdir, script, *job), jobs) if f]
    if failed:
        raise UserError(f"{len(failed)} of {len(jobs)} runs failed, the first: {failed[0]}; the others are kept")
    write_report(workdir, {name(arm): [workdir / name(arm) / f"seed_{s}" for a, s in jobs if a is arm] for arm in arms})


def keys(vary: list[str]) -> list[str]:
    return [v.split("=", 1)[0] for v in vary]


def choices(vary: str) -> list[str]:
    key, _, values = vary.partition("=")
    if not values:
        raise UserError(f"--vary {vary}: write key=value,value")
    return re.split(r",(?![^(]*\))", values)  # not at the commas of an option list


def name(arm: dict[str, str]) -> str:
    return ",".join(f"{k}={v}" for k, v in arm.items()) or "default"


def one_run(workdir: Path, script: str, arm: dict[str, str], seed: int) -> str:
    """Run one process to its end, its output in log.txt; returns what went wrong, or "" ."""
    folder = workdir / name(arm) / f"seed_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    given = [a for a in sys.argv[1:] if a.lstrip("-").startswith("config")]
    changes = [f"--config.{k}={v}" for k, v in {**arm, "seed": str(seed)}.items()]
    command = [sys.executable, "-m", f"experiments.{script}", *given, f"--workdir={folder}", *changes]
    print(f"{name(arm)}  seed {seed}: running, see {folder / 'log.txt'}", flush=True)
    with (folder / "log.txt").open("a") as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
    last = (folder / "log.txt").read_text().strip().splitlines()[-1:]
    return f"{folder}: {' '.join(last)}" if code else ""


def write_report(workdir: Path, arms: dict[str, list[Path]]) -> None:
    """results.jsonl, figures and report.html; the table of all runs also on the terminal."""
    runs = {arm: [journal.read(folder / "metrics.jsonl") for folder in folders] for arm, folders in arms.items()}
    rows = [measures(arm, folder) for arm, folders in arms.items() for folder in folders]
    journal.replace_text(workdir / "results.jsonl", "".join(json.dumps(r) + "\n" for r in rows))
    drawn = []
    for arm, records in runs.items():
        for figure in ("accuracy", "response_length", "strategies"):
            path = workdir / "figures" / f"{arm.replace('/', '_')}_{figure}.png"
            getattr(figures, figure)(records, path)
            drawn.append((path, f"{arm}: {len(records)} seeds"))
    if len(arms) > 1:
        figures.selection(runs, workdir / "figures" / "arms.png", "The arms side by side")
        drawn.insert(
            0, (workdir / "figures" / "arms.png", "The arms side by side: mean over seeds and its 95 % interval.")
        )
    header = ["arm", "seed", *COLUMNS, "minutes"]
    table = [[r.get(h) for h in header] for r in rows] + [total(arm, rows, header) for arm in arms]
    print(markdown(header, table))
    about = json.loads((next(iter(arms.values()))[0] / "config.json").read_text())
    best = [
        (arm, f"{np.mean([r['pass@1'] for r in rows if r['arm'] == arm]):.3f}", "pass@1, mean over seeds")
        for arm in arms
    ]
    report.write(
        workdir / "report.html", "rljax: seeds and settings", best, drawn, [], [("Every run", header, table)], about
    )
    print(f"report {workdir / 'report.html'}")


def measures(arm: str, folder: Path) -> dict[str, Any]:
    """The table's row of one run, from what it left behind."""
    rl = [r for r in journal.read(folder / "metrics.jsonl") if r["stage"] == "rl" and "eval/pass@1" in r]
    cons = next(k for k in rl[-1] if k.startswith("eval/cons@") and not k.endswith("/se"))
    out: dict[str, Any] = {"arm": arm, "seed": folder.name.removeprefix("seed_")}
    for column, (key, place) in COLUMNS.items():
        out[column] = rl[place].get(cons if key == "cons" else key)
    seconds = {r["stage"]: r["seconds"] for r in journal.read(folder / "timings.jsonl")}
    return out | {"minutes": round(sum(seconds.values()) / 60, 2)}


def total(arm: str, rows: list[dict[str, Any]], header: list[str]) -> list[Any]:
    """Mean and sample deviation over an arm's seeds."""
    mine = [r for r in rows if r["arm"] == arm]

    def cell(column: str) -> str:
        values = [r[column] for r in mine if r.get(column) is not None]
        spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        return f"{np.mean(values):.3f}{spread}" if values else "–"

    return [arm, "mean ± sd", *(cell(c) for c in header[2:])]


def markdown(header: list[str], rows: list[list[Any]]) -> str:
    show = lambda x: f"{x:.3f}" if isinstance(x, float) else str(x)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(show, line)) + " |" for line in lines)


if __name__ == "__main__":
    launch.main(run, writes=False, seeds=3, processes=1, vary=[], script="reproduce")
