"""One step of a finished run once more, from the checkpoint before it: the same rollout, the same numbers, bit for bit or not."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax.distributed import sharding
from rljax.errors import UserError
from rljax.structs import TrainState
from rljax.training import checkpoint, journal
from rljax.training.checkpoint_manifest import Owner, list_steps
from rljax.training.rl_steps import Steps
from rljax.training.run import Run
from rljax.training.stage_checkpoints import restore_step

TrainStep = Callable[[TrainState], tuple[TrainState, dict[str, Any]]]
NOT_RECORDED = ("skipped_in_a_row", "tokens")  # metrics of a train step that the loop keeps to itself


@dataclasses.dataclass(frozen=True)
class Replayed:
    """A step that was repeated."""

    step: int
    start: int  # the checkpoint that it was repeated from; 0: the beginning of the stage
    metrics: dict[str, float | None]  # as the records have them
    recorded: dict[str, float | None]
    samples: list[dict[str, Any]]  # the attempts

    def differing(self) -> list[str]:
        """The names of the metrics that are not the recorded ones bit for bit."""
        names = sorted(self.metrics.keys() | self.recorded.keys())
        return [name for name in names if self.metrics.get(name) != self.recorded.get(name)]


def find_record(workdir: Path, step: int) -> dict[str, float | None]:
    """The metrics of a train step of RL in metrics.jsonl. Raises UserError where there are none."""
    rows = [r for r in journal.read_records(workdir / "metrics.jsonl") if r["stage"] == "rl"]
    steps = [r["step"] for r in rows if any(key.startswith("train/") for key in r)]
    for r in rows:
        if r["step"] == step and step in steps:
            found = {key: value for key, value in r.items() if key.startswith("train/")}
            if found:
                return found
    have = f"it has steps {steps[0]} to {steps[-1]}, every rl.log_every" if steps else "it has none of rl"
    raise UserError(f"--step {step}: metrics.jsonl in {workdir} has no record of this train step; {have}")


def load_state_before(workdir: Path, state: TrainState, step: int) -> tuple[TrainState, int]:
    """(state, its step) of the newest checkpoint before ``step``; ``state``, which begins the stage, where there is none."""
    directory = workdir / "checkpoints" / "rl"
    before = [s for s in list_steps(directory) if s < step]
    if not before:
        return state, 0
    manager = checkpoint.open_manager(directory)
    try:
        return restore_step(manager, state, "rl", Owner("rl", journal.read_run_id(workdir)), before[-1]), before[-1]
    finally:
        manager.close()


def replay_step(run: Run, workdir: Path, state: TrainState, train_step: TrainStep, steps: Steps, step: int) -> Replayed:
    """Repeat train step number ``step`` of RL. ``state`` begins the stage; ``steps`` are the parts of ``train_step``."""
    recorded = find_record(workdir, step)
    state, start = load_state_before(workdir, state, step)
    for _ in range(start + 1, step):
        state, _ = train_step(state)
    samples = describe_rollout(run, state, steps)
    _, metrics = train_step(state)
    values = {k: float(np.asarray(v)) for k, v in jax.device_get(metrics).items() if k not in NOT_RECORDED}
    rounded = {f"train/{k}": journal.round_metric(v) if np.isfinite(v) else None for k, v in values.items()}
    return Replayed(step, start, rounded, recorded, samples)


def describe_rollout(run: Run, state: TrainState, steps: Steps) -> list[dict[str, Any]]:
    """The attempts of the first round of the next train step: prompt, response, reward, number of tokens."""
    problems = steps.ask(state, jnp.int32(0))
    rollout, _ = steps.sample(state, problems, jnp.int32(0))
    earned = steps.verify(rollout, problems)
    rollout, rewards = sharding.gather_to_host(rollout), np.asarray(sharding.gather_to_host(earned.terms)).sum(-1)
    decode = lambda ids, mask: run.task.tokenizer.decode([int(i) for i in np.asarray(ids)[np.asarray(mask)]])
    groups, size = rewards.shape
    return [
        {
            "problem": n // size,
            "prompt": decode(rollout.prompt[n], rollout.prompt_mask[n]),
            "response": decode(rollout.response[n], rollout.mask[n]),
            "reward": float(rewards[n // size, n % size]),
            "tokens": [int(i) for i in np.asarray(rollout.response[n])[np.asarray(rollout.mask[n])]],
        }
        for n in range(groups * size)
    ]
