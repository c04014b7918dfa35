"""The batch of a step whose gradient was not finite, saved for a person to look at.

The step runs inside one compiled function and keeps no batch. So it is made again: a supervised batch is a function of the
step, and a rollout is a function of the parameters, which a skipped step leaves as they were. Where a later step has changed
them before the skip was noticed, the problems are the same and the responses may differ: the file says so.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax.distributed import processes, sharding
from rljax.structs import Experience, TrainState
from rljax.training.dynamic_sampling import one_round
from rljax.training.rl_steps import make_steps
from rljax.training.run import Run

MAX_FILES = 5  # of a stage; the first ones stay, as what comes later follows from them
MIN_SCALED_SKIPS = 3  # in a row: with float16, single steps are skipped to find the scale of the loss
RecreateBatch = Callable[[TrainState, int], Mapping[str, Any]]  # (state after the step or later, step) -> arrays


class BadBatches:
    """Notices skipped updates in the metrics of a stage, and saves their batches below ``workdir``/bad_batches."""

    def __init__(self, workdir: Path, stage: str, state: TrainState, recreate: RecreateBatch | None):
        self.folder, self.stage, self.recreate = Path(workdir) / "bad_batches", stage, recreate
        self.skipped = float(np.max(jax.device_get(state.skipped_total)))

    def see(self, state: TrainState, step: int, metrics: Mapping[str, float]) -> str:
        """What to print about a step; "" where it was not skipped, or where enough batches are saved."""
        before, self.skipped = self.skipped, metrics.get("skipped_steps", 0.0)
        scaled = "loss_scale" in metrics and metrics.get("skipped_in_a_row", 0.0) < MIN_SCALED_SKIPS
        if self.skipped <= before or scaled or self.recreate is None:
            return ""
        if len(list(self.folder.glob(f"{self.stage}_step_*.npz"))) >= MAX_FILES:
            return ""
        said = f"{self.stage} {step}: the gradient was not finite, the step is skipped"
        try:
            arrays = self.recreate(state, step)
            path = save_batch(self.folder / f"{self.stage}_step_{step:06d}.npz", arrays)
        except Exception as e:  # what only describes a problem must not end the run
            return f"{said}; its batch could not be saved ({type(e).__name__}: {str(e).splitlines()[0][:200] if str(e) else ''})"
        changed = not np.all(arrays.get("parameters_unchanged", True))
        return f"{said}; its batch is in {path}" + (", with responses of later parameters" if changed else "")


def save_batch(path: Path, arrays: Mapping[str, Any]) -> Path:
    """Write the arrays as a .npz file, by one replacement; process 0 alone writes."""
    whole: dict[str, Any] = {name: np.asarray(x) for name, x in sharding.gather_to_host(dict(arrays)).items()}
    if processes.is_primary():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.stem}.tmp.npz")
        np.savez_compressed(temporary, **whole)
        temporary.replace(path)
    return path


def supervised_recreate(make_batch: Callable[[int], Mapping[str, Any]]) -> RecreateBatch:
    """For a stage whose batch is a function of the number of steps before it."""
    return lambda state, step: make_batch(step - 1)


def rl_recreate(run: Run) -> RecreateBatch | None:
    """For a run of RL: ask and sample again. None where that cannot be done: several rounds, or a step ahead."""
    if run.mesh.actors or (run.rl.algorithm.option("groups", "rounds") or 0):
        return None

    def recreate(state: TrainState, step: int) -> Mapping[str, Any]:
        steps, late = make_steps(run), int(state.step) - (step - 1)
        before = state.replace(step=state.step - late, cursor=state.cursor - late * run.rl.problems.prompts)
        problems = steps.ask(before, jnp.int32(0))
        rollout, ahead = steps.sample(before, problems, jnp.int32(0))
        experience = Experience(rollout, steps.verify(rollout, problems), ahead)
        batch, _ = steps.compute_advantages(before, one_round(lambda number: experience))
        unchanged = int(state.skipped) >= late * run.rl.update.steps
        arrays = {name: value for name, value in batch.items() if value is not None}
        return arrays | {"correct": experience.rewards.correct, "parameters_unchanged": np.array(unchanged)}

    return recreate
