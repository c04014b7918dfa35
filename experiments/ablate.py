"""An ablation: several arms, several seeds of each; intervals, paired differences, and whether the hypothesis held.

    python -m experiments.ablate --config configs/ablations/selection.py --workdir runs/selection --seeds 4
    python -m experiments.ablate --config configs/shop.py --workdir runs/seeds --seeds 3
    python -m experiments.ablate --config configs/shop.py --workdir runs/g --vary rl.algorithm=dr_grpo,grpo --vary rl.group_size=8,16

Stages before the one that is compared are run once for each seed, and shared by all arms that agree on them. On a CPU runs
are processes, one a core (``--processes`` for fewer); on accelerators those that differ in numbers only (seeds, rates,
coefficients) are one program, at most ``--at_once`` of them. What several need compiled is compiled once. Finished runs are
not done again, stopped ones continue.

Leaves results.jsonl, from which alone figures/, report.html and the verdict are made: ``--results FILE`` draws them again.
"""

import html
import sys
from pathlib import Path
from typing import Any

import numpy as np

from rljax import ablation, report
from rljax.ablation import Ablation, Line, scheduler
from rljax.metrics import intervals
from rljax.structs import ConfigTree
from rljax.training import command_line, config_files, journal
from rljax.training.command_line import Flag
from rljax.training.run import resolve

from . import reproduce, rl

EXPERIMENTS = scheduler.Experiments(reproduce.STAGES, reproduce.run, rl.make_train_step)


def run(
    config: ConfigTree,
    workdir: Path,
    seeds: int,
    vary: list[str],
    starts: str,
    form: str,
    processes: int,
    at_once: int,
    results: str,
) -> None:
    path = command_line.find_flag(sys.argv, "config") or ""
    asked = ablation.load(config_files.load_config_module(path), vary)
    if not results:
        numbers = range(config.seed, config.seed + seeds)
        runs = ablation.runs_of(asked, config, numbers, workdir, Path(starts) if starts else workdir / "starts")
        for first in {r.arm: r for r in runs}.values():
            ablation.check(first.config, lambda c: resolve(c, asked.stage), first.arm)
        if scheduler.choose_form(form) == "processes":
            scheduler.run_as_processes(runs, asked.stage, path, processes)
        else:
            scheduler.run_as_programs(EXPERIMENTS, runs, asked.stage, workdir, at_once)
        lines = [ablation.line_of(r.folder, asked.stage, r.arm, r.seed, r.changes) for r in runs]
        ablation.write(workdir / "results.jsonl", lines)
    write_report(asked, ablation.read(results or workdir / "results.jsonl"), workdir, Path(path.partition(":")[0]).stem)


def write_report(asked: Ablation, lines: list[Line], workdir: Path, name: str) -> None:
    """Figures and report.html; the table of arms, and the verdict, also on the terminal."""
    drawn = ablation.draw_figures(asked, lines, workdir / "figures", name)
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
    report.write_page(
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
        return report.group_by_problem(
            journal.read_records(folder / "samples" / f"{asked.stage}_step_{line['steps'][place]:06d}.jsonl")
        )

    before, after = attempts(asked.reference, 0), {arm: attempts(arm, -1) for arm in asked.arms}
    after = {arm: found for arm, found in after.items() if found}
    best = report.rank_by_improvement(before, after.get(asked.reference, {}))
    if not best or asked.stage != "rl":
        return []
    q = best[0]
    models = [("before RL", before[q]), *((arm, found[q]) for arm, found in after.items() if q in found)]
    note = f"Seed {line['seed']}, the held-out problem on which {asked.reference} gained most."
    return [("Thinking against imitation", report.render_models(models, note))]


def arms_table(asked: Ablation, lines: list[Line]) -> tuple[list[str], list[list[Any]]]:
    """(header, one row an arm): each measure's mean and interval, and its paired difference from the first arm."""
    header = ["arm", "seeds", *(x for m in asked.measures for x in (m, f"{m}, difference"))]
    rows = []
    for arm in asked.arms:
        row: list[Any] = [arm, len(ablation.values(lines, arm, asked.measures[0]))]
        for m in asked.measures:
            mine = ablation.values(lines, arm, m)
            d = intervals.paired_difference(mine, ablation.values(lines, asked.reference, m))
            row.append(ablation.say(intervals.interval(np.array([*mine.values()]))))
            row.append("–" if arm == asked.reference else ablation.say(d, True))
        rows.append(row)
    return header, rows


def markdown(header: list[str], rows: list[list[Any]]) -> str:
    show = lambda x: f"{x:.3f}" if isinstance(x, float) else str(x)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(show, line)) + " |" for line in lines)


def main() -> None:
    command_line.main(
        run,
        use="other",
        seeds=Flag(3, "seeds of each arm"),
        vary=Flag([], "KEY=VALUE,VALUE: arms for each value of a setting"),
        starts=Flag("", "folder of the runs that arms start from; without it WORKDIR/starts"),
        form=Flag("auto", "auto, processes, or together: runs as processes, or many runs as one program"),
        processes=Flag(0, "processes at once; 0: one for each core"),
        at_once=Flag(0, "most runs in one program; 0: any number"),
        results=Flag("", "a results.jsonl to draw again; nothing is run"),
    )


if __name__ == "__main__":
    main()
