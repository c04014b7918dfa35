"""The loop around a stage: restore, repeat, look, keep. It knows nothing about what an iteration does.

A stage writes its records first and its checkpoint after them, and on the way back drops every record newer than the
checkpoint: killed anywhere, it goes on and leaves the same bytes as if it had never stopped.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rljax.distributed import processes
from rljax.errors import UserError
from rljax.metrics import vote_key
from rljax.structs import TrainState
from rljax.training import checkpoint
from rljax.training.journal import Journal
from rljax.transformer import lora

Iteration = Callable[[TrainState], tuple[TrainState, dict[str, Any]]]
Look = tuple[dict[str, float], list[dict[str, Any]]]
Evaluate = Callable[[Any], Look]


class Interrupted(Exception):
    """The person, or the cluster, asked the run to stop; everything up to here is on disk."""


def train(
    name: str,
    state: TrainState,
    iteration: Iteration,
    evaluate: Evaluate,
    *,
    steps: int,
    eval_every: int,
    log_every: int,
    max_skipped: int,
    keep: tuple[int, int],
    workdir: str | Path,
    score: str,
    known: Look | None = None,
) -> TrainState:
    """Run ``iteration`` until ``state.step == steps``; returns the final state.

    Every ``log_every`` steps the metrics go to the journal; every ``eval_every`` steps and at both ends the policy is
    evaluated and, after step 0, a checkpoint is written (``keep`` latest and best by the metric ``score``; a leading
    "-" means smaller is better). ``known`` is the evaluation of the starting parameters, where the stage before has just
    made it. Raises UserError after ``max_skipped`` steps in a row without a finite gradient.
    """
    how: dict[str, Any] = dict(steps=steps, eval_every=eval_every, log_every=log_every, max_skipped=max_skipped)
    how |= dict(keep=keep, workdir=workdir, score=score, known=[known] if known else None)
    return train_runs(name, state, iteration, lambda params: [evaluate(params)], runs=[Path(workdir)], **how)


def train_runs(
    name: str,
    state: TrainState,
    iteration: Iteration,
    evaluate: Callable[[Any], list[Look]],
    *,
    steps: int,
    eval_every: int,
    log_every: int,
    max_skipped: int,
    keep: tuple[int, int],
    workdir: str | Path,
    runs: Sequence[Path],
    score: str,
    known: list[Look] | None = None,
) -> TrainState:
    """``train`` of R runs whose arrays, of the state and of the metrics, have a leading axis; without it, of a single one.

    Their one checkpoint lies in ``workdir``, the records of each in a folder of ``runs``. A run whose gradient is not finite
    stands still and does not stop the others: only when all do is it a UserError.
    """
    manager = checkpoint.open_manager(Path(workdir) / "checkpoints" / name, *keep)
    found = go_on(manager, state, name) if manager.all_steps() else None
    if found:
        state = found[0]
        checkpoint.discard_after(manager, found[1])
    first = int(np.max(jax.device_get(state.step)))
    if first == steps:
        manager.close()
        return state
    journals = [Journal(run, name, first if found else -1, steps, bar=run is runs[0]) for run in runs]

    def look(state: TrainState, step: int) -> None:
        looks = known if known and step == 0 else evaluate(lora.policy(state.params, state.frozen))
        for journal, (metrics, samples) in zip(journals, looks, strict=True):
            journal.write_metrics(step, metrics, evaluation=True)
            if samples:
                journal.write_samples(step, samples)
        mean = mean_of([metrics for metrics, _ in looks])
        journals[0].print_line(
            headline(name, step, steps, mean, journals[0].estimate_seconds_left(step, steps), len(runs))
        )
        if step:
            sign = -1 if score.startswith("-") else 1
            checkpoint.save(manager, step, state, sign * mean[score.lstrip("-")])

    def record(step: int, metrics: dict[str, Any]) -> None:
        of_all = {k: np.atleast_1d(v) for k, v in jax.device_get(metrics).items()}
        by_run = [{k: float(v[r]) for k, v in of_all.items()} for r in range(len(runs))]
        skipped = min(values.pop("skipped_in_a_row", 0.0) for values in by_run)
        tokens = [values.pop("tokens", 0.0) for values in by_run]
        for journal, values, count in zip(journals, by_run, tokens, strict=True):
            journal.update_progress(step, count, values)
            if step % log_every == 0:
                journal.write_metrics(step, {f"train/{k}": v for k, v in values.items()})
        if skipped >= max_skipped:
            raise UserError(
                f"{name}: the gradient was not finite {int(skipped)} steps in a row (the last is step {step}); "
                f"the newest checkpoint is step {manager.latest_step()}. Lower {name}.optimizer.learning_rate, or raise "
                f"{name}.max_skipped"
            )

    together = True  # whether every process comes to the end here: closing checkpoints waits for all
    try:
        with asked_to_stop() as asked:
            if not found:
                look(state, 0)
            vote = processes.agreement()  # a signal to one process stops all of them after the same step
            waiting: list[tuple[int, dict[str, Any]]] = []  # the device works on step k while k - 1 is written down
            for step in range(first + 1, steps + 1):
                state, metrics = iteration(state)
                for one in waiting:
                    record(*one)
                waiting = [(step, metrics)]
                due, stop = step % eval_every == 0 or step == steps, vote(asked.is_set())
                if due or stop:
                    record(*waiting.pop())
                if due:
                    look(state, step)
                if stop and step < steps:
                    checkpoint.save(manager, step, state)
                    raise Interrupted(
                        f"{name}: stopped at step {step} of {steps}, all is saved: the same command continues"
                    )
        manager.wait_until_finished()
    except Exception as e:
        together = jax.process_count() == 1 or isinstance(e, Interrupted)
        raise
    finally:
        for journal in journals:
            journal.close()
        if together:
            manager.close()
    return state


def go_on(manager: checkpoint.Manager, state: TrainState, name: str) -> tuple[TrainState, int] | None:
    """(state, step) of the newest checkpoint, in place of ``state``, whose arrays are given up before it is read.

    Raises UserError where adapters would go on from other weights than they began with.
    """
    began = None if state.fingerprint is None else np.asarray(state.fingerprint)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    for x in jax.tree.leaves(state.replace(frozen=None)):
        x.delete()
    found = checkpoint.restore(manager, like.replace(frozen=state.frozen))
    if found and began is not None and not np.allclose(found[0].fingerprint, began, rtol=1e-3, atol=1e-5):
        raise UserError(
            f"{name}: its adapters were learned on other weights than those that it starts from now: bring these back, or "
            "use another --workdir"
        )
    return found


def mean_of(metrics: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean over runs of each number that all of them have."""
    return {k: float(np.mean([m[k] for m in metrics])) for k in metrics[0] if all(k in m for m in metrics)}


def headline(name: str, step: int, steps: int, metrics: dict[str, float], seconds_left: float, runs: int = 1) -> str:
    """The readable line of an evaluation, or of the mean of several runs' evaluations."""
    parts = [f"{name} {step:>5}/{steps}"] + ([f"mean of {runs} runs"] if runs > 1 else [])
    if "eval/loss" in metrics:
        parts.append(f"held-out loss {metrics['eval/loss']:.4f}")
    if "eval/pass@1" in metrics:
        # the error is over the questions of one run; that of a mean of runs is not known here
        error = f" ± {metrics['eval/pass@1/se']:.3f}" if runs == 1 else ""
        parts.append(f"pass@1 {metrics['eval/pass@1']:.3f}{error}")
        parts += [f"{k[5:]} {metrics[k]:.3f}" for k in [vote_key(metrics)] if k]
        parts.append(f"length {metrics['eval/response_length/mean']:.1f}")
        parts.append(f"jumps {metrics['eval/strategy/jump']:.2f}")
        parts.append(f"truncated {metrics['eval/truncated']:.3f}")
    if seconds_left == seconds_left and step < steps:
        parts.append(f"{seconds_left / 60:.1f} min left")
    return "  ".join(parts)


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; the second acts as it always does."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: Any) -> None:
        asked.set()
        signal.signal(number, before[signal.Signals(number)])

    for s in before:
        signal.signal(s, ask)
    try:
        yield asked
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def finished(workdir: str | Path, stage: str, steps: int) -> bool:
    """Whether a stage has its checkpoint of this step."""
    return (Path(workdir) / "checkpoints" / stage / str(steps)).is_dir()


def load_params(workdir: str | Path, stage: str, steps: int | None, like: Any) -> Any:
    """The final parameters of a stage of a workdir. Raises UserError where it did not reach ``steps`` (None: any)."""
    directory = Path(workdir) / "checkpoints" / stage
    if not directory.is_dir():
        raise UserError(
            f"{workdir}: stage {stage!r} has not run: run `python -m experiments.{stage}` with this config first"
        )
    manager = checkpoint.open_manager(directory, 1, 0)
    try:
        latest = manager.latest_step()
        if latest is None or (steps and latest < steps):
            raise UserError(
                f"{workdir}: stage {stage!r} stopped at step {latest or 0} of {steps or 'its run'}: "
                f"run `python -m experiments.{stage}` with this config again, it continues"
            )
        return checkpoint.restore_params(manager, like, latest)
    finally:
        manager.close()
