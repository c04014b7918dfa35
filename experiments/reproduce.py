"""The main job: pretraining, SFT, RL, the selection question, and the report on one page.

    rljax reproduce --config shop --workdir runs/shop

Stopped anywhere, the same command continues; a finished part is not done again.
"""

import copy
import time
from pathlib import Path

from rljax import metrics
from rljax.distributed import processes
from rljax.json_lines import format_json_lines
from rljax.structs import ConfigTree
from rljax.training import command_line, initial_state, journal, shown_question
from rljax.training.run import resolve
from rljax.training.workdir import hold_workdir

from . import plot, pretrain, rl, sft

STAGES = {"pretrain": pretrain.run, "sft": sft.run, "rl": rl.run}


def run(config: ConfigTree, workdir: Path) -> None:
    start = time.perf_counter()
    for stage in config.stages:
        STAGES[stage](config, workdir)
    if "rl" not in config.stages:
        return
    for rule in config.selection.rules:
        arm, folder = selection_arm(config, workdir, rule), workdir / "selection" / rule
        if processes.is_primary():
            print(f"the same start, learning by {rule}:", flush=True)
        with hold_workdir(folder, arm):
            rl.run(arm, folder, stop=config.selection.steps)
    if config.report.question:
        ask_before_and_after(config, workdir)
    if processes.is_primary():
        plot.run(config, workdir)
        headline(workdir, time.perf_counter() - start)


def ask_before_and_after(config: ConfigTree, workdir: Path) -> None:
    """Put the question of the report to the model that RL began with, and to the last one. Attempts that are there stay."""
    run = resolve(config, "rl")
    for start, step in ((run.rl.start, 0), ("rl", config.rl.steps)):
        if journal.samples_path(workdir, shown_question.NAME, step).exists() or not start:
            continue
        samples = shown_question.ask_question(run, initial_state.start_params(run, start, workdir))
        if processes.is_primary():
            journal.replace_text(journal.samples_path(workdir, shown_question.NAME, step), format_json_lines(samples))


def selection_arm(config: ConfigTree, workdir: Path, rule: str) -> ConfigTree:
    """The same RL run, from the same start, that learns from other attempts."""
    arm, start = copy.deepcopy(config), config.rl.start
    arm.rl.algorithm = rule
    arm.rl.start = f"{workdir}:{start}" if start in STAGES else start
    return arm


def headline(workdir: Path, seconds: float) -> None:
    """The few numbers a person waits for, and where the page is."""
    rows = [r for r in journal.read_records(workdir / "metrics.jsonl") if r["stage"] == "rl" and "eval/pass@1" in r]
    first, last = rows[0], rows[-1]
    cons = metrics.find_cons_key(last)
    for name, key in (("pass@1", "eval/pass@1"), (cons[5:], cons), ("response length", "eval/response_length/mean")):
        digits = 1 if "length" in key else 3
        print(f"{name:>16}  {first[key]:.{digits}f} -> {last[key]:.{digits}f}")
    print(f"{'time':>16}  {seconds / 60:.1f} min in this session")
    print(f"{'report':>16}  {(workdir / 'report.html').absolute()}")


def main() -> None:
    command_line.main(run)


if __name__ == "__main__":
    main()
