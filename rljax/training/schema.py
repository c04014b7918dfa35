"""Every key of a config: which section it stands in, and who declares its default, its help text and its range.

Each room declares its own settings as a frozen dataclass of ``rljax.options.option`` fields; this table says where they
stand in the tree that a user writes. Nothing else knows the tree's shape.

    default_config()                 the tree with every default: what ``configs.common.base`` starts from
    check_config(tree)               every value against its declaration
    build_section(Cls, tree, "rl")   an object from a section of the tree
    help_for("rl.top_p")             help text, range and default
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict, config_dict

from rljax import options, policy_gradient, transformer
from rljax.distributed.options import LEARN_RULES, SAMPLE_RULES, MeshOptions
from rljax.errors import UserError
from rljax.evaluation import BudgetOptions, EvaluationOptions
from rljax.learner import CriticOptions, MicroBatchOptions, UpdateOptions
from rljax.learner.optimizer import OptimizerOptions
from rljax.options import Declared, option
from rljax.sampler import LengthLimit, Sampling
from rljax.structs import ConfigTree
from rljax.tasks.curriculum import Levels, ProblemOptions
from rljax.tasks.stage_data import PretrainingData, SFTData
from rljax.training.config_files import nearest_key, synonym_of
from rljax.transformer.lora import LoraOptions

STAGES = ("pretrain", "sft", "rl")


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What all stages of a run share."""

    seed: int = option(0, "decides weights, problems and noise", low=0, high=2**31 - 1)
    weights: str = option(
        "", "a Hugging Face folder, hub name or GGUF file: architecture, tokenizer, and what a stage may start from"
    )
    stages: tuple[str, ...] = option(STAGES, "the stages that reproduce runs, in order", items=str)
    workers: int = option(1, "processes that verify text; 0: verify in the main one", low=0, high=1024)
    max_unscored: float = option(
        0.25,
        "share of a batch's responses that may stay unscored, because the verifier's process died or hung; above it the run "
        "stops",
        low=0.0,
        high=1.0,
    )
    plugins: tuple[str, ...] = option(
        (), "Python files that add worlds, advantages, surrogates, algorithms, reward terms", items=str
    )
    log: tuple[str, ...] = option(
        ("tensorboard",), "where metrics go beside metrics.jsonl: tensorboard, wandb, trackio", items=str
    )


@dataclasses.dataclass(frozen=True)
class CheckpointOptions:
    """When checkpoints are written beside those of evaluations, and which are kept."""

    keep_latest: int = option(2, "newest checkpoints that are kept", low=1)
    keep_best: int = option(1, "best checkpoints that are kept beside them", low=0)
    every: int = option(0, "steps between two checkpoints, beside those of evaluations; 0: none", low=0)
    minutes: float = option(0.0, "minutes after which a step is saved, while it is the newest; 0: none", low=0.0)
    grace: float = option(
        0.0, "seconds after a signal in which the step must end and be saved; 0: as many as it takes", low=0.0
    )


@dataclasses.dataclass(frozen=True)
class LoopOptions:
    """The loop around a stage."""

    steps: int = option(1000, "steps of the stage; schedules span them", low=0)
    log_every: int = option(10, "steps between two lines of metrics", low=1)
    eval_every: int = option(500, "steps between two evaluations, each with a checkpoint", low=1)
    max_skipped: int = option(10, "steps in a row without a finite gradient after which the stage stops", low=1)


@dataclasses.dataclass(frozen=True)
class StartOptions:
    """What a stage starts from."""

    start: str = option(
        "", "'' random weights, 'weights' the folder's, a stage of this workdir, or DIR:stage[@step] of another run"
    )


@dataclasses.dataclass(frozen=True)
class RewardOptions:
    """What is learned from."""

    reward: str = option("correct", "a sum of terms, such as correct + 0.5*format(tags=think) + overlong(share=0.2)")
    algorithm: str = option("dr_grpo", "a row of the table of algorithms: docs/algorithms.md")


@dataclasses.dataclass(frozen=True)
class TaskOptions:
    """The world that problems come from; ``task.options`` are the world's own."""

    name: str = option(
        "shop", "the world: shop, fruit, cups, countdown, ring, programs, questions, fruit_text, or a plug-in's"
    )


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """What the report shows besides what the run has measured."""

    question: str = option("", "a question that reproduce puts to the model before and after RL; '': none")


@dataclasses.dataclass(frozen=True)
class AhaOptions:
    """What the report calls the first aha; it changes nothing of the run."""

    behaviour: str = option("", "the behaviour that the report looks for, one that the task counts; '': its first")
    share: float = option(0.5, "share of responses that must show it", above=0.0, high=1.0)


@dataclasses.dataclass(frozen=True)
class SelectionOptions:
    """Runs that reproduce also trains, from the same start, by imitating some of the attempts."""

    rules: tuple[str, ...] = option((), "algorithms to train by", items=str)
    steps: int = option(60, "steps of each", low=0)


# changes of an algorithm's parts: each a name with options, or nothing
ALGORITHM_PARTS = {
    **{part: Declared(f"the algorithm's {part}, as 'name' or 'name(option=value)'", str, True)
       for part in policy_gradient.TABLES},
    "sign": Declared("learn only from advantages of this sign", str, True, choices=("both", "positive", "negative")),
    "off_policy_mask": Declared("leave out worse responses so many nats a token from the behaviour policy", float, True,
                                low=0.0),
    "positive_nll": Declared("weight of -log pi on the tokens of correct attempts", float, True, low=0.0),
}  # fmt: skip
STAGE = (LoopOptions, MicroBatchOptions, StartOptions)
SECTIONS: dict[str, tuple[type, ...]] = {
    "": (RunOptions,),
    "task": (TaskOptions,),
    "mesh": (MeshOptions,),
    "checkpoint": (CheckpointOptions,),
    "pretrain": (*STAGE, PretrainingData),
    "sft": (*STAGE, SFTData),
    "rl": (*STAGE, ProblemOptions, Sampling, RewardOptions, UpdateOptions),
    "rl.levels": (Levels,),
    "rl.limit": (LengthLimit,),
    "rl.critic": (CriticOptions,),
    **{f"{stage}.optimizer": (OptimizerOptions,) for stage in (*STAGES, "rl.critic")},
    **{f"{stage}.lora": (LoraOptions,) for stage in STAGES},
    "selection": (SelectionOptions,),
    "eval": (EvaluationOptions,),
    "eval.budget": (BudgetOptions,),
    "report": (ReportOptions,),
    "report.aha": (AhaOptions,),
}
DEFAULTS: dict[str, dict[str, Any]] = {  # where a section's defaults are not those of the declaration
    "pretrain.optimizer": dict(learning_rate=3e-3),
    "sft": dict(start="pretrain"),
    "sft.optimizer": dict(learning_rate=2e-3),
    "rl": dict(start="sft", steps=200, eval_every=20, log_every=1),
    "rl.optimizer": dict(learning_rate=4e-4, schedule="constant", warmup=5, weight_decay=0.0),
    "rl.critic.optimizer": dict(learning_rate=1e-3, schedule="constant", warmup=5, weight_decay=0.0),
    "model": dict(max_length=512),
}


def declarations() -> dict[str, tuple[Declared, Any]]:
    """{key: (declaration, default)} of every key but those of ``task.options``."""
    found: dict[str, tuple[Declared, Any]] = {}
    for section, classes in SECTIONS.items():
        for cls in classes:
            own = options.defaults(cls) | {
                k: v for k, v in DEFAULTS.get(section, {}).items() if k in options.declared(cls)
            }
            found |= {join(section, name): (known, own[name]) for name, known in options.declared(cls).items()}
    for name, known in options.declared(transformer.Config).items():
        default = {f.name: f.default for f in dataclasses.fields(transformer.Config)}[name]
        found[f"model.{name}"] = (known, DEFAULTS["model"].get(name, default))
    found |= {f"rl.row.{name}": (known, None) for name, known in ALGORITHM_PARTS.items()}
    for name, rules in (("learn", LEARN_RULES), ("sample", SAMPLE_RULES)):
        for axis, axes in rules.items():
            help = f"mesh axes that the logical axis {axis!r} is split over while devices {name}: docs/scaling.md"
            found[f"mesh.{name}.{axis}"] = (Declared(help, str), axes)
    return found


def join(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


def default_config() -> ConfigDict:
    """The config tree with the default of every key."""
    tree = ConfigDict()
    for key, (known, default) in declarations().items():
        *groups, name = key.split(".")
        section: Any = tree
        for group in groups:
            if group not in section:
                section[group] = ConfigDict()
            section = section[group]
        section[name] = config_dict.placeholder(known.kind) if default is None else default
    task: Any = tree.task
    task.options = ConfigDict()
    return tree


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(key, value) of every setting of a tree."""
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from leaves(value, f"{key}.")
        else:
            yield key, value


def check_config(tree: ConfigTree) -> None:
    """Raise UserError for a key that nobody declares or that is missing, and for a value outside its range.

    ``task.options`` are the task's.
    """
    known = declarations()
    values = {key: value for key, value in leaves(tree.to_dict()) if not key.startswith("task.options.")}
    for key, value in values.items():
        if key not in known:
            raise UserError(f"{key}: there is no such setting; did you mean {meant_key(key, list(known))}?")
        options.check(known[key][0], value, key)
    if missing := next((key for key in known if key not in values), None):
        raise UserError(
            f"{missing}: this setting is missing from the config: begin with configs.common.base(), and change its sections "
            "key by key, or with `.update`"
        )


def meant_key(key: str, known: Sequence[str]) -> str:
    """The known key that an unknown one probably means: what other libraries call so, or the nearest one."""
    synonym = (synonym_of(key, known) or "").removeprefix("--config.")
    return synonym if synonym in known else nearest_key(key, known)


def overlay(config: ConfigTree, section: str, values: Any, where: str) -> None:
    """Lay settings of the user's, which stand at the key ``where``, over a section of the config.

    Raises UserError, naming the key after ``where``, for one that the section does not have or a value outside its range.
    """
    known = {
        key.removeprefix(f"{section}."): found
        for key, (found, _) in declarations().items()
        if key.startswith(f"{section}.")
    }
    for name, value in leaves(check_names(values, where)):
        if name not in known:
            raise UserError(
                f"{where}.{name}: `{section}` has no such setting; did you mean {where}.{meant_key(name, list(known))}?"
            )
        options.check(known[name], value, f"{where}.{name}")
        *groups, last = name.split(".")
        target = config[section]
        for group in groups:
            target = target[group]
        target[last] = tuple(value) if isinstance(value, list) else value


def check_names(
    values: Any, where: str, known: Sequence[str] | None = None, needed: Sequence[str] = ()
) -> dict[str, Any]:
    """A group of a config as a dict. Raises UserError where it is none, and for a name that is not known or is missing."""
    if not isinstance(values, (Mapping, ConfigDict)):
        raise UserError(f"{where}={options.format_value(values)}: must be a dict of settings")
    found = values.to_dict() if isinstance(values, ConfigDict) else dict(values)
    for name in found:
        if known is not None and name not in known:
            near = nearest_key(str(name), list(known))
            raise UserError(f"{where}.{name}: there is no such setting; did you mean {where}.{near}?")
    if missing := next((name for name in needed if name not in found), None):
        raise UserError(f"{where}.{missing}: this setting is missing")
    return found


def build_section(cls: type, tree: ConfigTree, section: str, **others: Any) -> Any:
    """An object of a declared class from the section of the tree where its settings stand."""
    values = tree
    for group in filter(None, section.split(".")):
        values = values[group]
    return options.build(cls, values, f"{section}." if section else "", **others)


def help_for(key: str) -> str:
    """Help text, range and default of a key; "" for one that is not declared here."""
    known, default = declarations().get(key, (None, None))
    if known is None:
        return ""
    about = [known.range()] if known.range() else []
    return f"{known.help} ({'; '.join([*about, f'default {default!r}'])})"
