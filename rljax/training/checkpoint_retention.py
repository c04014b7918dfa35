"""Which checkpoints of a stage stay, decided by what is on disk alone: the same before and after any number of restarts.

Scheduled checkpoints are those that every run with this config writes, at evaluations and every ``checkpoint.every`` steps. The
latest of them stay, and those with the best scores. A checkpoint that an interrupt or the clock asked for stays while it is the
newest. So a run that was interrupted leaves the checkpoints that an undisturbed one leaves.
"""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from rljax.errors import UserError
from rljax.training.checkpoint_errors import DamagedError
from rljax.training.checkpoint_manifest import Manifest, list_steps, read_manifest

DELETED = ".deleted-"  # what a checkpoint that is not kept is called while it is being deleted
SET_ASIDE = ".damaged-"
UNFINISHED = ".orbax-checkpoint-tmp"  # in the names of Orbax's unfinished folders


def choose_kept(found: Mapping[int, Manifest], keep_latest: int, keep_best: int) -> set[int]:
    """The steps that stay, of those that are there. Of equal scores the later step counts as better."""
    scheduled = sorted(step for step, manifest in found.items() if manifest.scheduled)
    scores = [
        (manifest.score, step) for step, manifest in found.items() if manifest.scheduled and manifest.score is not None
    ]
    best = [step for _, step in sorted(scores, reverse=True)[:keep_best]]
    return {*scheduled[-keep_latest:], *best, *sorted(found)[-1:]}


def prune(directory: Path, keep_latest: int, keep_best: int, old_scores: Mapping[int, float]) -> None:
    """Delete the checkpoints that do not stay. One whose manifest cannot be read is left alone.

    ``old_scores`` are the scores of checkpoints that older versions wrote without one.
    """
    found = {}
    for step in list_steps(directory):
        try:
            manifest = read_manifest(directory / str(step))
        except (DamagedError, OSError, UserError):
            continue
        if manifest is None or manifest.step == step:
            found[step] = manifest or Manifest(step, score=old_scores.get(step), schema=1)
    for step in sorted(found.keys() - choose_kept(found, keep_latest, keep_best)):
        delete_step(directory, step)


def delete_step(directory: Path, step: int) -> None:
    """Delete a checkpoint. It is renamed first: a kill leaves no folder that looks like a checkpoint and is half there."""
    doomed = directory / f"{DELETED}{step}"
    shutil.rmtree(doomed, ignore_errors=True)
    (directory / str(step)).rename(doomed)
    shutil.rmtree(doomed)


def clear_remains(directory: Path) -> None:
    """Delete what killed runs left here: half deleted checkpoints, and half written ones. For the process that trains here."""
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        if path.name.startswith(DELETED) or UNFINISHED in path.name:
            shutil.rmtree(path, ignore_errors=True)


def set_aside(directory: Path, step: int) -> Path:
    """Rename a damaged checkpoint, which is never deleted; returns its new path."""
    names = [f"{SET_ASIDE}{step}", *(f"{SET_ASIDE}{step}-{n}" for n in range(2, 1000))]
    path = next(directory / name for name in names if not (directory / name).exists())
    (directory / str(step)).rename(path)
    logging.getLogger(__name__).warning(f"checkpoint {step} is damaged and was set aside as {path}")
    return path
