"""Many RL runs as one program: ``experiments.rl`` with a leading axis of runs that differ in their seed and in numbers.

The pure iteration of one run is vmapped over runs, and these are shared out over the devices; no device hears of another's.
A loop turns until every run beside it is done, a micro-batch is as wide as the widest run needs: a run's result depends on
the others by rounding alone. Each run leaves in its own folder what it would have left by itself; what a stopped group needs
to go on lies in the group's.
"""

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from experiments import rl
from rljax import evaluation, rewards
from rljax.ablation import vmap_groups
from rljax.distributed import sharding
from rljax.errors import UserError
from rljax.structs import ConfigTree, TrainState
from rljax.training import checkpoint, initial_state, journal, launch, loop, settings
from rljax.training.settings import Settings

RUNS, DEVICES = "runs", "devices"  # the vmapped axis, and the axis of the mesh that it is split over


def run(configs: Sequence[ConfigTree], workdirs: Sequence[Path], group: Path, stop: int = 0) -> None:
    """Train all runs to the end, or to step ``stop`` of it; ``workdirs`` are their folders, ``group`` that of their checkpoints.

    Uses as many devices as there are and divide the number of runs. Stopped anywhere, the same call continues. Raises
    UserError for runs that cannot be computed together; and, when all others are finished and saved, for one whose gradient
    was not finite ``rl.max_skipped`` times in a row at its end.
    """
    if not configs or len({Path(f).resolve() for f in (group, *workdirs)}) != len(configs) + 1:
        raise UserError(f"{len(configs)} runs together need as many folders and one for the group, each another")
    steps = stop or configs[0].rl.steps
    if all(loop.finished(folder, "rl", steps) for folder in workdirs):
        return
    base, numbers = vmap_groups.stacked(configs)
    each = [resolved(config) for config in configs]
    check(each[0])
    s, mesh = beside(each[0]), devices_for(len(configs), jax.devices())
    with contextlib.ExitStack() as held:
        for folder, config in ((group, base), *zip(workdirs, configs, strict=True)):
            held.enter_context(launch.own(folder, config))
        check_members(group, workdirs)
        state, known = begin(each, workdirs, mesh)
        iteration, evaluate = make_iteration(s, numbers, mesh), make_evaluate(s, [c.seed for c in configs], mesh)
        how: dict[str, Any] = settings.loop(s, "rl", group, stop) | {"keep": (s.config.checkpoint.keep_latest, 0)}
        how |= dict(score="eval/pass@1", known=known, runs=workdirs)
        state = loop.train_runs("rl", state, iteration, evaluate, **how)
        stuck = leave(state, each, workdirs)
    if stuck:
        raise UserError(
            f"rl: {stuck[0]}: the gradient was not finite {base.rl.max_skipped} steps in a row, as in {len(stuck)} of "
            f"{len(workdirs)} runs; the others are finished. Lower its rl.optimizer.learning_rate, or raise rl.max_skipped"
        )


# Which runs


def resolved(config: ConfigTree) -> Settings:
    """The settings of one run on the one device that it has here. Raises UserError where its config asks for more."""
    if jax.process_count() > 1:
        raise UserError(f"runs together are one process, not {jax.process_count()}: start a process a group of runs")
    config = config.copy_and_resolve_references()
    for axis in sharding.AXES:
        if config.mesh[axis] not in (1, -1 if axis == "data" else 1):
            raise UserError(
                f"mesh.{axis}={config.mesh[axis]}: runs together have one device each, a larger mesh is for one run"
            )
    config.mesh.data = 1
    return settings.resolve(config, "rl")


def check(s: Settings) -> None:
    """Raise UserError for what is not one pure function of arrays that lie on the device."""
    c, moved = s.config, settings.offloaded(s.config.rl)
    reasons = [
        (rewards.needs_host(s.task, rewards.parse(c.rl.reward)), f"task {s.task.name!r} with rl.reward={c.rl.reward!r} is "
         "verified on the host"),
        (c.mesh.actors, f"mesh.actors={c.mesh.actors}: devices that sample ahead"),
        (c.rl.lora.rank, f"rl.lora.rank={c.rl.lora.rank}: what adapters are attached to lies beside the state"),
        (moved, f"rl.{', '.join(moved.values())}: moments lie in host memory"),
    ]  # fmt: skip
    for holds, reason in reasons:
        if holds:
            raise UserError(f"{reason}, and runs together are one function of arrays on a device: run each by itself")


def check_members(group: Path, workdirs: Sequence[Path]) -> None:
    """Record which runs the group is of. Raises UserError where it is of others, or where one has begun by itself."""
    path, mine = group / "runs.json", [os.path.relpath(folder, group) for folder in workdirs]
    begun = path.exists() and has_steps(group)
    if begun and json.loads(path.read_text()) != mine:
        raise UserError(
            f"{group} holds {', '.join(json.loads(path.read_text()))}, these are {', '.join(mine)}: use another folder"
        )
    for folder in workdirs if not begun else ():
        if has_steps(folder):
            raise UserError(f"{folder} has begun its RL by itself: let experiments.rl finish it, or use another folder")
    journal.replace_text(path, json.dumps(mine, indent=1) + "\n")


def has_steps(folder: Path) -> bool:
    return any((folder / "checkpoints" / "rl").glob("[0-9]*"))


def stopped(folder: Path) -> list[tuple[Path, list[Path]]]:
    """(the group's folder, its runs' folders) of every group in ``folder`` that has begun."""
    begun = [path for path in sorted(folder.glob("*/runs.json")) if has_steps(path.parent)]
    return [(path.parent, [(path.parent / name).resolve() for name in json.loads(path.read_text())]) for path in begun]


# One function of all runs


def beside(s: Settings) -> Settings:
    """The settings of a run that has others beside it."""
    layout = dataclasses.replace(s.model.layout, runs=RUNS), dataclasses.replace(s.actor.layout, runs=RUNS)
    model, actor = (dataclasses.replace(m, layout=x) for m, x in zip((s.model, s.actor), layout, strict=True))
    return dataclasses.replace(s, model=model, actor=actor)


def devices_for(runs: int, devices: Sequence[Any]) -> Mesh:
    """As many of the devices as divide the number of runs, in one row."""
    count = max(n for n in range(1, len(devices) + 1) if runs % n == 0)
    return Mesh(np.asarray(devices[:count]), (DEVICES,), axis_types=(AxisType.Auto,))


def over_runs(one: Callable, mesh: Mesh) -> Callable:
    """A function of one run -> of all: every array has a leading axis [R], which is split over the devices."""
    part = PartitionSpec(DEVICES)
    every = jax.vmap(one, axis_name=RUNS)
    return jax.shard_map(every, mesh=mesh, in_specs=part, out_specs=part, check_vma=False)


def make_iteration(s: Settings, numbers: dict[str, np.ndarray], mesh: Mesh) -> loop.Iteration:
    """One turn of all runs, ``state [R, ...] -> (state, metrics [R])``; ``numbers`` [R] are those that differ between them."""

    def one(numbers: dict[str, jax.Array], state: TrainState) -> tuple[TrainState, dict[str, jax.Array]]:
        return rl.make_turn(dataclasses.replace(s, numbers=numbers))(state)

    step = jax.jit(over_runs(one, mesh), donate_argnums=1)
    placed = jax.device_put(numbers, NamedSharding(mesh, PartitionSpec(DEVICES)))
    return functools.partial(step, placed)


def make_evaluate(s: Settings, seeds: Sequence[int], mesh: Mesh) -> evaluation.EvaluateRuns:
    """``evaluate(params [R, ...])``: the metrics and samples of each run, on the problems of its own seed."""
    return settings.evaluator_of_runs(s, seeds, lambda one: over_runs(one, mesh))


# From folders to arrays, and back


def begin(each: Sequence[Settings], workdirs: Sequence[Path], mesh: Mesh) -> tuple[TrainState, list[loop.Look] | None]:
    """(the states that the runs start from, stacked and shared out; their evaluations, where all have been made before)."""
    states, known = [], []
    for s, folder in zip(each, workdirs, strict=True):
        params = initial_state.start_params(s, s.config.rl.start, folder)
        states.append(initial_state.new_state(s, s.config.rl, params, settings.algorithm(s.config.rl)))
        known.append(initial_state.evaluated(s, s.config.rl.start, folder))
    state = jax.device_put(evaluation.stacked(states), NamedSharding(mesh, PartitionSpec(DEVICES)))
    return state, known if all(known) else None


def leave(state: TrainState, each: Sequence[Settings], workdirs: Sequence[Path]) -> list[Path]:
    """Each run's last checkpoint in its own folder, as it would be by itself; returns the folders of those that stand still."""
    steps, skipped = (jax.device_get(x).tolist() for x in (state.step, state.skipped))
    stuck = []
    for r, (s, folder) in enumerate(zip(each, workdirs, strict=True)):
        if skipped[r] >= s.config.rl.max_skipped:
            stuck.append(folder)
            continue
        one = sharding.place_whole(jax.tree.map(lambda x, r=r: x[r], state), s.model.layout)
        scores = [row["eval/pass@1"] for row in journal.read_records(folder / "metrics.jsonl") if "eval/pass@1" in row]
        kept = s.config.checkpoint
        manager = checkpoint.open_manager(folder / "checkpoints" / "rl", kept.keep_latest, kept.keep_best)
        checkpoint.save(manager, steps[r], one, scores[-1])
        manager.close()
    return stuck
