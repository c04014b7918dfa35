"""An ablation: several arms, several seeds of each; intervals, paired differences, and whether the hypothesis held.

    rljax ablate --config ablations/selection --workdir runs/selection --seeds 4
    rljax ablate --config shop --workdir runs/seeds --seeds 3
    rljax ablate --config shop --workdir runs/g --vary rl.algorithm=dr_grpo,grpo --vary rl.group_size=8,16

Stages before the one that is compared are run once for each seed, and shared by all arms that agree on them. On a CPU runs
are processes, one a core (``--processes`` for fewer); on accelerators those that differ in numbers only (seeds, rates,
coefficients) are one program, at most ``--at_once`` of them. What several need compiled is compiled once. Finished runs are
not done again, stopped ones continue.

Leaves results.jsonl, from which alone figures/, report.html and the verdict are made: ``--results FILE`` draws them again.
"""

import sys
from pathlib import Path

from rljax import ablation
from rljax.ablation import scheduler
from rljax.structs import ConfigTree
from rljax.training import command_line, config_files
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
    ablation.write_report(
        asked, ablation.read(results or workdir / "results.jsonl"), workdir, Path(path.partition(":")[0]).stem
    )


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
