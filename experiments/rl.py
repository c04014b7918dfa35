"""Reinforcement learning: ask, sample, verify, compare, push; repeat.

    python -m experiments.rl --config configs/shop.py --workdir runs/shop

For a task that lives on the device the whole turn is one compiled function of the state; for text the same turn runs
hosted, verifying in worker processes between two compiled halves.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax import launch, learner, optimizer, rewards, sampler, settings, sharding, stages
from rljax import policy_gradient as pg
from rljax.settings import Settings
from rljax.structs import ConfigTree


class Verbs(NamedTuple):
    """The five steps of a turn, each a function of what the one before returned."""

    ask: Callable
    sample: Callable
    verify: Callable
    compare: Callable
    push: Callable


def make_verbs(s: Settings) -> Verbs:
    """The five verbs as this config wants them."""
    c, task, model, mesh = s.config.rl, s.task, s.model, s.mesh
    row = settings.algorithm(c)
    sharding.check_rows(c.prompts, mesh, "rl.prompts")
    draw = functools.partial(
        sampler.sample,
        group_size=c.group_size,
        max_new_tokens=c.max_new_tokens,
        temperature=c.temperature,
        top_k=c.top_k,
        top_p=c.top_p,
        stop_ids=task.tokenizer.stop_ids,
    )
    update = functools.partial(
        learner.policy_step,
        row=row,
        model=model,
        optimizer=optimizer.make(c.optimizer, model, c.steps * c.updates),
        plan=learner.PolicyUpdate(c.max_new_tokens, c.group_size, c.temperature, c.updates, c.refresh_reference),
        split=settings.split(c, task.prompt_slots, mesh),
    )

    def ask(cursor):
        return sharding.place_rows(task.problems(s.config.seed, cursor + jnp.arange(c.prompts), "train"), mesh)

    whole = jax.jit(lambda params, prompt, mask, key: draw(sharding.replicate(params, mesh), model, prompt, mask, key))

    def sample(params, problems, key):
        return whole(params, problems.prompt, problems.prompt_mask, key)

    def compare(reward, rollout):
        return pg.compare(row, reward, rewards.by_group(rollout.lengths, c.group_size)).reshape(-1)

    verify = rewards.verifier(task, c.group_size, s.config.workers)
    return Verbs(ask, sample, verify, compare, jax.jit(update, donate_argnums=0))


def make_iteration(s: Settings) -> stages.Iteration:
    """One turn, ``state -> (state, metrics)``: pure, and for a task on the device jitted, scannable and vmappable."""
    verbs = make_verbs(s)

    def iteration(state):
        problems = verbs.ask(state.cursor)
        rollout = verbs.sample(state.params, problems, state.step_key())
        reward, info = verbs.verify(rollout, problems)
        advantage = verbs.compare(reward, rollout)
        state, metrics = verbs.push(state, rollout, advantage)
        state = state.replace(cursor=state.cursor + s.config.rl.prompts)
        return state, metrics | rewards.summary(rollout, reward, info)

    return jax.jit(iteration, donate_argnums=0) if s.task.on_device else iteration


def run(config: ConfigTree, workdir: Path, stop: int = 0) -> None:
    """Train to the end, or to step ``stop`` of it: schedules are those of the whole run."""
    s = settings.resolve(config)
    iteration = make_iteration(s)
    params = settings.start_params(s, config.rl.start, workdir)
    state = settings.new_state(s, config.rl, params, with_reference=settings.algorithm(config.rl).kl_coef > 0)
    known = settings.evaluated(s, config.rl.start, workdir)
    how = settings.loop(s, "rl", workdir, stop)
    stages.train("rl", state, iteration, settings.evaluator(s), score="eval/pass@1", known=known, **how)


if __name__ == "__main__":
    launch.main(run)
