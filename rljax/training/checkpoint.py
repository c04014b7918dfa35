"""The training state, out to disk and back, exactly.

Orbax writes asynchronously and renames a finished step into place, so a kill at any moment leaves only whole steps. On
top of it: a checksum of every array is stored beside them and compared on the way back (a flipped bit on disk would
otherwise be restored without a word), and a step that cannot be read is passed over for the one before it.
"""

import dataclasses
import logging
import shutil
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from rljax.distributed import processes
from rljax.errors import UserError
from rljax.structs import TrainState

Manager = ocp.CheckpointManager
METRIC = "score"  # what "best" means: the largest


def open_manager(directory: str | Path, keep_latest: int, keep_best: int) -> Manager:
    """A manager of ``directory`` that keeps the latest steps and, by the score given to ``save``, the best ones."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax logs tracebacks of what we report in a line
    policies: list[Any] = [checkpoint_managers.LatestN(keep_latest)]
    if keep_best:
        policies.append(checkpoint_managers.BestN(get_metric_fn=lambda m: m[METRIC], n=keep_best))
    options = ocp.CheckpointManagerOptions(
        enable_async_checkpointing=True, preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies)
    )
    return ocp.CheckpointManager(Path(directory).absolute(), options=options)


def save(manager: Manager, step: int, state: TrainState, score: float | None = None) -> None:
    """Start writing ``state`` as this step; returns before the disk has it. A step that exists is left alone.

    Parameters are an item of their own, so that the next stage reads them without knowing this stage's optimiser.
    """
    if step in manager.all_steps():
        return
    items = {"params": state.params, "rest": rest(state)}
    save_args = {name: ocp.args.StandardSave(item) for name, item in items.items()}
    kept = ocp.args.JsonSave({name: checksums(item) for name, item in items.items()})
    metrics = {METRIC: -float("inf") if score is None else float(score)}
    if not manager.save(step, args=ocp.args.Composite(**save_args, sums=kept), metrics=metrics):
        raise OSError(f"checkpoint {step} was not written to {manager.directory}")


def restore(manager: Manager, like: TrainState) -> tuple[TrainState, int] | None:
    """(state, step) of the newest step that is whole; None where there is none.

    ``like`` is a state: it says the structure, the shapes and where each array is to lie. A damaged step is named on the
    log and passed over. Raises UserError where every step there is fails.
    """
    problems = []
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            read = read_items(manager, step, {"params": like.params, "rest": rest(like)})
            return like.replace(params=read["params"], **read["rest"]), step
        except Exception as e:  # orbax raises plain Exceptions, KeyErrors, JSON errors: any of them means unreadable
            problems.append(f"checkpoint {step} in {manager.directory} cannot be used ({first_line(e)})")
            logging.getLogger(__name__).warning(problems[-1])
    if problems:
        raise UserError(
            f"{problems[0]}; {len(problems)} tried, none is whole: remove the folder to start this stage anew"
        )
    return None


def rest(state: TrainState) -> dict[str, Any]:
    """The parts of a state beside its parameters, without those it lacks: a part that a later version adds is not missed.

    What never changes is not written again and again: ``frozen`` comes from where it came from at the start.
    """
    others = [field.name for field in dataclasses.fields(state) if field.name not in ("params", "frozen")]
    parts = {name: getattr(state, name) for name in others}
    return {name: part for name, part in parts.items() if part is not None}


def restore_params(manager: Manager, like: Any, step: int) -> Any:
    """Only the parameters of one step, laid out as ``like``. Raises UserError where they cannot be read."""
    try:
        return read_items(manager, step, {"params": like})["params"]
    except Exception as e:
        raise UserError(f"checkpoint {step} in {manager.directory} cannot be used ({first_line(e)})") from e


def read_items(manager: Manager, step: int, like: dict[str, Any]) -> dict[str, Any]:
    """Items of a step, checked against their checksums. Raises ValueError where one does not match.

    What an earlier version wrote has a CRC-32 of each array in their place.
    """
    shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
    wanted = {name: ocp.args.StandardRestore(jax.tree.map(shape, item)) for name, item in like.items()}
    kind, of = ("crc32", crcs) if (Path(manager.directory) / str(step) / "crc32").is_dir() else ("sums", checksums)
    read: Any = manager.restore(step, args=ocp.args.Composite(**wanted, **{kind: ocp.args.JsonRestore()}))
    for name in like:
        found = of(read[name])
        wrong = [path for path, value in read[kind][name].items() if found.get(path, value) != value]
        if wrong:
            raise ValueError(f"the checksum of {name}{wrong[0]} does not match: the file is damaged")
    return {name: read[name] for name in like}


def first_line(e: Exception) -> str:
    return (str(e).strip().splitlines() or [type(e).__name__])[0][:200]


def discard_after(manager: Manager, step: int) -> None:
    """Forget steps newer than ``step``: they were found damaged, and will be written again."""
    for number in [s for s in manager.all_steps() if s > step and processes.writes()]:
        shutil.rmtree(Path(manager.directory) / str(number), ignore_errors=True)
    processes.meet()
    manager.reload()


def checksums(state: Any) -> dict[str, int]:
    """A checksum of each array, by path, made where the array lies: the same on every mesh and in every process."""
    sums = {jax.tree_util.keystr(path): checksum(x) for path, x in jax.tree_util.tree_flatten_with_path(state)[0]}
    return {path: int(x) for path, x in jax.device_get(sums).items()}


@jax.jit
def checksum(x: jax.Array) -> jax.Array:
    """Every element's bits and its place, mixed, and summed modulo 2**32: the order of a sum of integers changes nothing.

    The mixing (murmur3's) maps words one to one, so that one wrong element is always seen. Returns uint32 [].
    """
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    x = jax.device_put(x, jax.memory.Space.Device)  # moments may lie in host memory
    bits = 8 * x.dtype.itemsize
    if x.dtype == bool:
        words = x.astype(jnp.uint32)
    elif bits <= 32:
        words = jax.lax.bitcast_convert_type(x, f"uint{bits}").astype(jnp.uint32)
    else:
        words = jax.lax.bitcast_convert_type(x, jnp.uint32)  # [..., 2]
    place, stride = jnp.zeros((), jnp.uint32), 1
    for axis in reversed(range(words.ndim)):
        place = place + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * jnp.uint32(stride % 2**32)
        stride *= words.shape[axis]
    mixed = words ^ (place * jnp.uint32(0x9E3779B1))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = (mixed ^ (mixed >> shift)) * jnp.uint32(factor)
    return (mixed ^ (mixed >> 16)).sum(dtype=jnp.uint32)


def crcs(state: Any) -> dict[str, int]:
    """CRC-32 of the bytes of each array that lies whole in this process, by path."""
    out = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        x = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        if x.is_fully_addressable:
            out[jax.tree_util.keystr(path)] = zlib.crc32(np.ascontiguousarray(np.asarray(x)).tobytes())
    return out
