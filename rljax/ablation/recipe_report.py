"""The report of DeepSeek-R1's recipe in miniature: the results of each model as a table, a figure and one sentence."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from rljax import metrics, report
from rljax.ablation.ablation_report import markdown_table
from rljax.json_lines import format_json_lines
from rljax.report import figures
from rljax.structs import ConfigTree
from rljax.training import journal
from rljax.verifiers import text_rewards

MODELS = {  # {folder of the model: its name in the table}
    "base": "base",
    "zero": "R1-Zero: RL on the base",
    "dev1": "Dev1: cold start SFT",
    "dev2": "Dev2: RL 1, language rewarded",
    "dev2_free": "Dev2-free: RL 1, correctness alone",
    "dev3": "Dev3: SFT on rejection samples",
    "r1": "R1: RL 2",
    "small_base": "small base",
    "small_rl": "small, RL",
    "small_distilled": "small, distilled",
    "small_distilled_rl": "small, distilled, then RL",
}
TILES = (  # (label, model, note) of the headline numbers
    ("R1-Zero", "zero", "pass@1, RL on the base alone"),
    ("R1", "r1", "pass@1, at the end of the recipe"),
    ("small, distilled", "small_distilled", "pass@1, imitating R1"),
    ("small, RL", "small_rl", "pass@1, RL without a teacher"),
)


class ModelResult(TypedDict):
    """The result of one model on the held-out problems."""

    metrics: dict[str, float]
    language: float  # the share of words in the target language
    rates: list[float]  # the pass rate of each problem
    samples: list[dict[str, Any]]  # the attempts that the report shows


def summarize_model(
    measured: Mapping[str, float], samples: Sequence[Mapping[str, Any]], target: str, num_shown: int = 4
) -> ModelResult:
    """The result of one model. ``measured`` and ``samples`` are its evaluation, ``target`` is the target language.

    It keeps the attempts at the first ``num_shown`` problems.
    """
    languages = [text_rewards.language_consistency(a["response"].removesuffix("<eos>"), target=target) for a in samples]
    rewards: dict[int, list[float]] = {}
    for attempt in samples:
        rewards.setdefault(attempt["problem"], []).append(attempt["reward"])
    shown_keys = ("problem", "prompt", "response", "reward", "strategy", "tokens")
    return ModelResult(
        metrics=dict(measured),
        language=float(np.mean(languages)),
        rates=[float(metrics.mean_known(np.asarray(rewards[problem], float))) for problem in sorted(rewards)],
        samples=[{key: a[key] for key in shown_keys} for a in samples if a["problem"] < num_shown],
    )


def table_row(name: str, result: ModelResult) -> dict[str, Any]:
    """{column: value} of a model's row in the table. "±" is half of the 95 % interval over problems."""
    m = result["metrics"]
    cons = metrics.find_cons_key(m)
    return {
        "model": MODELS[name],
        "pass@1": m["eval/pass@1"],
        "±": metrics.half_width(m["eval/pass@1/se"], len(result["rates"])),
        cons[5:]: m[cons],
        "length": m["eval/response_length/mean"],
        "language": result["language"],
        "truncated": m["eval/truncated"],
        "jumps": m["eval/strategy/jump"],
    }


def pass_at_1_difference(left: ModelResult, right: ModelResult) -> tuple[float, float]:
    """(mean difference left - right of pass@1 on the same problems, half of its 95 % interval)."""
    difference = np.asarray(left["rates"]) - np.asarray(right["rates"])
    return float(difference.mean()), metrics.half_width(metrics.standard_error(difference), len(difference))


def recipe_verdict(results: Mapping[str, ModelResult]) -> str:
    """One sentence on two questions: is distillation better than RL on the small model, and what does the language reward cost?

    A difference counts only if its 95 % interval excludes zero.
    """
    pass_at_1 = {name: result["metrics"]["eval/pass@1"] for name, result in results.items()}
    gain, gain_width = pass_at_1_difference(results["small_distilled"], results["small_rl"])
    outcome = "did no better and no worse than" if abs(gain) <= gain_width else "beat" if gain > 0 else "lost to"
    change, width = pass_at_1_difference(results["dev2"], results["dev2_free"])
    if abs(change) <= width:
        cost = "nothing that can be told"
    else:
        cost = f"{-change:.3f} of pass@1" if change < 0 else "nothing"
    language = {name: results[name]["language"] for name in ("dev2", "dev2_free")}
    return (
        f"On the small model distilling {outcome} RL ({pass_at_1['small_distilled']:.3f} against "
        f"{pass_at_1['small_rl']:.3f}, a difference of {gain:+.3f} ± {gain_width:.3f}); rewarding the language moved its "
        f"share from {language['dev2_free']:.3f} to {language['dev2']:.3f} and cost {cost} ({pass_at_1['dev2']:.3f} with "
        f"it, {pass_at_1['dev2_free']:.3f} without, {change:+.3f} ± {width:.3f})."
    )


def write_recipe_report(config: ConfigTree, workdir: Path, results: Mapping[str, ModelResult]) -> None:
    """Write table.md, table.jsonl, the figure and report.html; print the table and the verdict."""
    rows = [table_row(name, result) for name, result in results.items()]
    header, verdict, e = list(rows[0]), recipe_verdict(results), config.eval
    protocol = (
        f"{e.problems} {e.split} problems, {e.attempts} attempts each, temperature {e.temperature}, top-p {e.top_p}; "
        f"± is half of the 95 % interval over problems; language: share of words in {config.recipe.target!r}"
    )
    cells = [list(row.values()) for row in rows]
    table = markdown_table(header, cells)
    journal.replace_text(workdir / "table.md", f"{table}\n\n{protocol}. {verdict}\n")
    journal.replace_text(workdir / "table.jsonl", format_json_lines(rows))
    bars = [
        figures.Bar(row["model"].partition(":")[0], row["pass@1"], row["±"], row["language"], name == "small_base")
        for name, row in zip(results, rows, strict=True)
    ]
    picture = workdir / "figures" / "models.png"
    figures.draw_models(bars, picture, "DeepSeek-R1's recipe in miniature")
    attempts_of = lambda name, problem: [a for a in results[name]["samples"] if a["problem"] == problem]
    attempts = [(attempts_of("zero", problem), attempts_of("r1", problem)) for problem in range(4)]
    tiles = [(label, results[name]["metrics"]["eval/pass@1"], note) for label, name, note in TILES]
    report.write_page(
        workdir / "report.html",
        "rljax: DeepSeek-R1's recipe in miniature",
        tiles,
        [(picture, verdict)],
        [pair for pair in attempts if all(pair)],
        [(protocol, header, cells)],
        json.loads((workdir / "config.json").read_text()),
        column_titles=("of R1-Zero", "of R1"),
    )
    print(f"{table}\n{verdict}")
