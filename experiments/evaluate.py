"""Look at a stage's policy on held-out problems: a table, a figure, and what every attempt said.

    rljax evaluate --workdir runs/shop --stage rl --attempts 64
    rljax evaluate ... --config.task.options.test="math500 + aime24"      # other questions, at the end
    rljax evaluate ... --split train --attempts 8                         # pass rates, to filter by

``--protocol r1`` (the default) is DeepSeek-R1's: temperature 0.6, top-p 0.95, k samples a question (64 of AIME, 16 else),
pass@1 their mean, cons@k their majority, errors over questions. ``--protocol config`` is what config.eval says. What is
said explicitly (--attempts, --temperature, --top_p, --config.eval.KEY) wins over the protocol.
``--problems 0`` asks every question there is. Leaves evaluation_STAGE_SPLIT.json with the attempts at the first 64
questions, .png, and _questions.jsonl with a line for every question.
"""

import sys
from pathlib import Path

from rljax.distributed import processes
from rljax.errors import UserError
from rljax.structs import ConfigTree
from rljax.training import command_line, initial_state
from rljax.training.command_line import Flag
from rljax.training.evaluation_report import protocol_attempts, write_evaluation
from rljax.training.run import resolve

KEEP = 64  # problems whose attempts are written down whole
R1 = dict(temperature=0.6, top_p=0.95, top_k=0, greedy=False)  # DeepSeek-R1, section 3
UNSET = -1.0  # a number that was not given


def run(
    config: ConfigTree,
    workdir: Path,
    stage: str,
    split: str,
    problems: int,
    attempts: int,
    tokens: int,
    protocol: str,
    temperature: float = UNSET,
    top_p: float = UNSET,
    step: str = "",
) -> None:
    if protocol not in ("r1", "config"):
        raise UserError(f"--protocol {protocol}: choose from r1 and config")
    config = config.copy_and_resolve_references()
    e, said = config.eval, {"split": split or None, "attempts": attempts or None}
    said |= {name: None if x == UNSET else x for name, x in (("temperature", temperature), ("top_p", top_p))}
    explicit = {name for name in e if command_line.find_flag(sys.argv, f"config.eval.{name}") is not None}
    if protocol == "r1":
        usual = R1 | {"attempts": protocol_attempts(config.task.options.to_dict())}
        e.update({name: value for name, value in usual.items() if name not in explicit})
    e.update({name: value for name, value in said.items() if value is not None})
    config.rl.max_new_tokens = tokens or config.rl.max_new_tokens
    everything = resolve(config).task.num_questions(e.split) or e.problems
    e.problems = min(everything, {-1: e.problems, 0: everything}.get(problems, problems))
    run = resolve(config)
    params = initial_state.start_params(run, initial_state.at_step(stage, step), workdir)
    metrics, attempted = run.evaluator(KEEP, short_samples=True)(params)
    if processes.is_primary():
        write_evaluation(run, workdir, stage, metrics, attempted)


def main() -> None:
    command_line.main(
        run,
        use="read",
        stage=Flag("rl", "the stage whose policy is evaluated"),
        split=Flag("", "test, validation or train; without it, what config.eval says"),
        problems=Flag(-1, "problems to ask; 0: all there are; -1: what config.eval says"),
        attempts=Flag(0, "attempts at each; 0: what the protocol says"),
        tokens=Flag(0, "most tokens of an attempt; 0: what the config says"),
        protocol=Flag("r1", "r1: temperature 0.6 and top-p 0.95 as DeepSeek-R1; config: what config.eval says"),
        temperature=Flag(UNSET, "of sampling, 0: the likeliest token; without it what the protocol says"),
        top_p=Flag(UNSET, "of sampling; without it what the protocol says"),
        step=Flag("", "the checkpoint: a step, best or last; without it the last, of a finished stage"),
    )


if __name__ == "__main__":
    main()
