"""Look at a stage's policy on held-out problems: a table, a figure, and what every attempt said.

    python -m experiments.evaluate --config configs/shop.py --workdir runs/shop --stage rl --attempts 64
    python -m experiments.evaluate ... --config.task.options.test="math500 + aime24"      # other questions, at the end
    python -m experiments.evaluate ... --split train --attempts 8                         # pass rates, to filter by

``--protocol r1`` (the default) is DeepSeek-R1's: temperature 0.6, top-p 0.95, k samples a question (64 of AIME, 16 else),
pass@1 their mean, cons@k their majority, errors over questions. ``--protocol config`` is what config.eval says. What is
said explicitly (--attempts, --temperature, --top_p, --config.eval.KEY) wins over the protocol.
``--problems 0`` asks every question there is. Leaves evaluation_STAGE_SPLIT.json with the attempts at the first 64
questions, .png, and _questions.jsonl with a line for every question.
"""

import dataclasses
import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from rljax.distributed import processes
from rljax.errors import UserError
from rljax.metrics import half_width
from rljax.report import figures
from rljax.structs import ConfigTree
from rljax.tasks import batches, datasets, prompting
from rljax.tasks.mixture import content_hash
from rljax.training import command_line, initial_state, journal
from rljax.training.command_line import Flag
from rljax.training.run import Run, resolve

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
        usual = R1 | {"attempts": samples(config)}
        e.update({name: value for name, value in usual.items() if name not in explicit})
    e.update({name: value for name, value in said.items() if value is not None})
    config.rl.max_new_tokens = tokens or config.rl.max_new_tokens
    everything = resolve(config).task.num_questions(e.split) or e.problems
    e.problems = min(everything, {-1: e.problems, 0: everything}.get(problems, problems))
    run = resolve(config)
    params = initial_state.start_params(run, initial_state.at_step(stage, step), workdir)
    metrics, attempted = run.evaluator(KEEP, brief=True)(params)
    if processes.is_primary():
        tell(run, config, workdir, stage, metrics, attempted)


def tell(
    run: Run, config: ConfigTree, workdir: Path, stage: str, metrics: dict[str, float], said: list[dict[str, Any]]
) -> None:
    """Print the numbers, and leave the files."""
    e, tokens = run.evaluation, run.rl.sampling.max_new_tokens
    print(
        f"{stage} on {e.problems} {e.split} problems: {e.attempts} attempts each, temperature {e.temperature}, "
        f"top-p {e.top_p}, at most {tokens} tokens"
    )
    for name, value in metrics.items():
        if not name.endswith(("/se", "/questions")):
            print(f"  {name.removeprefix('eval/'):<34} {value:8.4f}{interval(metrics, name, e.problems)}")
    path = workdir / f"evaluation_{stage.replace('/', '_').replace(':', '_')}_{e.split}.json"
    result = {"stage": stage, "eval": dataclasses.asdict(e), "max_new_tokens": tokens, "metrics": metrics}
    result |= {
        "template": prompting.template_strings(config.task.options.to_dict(), config.weights),
        "verifier": f"math-verify {importlib.metadata.version('math-verify')}",
    }
    journal.replace_text(path, json.dumps(result | {"samples": [x for x in said if "response" in x]}, indent=1) + "\n")
    title = f"{run.task.name}, {e.split} problems, after {stage}"
    figures.draw_evaluation(metrics, path.with_suffix(".png"), title, e.problems)
    rates = path.with_name(f"{path.stem}_questions.jsonl")
    journal.replace_text(rates, "".join(json.dumps(row) + "\n" for row in by_question(run, said)))
    print(f"written to {path}, {path.with_suffix('.png').name}, {rates.name}")


def interval(metrics: dict[str, float], name: str, problems: int) -> str:
    """ " ± " and the half-width of a measure's 95 % interval over the questions that it is of; "" where it has none."""
    questions = int(metrics.get(f"{name.removesuffix('/pass@1')}/questions", problems))
    width = half_width(metrics.get(f"{name}/se", float("nan")), questions)
    return f" ± {width:.4f}" if width == width else ""


def samples(config: ConfigTree) -> int:
    """Attempts a question in R1's protocol: the most that any of the data sets asked for gets."""
    o = config.task.options.to_dict()
    named = (o.get("test") or o.get("datasets", "")).replace("+", " ").split()
    return max([datasets.SOURCES[name].attempts for name in named if name in datasets.SOURCES], default=16)


def by_question(run: Run, said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line a question: its hash, its pass rate, how long its attempts were."""
    e = run.evaluation
    asked = batches.problem_fn(run.task)(run.seed, jnp.arange(e.problems), e.split)
    prompts = [
        run.task.tokenizer.decode(np.asarray(p)[np.asarray(m)])
        for p, m in zip(asked.prompt, asked.prompt_mask, strict=True)
    ]
    out = []
    for q, (record, prompt) in enumerate(zip(run.task.records(asked.facts), prompts, strict=True)):
        mine = said[q * e.attempts : (q + 1) * e.attempts]
        about = {"question": content_hash({"question": record.get("question", prompt)})}
        about |= {k: record[k] for k in ("dataset", "id", "level") if record.get(k)}
        means = {
            name: float(np.mean([x[key] for x in mine]))
            for name, key in (("pass_rate", "reward"), ("length", "length"))
        }
        out.append(about | means | {"attempts": len(mine)})
    return out


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
        temperature=Flag(UNSET, "of sampling; without it what the protocol says"),
        top_p=Flag(UNSET, "of sampling; without it what the protocol says"),
        step=Flag("", "the checkpoint: a step, best or last; without it the last, of a finished stage"),
    )


if __name__ == "__main__":
    main()
