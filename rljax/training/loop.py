"""The loop around a stage: restore, repeat the train step, evaluate, save. It knows nothing about what a step does.

A stage writes its records first and its checkpoint after them. When it continues, it drops every record newer than the
checkpoint: killed anywhere, it goes on and leaves the same bytes as if it had never stopped.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rljax.distributed import processes
from rljax.errors import UserError
from rljax.evaluation import Evaluate, EvaluateRuns, Evaluation
from rljax.learner.optimizer import make_schedule
from rljax.metrics import find_cons_key, half_width
from rljax.structs import TrainState
from rljax.training import checkpoint
from rljax.training.bad_batches import BadBatches, RecreateBatch
from rljax.training.checkpoint_errors import SaveError
from rljax.training.checkpoint_manifest import Owner, list_steps
from rljax.training.checkpoint_retention import clear_remains
from rljax.training.checkpoint_saver import Saver
from rljax.training.heartbeat import start_heartbeat
from rljax.training.journal import Journal, read_run_id
from rljax.training.run import Run, Stage
from rljax.training.schema import CheckpointOptions, LoopOptions
from rljax.training.signals import Interrupted, stop_requests
from rljax.training.stage_checkpoints import describe_newest, note_resumed, recorded_scores, restore_newest
from rljax.transformer import lora

TrainStep = Callable[[TrainState], tuple[TrainState, dict[str, Any]]]


def settings(run: Run, stage: Stage, workdir: str | Path) -> dict[str, Any]:
    """The arguments of ``train`` that come from a run's settings."""
    logger_settings = {"project": f"rljax-{run.task.name}", "name": Path(workdir).name, "config": run.record}
    return dict(
        loop=stage.loop,
        keep=run.checkpoint,
        workdir=workdir,
        questions=run.evaluation.problems,
        learning_rate=make_schedule(stage.optimizer, stage.optimizer_steps),
        updates=stage.optimizer_steps // max(stage.loop.steps, 1),
        loggers=run.log,
        logger_settings=logger_settings,
    )


def train(name: str, state: TrainState, train_step: TrainStep, evaluate: Evaluate, **settings: Any) -> TrainState:
    """Repeat ``train_step`` until ``state.step`` is ``loop.steps`` (or ``stop``); returns the final state.

    ``settings`` are those of ``train_runs``. Every ``loop.log_every`` steps the metrics go to the journal. Every
    ``loop.eval_every`` steps and at both ends the policy is evaluated and, after step 0, a checkpoint is written; ``keep`` says
    when else, and how many latest ones and best ones by the metric ``score`` stay (a leading "-": smaller is better). ``known`` is the
    evaluation of the starting parameters, where the stage before has just made it. Raises UserError after
    ``loop.max_skipped`` steps in a row without a finite gradient, and where a checkpoint cannot be written.
    """
    if known := settings.pop("known", None):
        settings["known"] = [known]
    evaluate_runs = lambda params: [evaluate(params)]
    return train_runs(name, state, train_step, evaluate_runs, runs=[Path(settings["workdir"])], **settings)


def train_runs(
    name: str,
    state: TrainState,
    train_step: TrainStep,
    evaluate: EvaluateRuns,
    *,
    loop: LoopOptions,
    keep: CheckpointOptions,
    workdir: str | Path,
    runs: Sequence[Path],
    score: str,
    known: list[Evaluation] | None = None,
    questions: int = 30,
    stop: int = 0,
    learning_rate: Callable[[int], Any] | None = None,
    updates: int = 1,
    loggers: Sequence[str] = ("tensorboard",),
    logger_settings: Mapping[str, Any] | None = None,
    recreate_batch: RecreateBatch | None = None,
) -> TrainState:
    """``train`` of R vmapped runs: arrays of the state and of the metrics have a leading axis [R]. A single run has none.

    Their one checkpoint lies in ``workdir``, the records of each in a folder of ``runs``. A run whose gradient is not finite
    stands still and does not stop the others: only when all do is it a UserError. ``questions`` is how many an evaluation
    asks, for its interval. ``recreate_batch`` makes the batch of a skipped step again, to be saved. ``learning_rate`` of the
    number of updates, of which a step has ``updates``, goes to the loggers.
    """
    steps = stop or loop.steps
    directory = Path(workdir) / "checkpoints" / name
    at_once = lambda: (
        f"{name}: stopped by {{signal}} ({heartbeat.doing()}): finished checkpoints are whole, and the same command continues "
        f"from {describe_newest(directory)}"
    )
    later = lambda: f"{heartbeat.doing()}: asked to stop by {{signal}}; it stops after this step, and saves"

    # Continue from the newest checkpoint
    speaks = processes.is_primary()
    with start_heartbeat(speaks) as heartbeat, stop_requests() as asked, asked.stage(at_once):
        if speaks:
            clear_remains(directory)
        manager = checkpoint.open_manager(directory)
        owner = Owner(name, read_run_id(workdir))
        with heartbeat.phase(f"{name}: reading the newest checkpoint"):
            found = restore_newest(manager, state, name, owner) if list_steps(directory) else None
        if found:
            state = found[0]
            note_resumed(directory / str(found[1]), state, name, runs)
        first = int(np.max(jax.device_get(state.step)))
        saver = Saver(manager, owner, loop, keep, recorded_scores(Path(workdir), name))
        if first == steps:
            saver.close()
            return state
        begin = first if found else -1

        described: dict[str, Any] = dict(loggers=tuple(loggers), logger_settings=dict(logger_settings or {}))
        journals = [
            Journal(
                run, name, begin, steps, run is runs[0], heartbeat=heartbeat if run is runs[0] else None, **described
            )
            for run in runs
        ]

        bad_batches = BadBatches(Path(workdir), name, state, recreate_batch)

        def evaluate_and_save(state: TrainState, step: int) -> None:
            with heartbeat.phase(f"{name} {step}/{steps}: evaluating"):
                evaluations = known if known and step == 0 else evaluate(lora.policy_params(state.params, state.frozen))
            for journal, (metrics, samples) in zip(journals, evaluations, strict=True):
                journal.write_metrics(step, metrics, evaluation=True)
                if samples:
                    journal.write_samples(step, samples)
            mean = mean_of([metrics for metrics, _ in evaluations])
            seconds_left = journals[0].estimate_seconds_left(step, steps)
            journals[0].print_line(headline(name, step, steps, mean, seconds_left, len(runs), questions))
            if step:
                save(state, step, mean[score.lstrip("-")] * (-1 if score.startswith("-") else 1))

        def save(state: TrainState, step: int, score: float | None = None) -> None:
            with heartbeat.phase(f"{name} {step}/{steps}: saving"):
                saver.save(step, state, score, records=tuple(journal.sync() for journal in journals))

        def record(step: int, metrics: dict[str, Any]) -> None:
            of_all = {k: np.atleast_1d(v) for k, v in jax.device_get(metrics).items()}
            by_run = [{k: float(v[r]) for k, v in of_all.items()} for r in range(len(runs))]
            if line := bad_batches.see(state, step, by_run[0]):
                journals[0].print_line(line)
            skipped = min(values.pop("skipped_in_a_row", 0.0) for values in by_run)
            tokens = [values.pop("tokens", 0.0) for values in by_run]
            rate = {"train/learning_rate": float(learning_rate((step - 1) * updates))} if learning_rate else {}
            for journal, values, count in zip(journals, by_run, tokens, strict=True):
                journal.update_progress(step, count, values)
                if step % loop.log_every == 0:
                    journal.write_metrics(step, {f"train/{k}": v for k, v in values.items()}, logger_only=rate)
            if skipped >= loop.max_skipped:
                raise UserError(
                    f"{name}: the gradient was not finite {int(skipped)} steps in a row (the last is step {step}); "
                    f"{describe_newest(directory)} is the newest checkpoint. Lower {name}.optimizer.learning_rate, or "
                    f"raise {name}.max_skipped"
                )

        # Train
        one_process, stopping = jax.process_count() == 1, False
        all_here = True  # whether every process comes to the end here: closing checkpoints waits for all
        try:
            with heartbeat.phase(f"{name}: compiling and running the first step"):
                if not found:
                    evaluate_and_save(state, 0)
                vote = processes.make_stop_vote()  # a signal to one process stops all of them after the same step
                waiting: list[tuple[int, dict[str, Any]]] = []  # the device works on step k while k - 1 is recorded
                if not one_process:
                    asked.defer(later, keep.grace)
                for step in range(first + 1, steps + 1):
                    state, metrics = train_step(state)
                    asked.defer(later, keep.grace)  # now there is something to save
                    for one in waiting:
                        record(*one)
                    waiting = [(step, metrics)]
                    saver.check()
                    due, stopping = step % loop.eval_every == 0 or step == steps, vote(asked.is_set())
                    due_save = saver.is_due(step) and not due
                    if due or due_save or stopping:
                        record(*waiting.pop())
                    if due_save:
                        save(state, step)
                    if due:
                        evaluate_and_save(state, step)
                        stopping = asked.is_set() if one_process else stopping
                    if stopping and step < steps:
                        save(state, step)
                        with heartbeat.phase(f"{name} {step}/{steps}: saving"):
                            saver.finish()
                        raise Interrupted(
                            f"{name}: stopped at step {step} of {steps}, all is saved: the same command continues from "
                            f"{directory / str(step)}"
                        )
                heartbeat.update(f"{name} {steps}/{steps}: saving")
                saver.finish()
        except BaseException as e:
            all_here = (one_process or isinstance(e, Interrupted)) and not isinstance(e, SaveError)
            raise
        finally:
            for journal in journals:
                journal.close()
            if all_here:
                saver.close()
        if asked.is_set() if one_process else stopping:
            raise Interrupted(
                f"{name}: asked to stop when all of its {steps} steps were done; all is saved: the same command continues with "
                "what follows"
            )
    return state


def mean_of(metrics: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean over runs of each number that all of them have."""
    return {k: float(np.mean([m[k] for m in metrics])) for k in metrics[0] if all(k in m for m in metrics)}


def headline(
    name: str,
    step: int,
    steps: int,
    metrics: dict[str, float],
    seconds_left: float,
    runs: int = 1,
    questions: int = 30,
) -> str:
    """The readable line of an evaluation, or of the mean of several runs' evaluations."""
    parts = [f"{name} {step:>5}/{steps}"] + ([f"mean of {runs} runs"] if runs > 1 else [])
    if "eval/loss" in metrics:
        parts.append(f"held-out loss {metrics['eval/loss']:.4f}")
    if "eval/pass@1" in metrics:
        # a 95 % interval over the questions of one run; that of a mean of runs is not known here
        width = half_width(metrics["eval/pass@1/se"], questions) if runs == 1 else float("nan")
        error = f" ± {width:.3f}" if width == width else ""
        parts.append(f"pass@1 {metrics['eval/pass@1']:.3f}{error}")
        parts += [f"{k[5:]} {metrics[k]:.3f}" for k in [find_cons_key(metrics)] if k]
        parts.append(f"length {metrics['eval/response_length/mean']:.1f}")
        if "eval/strategy/jump" in metrics:
            parts.append(f"jumps {metrics['eval/strategy/jump']:.2f}")
        parts.append(f"truncated {metrics['eval/truncated']:.3f}")
    if seconds_left == seconds_left and step < steps:
        parts.append(f"{seconds_left / 60:.1f} min left")
    return "  ".join(parts)
