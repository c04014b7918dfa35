"""The report of DeepSeek-R1's recipe in miniature: what each model can do, in one table, one figure and one sentence."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rljax import metrics, report
from rljax.ablation.ablation_report import markdown_table
from rljax.report import figures
from rljax.structs import ConfigTree
from rljax.training import journal
from rljax.verifiers import text_rewards

MODELS = {  # folder: its name in the table
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
TILES = (
    ("R1-Zero", "zero", "pass@1, RL on the base alone"),
    ("R1", "r1", "pass@1, at the end of the recipe"),
    ("small, distilled", "small_distilled", "pass@1, imitating R1"),
    ("small, RL", "small_rl", "pass@1, practising alone"),
)
Numbers = dict[str, Any]  # what one model did: metrics, language, rates [problems], samples


def summarize_model(
    measured: Mapping[str, float], said: Sequence[Mapping[str, Any]], target: str, keep: int = 4
) -> Numbers:
    """The numbers of one model from its evaluation: its attempts at the first ``keep`` problems stay."""
    languages = [text_rewards.language_consistency(a["response"].removesuffix("<eos>"), target=target) for a in said]
    rewards: dict[int, list[float]] = {}
    for a in said:
        rewards.setdefault(a["problem"], []).append(a["reward"])
    shown = ("problem", "prompt", "response", "reward", "strategy", "tokens")
    return {
        "metrics": dict(measured),
        "language": float(np.mean(languages)),
        "rates": [float(np.mean(rewards[q])) for q in sorted(rewards)],
        "samples": [{k: a[k] for k in shown} for a in said if a["problem"] < keep],
    }


def table_row(name: str, numbers: Numbers) -> dict[str, Any]:
    """A model's line of the table; ``±`` is half of the 95 % interval over questions."""
    m = numbers["metrics"]
    cons = metrics.vote_key(m)
    return {
        "model": MODELS[name],
        "pass@1": m["eval/pass@1"],
        "±": metrics.half_width(m["eval/pass@1/se"], len(numbers["rates"])),
        cons[5:]: m[cons],
        "length": m["eval/response_length/mean"],
        "language": numbers["language"],
        "truncated": m["eval/truncated"],
        "jumps": m["eval/strategy/jump"],
    }


def pass_1_difference(one: Numbers, other: Numbers) -> tuple[float, float]:
    """(mean difference of pass@1 on the same questions, half of its 95 % interval)."""
    apart = np.asarray(one["rates"]) - np.asarray(other["rates"])
    return float(apart.mean()), metrics.half_width(metrics.standard_error(apart), len(apart))


def recipe_verdict(found: Mapping[str, Numbers]) -> str:
    """One sentence: did distilling beat RL on the small model, and what did a consistent language cost?"""
    pass_1 = {name: n["metrics"]["eval/pass@1"] for name, n in found.items()}
    apart, half = pass_1_difference(found["small_distilled"], found["small_rl"])
    said = "did no better and no worse than" if abs(apart) <= half else "beat" if apart > 0 else "lost to"
    cost, width = pass_1_difference(found["dev2"], found["dev2_free"])
    what = "nothing that can be told" if abs(cost) <= width else f"{-cost:.3f} of pass@1" if cost < 0 else "nothing"
    spoken = {name: found[name]["language"] for name in ("dev2", "dev2_free")}
    return (
        f"On the small model distilling {said} RL ({pass_1['small_distilled']:.3f} against {pass_1['small_rl']:.3f}, a difference "
        f"of {apart:+.3f} ± {half:.3f}); rewarding the language moved its share from {spoken['dev2_free']:.3f} to "
        f"{spoken['dev2']:.3f} and cost {what} ({pass_1['dev2']:.3f} with it, {pass_1['dev2_free']:.3f} without, "
        f"{cost:+.3f} ± {width:.3f})."
    )


def write_recipe_report(config: ConfigTree, workdir: Path, found: Mapping[str, Numbers]) -> None:
    """The table, the figure, the report."""
    rows = [table_row(name, numbers) for name, numbers in found.items()]
    header, said, e = list(rows[0]), recipe_verdict(found), config.eval
    protocol = (
        f"{e.problems} {e.split} problems, {e.attempts} attempts each, temperature {e.temperature}, top-p {e.top_p}; "
        f"± is half of the 95 % interval over problems; language: share of words in {config.recipe.target!r}"
    )
    table = [list(r.values()) for r in rows]
    journal.replace_text(workdir / "table.md", f"{markdown_table(header, table)}\n\n{protocol}. {said}\n")
    journal.replace_text(workdir / "table.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    bars = [
        figures.Bar(r["model"].partition(":")[0], r["pass@1"], r["±"], r["language"], name == "small_base")
        for name, r in zip(found, rows, strict=True)
    ]
    picture = workdir / "figures" / "models.png"
    figures.draw_models(bars, picture, "DeepSeek-R1's recipe in miniature")
    said_by = lambda name, q: [a for a in found[name]["samples"] if a["problem"] == q]
    attempts = [(said_by("zero", q), said_by("r1", q)) for q in range(4)]
    tiles = [(label, found[name]["metrics"]["eval/pass@1"], note) for label, name, note in TILES]
    report.write_page(
        workdir / "report.html",
        "rljax: DeepSeek-R1's recipe in miniature",
        tiles,
        [(picture, said)],
        [pair for pair in attempts if all(pair)],
        [(protocol, header, table)],
        json.loads((workdir / "config.json").read_text()),
        column_titles=("of R1-Zero", "of R1"),
    )
    print(f"{markdown_table(header, table)}\n{said}")
