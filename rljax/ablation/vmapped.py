"""Many RL runs as one program: a leading axis of runs that differ in their seed and in numbers.

The pure train step of one run is vmapped over runs, and the runs are shared out over the devices; no device communicates with
another. A loop runs until every run beside it is done, and a micro-batch is as wide as the widest run needs: a run's result
depends on the others by rounding alone. Each run leaves in its own folder what it would have left by itself. What a stopped
group needs to continue lies in the group's folder.
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

from rljax import evaluation
from rljax.ablation import vmap_groups
from rljax.distributed import sharding
from rljax.errors import UserError
from rljax.structs import ConfigTree, TrainState
from rljax.training import checkpoint, initial_state, journal, loop
from rljax.training.rl_steps import TrainStep, is_hosted
from rljax.training.run import Run, resolve
from rljax.training.schema import CheckpointOptions
from rljax.training.stage_checkpoints import finished
from rljax.training.workdir import hold_workdir

RUNS, DEVICES = "runs", "devices"  # the vmapped axis, and the axis of the mesh that it is split over
MakeTrainStep = Callable[[Run], TrainStep]  # experiments.rl.make_train_step


def train_together(
    make_train_step: MakeTrainStep,
    configs: Sequence[ConfigTree],
    workdirs: Sequence[Path],
    group: Path,
    stop: int = 0,
) -> None:
    """Train all runs to the end, or to step ``stop``; ``workdirs`` are their folders, ``group`` that of their checkpoints.

    Uses as many devices as there are and divide the number of runs. Stopped anywhere, the same call continues. Raises
    UserError for runs that cannot be computed together; and, when all others are finished and saved, for one whose gradient
    was not finite ``rl.max_skipped`` times in a row at its end.
    """
    if not configs or len({Path(f).resolve() for f in (group, *workdirs)}) != len(configs) + 1:
        raise UserError(f"{len(configs)} runs together need as many folders and one for the group, each another")
    steps = stop or configs[0].rl.steps
    if all(finished(folder, "rl", steps) for folder in workdirs):
        return
    base, numbers = vmap_groups.stack_numbers(configs)
    runs = [resolve_one(config) for config in configs]
    check_pure(runs[0])
    run, mesh = beside_others(runs[0]), mesh_for(len(configs), jax.devices())
    with contextlib.ExitStack() as held:
        for folder, config in ((group, base), *zip(workdirs, configs, strict=True)):
            held.enter_context(hold_workdir(folder, config))
        check_members(group, workdirs)
        state, known = initial_states(runs, workdirs, mesh)
        train_step = vmap_train_step(make_train_step, run, numbers, mesh)
        evaluate = make_evaluate(run, [c.seed for c in configs], mesh)
        settings = loop.settings(run, run.rl, group)
        settings["keep"] = CheckpointOptions(run.checkpoint.keep_latest, 0)
        settings |= dict(score="eval/pass@1", known=known, runs=workdirs, stop=stop, learning_rate=None)
        state = loop.train_runs("rl", state, train_step, evaluate, **settings)
        stuck = save_each(state, runs, workdirs)
    if stuck:
        raise UserError(
            f"rl: {stuck[0]}: the gradient was not finite {base.rl.max_skipped} steps in a row, as in {len(stuck)} of "
            f"{len(workdirs)} runs; the others are finished. Lower its rl.optimizer.learning_rate, or raise rl.max_skipped"
        )


# Which runs


def resolve_one(config: ConfigTree) -> Run:
    """One of the runs, on the one device that it has here. Raises UserError where its config asks for more."""
    if jax.process_count() > 1:
        raise UserError(f"runs together are one process, not {jax.process_count()}: start a process a group of runs")
    config = config.copy_and_resolve_references()
    for axis in sharding.MESH_AXES:
        if config.mesh[axis] not in (1, -1 if axis == "data" else 1):
            raise UserError(
                f"mesh.{axis}={config.mesh[axis]}: runs together have one device each, a larger mesh is for one run"
            )
    config.mesh.data = 1
    return resolve(config, "rl")


def check_pure(run: Run) -> None:
    """Raise UserError for what is not one pure function of arrays that lie on the device."""
    offloaded, rank = run.rl.offloaded, run.rl.lora.rank
    reasons = [
        (is_hosted(run), f"task {run.task.name!r} with its rl.reward is verified on the host"),
        (run.mesh.actors, f"mesh.actors={run.mesh.actors}: devices that sample ahead"),
        (rank, f"rl.lora.rank={rank}: what adapters are attached to lies beside the state"),
        (offloaded, f"{', '.join(offloaded.values())}: moments lie in host memory"),
    ]
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
            raise UserError(f"{folder} has begun its RL by itself: let `rljax rl` finish it, or use another folder")
    journal.replace_text(path, json.dumps(mine, indent=1) + "\n")


def has_steps(folder: Path) -> bool:
    return any((folder / "checkpoints" / "rl").glob("[0-9]*"))


def stopped_groups_in(folder: Path) -> list[tuple[Path, list[Path]]]:
    """(the group's folder, its runs' folders) of every group in ``folder`` that has begun."""
    begun = [path for path in sorted(folder.glob("*/runs.json")) if has_steps(path.parent)]
    return [(path.parent, [(path.parent / name).resolve() for name in json.loads(path.read_text())]) for path in begun]


# One function of all runs


def beside_others(run: Run) -> Run:
    """The same run, whose decisions about loops and branches are shared with those beside it."""
    shared = lambda model: dataclasses.replace(model, layout=dataclasses.replace(model.layout, run_axis=RUNS))
    model = shared(run.model)
    batching = dataclasses.replace(run.rl.micro_batching, layout=model.layout)
    rl = dataclasses.replace(run.rl, micro_batching=batching)
    return dataclasses.replace(run, model=model, sampler_model=shared(run.sampler_model), rl=rl)


def mesh_for(runs: int, devices: Sequence[Any]) -> Mesh:
    """As many of the devices as divide the number of runs, in one row."""
    count = max(n for n in range(1, len(devices) + 1) if runs % n == 0)
    return Mesh(np.asarray(devices[:count]), (DEVICES,), axis_types=(AxisType.Auto,))


def over_runs(function: Callable, mesh: Mesh) -> Callable:
    """A function of one run -> of all: every array has a leading axis [R], which is split over the devices."""
    part = PartitionSpec(DEVICES)
    vmapped = jax.vmap(function, axis_name=RUNS)
    return jax.shard_map(vmapped, mesh=mesh, in_specs=part, out_specs=part, check_vma=False)


def vmap_train_step(make_train_step: MakeTrainStep, run: Run, numbers: dict[str, np.ndarray], mesh: Mesh) -> TrainStep:
    """The train step of all runs, ``state [R, ...] -> (state, metrics [R])``; ``numbers`` [R] are those that differ."""

    def step(numbers: dict[str, jax.Array], state: TrainState) -> tuple[TrainState, dict[str, jax.Array]]:
        return make_train_step(run.with_numbers(numbers))(state)

    compiled = jax.jit(over_runs(step, mesh), donate_argnums=1)
    placed = jax.device_put(numbers, NamedSharding(mesh, PartitionSpec(DEVICES)))
    return functools.partial(compiled, placed)


def make_evaluate(run: Run, seeds: Sequence[int], mesh: Mesh) -> evaluation.EvaluateRuns:
    """``evaluate(params [R, ...])``: the metrics and samples of each run, on the problems of its own seed."""
    return evaluation.make_evaluators(
        run.task,
        run.sampler_model,
        run.evaluation,
        seeds=seeds,
        vmap_runs=lambda function: over_runs(function, mesh),
        max_new_tokens=run.rl.sampling.max_new_tokens,
        workers=run.workers,
    )


# From folders to arrays, and back


def initial_states(
    runs: Sequence[Run], workdirs: Sequence[Path], mesh: Mesh
) -> tuple[TrainState, list[evaluation.Evaluation] | None]:
    """(the states that the runs start from, stacked and shared out; their evaluations, where all have been made before)."""
    states, known = [], []
    for run, folder in zip(runs, workdirs, strict=True):
        params = initial_state.start_params(run, run.rl.start, folder)
        states.append(initial_state.new_state(run, run.rl, params))
        known.append(initial_state.known_evaluation(run, run.rl.start, folder))
    state = jax.device_put(evaluation.stack_runs(states), NamedSharding(mesh, PartitionSpec(DEVICES)))
    return state, known if all(known) else None


def save_each(state: TrainState, runs: Sequence[Run], workdirs: Sequence[Path]) -> list[Path]:
    """Save each run's last checkpoint in its own folder, as by itself; returns the folders of runs that are stuck."""
    steps, skipped = (jax.device_get(x).tolist() for x in (state.step, state.skipped))
    stuck = []
    for r, (run, folder) in enumerate(zip(runs, workdirs, strict=True)):
        if skipped[r] >= run.rl.loop.max_skipped:
            stuck.append(folder)
            continue
        one = sharding.replicate(jax.tree.map(lambda x, r=r: x[r], state), run.model.layout)
        scores = [row["eval/pass@1"] for row in journal.read_records(folder / "metrics.jsonl") if "eval/pass@1" in row]
        keep = run.checkpoint
        manager = checkpoint.open_manager(folder / "checkpoints" / "rl", keep.keep_latest, keep.keep_best)
        checkpoint.save(manager, steps[r], one, scores[-1])
        manager.close()
    return stuck
