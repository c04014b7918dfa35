"""A small student learns from a teacher's word on its own attempts, from the teacher's attempts, and from rewards alone.

    rljax distill --config distillation --workdir runs/distillation --seeds 3

    pretrain, SFT, RL ──> teacher ── its right attempts at training problems ── SFT ──> student
    pretrain, SFT ──> student ── RL, correctness alone ──> student
                              └─ the teacher scores the student's own attempts ──> student (on-policy distillation)

All students of a seed start from the same weights. Each way has as many attempts: those of ``rl.steps`` rollouts, by the student
itself or by the teacher. Each model is a run in a folder of its own; a command that was stopped continues. results.jsonl has a line
for each run in the form of an ablation, and table.md has means over the seeds.
"""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rljax import ablation
from rljax.distributed import processes
from rljax.errors import UserError
from rljax.metrics.intervals import confidence_interval
from rljax.options import build, option
from rljax.structs import ConfigTree
from rljax.training import command_line, journal
from rljax.training.command_line import Flag
from rljax.training.run import resolve
from rljax.training.schema import check_names, overlay
from rljax.training.workdir import hold_workdir

from . import collect, pretrain, rl, sft

STAGES: dict[str, Callable[[ConfigTree, Path], None]] = {"pretrain": pretrain.run, "sft": sft.run, "rl": rl.run}
MEASURES = ("pass@1", "length", "jumps", "truncated")


@dataclasses.dataclass(frozen=True)
class DistillationOptions:
    """The numbers of a config's section ``distillation``."""

    teacher_steps: int = option(150, "steps of RL of the teacher", low=1)
    problems: int = option(800, "problems that the teacher answers for SFT", low=1, high=1 << 20)
    epochs: tuple[int, ...] = option(
        (1, 4), "passes of SFT over its right answers, an arm each", items=int, low=1, high=1000
    )


def run(config: ConfigTree, workdir: Path, seeds: int = 1) -> None:
    """Train every model with every seed, and write the results and their table."""
    if "distillation" not in config:
        raise UserError(
            "--config: this config has no section `distillation`: use --config distillation, or a copy of "
            "configs/distillation.py"
        )
    if seeds < 1:
        raise UserError(f"--seeds={seeds} must be at least 1")
    check_distillation(config)
    results = [result for seed in range(seeds) for result in run_seed(config, workdir / f"seed_{seed}", seed)]
    if processes.is_primary():
        ablation.write_results(workdir / "results.jsonl", results)
        table = format_table(results)
        journal.replace_text(workdir / "table.md", table + "\n")
        print(table)


def check_distillation(config: ConfigTree) -> None:
    """Raise UserError for a setting of the section ``distillation`` that a later model could not use."""
    names = [field.name for field in dataclasses.fields(DistillationOptions)] + ["student"]
    section = check_names(config.distillation, "distillation", names, names)
    options = build(DistillationOptions, section, "distillation.")
    resolve(make_config(config, "teacher", 0, {"rl.steps": options.teacher_steps}))
    resolve(make_config(config, "start", 0, {}))


def run_seed(config: ConfigTree, folder: Path, seed: int) -> list[ablation.RunResult]:
    """The results of all models of one seed."""
    options, attempts = config.distillation, config.rl.prompts * config.rl.group_size
    samples, results = folder / "teacher.jsonl", []

    def train(name: str, stages: tuple[str, ...], **changes: Any) -> None:
        """Run these stages of a model in its folder."""
        model = make_config(config, name, seed, changes)
        with hold_workdir(folder / name, model):
            for stage in stages:
                STAGES[stage](model, folder / name)
        if name != "start":
            said = [
                f"{key}={value}" for key, value in changes.items() if not key.endswith((".start", ".file", ".teacher"))
            ]
            results.append(ablation.read_run_result(folder / name, stages[-1], name, seed, said))

    taught = {"rl.steps": options.teacher_steps}
    train("teacher", ("pretrain", "sft", "rl"), **taught)
    asked = dict(problems=options.problems, attempts=config.rl.group_size)
    collect.run(make_config(config, "teacher", seed, taught), folder / "teacher", to=str(samples), **asked)

    train("start", ("pretrain", "sft"))
    start = f"{folder / 'start'}:sft"
    train("RL", ("rl",), **{"rl.start": start})
    teacher = {"rl.algorithm": "on_policy_distillation", "rl.teacher": f"{folder / 'teacher'}:rl"}
    train("on-policy distillation", ("rl",), **{"rl.start": start} | teacher)
    for epochs in options.epochs:
        steps = max(1, epochs * len(journal.read_records(samples)) // attempts)
        imitated = {"sft.file": str(samples), "sft.batch": attempts, "sft.steps": steps, "sft.eval_every": steps}
        name = f"SFT on the teacher's attempts, {epochs} epoch{'s' * (epochs > 1)}"
        train(name, ("sft",), **{"sft.start": start} | imitated)
    return results


def make_config(config: ConfigTree, name: str, seed: int, changes: dict[str, Any]) -> ConfigTree:
    """The config of one model: its seed, its changed settings, and the small architecture of students."""
    model = copy.deepcopy(config)
    with model.unlocked():
        del model.distillation
    model.seed = seed
    if name != "teacher":
        overlay(model, "model", config.distillation.student, "distillation.student")
    for key, value in changes.items():
        section, setting = key.split(".")
        model[section][setting] = value
    return model


def format_table(results: list[ablation.RunResult]) -> str:
    """Markdown: before and after each way of learning, the mean over seeds and its 95 % interval."""
    seeds = len({result["seed"] for result in results})

    def cell(arm: str, measure: str, evaluation: int) -> str:
        found = confidence_interval(np.array([*ablation.values_by_seed(results, arm, measure, evaluation).values()]))
        digits = 1 if measure == "length" else 3
        interval = f" [{found.low:.{digits}f}, {found.high:.{digits}f}]" if seeds > 1 else ""
        return f"{found.mean:.{digits}f}{interval}"

    rows = [["student before", *(cell("RL", measure, 0) for measure in MEASURES), ""]]
    for arm in dict.fromkeys(result["arm"] for result in results):
        minutes = [result["minutes"] for result in results if result["arm"] == arm]
        spent = f"{sum(filter(None, minutes)) / len(minutes):.1f}"
        rows.append([arm, *(cell(arm, measure, -1) for measure in MEASURES), spent])
    return ablation.markdown_table(["model", *MEASURES, "minutes"], rows)


def main() -> None:
    command_line.main(run, seeds=Flag(1, "how many seeds, from 0 on", low=1, high=4096))


if __name__ == "__main__":
    main()
