"""An ablation as data. A file of configs/ablations/ has beside ``get_config(arg)``, the settings that all arms share,

    get_ablation() -> {"question": ..., "hypothesis": ..., "arms": (("name", "key=value", ...), ...), ...}

An arm is a name and the settings it changes, written as on the command line. The first arm is the one that others are
compared with. ``--vary key=a,b`` makes arms of any config.
"""

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rljax.ablation.claims import parse_claim
from rljax.errors import UserError
from rljax.structs import ConfigTree
from rljax.training import config_files, stage_checkpoints
from rljax.training.schema import STAGES

SHARED = ("seed", "weights", "task", "model")  # what every stage depends on
FIGURES = ("curves", "ends", "attempts", "grid")


@dataclasses.dataclass(frozen=True)
class Ablation:
    """A question, and the arms that are to answer it."""

    arms: Mapping[str, tuple[str, ...]]  # {name: changes}; the first is the reference
    question: str = ""
    hypothesis: str = ""
    claims: tuple[str, ...] = ()  # the hypothesis, to be checked: "pass@1: shortest < dr_grpo"
    stage: str = "rl"  # what an arm runs; the stages before it are its start, shared by arms that agree on them
    measures: tuple[str, ...] = ("pass@1", "length")  # drawn and tabled, by their names in ``rljax.report.measures``
    figures: tuple[str, ...] = ("curves", "ends")

    @property
    def reference(self) -> str:
        return next(iter(self.arms))


@dataclasses.dataclass(frozen=True)
class Run:
    """One seed of one arm."""

    arm: str
    seed: int
    changes: tuple[str, ...]
    config: ConfigTree  # as it will run, its start resolved
    folder: Path
    start: Path  # the folder of the stages before; Path() where there are none, or they are another run's
    start_config: ConfigTree

    @property
    def label(self) -> str:
        return f"{self.arm}, seed {self.seed}"


def load(module: ModuleType, vary: Sequence[str]) -> Ablation:
    """The ablation of a config file, or of ``--vary``. Raises UserError where it is not well formed."""
    if vary:
        return Ablation(arms=product(vary), question=" x ".join(v.split("=", 1)[0] for v in vary))
    if not hasattr(module, "get_ablation"):
        return Ablation(arms={"default": ()}, question="the same run with several seeds")
    said: dict[str, Any] = dict(module.get_ablation())
    known = {f.name for f in dataclasses.fields(Ablation)}
    if unknown := set(said) - known:
        raise UserError(f"get_ablation: unknown {sorted(unknown)[0]!r}, choose from {sorted(known)}")
    names = [name for name, *_ in said.get("arms", ())]
    if not names or len(set(names)) < len(names):
        raise UserError(f"get_ablation: arms must be there and have different names, not {names}")
    said["arms"] = {name: tuple(changes) for name, *changes in said["arms"]}
    found = Ablation(**said)
    if found.stage not in STAGES:
        raise UserError(f"get_ablation: stage={found.stage!r}, choose from {STAGES}")
    if unknown := [f for f in found.figures if f not in FIGURES]:
        raise UserError(f"get_ablation: figure {unknown[0]!r} is unknown, choose from {FIGURES}")
    for text in found.claims:
        parse_claim(text, names)
    return found


def product(vary: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Every combination of the varied settings, each "key=value,value"; commas in brackets belong to a value."""
    lists = []
    for text in vary:
        key, _, values = text.partition("=")
        if not values:
            raise UserError(f"--vary {text}: write key=value,value")
        lists.append([f"{key}={value}" for value in re.split(r",(?![^(]*\))", values)])
    return {",".join(arm): tuple(arm) for arm in itertools.product(*lists)}


def runs_of(ablation: Ablation, config: ConfigTree, seeds: Sequence[int], workdir: Path, starts: Path) -> list[Run]:
    """Every seed of every arm, seeds first, so that what is there after a while compares all arms.

    Starts lie in ``starts``, each in a folder named by everything that it depends on. Raises UserError for a change
    that the config does not know.
    """
    return [
        run_of(ablation, config, arm, changes, seed, workdir, starts)
        for seed in seeds
        for arm, changes in ablation.arms.items()
    ]


def run_of(
    ablation: Ablation, config: ConfigTree, arm: str, changes: tuple[str, ...], seed: int, workdir: Path, starts: Path
) -> Run:
    stage = ablation.stage
    mine = config_files.override_config(config, [*changes, f"seed={seed}"])
    before = chain(mine, stage)
    start, start_config = Path(), config
    if before:
        theirs = [c for c in config_files.list_overrides(config, mine) if re.split(r"[.=]", c)[0] in (*SHARED, *before)]
        start_config = config_files.override_config(
            config, [*theirs, f"stages={tuple(before)!r}"]
        )  # else as the base says
        start = starts / key(mine, before)
        mine = config_files.override_config(mine, [f"{stage}.start={start}:{before[-1]}"])
    return Run(arm, seed, changes, mine, folder(workdir, arm, seed), start, start_config)


def folder(workdir: Path, arm: str, seed: int) -> Path:
    """Where a run of this arm and seed leaves everything."""
    return workdir / slug(arm) / f"seed_{seed}"


def chain(config: ConfigTree, stage: str) -> list[str]:
    """The stages, first to last, that must have run in the same folder before this one."""
    before = config[stage].start
    return [*chain(config, before), before] if before in STAGES else []


def key(config: ConfigTree, before: Sequence[str]) -> str:
    """A name for what these stages make: equal for configs that agree on all they depend on."""
    said = {name: config[name] for name in (*SHARED, *before)}
    text = json.dumps(
        config_files.flatten_config({k: v.to_dict() if hasattr(v, "to_dict") else v for k, v in said.items()})
    )
    return f"{before[-1]}_seed_{config.seed}_{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def slug(name: str) -> str:
    """An arm's name as the name of a folder."""
    return re.sub(r"[^\w.=,+()-]+", "_", name).strip("_") or "arm"


def finished(folder: Path, config: ConfigTree, stage: str) -> bool:
    """Whether a stage has come to its end in this folder."""
    return stage_checkpoints.finished(folder, stage, config[stage].steps)


def check(config: ConfigTree, resolve: Any, arm: str) -> None:
    """``resolve(config)``; its complaint begins with the arm's name."""
    try:
        resolve(config)
    except UserError as e:
        raise UserError(f"arm {arm!r}: {e}") from None
