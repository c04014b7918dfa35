"""Checkpoints of the training state, restored bit for bit.

Orbax writes them asynchronously and renames a finished step into place, so a kill at any moment leaves only whole steps.
Added here are a checksum of every array, without which a flipped bit on the disk would be restored silently, and a manifest
that says which step of which stage and run it is (``checkpoint_manifest``). A damaged step is set aside for the one before it.
"""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from rljax.distributed import processes
from rljax.errors import UserError
from rljax.structs import TrainState
from rljax.training import checkpoint_arrays, checkpoint_manifest, checkpoint_retention
from rljax.training.checkpoint_errors import (
    DamagedError,
    OtherStateError,
    SaveError,
    describe_error,
    first_line,
    is_full,
    proves_damage,
)
from rljax.training.checkpoint_manifest import Manifest, Owner
from rljax.transformer import lora

Manager = ocp.CheckpointManager
ANYONE = Owner()


def open_manager(directory: str | Path) -> Manager:
    """A manager of the checkpoints in ``directory``. It deletes none. Raises UserError where the folder cannot hold any."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs tracebacks of what is reported here in one line
    checkpoint_manifest.list_steps(Path(directory))
    options = ocp.CheckpointManagerOptions(
        enable_async_checkpointing=True,
        lightweight_initialize=True,  # damaged metadata of one step must not keep the others from being read
    )
    try:
        return ocp.CheckpointManager(Path(directory).absolute(), options=options)
    except OSError as e:
        raise UserError(f"cannot open {directory}: {describe_error(e)}") from None


def save(
    manager: Manager, step: int, state: TrainState, score: float | None = None, owner: Owner = ANYONE, **about: Any
) -> None:
    """Start to write ``state`` as this step; returns before it is on the disk. A step that exists is not written again.

    Parameters are an item of their own, so that the next stage can read them without knowing this stage's optimizer. ``about``
    are fields of the Manifest. Raises SaveError where it cannot be written.
    """
    directory = Path(manager.directory)
    if step in checkpoint_manifest.list_steps(directory):
        return
    items = {"params": state.params, "rest": state_without_params(state)}
    save_args: dict[str, Any] = {name: ocp.args.StandardSave(item) for name, item in items.items()}
    sums = {name: checksums(item) for name, item in items.items()}
    arrays = {name: checkpoint_arrays.describe_arrays(item) for name, item in items.items()}
    finite = None if score is None or not np.isfinite(score) else float(score)
    manifest = Manifest(
        step, owner.stage, owner.run, score=finite, arrays=arrays, sums=checkpoint_manifest.digest(sums), **about
    )
    save_args["sums"] = ocp.args.JsonSave(sums)
    save_args["manifest"] = ocp.args.JsonSave(checkpoint_manifest.manifest_to_json(manifest))
    try:
        if not manager.save(step, args=ocp.args.Composite(**save_args)):
            raise OSError("the storage library refused it")
    except Exception as e:  # of many types: any of them means that it was not written
        raise save_error(directory, step, e) from e


def save_error(directory: Path, step: int, e: BaseException) -> SaveError:
    """The line about a checkpoint that could not be written."""
    try:
        older = [s for s in checkpoint_manifest.list_steps(directory) if s != step]
    except UserError:
        older = []
    whole = f"the newest whole one is step {older[-1]}" if older else "there is none before it"
    if is_full(e):
        return SaveError(
            f"the disk is full: checkpoint {step} was not written to {directory} ({describe_error(e)}); {whole}: free some "
            "space, then run the same command again"
        )
    return SaveError(
        f"checkpoint {step} was not written to {directory} ({describe_error(e)}); {whole}: mend that, then run the same "
        "command again"
    )


def restore(manager: Manager, like: TrainState, owner: Owner = ANYONE) -> tuple[TrainState, int] | None:
    """(state, step) of the newest step that is whole; None where there are no steps.

    ``like`` is a state that gives the structure, the shapes, the dtypes and the sharding of each array. Newer steps that are
    damaged are set aside. Every process must call it. Raises UserError, and touches nothing, if every step is damaged, if one
    belongs elsewhere or holds other arrays, and if one cannot be read for a reason that proves no damage.
    """
    directory, problems = Path(manager.directory), []
    for step in reversed(checkpoint_manifest.list_steps(directory)):
        try:
            state = read_state(manager, step, like, owner)
        except Exception as e:  # Orbax raises plain Exceptions, KeyErrors, JSON errors
            said = unusable(directory, step, e)
            if isinstance(e, (UserError, OtherStateError)) or not proves_damage(e, directory / str(step)):
                raise said from e
            problems.append(str(said))
            logging.getLogger(__name__).warning(problems[-1])
            continue
        set_aside_after(manager, step)
        return state, step
    if problems:
        raise UserError(
            f"{problems[0]}; {len(problems)} tried, none is whole: move the folder away to start this stage anew"
        )
    return None


def unusable(directory: Path, step: int, e: Exception) -> UserError:
    """The line about a checkpoint that cannot be used."""
    if isinstance(e, UserError):
        return e
    said = f"checkpoint {step} in {directory} cannot be used"
    if isinstance(e, OtherStateError):
        way_out = "" if "settings" in str(e) else ": move this folder away, then run the same command again"
        return UserError(f"{said} ({first_line(e)}){way_out}")
    if isinstance(e, DamagedError) or proves_damage(e, directory / str(step)):
        return UserError(
            f"{said} ({first_line(e) if isinstance(e, DamagedError) else describe_error(e)}): it is damaged"
        )
    return UserError(f"{said} now ({describe_error(e)}): nothing says that it is damaged. Mend that, then try again")


def state_without_params(state: TrainState) -> dict[str, Any]:
    """{field: value} of a state without its parameters, without what never changes and without the fields that are None.

    ``frozen`` and a fixed reference never change, so they are not stored: a run that is continued gets them from where it
    started.
    """
    left_out = {"params", "frozen", "reference_is_fixed"} | ({"reference"} if state.reference_is_fixed else set())
    values = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {name: value for name, value in values.items() if value is not None and name not in left_out}


def read_state(manager: Manager, step: int, like: TrainState, owner: Owner = ANYONE) -> TrainState:
    """The state of one step, with what checkpoints leave out taken from ``like``.

    Older checkpoints hold a reference that never moves, without a fingerprint of it. Such a reference is only used to compute
    that: the caller compares it with the one of ``like``.
    """
    rest = state_without_params(like)
    manifest, sums = read_about(manager, step, owner)
    stored = {path.split("'")[1] for path in sums["rest"]}
    if manifest is None:  # of an older version: the checksum of its counter says which step it is
        check_counter(step, sums, like.step.ndim)
    is_older = like.reference_is_fixed and "reference" in stored
    if is_older:
        rest["reference"] = like.params
        rest = {name: value for name, value in rest.items() if name != "fingerprint" or name in stored}
    items = read_items(manager, step, {"params": like.params, "rest": rest}, owner)
    if is_older:
        compute = lambda reference: lora.base_fingerprint(lora.Base(reference, jnp.ones(())))
        compute = jax.vmap(compute) if like.step.ndim else compute  # vmapped runs
        reference = items["rest"].pop("reference")
        if "fingerprint" not in items["rest"]:
            items["rest"]["fingerprint"] = jax.jit(compute)(reference)
    return like.replace(params=items["params"], **items["rest"])


def read_about(manager: Manager, step: int, owner: Owner) -> tuple[Manifest | None, dict[str, dict[str, int]]]:
    """(manifest, checksums) of a step. Raises as ``check_manifest`` and ``read_sums`` do."""
    folder = Path(manager.directory) / str(step)
    manifest = checkpoint_manifest.check_manifest(folder, owner)
    return manifest, checkpoint_manifest.read_sums(folder, manifest)


def check_counter(step: int, sums: Mapping[str, Mapping[str, int]], ndim: int = 0) -> None:
    """Raise OtherStateError where the stored counter of steps is not the folder's. That of vmapped runs is not known."""
    stored = sums.get("rest", {}).get("['step']")
    if stored is not None and not ndim and stored != int(checksum(jnp.int32(step))):
        raise OtherStateError("the counter in it is of another step: it was copied or renamed")


def restore_params(manager: Manager, like: Any, step: int, owner: Owner = ANYONE) -> Any:
    """The parameters of one step, with the shapes and shardings of ``like``. Raises UserError if they cannot be read."""
    try:
        manifest, sums = read_about(manager, step, owner)
        if manifest is None:
            check_counter(step, sums)
        return read_items(manager, step, {"params": like}, owner)["params"]
    except Exception as e:
        raise unusable(Path(manager.directory), step, e) from e


def read_items(manager: Manager, step: int, like: dict[str, Any], owner: Owner = ANYONE) -> dict[str, Any]:
    """{item: its tree} of a step, by the names in ``like``.

    Raises OtherStateError where it holds other arrays than ``like``, shapes and dtypes included, and DamagedError if the
    checksum of an array does not match.
    """
    manifest, sums = read_about(manager, step, owner)
    for name in like:
        if name not in sums:
            raise DamagedError(f"its checksums lack {name}")
        stored = manifest.arrays[name] if manifest is not None else None
        checkpoint_arrays.check_arrays(name, stored, sums[name], like[name])
    shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
    args = {name: ocp.args.StandardRestore(jax.tree.map(shape, item)) for name, item in like.items()}
    try:
        items: Any = manager.restore(step, args=ocp.args.Composite(**args))
    except ValueError as e:
        checkpoint_arrays.check_no_shapes_in(e)
        raise
    for name in like:
        computed = checksums(items[name])
        damaged = [path for path, stored in sums[name].items() if computed[path] != stored]
        if damaged:
            raise DamagedError(f"the checksum of {name}{damaged[0]} does not match: the file is damaged")
    return {name: items[name] for name in like}


def set_aside_after(manager: Manager, step: int) -> None:
    """Rename the steps after ``step``: they are damaged, and will be written again. Every process must call it."""
    directory = Path(manager.directory)
    later = [s for s in checkpoint_manifest.list_steps(directory) if s > step]
    processes.barrier("damaged checkpoints")  # all have listed them
    for damaged in later if processes.is_primary() else ():
        checkpoint_retention.set_aside(directory, damaged)
    if later:
        processes.barrier("set checkpoints aside")
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
