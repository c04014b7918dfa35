"""DeepSeek-R1's whole recipe in miniature (arXiv 2501.12948, Figure 2 and Tables 3 and 6): one script, one table.

    python -m experiments.recipe --config configs/recipe.py --workdir runs/recipe

    base ── RL ──> R1-Zero                                             no SFT before it, correctness alone
    R1-Zero's long, correct, readable attempts ── SFT of the base ──> Dev1       the cold start
    Dev1 ── RL, correctness + language consistency ──> Dev2
    Dev2's good attempts and general text ── SFT of the base, 2 epochs ──> Dev3  rejection sampling
    Dev3 ── RL, the same at temperature 0.7 ──> R1
    R1's good attempts ── SFT of a small base ──> distilled            against RL on the small base itself

The base reads a textbook, some worked problems, and both in two languages mixed: so R1-Zero mixes them too. General text is
textbook pages. There is no counterpart to R1's questions beyond reasoning (writing, translation), to its rewards for being
helpful and harmless, and to the people who rewrote its cold start: what is mixed is left out here.

Each stage is a run in a folder of its own. Stopped anywhere, the same command continues. It leaves table.md, table.jsonl, a
figure and report.html; every model answers the same held-out problems.
"""

import copy
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rljax import metrics, report
from rljax.distributed import processes
from rljax.report import figures
from rljax.structs import ConfigTree
from rljax.training import command_line, initial_state, journal
from rljax.training.run import resolve
from rljax.training.workdir import hold_workdir
from rljax.verifiers import text_rewards

from . import collect, pretrain, rl, sft
from .ablate import markdown

STAGES = {"pretrain": pretrain.run, "sft": sft.run, "rl": rl.run}
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
Numbers = dict[str, Any]  # what one model did: metrics, language, rates [problems], samples


def run(config: ConfigTree, workdir: Path) -> None:
    start, r = time.perf_counter(), config.recipe
    made: dict[str, ConfigTree] = {}
    found: dict[str, Numbers] = {}

    def train(name: str, stage: str, begin: str = "", **changes: Any) -> str:
        """Run one stage in its folder and look at what it can do; returns what the next may start from."""
        made[name] = arm = arm_of(config, name, stage, begin, changes)
        with hold_workdir(workdir / name, arm):
            if not looked_at(workdir, name).exists():  # else it was finished before
                if processes.is_primary():
                    print(f"{MODELS[name]}:", flush=True)
                STAGES[stage](arm, workdir / name)
            found[name] = look(config, arm, workdir, name)
        return f"{workdir / name}:{stage}"

    def sample(of: str, file: str, how: ConfigTree) -> dict[str, Any]:
        """Keep the good attempts of a model at training problems; returns the settings of SFT on them."""
        path = workdir / file
        collect.run(made[of], workdir / of, "rl", to=str(path), target=r.target, **how.filter)
        steps = how.epochs * len(journal.read_records(path)) / (config.sft.batch * (1 - how.general))
        return {"sft.file": str(path), "sft.general": how.general, "sft.steps": math.ceil(steps)}

    language = {"rl.reward": r.reward}

    base = train("base", "pretrain")
    train("zero", "rl", base)

    dev1 = train("dev1", "sft", base, **sample("zero", "cold_start.jsonl", r.cold))
    train("dev2", "rl", dev1, **language)
    train("dev2_free", "rl", dev1)

    dev3 = train("dev3", "sft", base, **sample("dev2", "rejection.jsonl", r.reject))
    train("r1", "rl", dev3, **language, **{"rl.temperature": r.cooler})

    small = train("small_base", "pretrain")
    train("small_rl", "rl", small)
    distilled = train("small_distilled", "sft", small, **sample("r1", "distillation.jsonl", r.distil))
    train("small_distilled_rl", "rl", distilled, **language)

    if processes.is_primary():
        tell(config, workdir, found)
        print(f"{(time.perf_counter() - start) / 60:.1f} min in this session; {(workdir / 'report.html').absolute()}")


def arm_of(config: ConfigTree, name: str, stage: str, begin: str, changes: Mapping[str, Any]) -> ConfigTree:
    """The config of one model's stage: what it starts from, its own changes, and the small architecture where it is small."""
    arm, r = copy.deepcopy(config), config.recipe
    with arm.unlocked():
        del arm.recipe  # the rest of the recipe is not this run's
    arm.stages, arm[stage].start = (stage,), begin
    arm.eval.update(r.watch)
    arm.rl.steps = r.steps.get(name, arm.rl.steps)
    if name.startswith("small"):
        arm.model.update(r.small)
    for key, value in changes.items():
        section, setting = key.split(".")
        arm[section][setting] = value
    return arm


def looked_at(workdir: Path, name: str) -> Path:
    return workdir / "evaluations" / f"{name}.json"


def look(config: ConfigTree, arm: ConfigTree, workdir: Path, name: str) -> Numbers:
    """What a model does on the held-out problems of ``config.eval``; asked once, then read again."""
    path, asked = looked_at(workdir, name), journal.to_plain(config.eval.to_dict())
    if not path.exists() or json.loads(path.read_text(encoding="utf-8"))["asked"] != asked:
        arm = copy.deepcopy(arm)
        arm.eval.update(config.eval.to_dict())
        run = resolve(arm)
        (stage,) = arm.stages
        measured, said = run.evaluator(keep=config.eval.problems)(
            initial_state.start_params(run, stage, workdir / name)
        )
        if processes.is_primary():
            numbers = {"asked": asked} | summed_up(measured, said, config.recipe.target)
            journal.replace_text(path, json.dumps(numbers, ensure_ascii=False) + "\n")
        processes.barrier("recipe evaluation")
    return json.loads(path.read_text(encoding="utf-8"))


def summed_up(measured: Mapping[str, float], said: Sequence[Mapping[str, Any]], target: str, keep: int = 4) -> Numbers:
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


# The table, and what it says


def row(name: str, numbers: Numbers) -> dict[str, Any]:
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


def difference(one: Numbers, other: Numbers) -> tuple[float, float]:
    """(mean difference of pass@1 on the same questions, half of its 95 % interval)."""
    apart = np.asarray(one["rates"]) - np.asarray(other["rates"])
    return float(apart.mean()), metrics.half_width(metrics.standard_error(apart), len(apart))


def verdict(found: Mapping[str, Numbers]) -> str:
    """One sentence: did distilling beat RL on the small model, and what did a consistent language cost?"""
    pass_1 = {name: n["metrics"]["eval/pass@1"] for name, n in found.items()}
    apart, half = difference(found["small_distilled"], found["small_rl"])
    said = "did no better and no worse than" if abs(apart) <= half else "beat" if apart > 0 else "lost to"
    cost, width = difference(found["dev2"], found["dev2_free"])
    what = "nothing that can be told" if abs(cost) <= width else f"{-cost:.3f} of pass@1" if cost < 0 else "nothing"
    spoken = {name: found[name]["language"] for name in ("dev2", "dev2_free")}
    return (
        f"On the small model distilling {said} RL ({pass_1['small_distilled']:.3f} against {pass_1['small_rl']:.3f}, a difference "
        f"of {apart:+.3f} ± {half:.3f}); rewarding the language moved its share from {spoken['dev2_free']:.3f} to "
        f"{spoken['dev2']:.3f} and cost {what} ({pass_1['dev2']:.3f} with it, {pass_1['dev2_free']:.3f} without, "
        f"{cost:+.3f} ± {width:.3f})."
    )


def tell(config: ConfigTree, workdir: Path, found: Mapping[str, Numbers]) -> None:
    """The table, the figure, the report."""
    rows = [row(name, numbers) for name, numbers in found.items()]
    header, said, e = list(rows[0]), verdict(found), config.eval
    protocol = (
        f"{e.problems} {e.split} problems, {e.attempts} attempts each, temperature {e.temperature}, top-p {e.top_p}; "
        f"± is half of the 95 % interval over problems; language: share of words in {config.recipe.target!r}"
    )
    table = [list(r.values()) for r in rows]
    journal.replace_text(workdir / "table.md", f"{markdown(header, table)}\n\n{protocol}. {said}\n")
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
        compared=("of R1-Zero", "of R1"),
    )
    print(f"{markdown(header, table)}\n{said}")


TILES = (
    ("R1-Zero", "zero", "pass@1, RL on the base alone"),
    ("R1", "r1", "pass@1, at the end of the recipe"),
    ("small, distilled", "small_distilled", "pass@1, imitating R1"),
    ("small, RL", "small_rl", "pass@1, practising alone"),
)


def main() -> None:
    command_line.main(run)


if __name__ == "__main__":
    main()
