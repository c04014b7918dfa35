"""Checkpoints of the training state, restored bit for bit.

Orbax writes them asynchronously and renames a finished step into place, so a kill at any moment leaves only whole steps.
Two things are added here. A checksum of every array is stored beside the arrays and compared when they are read: without it
a flipped bit on the disk would be restored silently. And a step that cannot be read is skipped for the one before it.
"""

import dataclasses
import logging
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from rljax.distributed import processes
from rljax.errors import UserError
from rljax.structs import TrainState
from rljax.transformer import lora

Manager = ocp.CheckpointManager
METRIC = "score"  # the best checkpoint has the largest


def open_manager(directory: str | Path, keep_latest: int, keep_best: int) -> Manager:
    """A manager of ``directory`` that keeps the latest steps and the steps with the best scores (see ``save``)."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs tracebacks of what is reported here in one line
    policies: list[Any] = [checkpoint_managers.LatestN(keep_latest)]
    if keep_best:
        policies.append(checkpoint_managers.BestN(get_metric_fn=lambda m: m[METRIC], n=keep_best))
    options = ocp.CheckpointManagerOptions(
        enable_async_checkpointing=True, preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies)
    )
    return ocp.CheckpointManager(Path(directory).absolute(), options=options)


def save(manager: Manager, step: int, state: TrainState, score: float | None = None) -> None:
    """Start to write ``state`` as this step; returns before it is on the disk. A step that exists is not written again.

    Parameters are an item of their own, so that the next stage can read them without knowing this stage's optimizer.
    Raises OSError where Orbax refuses to write.
    """
    if step in manager.all_steps():
        return
    items = {"params": state.params, "rest": state_without_params(state)}
    save_args = {name: ocp.args.StandardSave(item) for name, item in items.items()}
    sums = ocp.args.JsonSave({name: checksums(item) for name, item in items.items()})
    metrics = {METRIC: -float("inf") if score is None else float(score)}
    if not manager.save(step, args=ocp.args.Composite(**save_args, sums=sums), metrics=metrics):
        raise OSError(f"checkpoint {step} was not written to {manager.directory}")


def restore(manager: Manager, like: TrainState) -> tuple[TrainState, int] | None:
    """(state, step) of the newest step that can be read; None where there are no steps.

    ``like`` is a state that gives the structure, the shapes, the dtypes and the sharding of each array. A damaged step is
    logged as a warning and skipped. Raises UserError if every step is damaged.
    """
    problems = []
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            return read_state(manager, step, like), step
        except Exception as e:  # orbax raises plain Exceptions, KeyErrors, JSON errors: any of them means unreadable
            problems.append(f"checkpoint {step} in {manager.directory} cannot be used ({first_line(e)})")
            logging.getLogger(__name__).warning(problems[-1])
    if problems:
        raise UserError(
            f"{problems[0]}; {len(problems)} tried, none is whole: remove the folder to start this stage anew"
        )
    return None


def state_without_params(state: TrainState) -> dict[str, Any]:
    """{field: value} of a state without its parameters, without what never changes and without the fields that are None.

    ``frozen`` and a fixed reference never change, so they are not stored: a run that is continued gets them from where it
    started.
    """
    left_out = {"params", "frozen", "reference_is_fixed"} | ({"reference"} if state.reference_is_fixed else set())
    values = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {name: value for name, value in values.items() if value is not None and name not in left_out}


def read_state(manager: Manager, step: int, like: TrainState) -> TrainState:
    """The state of one step, with what checkpoints leave out taken from ``like``.

    Older checkpoints hold a reference that never moves, without a fingerprint of it. Such a reference is only used to compute
    that: the caller compares it with the one of ``like``.
    """
    rest = state_without_params(like)
    stored = {path.split("'")[1] for path in stored_checksums(manager, step)["rest"]}
    is_older = like.reference_is_fixed and "reference" in stored
    if is_older:
        rest["reference"] = like.params
        rest = {name: value for name, value in rest.items() if name != "fingerprint" or name in stored}
    items = read_items(manager, step, {"params": like.params, "rest": rest})
    if is_older:
        compute = lambda reference: lora.base_fingerprint(lora.Base(reference, jnp.ones(())))
        compute = jax.vmap(compute) if like.step.ndim else compute  # vmapped runs
        reference = items["rest"].pop("reference")
        if "fingerprint" not in items["rest"]:
            items["rest"]["fingerprint"] = jax.jit(compute)(reference)
    return like.replace(params=items["params"], **items["rest"])


def stored_checksums(manager: Manager, step: int) -> dict[str, dict[str, int]]:
    """{item: {path of an array: its checksum}} of a step."""
    items: Any = manager.restore(step, args=ocp.args.Composite(sums=ocp.args.JsonRestore()))
    return items["sums"]


def restore_params(manager: Manager, like: Any, step: int) -> Any:
    """The parameters of one step, with the shapes and shardings of ``like``. Raises UserError if they cannot be read."""
    try:
        return read_items(manager, step, {"params": like})["params"]
    except Exception as e:
        raise UserError(f"checkpoint {step} in {manager.directory} cannot be used ({first_line(e)})") from e


def read_items(manager: Manager, step: int, like: dict[str, Any]) -> dict[str, Any]:
    """{item: its tree} of a step, by the names in ``like``.

    Raises ValueError where it holds other arrays than ``like``, and if the checksum of an array does not match.
    """
    sums = stored_checksums(manager, step)
    for name in like:
        check_same_arrays(name, set(sums[name]), set(array_paths(like[name])))
    shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
    args = {name: ocp.args.StandardRestore(jax.tree.map(shape, item)) for name, item in like.items()}
    items: Any = manager.restore(step, args=ocp.args.Composite(**args))
    for name in like:
        computed = checksums(items[name])
        damaged = [path for path, stored in sums[name].items() if computed[path] != stored]
        if damaged:
            raise ValueError(f"the checksum of {name}{damaged[0]} does not match: the file is damaged")
    return {name: items[name] for name in like}


def array_paths(tree: Any) -> list[str]:
    """The path of each array of a tree, as in the stored checksums."""
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]


def check_same_arrays(name: str, stored: set[str], wanted: set[str]) -> None:
    """Raise ValueError where a checkpoint holds other arrays than this run needs."""
    for what, paths in (("lacks", wanted - stored), ("also holds", stored - wanted)):
        if paths:
            raise ValueError(
                f"it {what} {name}{min(paths)}: other settings or an older version of this program wrote it"
            )


def first_line(e: Exception) -> str:
    """The first line of an exception's message, at most 200 characters; its type's name where it has no message."""
    return (str(e).strip().splitlines() or [type(e).__name__])[0][:200]


def discard_after(manager: Manager, step: int) -> None:
    """Delete the steps after ``step``: they are damaged, and will be written again. Every process must call it."""
    for later in [s for s in manager.all_steps() if s > step and processes.is_primary()]:
        shutil.rmtree(Path(manager.directory) / str(later), ignore_errors=True)
    processes.barrier("discard checkpoints")
    manager.reload()


def checksums(state: Any) -> dict[str, int]:
    """{path: checksum} of the arrays of a tree, computed on their devices: equal on every mesh and in every process."""
    sums = {jax.tree_util.keystr(path): checksum(x) for path, x in jax.tree_util.tree_flatten_with_path(state)[0]}
    return {path: int(x) for path, x in jax.device_get(sums).items()}


@jax.jit
def checksum(x: jax.Array) -> jax.Array:
    """A checksum of an array of any type: uint32 [].

    The bits of each element are mixed with its position, and the results are summed modulo 2**32. The order of a sum of
    integers does not matter, so the sharding does not. The mixing (the finalizer of MurmurHash3) maps words one to one, so
    that one wrong element is always seen.
    """
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    x = jax.device_put(x, jax.memory.Space.Device)  # moments may be in host memory
    bits = 8 * x.dtype.itemsize
    if x.dtype == bool:
        words = x.astype(jnp.uint32)
    elif bits <= 32:
        words = jax.lax.bitcast_convert_type(x, f"uint{bits}").astype(jnp.uint32)
    else:
        words = jax.lax.bitcast_convert_type(x, jnp.uint32)  # [..., 2]
    position, stride = jnp.zeros((), jnp.uint32), 1
    for axis in reversed(range(words.ndim)):
        position = position + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * jnp.uint32(stride % 2**32)
        stride *= words.shape[axis]
    mixed = words ^ (position * jnp.uint32(0x9E3779B1))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = (mixed ^ (mixed >> shift)) * jnp.uint32(factor)
    return (mixed ^ (mixed >> 16)).sum(dtype=jnp.uint32)
