"""Reinforcement learning: ask, sample, verify, compare, push; repeat.

    python -m experiments.rl --config configs/shop.py --workdir runs/shop

For a task that lives on the device the whole turn is one compiled function of the state; for text the same turn runs
hosted, verifying in worker processes between two compiled halves.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from rljax import launch, learner, optimizer, rewards, sampler, settings, sharding, stages
from rljax import policy_gradient as pg
from rljax.settings import Settings


def make_iteration(s: Settings) -> stages.Iteration:
    """One turn of the algorithm, ``state -> (state, metrics)``: pure, and for a task on the device scannable and vmappable."""
    c, task, model, mesh = s.config.rl, s.task, s.model, s.mesh
    row = settings.algorithm(c)
    sharding.check_rows(c.prompts, mesh, "rl.prompts")
    verify = rewards.verifier(task, c.group_size, s.config.workers)
    update = functools.partial(
        learner.policy_step,
        row=row,
        model=model,
        optimizer=optimizer.make(c.optimizer, model, c.steps * c.updates),
        plan=learner.PolicyUpdate(c.max_new_tokens, c.group_size, c.temperature, c.updates, c.refresh_reference),
        split=settings.split(c, task.prompt_slots, mesh),
    )
    update = jax.jit(update, donate_argnums=0)

    def ask(cursor):
        return sharding.constrain(task.problems(s.config.seed, cursor + jnp.arange(c.prompts), "train"), mesh, "rows")

    def sample(params, problems, key):
        return sampler.sample(
            sharding.replicate(params, mesh),
            model,
            problems.prompt,
            problems.prompt_mask,
            key,
            group_size=c.group_size,
            max_new_tokens=c.max_new_tokens,
            temperature=c.temperature,
            top_k=c.top_k,
            top_p=c.top_p,
            stop_ids=task.tokenizer.stop_ids,
        )

    def iteration(state):
        problems = ask(state.cursor)  # 1 ask
        rollout = sample(state.params, problems, state.step_key())  # 2 sample
        reward, info = verify(rollout, problems)  # 3 verify
        advantage = pg.compare(row, reward, rewards.by_group(rollout.lengths, c.group_size))  # 4 compare
        state, metrics = update(state, rollout, advantage.reshape(-1))  # 5 push
        return state.replace(cursor=state.cursor + c.prompts), metrics | rewards.summary(rollout, reward, info)

    return jax.jit(iteration, donate_argnums=0) if task.on_device else iteration


def run(config: ConfigDict, workdir: Path) -> None:
    s = settings.resolve(config)
    iteration = make_iteration(s)
    params = settings.start_params(s, config.rl.start, workdir)
    state = settings.new_state(s, config.rl, params, with_reference=settings.algorithm(config.rl).kl_coef > 0)
    stages.train("rl", state, iteration, settings.evaluator(s), score="eval/pass@1", **settings.loop(s, "rl", workdir))


if __name__ == "__main__":
    launch.main(run)
