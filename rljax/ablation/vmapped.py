"""Many RL runs as one program. The runs differ in their seeds and in numbers; their arrays have a leading axis [R] of runs.

The train step of one run is vmapped over the runs, and the axis of runs is sharded over the devices. No device communicates
with another. A loop continues until every run on the device is done, and a micro-batch is as wide as the widest run needs.
So the other runs change the result of a run by rounding alone. Every run leaves in its own workdir the same files as if it
ran by itself. The checkpoints from which a stopped group continues are in the folder of the group.
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
from rljax.training.checkpoint_manifest import Owner
from rljax.training.checkpoint_saver import Saver
from rljax.training.rl_steps import TrainStep, is_hosted
from rljax.training.run import Run, resolve
from rljax.training.stage_checkpoints import finished
from rljax.training.workdir import hold_workdir

RUN_AXIS, DEVICE_AXIS = "runs", "devices"  # the vmapped axis, and the mesh axis that it is sharded over
MakeTrainStep = Callable[[Run], TrainStep]  # experiments.rl.make_train_step


def train_vmapped_runs(
    make_train_step: MakeTrainStep,
    configs: Sequence[ConfigTree],
    workdirs: Sequence[Path],
    group: Path,
    stop: int = 0,
) -> None:
    """Train all runs to their end, or to step ``stop``. ``group`` is the folder of their common checkpoints.

    The number of devices is the largest one that divides the number of runs. If it is stopped, the same call continues.
    Raises UserError if the runs cannot be one program. Also raises it for runs whose gradient was not finite in the last
    ``rl.max_skipped`` steps, after all other runs are saved.
    """
    if not configs or len({Path(folder).resolve() for folder in (group, *workdirs)}) != len(configs) + 1:
        raise UserError(
            f"{len(configs)} runs in one process need {len(configs)} different workdirs and another folder for the group, not "
            f"{', '.join(map(str, workdirs))} and {group}"
        )
    steps = stop or configs[0].rl.steps
    if all(finished(workdir, "rl", steps) for workdir in workdirs):
        return
    first_config, numbers = vmap_groups.stack_numbers(configs)
    runs = [resolve_on_one_device(config) for config in configs]
    check_vmappable(runs[0])
    run, mesh = with_run_axis(runs[0]), make_run_mesh(len(configs), jax.devices())
    with contextlib.ExitStack() as stack:
        for folder, config in ((group, first_config), *zip(workdirs, configs, strict=True)):
            stack.enter_context(hold_workdir(folder, config))
        check_group_folder(group, workdirs)
        state, known_evaluations = make_initial_states(runs, workdirs, mesh)
        train_step = vmap_train_step(make_train_step, run, numbers, mesh)
        evaluate = make_vmapped_evaluator(run, [config.seed for config in configs], mesh)
        settings = loop.settings(run, run.rl, group)
        settings["keep"] = dataclasses.replace(run.checkpoint, keep_best=0)
        settings |= dict(score="eval/pass@1", known=known_evaluations, runs=workdirs, stop=stop, learning_rate=None)
        state = loop.train_runs("rl", state, train_step, evaluate, **settings)
        failed = save_last_checkpoints(state, runs, workdirs)
    if failed:
        raise UserError(
            f"rl: {failed[0]}: the gradient was not finite {first_config.rl.max_skipped} steps in a row. This happened in "
            f"{len(failed)} of {len(workdirs)} runs; the others are finished. Lower its rl.optimizer.learning_rate, or raise "
            "rl.max_skipped"
        )


# Checks: which runs can be vmapped, and in which folders


def resolve_on_one_device(config: ConfigTree) -> Run:
    """The resolved run on a mesh of one device. Raises UserError if its config needs more devices or processes."""
    if jax.process_count() > 1:
        raise UserError(
            f"--form together computes its runs in a single process, this job has {jax.process_count()}: start one job for each "
            "group of runs"
        )
    config = config.copy_and_resolve_references()
    for axis in sharding.MESH_AXES:
        if config.mesh[axis] not in (1, -1 if axis == "data" else 1):
            raise UserError(
                f"mesh.{axis}={config.mesh[axis]}: with --form together a run has one device: set mesh.{axis}=1, or --form processes"
            )
    config.mesh.data = 1
    return resolve(config, "rl")


def check_vmappable(run: Run) -> None:
    """Raise UserError if the train step is not a pure function of arrays on the device."""
    offloaded, rank = run.rl.offloaded, run.rl.lora.rank
    reasons = [
        (is_hosted(run), f"task {run.task.name!r} with its rl.reward is verified by reading text"),
        (run.mesh.actors, f"mesh.actors={run.mesh.actors} has separate devices for sampling"),
        (rank, f"rl.lora.rank={rank} keeps the base weights outside of the train state"),
        (offloaded, f"{', '.join(offloaded.values())} keeps optimizer moments in host memory"),
    ]
    for applies, reason in reasons:
        if applies:
            raise UserError(f"{reason}. Such runs cannot be computed together: --form processes")


def check_group_folder(group: Path, workdirs: Sequence[Path]) -> None:
    """Write the list of the group's runs to runs.json.

    Raises UserError if the folder has checkpoints of other runs, or if a run has checkpoints but the group has none.
    """
    path, names = group / "runs.json", [os.path.relpath(workdir, group) for workdir in workdirs]
    has_begun = path.exists() and has_checkpoints(group)
    if has_begun and (recorded := read_group(path)) != names:
        raise UserError(
            f"{group} has the checkpoints of {', '.join(recorded)}, but these runs are {', '.join(names)}: use another "
            "folder"
        )
    for workdir in workdirs if not has_begun else ():
        if has_checkpoints(workdir):
            raise UserError(
                f"{workdir} has RL checkpoints of a run by itself: finish it with `rljax rl`, or use another folder"
            )
    journal.replace_text(path, json.dumps(names, indent=1) + "\n")


def read_group(path: Path) -> list[str]:
    """The folders of a group's runs, in its runs.json. Raises UserError where that is no list of names."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} is damaged: bring it back, or remove its folder to start these runs anew")
    return names


def has_checkpoints(folder: Path) -> bool:
    """Whether the folder has a checkpoint of RL."""
    return any((folder / "checkpoints" / "rl").glob("[0-9]*"))


def list_stopped_groups(folder: Path) -> list[tuple[Path, list[Path]]]:
    """(folder of the group, workdirs of its runs) of every group in ``folder`` that has a checkpoint."""
    groups = [path.parent for path in sorted(folder.glob("*/runs.json")) if has_checkpoints(path.parent)]
    return [(group, [(group / name).resolve() for name in read_group(group / "runs.json")]) for group in groups]


# The vmapped functions


def with_run_axis(run: Run) -> Run:
    """The same run with ``Layout.run_axis`` set: all vmapped runs then take the same loop iterations and branches."""
    set_axis = lambda model: dataclasses.replace(model, layout=dataclasses.replace(model.layout, run_axis=RUN_AXIS))
    model = set_axis(run.model)
    micro_batching = dataclasses.replace(run.rl.micro_batching, layout=model.layout)
    rl = dataclasses.replace(run.rl, micro_batching=micro_batching)
    return dataclasses.replace(run, model=model, sampler_model=set_axis(run.sampler_model), rl=rl)


def make_run_mesh(num_runs: int, devices: Sequence[Any]) -> Mesh:
    """A mesh with one axis, of the largest number of devices that divides the number of runs."""
    count = max(n for n in range(1, len(devices) + 1) if num_runs % n == 0)
    return Mesh(np.asarray(devices[:count]), (DEVICE_AXIS,), axis_types=(AxisType.Auto,))


def vmap_over_runs(function: Callable, mesh: Mesh) -> Callable:
    """A function of one run, vmapped: all arguments and results have a leading axis [R], sharded over the devices."""
    spec = PartitionSpec(DEVICE_AXIS)
    vmapped = jax.vmap(function, axis_name=RUN_AXIS)
    return jax.shard_map(vmapped, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)


def vmap_train_step(make_train_step: MakeTrainStep, run: Run, numbers: dict[str, np.ndarray], mesh: Mesh) -> TrainStep:
    """The compiled train step of all runs: ``train_step(state [R, ...]) -> (state [R, ...], metrics [R])``.

    ``numbers`` is {path: values [R]} of the settings that differ between the runs.
    """

    def train_step(numbers: dict[str, jax.Array], state: TrainState) -> tuple[TrainState, dict[str, jax.Array]]:
        return make_train_step(run.with_numbers(numbers))(state)

    compiled = jax.jit(vmap_over_runs(train_step, mesh), donate_argnums=1)
    return functools.partial(compiled, jax.device_put(numbers, NamedSharding(mesh, PartitionSpec(DEVICE_AXIS))))


def make_vmapped_evaluator(run: Run, seeds: Sequence[int], mesh: Mesh) -> evaluation.EvaluateRuns:
    """``evaluate(params [R, ...])``: the metrics and samples of each run, on the held-out problems of its seed."""
    return evaluation.make_evaluators(
        run.task,
        run.sampler_model,
        run.evaluation,
        seeds=seeds,
        vmap_runs=lambda function: vmap_over_runs(function, mesh),
        max_new_tokens=run.rl.sampling.max_new_tokens,
        slots=run.rl.sampling.slots,
        workers=run.workers,
        max_unscored=run.max_unscored,
    )


# States and checkpoints


def make_initial_states(
    runs: Sequence[Run], workdirs: Sequence[Path], mesh: Mesh
) -> tuple[TrainState, list[evaluation.Evaluation] | None]:
    """(initial states of all runs [R, ...], sharded over the devices; evaluations of the starting parameters).

    The evaluations are those that an earlier stage has made, or None if one is missing.
    """
    states, evaluations = [], []
    for run, workdir in zip(runs, workdirs, strict=True):
        params = initial_state.start_params(run, run.rl.start, workdir)
        states.append(initial_state.new_state(run, run.rl, params, initial_state.teacher_params(run)))
        evaluations.append(initial_state.known_evaluation(run, run.rl.start, workdir))
    state = jax.device_put(evaluation.stack_runs(states), NamedSharding(mesh, PartitionSpec(DEVICE_AXIS)))
    return state, evaluations if all(evaluations) else None


def save_last_checkpoints(state: TrainState, runs: Sequence[Run], workdirs: Sequence[Path]) -> list[Path]:
    """Save the last checkpoint of each run in its workdir, as a run by itself does.

    Runs whose gradient was not finite ``max_skipped`` steps in a row are not saved; returns their workdirs.
    """
    steps, skipped = (jax.device_get(x).tolist() for x in (state.step, state.skipped))
    failed = []
    for r, (run, workdir) in enumerate(zip(runs, workdirs, strict=True)):
        if skipped[r] >= run.rl.loop.max_skipped:
            failed.append(workdir)
            continue
        run_state = sharding.replicate(jax.tree.map(lambda x, r=r: x[r], state), run.model.layout)
        records = journal.read_records(workdir / "metrics.jsonl")
        scores = [record["eval/pass@1"] for record in records if "eval/pass@1" in record]
        owner = Owner("rl", journal.read_run_id(workdir))
        saver = Saver(checkpoint.open_manager(workdir / "checkpoints" / "rl"), owner, run.rl.loop, run.checkpoint)
        saver.save(steps[r], run_state, scores[-1], records=(journal.digest_records(workdir, "rl", steps[r]),))
        saver.close()
    return failed
