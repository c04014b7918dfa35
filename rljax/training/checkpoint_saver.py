"""When a stage saves, and whether what it saved has arrived: checkpoints by steps, by minutes, at evaluations and at a stop."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from rljax.distributed import processes
from rljax.structs import TrainState
from rljax.training import checkpoint, checkpoint_retention
from rljax.training.checkpoint_manifest import Owner, list_steps
from rljax.training.schema import CheckpointOptions, LoopOptions


@dataclasses.dataclass
class Saver:
    """Writes the checkpoints of one stage in the background. A save that has failed is an error at the next step.

    ``old_scores`` are scores of checkpoints that older versions wrote without one. ``clock`` counts seconds.
    """

    manager: checkpoint.Manager
    owner: Owner
    loop: LoopOptions
    keep: CheckpointOptions
    old_scores: Mapping[int, float] = dataclasses.field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    writing: int | None = None  # the step that is being written
    last_save: float = 0.0

    def __post_init__(self) -> None:
        self.last_save = self.clock()
        self.vote = processes.make_stop_vote() if self.keep.minutes else lambda due: due
        self.prune()

    def is_scheduled(self, step: int) -> bool:
        """Whether every run with this config has a checkpoint of this step."""
        evaluated = step % self.loop.eval_every == 0 or step == self.loop.steps
        return evaluated or bool(self.keep.every) and step % self.keep.every == 0

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is due between evaluations. Every process must call it once a step, and gets one answer."""
        by_clock = bool(self.keep.minutes) and self.clock() - self.last_save >= 60 * self.keep.minutes
        by_steps = bool(self.keep.every) and step % self.keep.every == 0
        return self.vote(by_clock) or by_steps

    def save(self, step: int, state: TrainState, score: float | None = None, **about: Any) -> None:
        """Start to write a checkpoint, after the one before it has arrived. Raises SaveError where either cannot be."""
        self.finish()
        about |= {"scheduled": self.is_scheduled(step), "devices": describe_devices(state)}
        checkpoint.save(self.manager, step, state, score, self.owner, **about)
        self.writing = step
        self.last_save = self.clock()

    def check(self) -> None:
        """Raise SaveError if the save in the background has failed. If it has ended, delete what does not stay."""
        if self.writing is not None and not self.manager.is_saving_in_progress():
            self.finish()

    def finish(self) -> None:
        """Wait for the save in the background. Raises SaveError if it fails."""
        if self.writing is None:
            return
        step, self.writing = self.writing, None
        directory = Path(self.manager.directory)
        try:
            self.manager.wait_until_finished()
            self.manager.check_for_errors()
            if processes.is_primary() and step not in list_steps(directory):  # others may see it later
                raise OSError("it is not there after it was written")
        except Exception as e:
            raise checkpoint.save_error(directory, step, e) from e
        self.prune()

    def prune(self) -> None:
        """Delete the checkpoints that do not stay, in process 0."""
        if processes.is_primary():
            directory = Path(self.manager.directory)
            checkpoint_retention.prune(directory, self.keep.keep_latest, self.keep.keep_best, self.old_scores)

    def close(self) -> None:
        """Wait for what is being written, and close the manager."""
        self.finish()
        self.manager.close()


def describe_devices(state: TrainState) -> str:
    """How many devices of which kind hold the parameters, on which mesh: "8 x TPU v5e, data=2 fsdp=4"."""
    arrays = [x for x in jax.tree.leaves(state.params) if isinstance(x, jax.Array)]
    if not arrays:
        return ""
    where = max((x.sharding for x in arrays), key=lambda sharding: sharding.num_devices)
    kind = next(iter(where.device_set)).device_kind
    mesh = getattr(where, "mesh", None)
    axes = " ".join(f"{name}={size}" for name, size in mesh.shape.items() if size > 1) if mesh is not None else ""
    processes_used = len({device.process_index for device in where.device_set})
    several = f"{processes_used} processes" if processes_used > 1 else ""
    return ", ".join(filter(None, [f"{where.num_devices} x {kind}", axes, several]))
