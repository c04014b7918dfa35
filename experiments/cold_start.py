"""A cold start from a model's own right attempts: collect them with worked examples in the prompt, imitate them without, then RL.

    rljax cold-start --config smollm2:cold --workdir runs/cold
    rljax cold-start --config gemma3_270m:cold,weights=FOLDER --workdir runs/cold --problems 1024 --per_problem 2

DeepSeek-R1 began with such data, where R1-Zero had none. The same by hand:

    rljax collect --config smollm2 --workdir runs/cold --stage weights --problems 512 --attempts 8 --prompts 0 --to cold.jsonl
    rljax reproduce --config smollm2:cold --workdir runs/cold --config.sft.file=cold.jsonl --config.sft.steps=100

The config puts problems without worked examples (``task.options.examples=0``), and its stages are SFT from the weights and RL.
This script puts ``--examples`` of them before the training problems that the pretrained model attempts. SFT imitates what was
right, ``--epochs`` times. Stopped anywhere, the same command continues.
"""

import math
from pathlib import Path

from rljax.errors import UserError
from rljax.structs import ConfigTree
from rljax.training import command_line, journal
from rljax.training.command_line import Flag
from rljax.training.run import resolve
from rljax.training.workdir import check_recorded_config, hold_workdir, lock_folder

from . import collect, reproduce


def run(
    config: ConfigTree,
    workdir: Path,
    examples: int,
    problems: int,
    attempts: int,
    per_problem: int,
    at_least: int,
    epochs: float,
) -> None:
    """Collect, fine-tune, reinforce, and write the report."""
    check_config(config, examples, epochs)
    path = workdir / "cold_start.jsonl"
    config = config.copy_and_resolve_references()
    config.sft.file = str(path)
    resolve(config)
    with lock_folder(workdir):  # sampling takes long: another run must not begin here meanwhile
        check_recorded_config(workdir, config, later=("sft.steps",))
        asking = config.copy_and_resolve_references()
        asking.stages, asking.sft.file, asking.task.options.examples = ("rl",), "", examples
        collect.run(
            asking,
            workdir,
            "weights",
            to=str(path),
            problems=problems,
            attempts=attempts,
            per_problem=per_problem,
            at_least=at_least,
            prompts=0,
        )
        config.sft.steps = math.ceil(epochs * len(journal.read_records(path)) / config.sft.batch)
        with hold_workdir(workdir, config, locked=True):
            reproduce.run(config, workdir)


def check_config(config: ConfigTree, examples: int, epochs: float) -> None:
    """Raise UserError where the config is none of a cold start."""
    if "examples" not in config.task.options:
        raise UserError(f"--config: problems of task {config.task.name} have no worked examples: use one of fruit_text")
    if "sft" not in config.stages or config.sft.start != "weights" or config.task.options.examples:
        raise UserError(
            f"--config: stages={config.stages}, sft.start={config.sft.start!r}, task.options.examples={config.task.options.examples}: "
            "a cold start has the stages sft and rl, sft.start=weights, and no examples; :cold sets them, as in smollm2:cold"
        )
    if examples < 1 or not 0 < epochs < 1000:
        raise UserError(f"--examples={examples} --epochs={epochs}: at least one example, and epochs above 0")


def main() -> None:
    command_line.main(
        run,
        use="other",
        examples=Flag(3, "worked examples before each problem that the pretrained model attempts", low=1, high=16),
        problems=Flag(512, "training problems to ask", low=1),
        attempts=Flag(8, "attempts at each", low=1),
        per_problem=Flag(4, "most attempts imitated at one problem; 0: all"),
        at_least=Flag(0, "fewest tokens of an attempt that is imitated"),
        epochs=Flag(2.0, "times that SFT sees each of them", high=1000.0),
    )


if __name__ == "__main__":
    main()
