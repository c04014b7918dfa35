"""What checkpoints there are, whether they are whole, and in what two of them differ. Needs no config: arrays as they are stored."""

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from safetensors.flax import save_file

from rljax.errors import UserError
from rljax.training import checkpoint, checkpoint_manifest, journal
from rljax.training.checkpoint_errors import DamagedError, OtherStateError, describe_error, first_line
from rljax.training.checkpoint_manifest import Manifest, Owner, list_steps
from rljax.training.checkpoint_retention import DELETED, SET_ASIDE, UNFINISHED

ArrayPath = tuple[str, ...]  # of an array in a tree: the names and numbers that lead to it
TOKEN = re.compile(r"\['([^']*)'\]|\[(\d+)\]|\.(\w+)")


class StoredCheckpoint(NamedTuple):
    """One checkpoint in a workdir."""

    stage: str
    step: int
    folder: Path
    size: int  # bytes
    manifest: Manifest | None  # None: of an older version, or damaged
    problem: str  # "" where its manifest is what it should be


def find_checkpoints(workdir: Path, stage: str = "") -> list[StoredCheckpoint]:
    """The checkpoints of a workdir, of one stage or of all. Raises UserError where there are none."""
    top, found = workdir / "checkpoints", []
    folders = [top / stage] if stage else sorted(p for p in top.glob("*") if p.is_dir())
    run = journal.read_run_id(workdir)
    for directory in folders:
        for step in list_steps(directory):
            folder = directory / str(step)
            size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
            try:
                manifest, problem = checkpoint_manifest.check_manifest(folder, Owner(directory.name, run)), ""
            except (DamagedError, OtherStateError, UserError, OSError) as e:
                manifest, problem = None, describe_error(e)
            found.append(StoredCheckpoint(directory.name, step, folder, size, manifest, problem))
    if not found:
        raise UserError(f"{workdir} has no checkpoint{f' of stage {stage}' if stage else ''}")
    return found


def find_checkpoint(workdir: Path, stage: str, step: int) -> Path:
    """The folder of one checkpoint. Raises UserError where there is none."""
    steps = [c.step for c in find_checkpoints(workdir, stage)]
    if step not in steps:
        raise UserError(
            f"{workdir}: stage {stage!r} keeps no checkpoint of step {step}, only of {', '.join(map(str, steps))}"
        )
    return workdir / "checkpoints" / stage / str(step)


def describe_checkpoints(found: list[StoredCheckpoint]) -> list[str]:
    """A line for each checkpoint, and one for each folder beside them that is none."""
    lines = []
    for c in found:
        m = c.manifest
        parts = [f"{c.stage} {c.step:>7}", f"{c.size / 1e6:9.2f} MB"]
        if m is not None:
            parts.append("     no score" if m.score is None else f"score {m.score:.4f}")
            parts += [f"{len(m.arrays['params'])} + {len(m.arrays['rest'])} arrays", m.devices]
            parts += [] if m.scheduled else ["between evaluations: stays while it is the newest"]
        elif not c.problem:
            parts.append("of an older version, without a manifest")
        lines.append("  ".join([*parts, *([f"NOT WHOLE: {c.problem}"] if c.problem else [])]))
    kinds = {SET_ASIDE: "damaged, set aside", DELETED: "being deleted", UNFINISHED: "not finished"}
    for directory in dict.fromkeys(c.folder.parent for c in found):
        for path in sorted(directory.iterdir()):
            lines += [f"{path}: {kind}" for mark, kind in kinds.items() if mark in path.name]
    return lines


def read_arrays(folder: Path, item: str) -> dict[ArrayPath, np.ndarray]:
    """{path: array} of an item of a checkpoint, as they are stored: a random key is its words. Raises what Orbax raises."""
    with _orbax() as checkpointer:
        described: Any = checkpointer.metadata(folder / item).item_metadata
        if described is None:
            raise DamagedError(f"{folder / item} has no list of its arrays that can be read")
        tree = described.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        stored: Any = checkpointer.restore(folder / item, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
    leaves = jax.tree_util.tree_flatten_with_path(stored)[0]
    return {split_path(jax.tree_util.keystr(path)): np.asarray(x) for path, x in leaves}


@contextlib.contextmanager
def _orbax() -> Iterator[ocp.Checkpointer]:
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    checkpointer = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    try:
        yield checkpointer
    finally:
        checkpointer.close()


def split_path(path: str) -> ArrayPath:
    """``['opt_state'][0].mu['w']`` -> ("opt_state", "0", "mu", "w")."""
    return tuple(next(filter(None, groups), "") for groups in TOKEN.findall(path))


def verify_checkpoint(folder: Path, owner: Owner) -> str:
    """What is wrong with a checkpoint, in words; "" where every array has its checksum. Reads all of it."""
    try:
        manifest = checkpoint_manifest.check_manifest(folder, owner)
        sums = checkpoint_manifest.read_sums(folder, manifest)
        for item in sums:
            arrays, expected = read_arrays(folder, item), {split_path(path): x for path, x in sums[item].items()}
            if arrays.keys() != expected.keys():
                odd = min(arrays.keys() ^ expected.keys())
                return f"the array {item}/{'/'.join(odd)} is {'missing' if odd in expected else 'not of it'}"
            for path, x in arrays.items():
                if int(checkpoint.checksum(jnp.asarray(x))) != expected[path]:
                    return f"the checksum of {item}/{'/'.join(path)} does not match"
    except (DamagedError, OtherStateError, UserError) as e:
        return first_line(e)
    except Exception as e:  # Orbax raises exceptions of many types
        return describe_error(e)
    return ""


def compare_checkpoints(a: Path, b: Path) -> list[str]:
    """A line for each array in which two checkpoints differ, and one about all. Differences of numbers are of a - b."""
    lines, equal = [], 0
    for item in ("params", "rest"):
        left, right = read_arrays(a, item), read_arrays(b, item)
        for path in sorted(left.keys() | right.keys()):
            name = "/".join((item, *path))
            if path not in left or path not in right:
                lines.append(f"{name}: only in {(a if path in left else b).name}")
                continue
            x, y = left[path], right[path]
            if (x.shape, x.dtype) != (y.shape, y.dtype):
                lines.append(f"{name}: {x.dtype}{list(x.shape)} and {y.dtype}{list(y.shape)}")
            elif x.tobytes() == y.tobytes():
                equal += 1
            else:
                lines.append(f"{name}: {describe_difference(x, y)}")
    return [*lines, f"{equal} arrays are equal bit for bit, {len(lines)} differ"]


def describe_difference(x: np.ndarray, y: np.ndarray) -> str:
    """The largest difference of two arrays, and the norm of the difference over the norm of the second."""
    if x.ndim == 0:
        return f"{x} and {y}"
    u, v = x.astype(np.float64), y.astype(np.float64)
    share = np.linalg.norm(u - v) / max(np.linalg.norm(v), 1e-300)
    return f"{(x != y).mean():.1%} of {x.size} differ, at most by {np.abs(u - v).max():.3g}, relative {share:.3g}"


def export_checkpoint(folder: Path, file: Path) -> int:
    """Write the arrays of a checkpoint as a safetensors file, "params/PATH" and "rest/PATH"; returns how many."""
    if file.exists():
        raise UserError(f"--to {file}: it exists already")
    arrays = {
        "/".join((item, *path)): x for item in ("params", "rest") for path, x in read_arrays(folder, item).items()
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: jnp.asarray(x) for name, x in arrays.items()}, str(file))
    return len(arrays)
