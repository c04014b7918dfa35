"""Can RL work as set? Diagnosis before it trains: pass rates, cut-off attempts, groups that teach, the cost of a step.

    rljax check --config shop --workdir runs/shop                from the stage of that run that RL starts from
    rljax check --config qwen25:weights=FOLDER                   from the weights of a folder
    rljax check --config shop --workdir runs/shop --config.rl.max_new_tokens=24

It samples whole rollouts at problems of ``--split`` as the first step of RL would: its prompts, group size, temperature, stop tokens
and reward. Then it makes ``--steps`` train steps in memory and one before them with compilation, and throws them away. Nothing is
written but the file ``--json``. A sentence says what keeps RL from working, and which settings mend it; the same sentences are
alarms of the first evaluation of a run. The exit status is 0 also where there are such sentences.

A world is checked without a model by `rljax check-task`, memory and time on other devices are told by `rljax plan`.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from rljax.distributed import processes
from rljax.errors import UserError
from rljax.json_lines import format_json
from rljax.structs import ConfigTree
from rljax.tasks import SPLITS
from rljax.training import command_line, diagnosis, initial_state, journal
from rljax.training.command_line import Flag
from rljax.training.diagnosis_report import diagnosis_to_dict, format_cost, format_findings, format_measures
from rljax.training.quiet import quiet_third_parties
from rljax.training.rl_steps import compile_train_step, empty_rollout
from rljax.training.run import resolve
from rljax.training.workdir import keep_data_in

from .rl import make_train_step


def run(
    config: ConfigTree, workdir: Path, problems: int = 64, steps: int = 1, split: str = "validation", json: str = ""
) -> None:
    check_flags(problems, steps, split, json)
    run = resolve(config, "rl")
    params = initial_state.start_params(run, run.rl.start, workdir)
    state = initial_state.new_state(run, run.rl, params, initial_state.teacher_params(run))
    attempts = diagnosis.sample_attempts(run, state, problems, split)
    measured = diagnosis.measures(run, attempts)
    say(format_measures(run, split, attempts, measured))
    cost = None
    if steps:
        state = state.replace(ahead=empty_rollout(run)) if run.mesh.actors else state
        cost = diagnosis.time_train_step(compile_train_step(make_train_step, run), state, steps)
        say(format_cost(run, cost))
    found = diagnosis.find_obstacles(run, measured)
    say(format_findings(found))
    if json and processes.is_primary():
        said = diagnosis_to_dict(run, split, attempts, measured, cost, found)
        journal.replace_text(Path(json), format_json(said, indent=1) + "\n")


def say(text: str) -> None:
    """Print a part as soon as it is known, in the first process alone."""
    if processes.is_primary():
        print(text, flush=True)


def check_flags(problems: int, steps: int, split: str, json: str) -> None:
    """Raise UserError for a flag that cannot be."""
    if problems < 1:
        raise UserError(f"--problems={problems}: must be at least 1")
    if steps < 0:
        raise UserError(f"--steps={steps}: must be at least 1, or 0 to leave the train step out")
    if split not in SPLITS:
        raise UserError(f"--split={split}: choose from {', '.join(SPLITS)}")
    if json and Path(json).is_dir():
        raise UserError(f"--json={json} is a folder: name a file in it")


def run_without_workdir(config: ConfigTree, **flags: Any) -> None:
    """The same where no run is named. Raises UserError where RL starts from a stage of one."""
    quiet_third_parties()
    command_line.use_compilation_cache()
    folder, stage, _ = initial_state.parse_start(config.rl.start) if config.rl.start else ("", "weights", "")
    if not folder and stage != "weights":
        raise UserError(
            f"rl.start={config.rl.start} is a stage of a run: name its --workdir=DIR, or say "
            f"--config.rl.start=DIR:{stage}, or --config.rl.start=weights"
        )
    with tempfile.TemporaryDirectory() as folder:  # for what is prepared from question files of the user's own
        run(keep_data_in(Path(folder), config), Path(folder), **flags)


def main() -> None:
    flags: dict[str, Any] = dict(
        problems=Flag(64, "problems to ask, at least: whole rollouts are sampled", low=1, high=1 << 20),
        steps=Flag(1, "warm train steps to time; 0: none, and none is compiled", high=1 << 20),
        split=Flag("validation", "validation, test or train"),
        json=Flag("", "a file to write the numbers to"),
    )
    if command_line.find_flag(sys.argv, "workdir") or command_line.help_asked(sys.argv):
        command_line.main(run, use="read", **flags)
    else:
        command_line.main(run_without_workdir, use="none", **flags)


if __name__ == "__main__":
    main()
