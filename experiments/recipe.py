"""DeepSeek-R1's whole recipe in miniature (arXiv 2501.12948, Figure 2 and Tables 3 and 6): one script, one table.

    rljax recipe --config recipe --workdir runs/recipe

    base ── RL ──> R1-Zero                                             no SFT before it, correctness alone
    R1-Zero's long, correct, readable attempts ── SFT of the base ──> Dev1       the cold start
    Dev1 ── RL, correctness + language consistency ──> Dev2
    Dev2's good attempts and general text ── SFT of the base, 2 epochs ──> Dev3  rejection sampling
    Dev3 ── RL, the same at temperature 0.7 ──> R1
    R1's good attempts ── SFT of a small base ──> distilled            against RL on the small base itself

The base reads a textbook and some worked problems, both in a mixture of two languages. So R1-Zero mixes them too. General text is
textbook pages. Three parts of R1 have no counterpart: questions beyond reasoning (writing, translation), rewards for being helpful
and harmless, and people who rewrite the cold start. Here attempts that mix languages are left out instead.

Each stage is a run in a folder of its own. Stopped anywhere, the same command continues. It leaves table.md, table.jsonl, a
figure and report.html; every model answers the same held-out problems.
"""

import copy
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rljax.ablation.recipe_report import MODELS, Numbers, summarize_model, write_recipe_report
from rljax.distributed import processes
from rljax.structs import ConfigTree
from rljax.training import command_line, initial_state, journal
from rljax.training.run import resolve
from rljax.training.workdir import hold_workdir

from . import collect, pretrain, rl, sft

STAGES = {"pretrain": pretrain.run, "sft": sft.run, "rl": rl.run}


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
        write_recipe_report(config, workdir, found)
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
        measured, said = run.evaluator(full_problems=config.eval.problems)(
            initial_state.start_params(run, stage, workdir / name)
        )
        if processes.is_primary():
            numbers = {"asked": asked} | summarize_model(measured, said, config.recipe.target)
            journal.replace_text(path, json.dumps(numbers, ensure_ascii=False) + "\n")
        processes.barrier("recipe evaluation")
    return json.loads(path.read_text(encoding="utf-8"))


def main() -> None:
    command_line.main(run)


if __name__ == "__main__":
    main()
