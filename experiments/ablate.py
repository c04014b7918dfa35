"""An ablation: several arms, several seeds of each, and the claims of its hypothesis checked with paired differences.

    rljax ablate --config ablations/selection --workdir runs/selection --seeds 4
    rljax ablate --config shop --workdir runs/seeds --seeds 3
    rljax ablate --config shop --workdir runs/g --vary rl.algorithm=dr_grpo,grpo --vary rl.group_size=8,16

The stages before the compared one run once for each seed. Arms whose settings agree share them. On a CPU every run is a
process, one for each core (``--processes`` for fewer). On accelerators, runs that differ only in numbers (seeds, learning
rates, coefficients) are computed side by side in one process, at most ``--at_once`` of them. If the command is stopped, the
same command continues; finished runs are not repeated.

The results are in results.jsonl. The figures, report.html and the verdict are made from this file alone: ``--results FILE``
makes them again.
"""

import sys
from pathlib import Path

from rljax.ablation import (
    check_arm,
    expand_runs,
    load_ablation,
    read_results,
    read_run_result,
    scheduler,
    write_report,
    write_results,
)
from rljax.errors import UserError
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
    """Compute all runs that are not finished, write results.jsonl, and write the report. The flags are declared in ``main``."""
    if seeds < 1:
        raise UserError(f"--seeds={seeds}: must be at least 1")
    config_file = command_line.find_flag(sys.argv, "config") or ""
    ablation = load_ablation(config_files.load_config_module(config_file), vary)
    stage, results_file = ablation.stage, Path(results) if results else workdir / "results.jsonl"
    if not results:
        seed_values = range(config.seed, config.seed + seeds)
        runs = expand_runs(ablation, config, seed_values, workdir, Path(starts) if starts else workdir / "starts")
        for arm_run in {r.arm: r for r in runs}.values():  # one run of each arm
            check_arm(arm_run.arm, arm_run.config, lambda c: resolve(c, stage))
        if scheduler.choose_form(form) == "processes":
            scheduler.run_as_processes(runs, stage, config_file, processes)
        else:
            scheduler.run_as_vmapped_groups(EXPERIMENTS, runs, stage, workdir, max_runs=at_once)
        write_results(results_file, [read_run_result(r.folder, stage, r.arm, r.seed, r.changes) for r in runs])
    write_report(ablation, read_results(results_file), workdir, Path(config_file.partition(":")[0]).stem)


def main() -> None:
    command_line.main(
        run,
        use="other",
        seeds=Flag(3, "number of seeds of each arm", low=1, high=4096),
        vary=Flag([], "KEY=VALUE,VALUE: an arm for each value of a setting"),
        starts=Flag("", "folder of the stages that runs start from; default: WORKDIR/starts"),
        form=Flag(
            "auto",
            "processes: each run in a process of its own; together: many in one, side by side; auto: what fits the devices",
        ),
        processes=Flag(0, "number of processes at once; 0: one for each core", high=4096),
        at_once=Flag(0, "largest number of runs in one program; 0: no limit"),
        results=Flag("", "a results.jsonl to make the report from; nothing is run"),
    )


if __name__ == "__main__":
    main()
