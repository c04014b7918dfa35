"""The results of an evaluation: a table on the terminal, a JSON file with metrics and attempts, a figure, and pass rates."""

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from rljax.json_lines import format_json, format_json_lines
from rljax.metrics import half_width, mean_known
from rljax.report import figures
from rljax.tasks import batches, datasets, prompting
from rljax.tasks.mixture import content_hash
from rljax.training import journal
from rljax.training.run import Run


def write_evaluation(
    run: Run, workdir: Path, stage: str, metrics: dict[str, float], samples: list[dict[str, Any]]
) -> None:
    """Print the metrics of one stage's policy, and write the three files evaluation_STAGE_SPLIT* into ``workdir``.

    ``samples`` are all attempts at all problems, in order. Those that have a "response" go into the JSON file.
    """
    options, tokens = run.evaluation, run.rl.sampling.max_new_tokens
    print(
        f"{stage} on {options.problems} {options.split} problems: {options.attempts} attempts each, temperature {options.temperature}, "
        f"top-p {options.top_p}, at most {tokens} tokens"
    )
    for name, value in metrics.items():
        if not name.endswith(("/se", "/questions")):
            print(f"  {name.removeprefix('eval/'):<34} {value:8.4f}{format_interval(metrics, name, options.problems)}")
    path = workdir / f"evaluation_{file_name(stage)}_{options.split}.json"
    result = {"stage": stage, "eval": dataclasses.asdict(options), "max_new_tokens": tokens, "metrics": metrics}
    result |= {
        "stop_strings": run.task.stop_strings,
        "template": prompting.template_strings(run.record["task"]["options"], run.weights),
        "verifier": f"math-verify {importlib.metadata.version('math-verify')}",
    }
    result["samples"] = [sample for sample in samples if "response" in sample]
    journal.replace_text(path, format_json(result, ensure_ascii=True, indent=1) + "\n")
    title = f"{run.task.name}, {options.split} problems, after {stage}"
    figures.draw_evaluation(metrics, path.with_suffix(".png"), title, options.problems)
    rates = path.with_name(f"{path.stem}_questions.jsonl")
    journal.replace_text(rates, format_json_lines(question_statistics(run, samples)))
    print(f"written to {path}, {path.with_suffix('.png').name}, {rates.name}")


def write_budgets(
    run: Run, workdir: Path, stage: str, as_it_likes: Mapping[str, float], measured: Mapping[int, Mapping[str, float]]
) -> None:
    """Print pass@1 for each number of thinking tokens in ``measured``, and write budget_STAGE_SPLIT.json and .png.

    ``as_it_likes`` are the metrics without budget forcing.
    """
    options = run.evaluation
    path = workdir / f"budget_{file_name(stage)}_{options.split}.json"
    print(
        f"{stage} with budgets of thinking tokens, on the same problems; as it likes {as_it_likes['eval/pass@1']:.4f}"
    )
    for budget, metrics in measured.items():
        interval = format_interval(metrics, "eval/pass@1", options.problems)
        said = ", ".join(
            f"{name} {metrics[f'eval/budget/{name}']:.2f}" for name in ("thinking_tokens", "waits", "forced")
        )
        print(f"  {budget:>6}  pass@1 {metrics['eval/pass@1']:.4f}{interval}  {said}")
    result = {"stage": stage, "eval": dataclasses.asdict(options), "max_new_tokens": run.rl.sampling.max_new_tokens}
    result |= {"as it likes": as_it_likes, "budgets": [{"budget": n, "metrics": m} for n, m in measured.items()]}
    journal.replace_text(path, format_json(result, ensure_ascii=True, indent=1) + "\n")
    title = f"{run.task.name}, {options.split} problems, after {stage}"
    figures.draw_budgets(as_it_likes, measured, path.with_suffix(".png"), title, options.problems)
    print(f"written to {path}, {path.with_suffix('.png').name}")


def file_name(stage: str) -> str:
    """A stage, which may be one of another run, as a part of a file's name."""
    return stage.replace("/", "_").replace(":", "_")


def format_interval(metrics: Mapping[str, float], name: str, problems: int) -> str:
    """ " ± " and the half-width of a metric's 95 % interval over its questions; "" where it has no standard error."""
    questions = int(metrics.get(f"{name.removesuffix('/pass@1')}/questions", problems))
    width = half_width(metrics.get(f"{name}/se", float("nan")), questions)
    return f" ± {width:.4f}" if width == width else ""


def protocol_attempts(task_options: Mapping[str, Any]) -> int:
    """Attempts at each question in DeepSeek-R1's protocol: the largest number among the data sets of the test split.

    ``task_options`` is the config's task.options. 16 where no data set is known.
    """
    named = (task_options.get("test") or task_options.get("datasets", "")).replace("+", " ").split()
    return max([datasets.SOURCES[name].attempts for name in named if name in datasets.SOURCES], default=16)


def question_statistics(run: Run, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One record for each question: its hash, its pass rate, the mean length of its attempts, and their number."""
    options = run.evaluation
    problems = batches.problem_fn(run.task)(run.seed, jnp.arange(options.problems), options.split)
    prompts = [
        run.task.tokenizer.decode(np.asarray(p)[np.asarray(m)])
        for p, m in zip(problems.prompt, problems.prompt_mask, strict=True)
    ]
    out = []
    for q, (record, prompt) in enumerate(zip(run.task.records(problems.facts), prompts, strict=True)):
        attempts = samples[q * options.attempts : (q + 1) * options.attempts]
        row: dict[str, Any] = {"question": content_hash({"question": record.get("question", prompt)})}
        row |= {k: record[k] for k in ("dataset", "id", "level") if record.get(k)}
        row |= {
            name: float(mean_known(np.asarray([attempt[key] for attempt in attempts], float)))
            for name, key in (("pass_rate", "reward"), ("length", "length"))
        }
        out.append(row | {"attempts": len(attempts)})
    return out
