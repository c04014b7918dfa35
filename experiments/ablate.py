"""An ablation: several arms, several seeds of each; intervals, paired differences, and whether the hypothesis held.

    python -m experiments.ablate --config configs/ablations/selection.py --workdir runs/selection --seeds 4
    python -m experiments.ablate --config configs/shop.py --workdir runs/seeds --seeds 3
    python -m experiments.ablate --config configs/shop.py --workdir runs/g --vary rl.algorithm=dr_grpo,grpo --vary rl.group_size=8,16

Stages before the one that is compared are run once for each seed, and shared by all arms that agree on them. Runs are
processes, one a core (``--processes`` for fewer); what several need compiled is compiled once. Finished runs are not done
again, stopped ones continue.

Leaves results.jsonl, from which alone figures/, report.html and the verdict are made: ``--results FILE`` draws them again.
"""

import contextlib
import html
import itertools
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from experiments import plot
from rljax import ablation, intervals, journal, launch, report, settings
from rljax.ablation import Ablation, Line, Run
from rljax.errors import UserError
from rljax.structs import ConfigTree


def run(
    config: ConfigTree,
    workdir: Path,
    seeds: int,
    vary: list[str],
    starts: str,
    processes: int,
    results: str,
) -> None:
    path = launch.flag_value(sys.argv, "config") or ""
    asked = ablation.load(launch.config_module(path), vary)
    if not results:
        numbers = range(config.seed, config.seed + seeds)
        runs = ablation.runs_of(asked, config, numbers, workdir, Path(starts) if starts else workdir / "starts")
        for first in {r.arm: r for r in runs}.values():
            ablation.check(first.config, lambda c: settings.resolve(c, asked.stage), first.arm)
        todo = [r for r in runs if not ablation.finished(r.folder, r.config, asked.stage)]
        as_processes(todo, asked.stage, path, processes)
        lines = [ablation.line_of(r.folder, asked.stage, r.arm, r.seed, r.changes) for r in runs]
        ablation.write(workdir / "results.jsonl", lines)
    write_report(asked, ablation.read(results or workdir / "results.jsonl"), workdir, Path(path.partition(":")[0]).stem)


# ---- Processes, each with cores of its own, so that a run rounds the same however many run beside it


def as_processes(todo: Sequence[Run], stage: str, path: str, processes: int) -> None:
    """Every start, then every run, as many at once as there are processes. Raises UserError after the last if some failed."""
    starts = {r.start: (f"start of {r.label}", "reproduce", r.start, r.start_config) for r in todo if r.start != Path()}
    side_by_side([job for job in starts.values() if not begun(*job[2:])], path, processes)
    side_by_side([(r.label, stage, r.folder, r.config) for r in todo], path, processes)


def begun(start: Path, config: ConfigTree) -> bool:
    """Whether the stages that a run starts from have come to their end."""
    return all(ablation.finished(start, config, stage) for stage in config.stages)


def side_by_side(jobs: Sequence[tuple[str, str, Path, ConfigTree]], path: str, processes: int) -> None:
    """Run jobs (label, script, folder, config), each slot with its own share of the cores."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    slots: queue.Queue = queue.Queue()
    count = processes or len(cores)
    share = max(1, len(cores) // count)
    for i in range(count):
        slots.put([cores[(i * share + j) % len(cores)] for j in range(share)])
    running: dict[int, subprocess.Popen] = {}
    numbers = itertools.count(1)

    def one(job: tuple[str, str, Path, ConfigTree]) -> str:
        label, script, folder, config = job
        mine = slots.get()
        try:
            print(f"{label}: {next(numbers)} of {len(jobs)}, see {folder / 'log.txt'}", flush=True)
            return in_process(script, folder, config, path, mine, running)
        finally:
            slots.put(mine)

    with ThreadPoolExecutor(count) as pool:
        waiting = [pool.submit(one, job) for job in jobs]
        try:
            failed = [f for f in (w.result() for w in waiting) if f]
        except BaseException:  # asked to stop: so are they, each of which saves and ends
            for w in waiting:
                w.cancel()
            for process in running.values():
                process.send_signal(signal.SIGINT)
            raise
    if failed:
        raise UserError(f"{len(failed)} of {len(jobs)} runs failed, the first: {failed[0]}; the others are kept")


def in_process(
    script: str, folder: Path, config: ConfigTree, path: str, cores: list[int], running: dict[int, subprocess.Popen]
) -> str:
    """Run one process to its end, its output in log.txt; returns what went wrong, or ""."""
    folder.mkdir(parents=True, exist_ok=True)
    changes = [f"--config.{change}" for change in launch.differences(launch.load_config(path), config)]
    command = [sys.executable, "-m", f"experiments.{script}", f"--config={path}", f"--workdir={folder}", *changes]
    with (folder / "log.txt").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        running[process.pid] = process
        if hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(ProcessLookupError):  # it has ended already, and its status says why
                os.sched_setaffinity(process.pid, cores)
        code = process.wait()
        del running[process.pid]
    last = (folder / "log.txt").read_text().strip().splitlines()[-1:]
    return f"{folder}: {' '.join(last)}" if code else ""


# ---- What it says


def write_report(asked: Ablation, lines: list[Line], workdir: Path, name: str) -> None:
    """Figures and report.html; the table of arms, and the verdict, also on the terminal."""
    drawn = ablation.draw(asked, lines, workdir / "figures", name)
    judged = [ablation.judge(claim, lines) for claim in asked.claims]
    header, rows = arms_table(asked, lines)
    print(markdown(header, rows))
    for j in judged:
        print(f"{j.outcome.upper():>9}  {j.claim}: {ablation.say(j.left)} against {ablation.say(j.right)}, "
              f"difference {ablation.say(j.difference, True)}")  # fmt: skip
    held = sum(j.outcome == "holds" for j in judged)
    tiles = [("claims that hold", f"{held} of {len(judged)}", "95 % intervals of paired differences")] if judged else []
    for arm in list(asked.arms)[:5]:
        e = intervals.interval(np.array([*ablation.values(lines, arm, asked.measures[0]).values()]))
        tiles.append((arm, f"{e.mean:.3f}", f"{asked.measures[0]}, {ablation.say(e)}"))
    claims = [
        [j.claim, j.outcome, *map(ablation.say, (j.left, j.right)), ablation.say(j.difference, True)] for j in judged
    ]
    tables = [("Arms: mean over seeds, 95 % interval; difference from the first arm, paired by seed", header, rows)]
    if claims:
        tables.insert(
            0, ("The hypothesis, claim by claim", ["claim", "outcome", "left", "right", "difference"], claims)
        )
    tables.append(("Every run", *ablation.table(lines, asked.measures)))
    said = "".join(
        f"<p>{html.escape(text)}</p>" for text in (asked.hypothesis, ablation.verdict(judged, lines)) if text
    )
    journal.replace_text(workdir / "verdict.txt", ablation.verdict(judged, lines) + "\n")
    report.write(
        workdir / "report.html",
        f"rljax: {asked.question}",
        tiles,
        drawn,
        [],
        tables,
        {"arms": {arm: list(changes) for arm, changes in asked.arms.items()}, "commit": lines[-1]["commit"]},
        more=[("Question", said), *side_by_side_of(asked, lines, workdir)],
    )
    print(ablation.verdict(judged, lines))
    print(f"report {workdir / 'report.html'}")


def side_by_side_of(asked: Ablation, lines: list[Line], workdir: Path) -> list[tuple[str, str]]:
    """The report's section in which one question is put to the model before and to some arms' models after, where the
    runs' samples are still there: the problem on which the first arm gained most."""
    line = lines[0]

    def attempts(arm: str, place: int) -> dict[int, list[Any]]:
        folder = ablation.folder(workdir, arm, line["seed"])
        return plot.by_problem(folder / "samples" / f"{asked.stage}_step_{line['steps'][place]:06d}.jsonl")

    before, after = attempts(asked.reference, 0), {arm: attempts(arm, -1) for arm in asked.arms}
    after = {arm: found for arm, found in after.items() if found}
    best = report.improved(before, after.get(asked.reference, {}))
    if not best or asked.stage != "rl":
        return []
    q = best[0]
    models = [("before RL", before[q]), *((arm, found[q]) for arm, found in after.items() if q in found)]
    note = f"Seed {line['seed']}, the held-out problem on which {asked.reference} gained most."
    return [("Thinking against imitation", report.side_by_side(models, note))]


def arms_table(asked: Ablation, lines: list[Line]) -> tuple[list[str], list[list[Any]]]:
    """(header, one row an arm): each measure's mean and interval, and its paired difference from the first arm."""
    header = ["arm", "seeds", *(x for m in asked.measures for x in (m, f"{m}, difference"))]
    rows = []
    for arm in asked.arms:
        row: list[Any] = [arm, len(ablation.values(lines, arm, asked.measures[0]))]
        for m in asked.measures:
            mine = ablation.values(lines, arm, m)
            d = intervals.paired(mine, ablation.values(lines, asked.reference, m))
            row.append(ablation.say(intervals.interval(np.array([*mine.values()]))))
            row.append("–" if arm == asked.reference else ablation.say(d, True))
        rows.append(row)
    return header, rows


def markdown(header: list[str], rows: list[list[Any]]) -> str:
    show = lambda x: f"{x:.3f}" if isinstance(x, float) else str(x)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(show, line)) + " |" for line in lines)


if __name__ == "__main__":
    launch.main(run, writes=False, seeds=3, vary=[], starts="", processes=0, results="")
