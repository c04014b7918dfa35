"""DeepSeek-R1's whole recipe in miniature (arXiv 2501.12948, Figure 2 and Tables 3 and 6): one script, one table.

    rljax recipe --config recipe --workdir runs/recipe

    base ── RL ──> R1-Zero                                             no SFT before it, correctness alone
    R1-Zero's long, correct, readable attempts ── SFT of the base ──> Dev1       the cold start
    Dev1 ── RL, correctness + language consistency ──> Dev2
    Dev2's good attempts and general text ── SFT of the base, 2 epochs ──> Dev3  rejection sampling
    Dev3 ── RL, the same at temperature 0.7 ──> R1
    R1's good attempts ── SFT of a small base ──> distilled            against RL on the small base itself

The base model is pretrained on a textbook and on some worked problems, both in a mixture of two languages. So R1-Zero mixes
the languages too. The general text of the SFT stages is pages of the textbook. Three parts of R1 are missing here: questions
without a verifier (writing, translation), rewards for helpfulness and harmlessness, and people who rewrite the cold start
data. In place of the last, attempts that mix languages are left out.

Each stage is a run in its own folder. If the command is stopped, the same command continues. It leaves table.md, table.jsonl,
a figure and report.html. All models are evaluated on the same held-out problems.
"""

import copy
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rljax.ablation.recipe_report import MODELS, ModelResult, summarize_model, write_recipe_report
from rljax.distributed import processes
from rljax.errors import UserError
from rljax.options import Declared, check
from rljax.structs import ConfigTree
from rljax.training import command_line, initial_state, journal
from rljax.training.run import resolve
from rljax.training.schema import check_names, overlay
from rljax.training.workdir import hold_workdir

from . import collect, pretrain, rl, sft

DATA = ("cold", "reject", "distil")  # the three files of attempts that are imitated
RL_STAGES = ("zero", "dev2", "dev2_free", "r1", "small_rl", "small_distilled_rl")
FILTER = {  # which attempts: the flags of `collect`, whose own checks follow
    **dict.fromkeys(("problems", "attempts", "at_least", "at_most", "per_problem"), Declared("", int)),
    **dict.fromkeys(("temperature", "top_p"), Declared("", float)),
    "language": Declared("", float, low=0, high=1),
}
STAGES = {"pretrain": pretrain.run, "sft": sft.run, "rl": rl.run}


def run(config: ConfigTree, workdir: Path) -> None:
    """Train and evaluate every model of the recipe, and write the report."""
    if "recipe" not in config:
        raise UserError(
            "--config: this config has no section `recipe`: use --config recipe, or a copy of configs/recipe.py"
        )
    check_recipe(config)
    start_time, options = time.perf_counter(), config.recipe
    configs: dict[str, ConfigTree] = {}
    results: dict[str, ModelResult] = {}

    def train(name: str, stage: str, start: str = "", **changes: Any) -> str:
        """Run one stage in its folder and evaluate the model; returns what the next stage can start from."""
        configs[name] = stage_config = make_stage_config(config, name, stage, start, changes)
        with hold_workdir(workdir / name, stage_config):
            if not evaluation_path(workdir, name).exists():  # otherwise the stage is finished
                if processes.is_primary():
                    print(f"{MODELS[name]}:", flush=True)
                STAGES[stage](stage_config, workdir / name)
            results[name] = evaluate_model(config, stage_config, workdir, name)
        return f"{workdir / name}:{stage}"

    def collect_sft_data(name: str, file: str, data: ConfigTree) -> dict[str, Any]:
        """Write a model's good attempts at training problems to a file; returns the settings of SFT on this file."""
        path = workdir / file
        collect.run(configs[name], workdir / name, "rl", to=str(path), target=options.target, **data.filter)
        steps = data.epochs * len(journal.read_records(path)) / (config.sft.batch * (1 - data.general))
        return {"sft.file": str(path), "sft.general": data.general, "sft.steps": math.ceil(steps)}

    language_reward = {"rl.reward": options.reward}

    base = train("base", "pretrain")
    train("zero", "rl", base)

    dev1 = train("dev1", "sft", base, **collect_sft_data("zero", "cold_start.jsonl", options.cold))
    train("dev2", "rl", dev1, **language_reward)
    train("dev2_free", "rl", dev1)

    dev3 = train("dev3", "sft", base, **collect_sft_data("dev2", "rejection.jsonl", options.reject))
    train("r1", "rl", dev3, **language_reward, **{"rl.temperature": options.cooler})

    small = train("small_base", "pretrain")
    train("small_rl", "rl", small)
    distilled = train("small_distilled", "sft", small, **collect_sft_data("r1", "distillation.jsonl", options.distil))
    train("small_distilled_rl", "rl", distilled, **language_reward)

    if processes.is_primary():
        write_recipe_report(config, workdir, results)
        minutes = (time.perf_counter() - start_time) / 60
        print(f"{minutes:.1f} min in this session; {(workdir / 'report.html').absolute()}")


def check_recipe(config: ConfigTree) -> None:
    """Raise UserError for a setting of the section ``recipe`` that one of the later stages could not use."""
    names = ("small", "watch", "steps", "target", "reward", "cooler", *DATA)
    check_names(config.recipe, "recipe", names, names)
    check_names(config.recipe.steps, "recipe.steps", RL_STAGES)
    options = config.recipe
    for name in DATA:
        check_names(options[name], f"recipe.{name}", ("filter", "epochs", "general"), ("filter", "epochs", "general"))
        for key, value in check_names(options[name].filter, f"recipe.{name}.filter", [*FILTER]).items():
            check(FILTER[key], value, f"recipe.{name}.filter.{key}")
        data, asked = options[name], {"problems": 512, "attempts": 4} | options[name].filter.to_dict()
        check(Declared("", float, above=0, high=1000), data.epochs, f"recipe.{name}.epochs")
        check(Declared("", float, low=0, high=0.99), data.general, f"recipe.{name}.general")
        bounds = (asked.get(flag, 0) for flag in ("at_least", "at_most", "per_problem"))
        try:
            collect.check_flags(asked["problems"], asked["attempts"], options.target, *bounds)
        except UserError as e:
            raise UserError(f"recipe.{name}.filter: {e}") from None
    second = {"rl.reward": options.reward, "rl.temperature": options.cooler}
    for name, stage, changes in (
        ("base", "pretrain", {}),
        ("zero", "rl", {}),
        ("r1", "rl", second),
        ("small_rl", "rl", {}),
    ):
        resolve(make_stage_config(config, name, stage, "", changes), stage)


def make_stage_config(config: ConfigTree, name: str, stage: str, start: str, changes: Mapping[str, Any]) -> ConfigTree:
    """The config of one model's stage: its start, its changed settings, and the small architecture of small models."""
    stage_config, options = copy.deepcopy(config), config.recipe
    with stage_config.unlocked():
        del stage_config.recipe  # a later change of another stage must not change this run's config
    stage_config.stages, stage_config[stage].start = (stage,), start
    overlay(stage_config, "eval", options.watch, "recipe.watch")
    stage_config.rl.steps = options.steps.get(name, stage_config.rl.steps)
    if name.startswith("small"):
        overlay(stage_config, "model", options.small, "recipe.small")
    for key, value in changes.items():
        section, setting = key.split(".")
        stage_config[section][setting] = value
    return stage_config


def evaluation_path(workdir: Path, name: str) -> Path:
    """The file of a model's result."""
    return workdir / "evaluations" / f"{name}.json"


def evaluate_model(config: ConfigTree, stage_config: ConfigTree, workdir: Path, name: str) -> ModelResult:
    """The result of a model on the held-out problems of ``config.eval``. It is read from its file if it is there."""
    path, eval_settings = evaluation_path(workdir, name), journal.to_plain(config.eval.to_dict())
    if not path.exists() or json.loads(path.read_text(encoding="utf-8"))["asked"] != eval_settings:
        eval_config = copy.deepcopy(stage_config)
        eval_config.eval.update(config.eval.to_dict())
        run = resolve(eval_config)
        (stage,) = eval_config.stages
        params = initial_state.start_params(run, stage, workdir / name)
        metrics, samples = run.evaluator(full_problems=config.eval.problems)(params)
        if processes.is_primary():
            record = {"asked": eval_settings} | summarize_model(metrics, samples, config.recipe.target)
            journal.replace_text(path, json.dumps(record, ensure_ascii=False) + "\n")
        processes.barrier("recipe evaluation")
    return json.loads(path.read_text(encoding="utf-8"))


def main() -> None:
    command_line.main(run)


if __name__ == "__main__":
    main()
