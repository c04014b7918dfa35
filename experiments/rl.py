"""Reinforcement learning: ask, sample, verify, compute advantages, update the policy. Repeat.

    rljax rl --config shop --workdir runs/shop

Where answers are checked by numbers alone, a whole training step is one program. Where a verifier reads text, worker processes
check the responses in the middle of each step.
"""

from pathlib import Path

from rljax.structs import ConfigTree, Experience, TrainState
from rljax.training import command_line, initial_state, loop
from rljax.training.bad_batches import rl_recreate
from rljax.training.rl_steps import (
    Array,
    Metrics,
    TrainStep,
    compile_train_step,
    empty_rollout,
    make_steps,
    summarize_experience,
)
from rljax.training.run import Run, resolve


def make_train_step(run: Run) -> TrainStep:
    """``train_step(state) -> (state, metrics)``: pure, and for a task on the device jittable, scannable and vmappable."""
    steps = make_steps(run)

    def train_step(state: TrainState) -> tuple[TrainState, Metrics]:
        def sample_round(number: Array) -> Experience:  # dynamic sampling takes several rounds, everything else one
            problems = steps.ask(state, number)
            rollout, ahead = steps.sample(state, problems, number)
            rewards = steps.verify(rollout, problems)
            return Experience(rollout, rewards, ahead)

        collected = steps.collect(sample_round)
        batch, advantage_metrics = steps.compute_advantages(state, collected)
        state, update_metrics = steps.update_policy(state, batch)
        metrics = update_metrics | advantage_metrics | summarize_experience(state, collected)
        return steps.advance(state, collected), metrics

    return train_step


def run(config: ConfigTree, workdir: Path, stop: int = 0) -> None:
    """Train to the end, or to step ``stop`` of it: schedules are those of the whole run."""
    run = resolve(config, "rl")
    params = initial_state.start_params(run, run.rl.start, workdir)
    state = initial_state.new_state(run, run.rl, params, initial_state.teacher_params(run))
    state = state.replace(ahead=empty_rollout(run)) if run.mesh.actors else state
    train_step = compile_train_step(make_train_step, run)
    known = initial_state.known_evaluation(run, run.rl.start, workdir)
    settings = loop.settings(run, run.rl, workdir) | {"recreate_batch": rl_recreate(run)}
    loop.train("rl", state, train_step, run.evaluator(), score="eval/pass@1", known=known, stop=stop, **settings)


def main() -> None:
    command_line.main(run)


if __name__ == "__main__":
    main()
