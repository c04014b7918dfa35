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
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from rljax import processes
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
    sums = ocp.args.JsonSave({name: checksums(item) for name, item in items.items()})
    metrics = {METRIC: -float("inf") if score is None else float(score)}
    if not manager.save(step, args=ocp.args.Composite(**save_args, crc32=sums), metrics=metrics):
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
    """Items of a step, checked against their checksums. Raises ValueError where one does not match."""
    shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
    wanted = {name: ocp.args.StandardRestore(jax.tree.map(shape, item)) for name, item in like.items()}
    read: Any = manager.restore(step, args=ocp.args.Composite(**wanted, crc32=ocp.args.JsonRestore()))
    for name in like:
        found = checksums(read[name])
        wrong = [path for path, value in read.crc32[name].items() if found.get(path, value) != value]
        if wrong:
            raise ValueError(f"the checksum of {name}{wrong[0]} does not match: the file is damaged")
    return {name: read[name] for name in like}


def first_line(e: Exception) -> str:
    return (str(e).strip().splitlines() or [type(e).__name__])[0][:200]


def discard_after(manager: Manager, step: int) -> None:
    """Forget steps newer than ``step``: they were found damaged, and will be written again."""
    for number in [s for s in manager.all_steps() if s > step and processes.writes()]:
        shutil.rmtree(Path(manager.directory) / str(number), ignore_errors=True)
    manager.reload()


def checksums(state: Any) -> dict[str, int]:
    """CRC-32 of each array's bytes, by path; of this process's part where an array lies on several."""
    out = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        x = jax.random.key_data(leaf) if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        if x.is_fully_addressable:
            out[jax.tree_util.keystr(path)] = zlib.crc32(np.ascontiguousarray(np.asarray(x)).tobytes())
    return out
