"""An ablation as data. A config file of an ablation has two functions.

    get_config(arg)      the settings that all arms share
    get_ablation()       {"question": ..., "hypothesis": ..., "arms": (("name", "key=value", ...), ...), ...}

An arm is a name and the settings that it changes, written as on the command line. Other arms are compared with the first arm.
``--vary key=a,b`` makes arms from the settings of any config.
"""

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rljax.ablation.claims import parse_claim
from rljax.errors import UserError
from rljax.structs import ConfigTree
from rljax.training import config_files, stage_checkpoints
from rljax.training.schema import STAGES

SHARED_SETTINGS = ("seed", "weights", "task", "model")  # sections of the config that every stage depends on
FIGURES = ("curves", "ends", "attempts", "grid")  # each has a function in ablation_figures.py


@dataclasses.dataclass(frozen=True)
class Ablation:
    """What ``get_ablation`` returns: a question, and the arms that answer it."""

    arms: Mapping[str, tuple[str, ...]]  # {name: changed settings}; the first arm is the reference
    question: str = ""
    hypothesis: str = ""
    claims: tuple[str, ...] = ()  # the hypothesis in a form that can be checked: "pass@1: shortest < dr_grpo"
    stage: str = "rl"  # the stage that is compared; earlier stages make its start, which arms with equal settings share
    measures: tuple[str, ...] = ("pass@1", "length")  # shown in figures and tables; names of ``rljax.report.measures``
    figures: tuple[str, ...] = ("curves", "ends")  # names of ``FIGURES``

    @property
    def reference(self) -> str:
        """The name of the first arm."""
        return next(iter(self.arms))


@dataclasses.dataclass(frozen=True)
class ArmRun:
    """The run of one arm with one seed."""

    arm: str
    seed: int
    changes: tuple[str, ...]  # the settings that the arm changes
    config: ConfigTree  # the config of the run; the setting STAGE.start is the path of ``start``
    folder: Path  # the workdir of the run
    start: Path  # the workdir of the earlier stages; Path() if there are none, or if another run made them
    start_config: ConfigTree  # the config of the earlier stages

    @property
    def label(self) -> str:
        """The arm and the seed, for messages."""
        return f"{self.arm}, seed {self.seed}"


def load_ablation(module: ModuleType, vary: Sequence[str]) -> Ablation:
    """The ablation of a config module, or the one that the values of ``--vary`` describe.

    Without both there is one arm, "default". Raises UserError if the ablation is not valid.
    """
    if vary:
        return Ablation(arms=arms_from_vary(vary), question=" x ".join(v.split("=", 1)[0] for v in vary))
    if not hasattr(module, "get_ablation"):
        return Ablation(arms={"default": ()}, question="the same run with several seeds")
    fields: dict[str, Any] = dict(module.get_ablation())
    keys = {f.name for f in dataclasses.fields(Ablation)}
    if unknown := set(fields) - keys:
        raise UserError(f"get_ablation: unknown key {sorted(unknown)[0]!r}, choose from {sorted(keys)}")
    names = [name for name, *_ in fields.get("arms", ())]
    if not names:
        raise UserError('get_ablation: there are no arms, add arms=(("name", "key=value"), ...)')
    if len(set(names)) < len(names):
        raise UserError(f"get_ablation: the arms must have different names, these are {names}")
    fields["arms"] = {name: tuple(changes) for name, *changes in fields["arms"]}
    ablation = Ablation(**fields)
    if ablation.stage not in STAGES:
        raise UserError(f"get_ablation: unknown stage {ablation.stage!r}, choose from {STAGES}")
    if unknown := [f for f in ablation.figures if f not in FIGURES]:
        raise UserError(f"get_ablation: unknown figure {unknown[0]!r}, choose from {FIGURES}")
    for claim in ablation.claims:
        parse_claim(claim, names)
    return ablation


def arms_from_vary(vary: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """{name: changed settings} of every combination of the varied settings.

    Each item of ``vary`` is "key=value,value". A comma inside parentheses is part of a value. Raises UserError for an item
    without values.
    """
    choices = []
    for item in vary:
        key, _, values = item.partition("=")
        if not values:
            raise UserError(f"--vary {item}: there are no values, write key=value,value")
        choices.append([f"{key}={value}" for value in re.split(r",(?![^(]*\))", values)])
    return {",".join(changes): tuple(changes) for changes in itertools.product(*choices)}


def expand_runs(
    ablation: Ablation, config: ConfigTree, seeds: Sequence[int], workdir: Path, starts: Path
) -> list[ArmRun]:
    """The run of every arm with every seed. All arms of the first seed come first, so that they can be compared early.

    ``starts`` is the folder of the earlier stages. Raises UserError if an arm changes a setting that does not exist.
    """
    return [
        make_run(ablation, config, arm, changes, seed, workdir, starts)
        for seed in seeds
        for arm, changes in ablation.arms.items()
    ]


def make_run(
    ablation: Ablation, config: ConfigTree, arm: str, changes: tuple[str, ...], seed: int, workdir: Path, starts: Path
) -> ArmRun:
    """The run of one arm with one seed. ``config`` is the config that all arms share."""
    stage = ablation.stage
    run_config = config_files.override_config(config, [*changes, f"seed={seed}"])
    previous = previous_stages(run_config, stage)
    start, start_config = Path(), config
    if previous:
        # The start takes only the changes that it depends on. So arms that agree on these share it.
        sections = (*SHARED_SETTINGS, *previous)
        overrides = config_files.list_overrides(config, run_config)
        start_changes = [change for change in overrides if re.split(r"[.=]", change)[0] in sections]
        start_config = config_files.override_config(config, [*start_changes, f"stages={tuple(previous)!r}"])
        start = starts / start_key(run_config, previous)
        run_config = config_files.override_config(run_config, [f"{stage}.start={start}:{previous[-1]}"])
    return ArmRun(arm, seed, changes, run_config, run_folder(workdir, arm, seed), start, start_config)


def run_folder(workdir: Path, arm: str, seed: int) -> Path:
    """The workdir of the run of this arm and seed."""
    return workdir / folder_name(arm) / f"seed_{seed}"


def previous_stages(config: ConfigTree, stage: str) -> list[str]:
    """The stages that must run in the same workdir before ``stage``, in their order."""
    start = config[stage].start
    return [*previous_stages(config, start), start] if start in STAGES else []


def start_key(config: ConfigTree, stages: Sequence[str]) -> str:
    """The folder name of a start that these stages make. Two configs have the same one if they agree on all it depends on."""
    sections = {name: config[name] for name in (*SHARED_SETTINGS, *stages)}
    plain = {name: value.to_dict() if hasattr(value, "to_dict") else value for name, value in sections.items()}
    digest = hashlib.sha256(json.dumps(config_files.flatten_config(plain)).encode()).hexdigest()
    return f"{stages[-1]}_seed_{config.seed}_{digest[:10]}"


def folder_name(arm: str) -> str:
    """The name of an arm with only the characters that are safe in the name of a folder."""
    return re.sub(r"[^\w.=,+()-]+", "_", arm).strip("_") or "arm"


def is_finished(folder: Path, config: ConfigTree, stage: str) -> bool:
    """Whether this workdir has the last checkpoint of the stage."""
    return stage_checkpoints.finished(folder, stage, config[stage].steps)


def check_arm(arm: str, config: ConfigTree, resolve: Callable[[ConfigTree], Any]) -> None:
    """Call ``resolve(config)``. Raises its UserError with the name of the arm in front."""
    try:
        resolve(config)
    except UserError as e:
        raise UserError(f"arm {arm!r}: {e}") from None
