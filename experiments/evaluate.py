"""Look at a stage's policy on held-out problems: a table, a figure, and what every attempt said.

    rljax evaluate --workdir runs/shop --stage rl --attempts 64
    rljax evaluate ... --config.task.options.test="math500 + aime24"      # other questions, at the end
    rljax evaluate ... --split train --attempts 8                         # pass rates, to filter by
    rljax evaluate ... --budget 16,32,64                                  # accuracy against thinking tokens

``--protocol r1`` (the default) is DeepSeek-R1's: temperature 0.6, top-p 0.95, k samples a question (64 of AIME, 16 else),
pass@1 their mean, cons@k their majority, errors over questions. ``--protocol config`` is what config.eval says. What is
said explicitly (--attempts, --temperature, --top_p, --config.eval.KEY) wins over the protocol.
``--budget 16,32,64`` also measures the policy with budget forcing (s1, Muennighoff et al.): with each of these numbers of
thinking tokens. An attempt that ends earlier goes on behind a text (eval.budget.wait), at most eval.budget.waits times; one
that has thought for so long is made to answer (eval.budget.answer). ``--config.eval.budget.waits=0`` only limits. It leaves
budget_STAGE_SPLIT.json and .png: accuracy against thinking tokens.

``--problems 0`` asks every question there is. Leaves evaluation_STAGE_SPLIT.json with the attempts at the first 64
questions, .png, and _questions.jsonl with a line for every question.
"""

import dataclasses
import math
import sys
from pathlib import Path

from rljax.distributed import processes
from rljax.errors import UserError
from rljax.evaluation import make_budget
from rljax.structs import ConfigTree
from rljax.training import command_line, initial_state
from rljax.training.command_line import Flag
from rljax.training.evaluation_report import protocol_attempts, write_budgets, write_evaluation
from rljax.training.run import Run, resolve

KEEP = 64  # problems whose attempts are written down whole
R1 = dict(temperature=0.6, top_p=0.95, top_k=0, greedy=False)  # DeepSeek-R1, section 3
UNSET = math.nan  # a number that was not given


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
    budget: str = "",
) -> None:
    if protocol not in ("r1", "config"):
        raise UserError(f"--protocol {protocol}: choose from r1 and config")
    config = config.copy_and_resolve_references()
    e, said = config.eval, {"split": split or None, "attempts": attempts or None}
    said |= {name: None if math.isnan(x) else x for name, x in (("temperature", temperature), ("top_p", top_p))}
    explicit = {name for name in e if command_line.find_flag(sys.argv, f"config.eval.{name}") is not None}
    if protocol == "r1":
        usual = R1 | {"attempts": protocol_attempts(config.task.options.to_dict())}
        e.update({name: value for name, value in usual.items() if name not in explicit})
    e.update({name: value for name, value in said.items() if value is not None})
    config.rl.max_new_tokens = tokens or config.rl.max_new_tokens
    flags = {f"eval.{name}": name for name, value in said.items() if value is not None}
    flags |= {"rl.max_new_tokens": "tokens"} if tokens else {}
    flags |= {"eval.problems": "problems"} if problems > 0 else {}
    with command_line.name_flags(flags):
        everything = resolve(config).task.num_questions(e.split) or e.problems
        e.problems = min(everything, {-1: e.problems, 0: everything}.get(problems, problems))
        if budget:  # beside them, what the policy does as it likes
            e.budget.update(dict(limit=0, minimum=0))
        run = resolve(config)
        forced = {tokens: with_budget(run, tokens) for tokens in parse_budgets(budget)}
    params = initial_state.start_params(run, initial_state.at_step(stage, step), workdir)
    metrics, attempted = run.evaluator(KEEP, short_samples=True)(params)
    if processes.is_primary():
        write_evaluation(run, workdir, stage, metrics, attempted)
    measured = {tokens: other.evaluator(0)(params)[0] for tokens, other in forced.items()}
    if measured and processes.is_primary():
        write_budgets(run, workdir, stage, metrics, measured)


def parse_budgets(text: str) -> list[int]:
    """``"16,32,64"`` -> [16, 32, 64]. Raises UserError for what is no list of whole numbers above 0."""
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(part.isdecimal() and int(part) for part in parts):
        raise UserError(f"--budget {text}: write numbers of thinking tokens, such as --budget 16,32,64")
    return sorted(set(map(int, parts)))


def with_budget(run: Run, tokens: int) -> Run:
    """The run, evaluated with so many thinking tokens. Raises UserError where that does not fit."""
    budget = dataclasses.replace(run.evaluation.budget, limit=tokens, minimum=tokens)
    with command_line.name_flags({"eval.budget.limit": "budget"}):
        make_budget(budget, run.task, run.model, run.rl.sampling.max_new_tokens)
    return dataclasses.replace(run, evaluation=dataclasses.replace(run.evaluation, budget=budget, greedy=False))


def main() -> None:
    command_line.main(
        run,
        use="read",
        stage=Flag("rl", "the stage whose policy is evaluated"),
        split=Flag("", "test, validation or train; without it, what config.eval says"),
        problems=Flag(-1, "problems to ask; 0: all there are; -1: what config.eval says", low=-1),
        attempts=Flag(0, "attempts at each; 0: what the protocol says"),
        tokens=Flag(0, "most tokens of an attempt; 0: what the config says"),
        protocol=Flag("r1", "r1: temperature 0.6 and top-p 0.95 as DeepSeek-R1; config: what config.eval says"),
        temperature=Flag(UNSET, "of sampling, 0: the likeliest token; without it what the protocol says"),
        top_p=Flag(UNSET, "of sampling; without it what the protocol says", high=1.0),
        step=Flag("", "the checkpoint: a step, best or last; without it the last, of a finished stage"),
        budget=Flag("", "numbers of thinking tokens to force, such as 16,32,64: eval.budget says how"),
    )


if __name__ == "__main__":
    main()
