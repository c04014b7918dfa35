"""What an evaluation of a run leaves: a table on the terminal, the numbers and attempts as JSON, a figure, and pass rates."""

import dataclasses
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from rljax.metrics import half_width
from rljax.report import figures
from rljax.structs import ConfigTree
from rljax.tasks import batches, datasets, prompting
from rljax.tasks.mixture import content_hash
from rljax.training import journal
from rljax.training.run import Run


def write_evaluation(
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
            print(f"  {name.removeprefix('eval/'):<34} {value:8.4f}{format_interval(metrics, name, e.problems)}")
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
    journal.replace_text(rates, "".join(json.dumps(row) + "\n" for row in rates_by_question(run, said)))
    print(f"written to {path}, {path.with_suffix('.png').name}, {rates.name}")


def format_interval(metrics: dict[str, float], name: str, problems: int) -> str:
    """ " ± " and the half-width of a measure's 95 % interval over the questions that it is of; "" where it has none."""
    questions = int(metrics.get(f"{name.removesuffix('/pass@1')}/questions", problems))
    width = half_width(metrics.get(f"{name}/se", float("nan")), questions)
    return f" ± {width:.4f}" if width == width else ""


def usual_attempts(config: ConfigTree) -> int:
    """Attempts a question in R1's protocol: the most that any of the data sets asked for gets."""
    o = config.task.options.to_dict()
    named = (o.get("test") or o.get("datasets", "")).replace("+", " ").split()
    return max([datasets.SOURCES[name].attempts for name in named if name in datasets.SOURCES], default=16)


def rates_by_question(run: Run, said: list[dict[str, Any]]) -> list[dict[str, Any]]:
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
