"""Reinforcement learning: ask, sample, verify, compare, push; repeat.

    python -m experiments.rl --config configs/shop.py --workdir runs/shop

For a task that lives on the device the whole turn is one compiled function of the state; where a verifier reads text the
same turn runs hosted, verifying in worker processes between two compiled halves.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax import learner, rewards, sampler
from rljax.ablation import vmap_groups
from rljax.distributed import sharding
from rljax.errors import UserError
from rljax.learner import optimizer
from rljax.structs import ConfigTree, Rollout
from rljax.training import command_line, initial_state, loop, settings
from rljax.training.dynamic_sampling import refill
from rljax.training.settings import Settings
from rljax.transformer import lora


class Verbs(NamedTuple):
    """The five steps of a turn, each a function of what the one before returned."""

    ask: Callable
    sample: Callable
    verify: Callable
    compare: Callable
    push: Callable


def make_verbs(s: Settings) -> Verbs:
    """The five verbs as this config wants them."""
    c, task, model, actor = s.config.rl, s.task, s.model, s.actor
    row, plan, split = settings.row_of(s), settings.policy_update(s), settings.split(s, c, task.prompt_slots)
    sharding.check_rows(c.prompts, actor.layout, "rl.prompts")
    draw = functools.partial(
        sampler.sample,
        max_new_tokens=c.max_new_tokens,
        temperature=s.number("rl.temperature"),
        top_k=c.top_k,
        top_p=c.top_p,
        stop_ids=task.tokenizer.stop_ids,
        weights=c.sampler_weights,
    )

    def sampled(**how):
        some = functools.partial(draw, config=actor, **how)
        return lambda params, problems, key, limit: some(
            params, prompt=problems.prompt, prompt_mask=problems.prompt_mask, key=key, limit=limit
        )

    def ask(cursor):
        levels = settings.levels_at(s, cursor)
        asked = (s.number("seed"), cursor + jnp.arange(c.prompts), "train", *([levels] if levels else []))
        return sharding.place_rows(task.problems(*asked), actor.layout)

    attempts, likeliest = sampled(group_size=c.group_size), sampled(group_size=1, greedy=True)
    terms = rewards.parse(c.reward)
    check = rewards.verifier(task, c.group_size, s.config.workers, terms)
    check_one = rewards.verifier(task, 1, s.config.workers, terms)

    def sample(params, problems, key, step=0):
        asked = problems.replace(facts=())  # the verifier's, and for a text task not arrays
        limit = jnp.where(step < c.limit.until, c.limit.tokens, c.max_new_tokens) if c.limit.until else None
        made = attempts(params, asked, key, limit)
        return made, likeliest(params, asked, key, limit) if row.looks_at("greedy") else None

    def verify(rollout, greedy, problems):
        correct, info = check(rollout, problems)
        parts = rewards.weighted(terms, correct, info, rollout, c.max_new_tokens)
        if greedy is not None:
            one = rewards.weighted(terms, *check_one(greedy, problems), greedy, c.max_new_tokens)
            info |= {"greedy": one.sum(-1)[:, 0]}
        return correct, parts, info

    compare = functools.partial(learner.compare, row=row, model=model, plan=plan, split=split)
    step = optimizer.make(c.optimizer, model, c.steps * plan.steps, s.number("rl.optimizer.learning_rate"))
    push = functools.partial(
        learner.push, row=row, model=model, optimizer=step, plan=plan, split=split, start=task.prompt_slots
    )
    return Verbs(ask, sample, verify, jax.jit(compare), jax.jit(push, donate_argnums=0))


def make_iteration(s: Settings) -> loop.Iteration:
    """One turn, ``state -> (state, metrics)``: pure, and for a task on the device jitted, scannable and vmappable.

    The numbers of the config are arguments of the compiled program: runs that differ in nothing else share it.
    """
    if rewards.needs_host(s.task, rewards.parse(s.config.rl.reward)):
        return make_turn(s)

    def turn(numbers, state):
        return make_turn(dataclasses.replace(s, numbers=numbers))(state)

    return functools.partial(jax.jit(turn, donate_argnums=1), vmap_groups.numbers(s.config))


def make_turn(s: Settings) -> loop.Iteration:
    """One turn as a function of the state; what it is compiled into is ``make_iteration``'s."""
    verbs, c = make_verbs(s), s.config.rl
    compiled = not rewards.needs_host(s.task, rewards.parse(c.reward))
    rounds = settings.algorithm(c).option("groups", "rounds") or 0  # of asking again for groups that disagree

    def iteration(state):
        def attempt(number):
            key = settings.round_key(state, number) if rounds else state.step_key()
            problems = verbs.ask(state.cursor + number * c.prompts)
            rollout, greedy = verbs.sample(lora.policy(state.params, state.frozen), problems, key, state.step)
            correct, parts, info = verbs.verify(rollout, greedy, problems)
            return rollout, correct, (parts, info)

        (rollout, correct, (parts, info)), keep, first, asked, cost = refill(attempt, rounds, compiled)
        experience, compared = verbs.compare(state, rollout, correct, terms=parts, keep=keep, greedy=info.get("greedy"))
        state, metrics = verbs.push(state, experience)
        state = state.replace(cursor=state.cursor + asked * c.prompts)
        return state, metrics | compared | rewards.summary(*first[:2], *first[2]) | cost

    return iteration


def make_iteration_ahead(s: Settings) -> loop.Iteration:
    """The same turn where other devices sample: while these learn from the attempts at step k, those make the attempts of
    step k + 1, with the parameters from before the update. They are never further ahead; the row's correction weighs them.
    """
    verbs, c = make_verbs(s), s.config.rl
    there = lambda x: sharding.place_whole(x, s.actor.layout)
    on_host = rewards.needs_host(s.task, rewards.parse(c.reward))
    verify = verbs.verify if on_host else jax.jit(verbs.verify)

    def iteration(state):
        now, state = state.ahead, state.replace(ahead=None)
        policy = sharding.place_policy(lora.policy(state.params, state.frozen), s.actor)
        problems, step = verbs.ask(state.cursor), int(state.step)
        if step == 0:  # nobody was ahead of the first
            now = verbs.sample(policy, problems, there(state.step_key()), step)
        after = state.replace(step=state.step + 1)
        ahead = verbs.sample(policy, verbs.ask(state.cursor + c.prompts), there(after.step_key()), step + 1)
        correct, parts, info = verify(*now, problems)
        (rollout, _), correct, parts, info = sharding.place_rows((now, correct, parts, info), s.model.layout)
        experience, compared = verbs.compare(state, rollout, correct, terms=parts, greedy=info.get("greedy"))
        state, metrics = verbs.push(state, experience)
        state = state.replace(cursor=state.cursor + c.prompts, ahead=ahead)
        return state, metrics | compared | rewards.summary(rollout, correct, parts, info) | {"lag": min(step, 1)}

    return iteration


def nobody_ahead(s: Settings) -> tuple[Rollout, Rollout | None]:
    """What ``ahead`` holds before the first step: rollouts of the right shape, of nothing."""
    c, layout = s.config.rl, s.actor.layout

    def empty(rows: int) -> Rollout:
        shapes = dict(prompt=s.task.prompt_slots, response=c.max_new_tokens)
        zeros = lambda dtype, *shape: sharding.place_rows(np.zeros(shape, dtype), layout)
        return Rollout(
            prompt=zeros(np.int32, rows, shapes["prompt"]),
            prompt_mask=zeros(bool, rows, shapes["prompt"]),
            response=zeros(np.int32, rows, shapes["response"]),
            mask=zeros(bool, rows, shapes["response"]),
            logprobs=zeros(np.float32, rows, shapes["response"]),
            finished=zeros(bool, rows),
        )

    greedy = settings.algorithm(c).looks_at("greedy")
    return empty(c.prompts * c.group_size), empty(c.prompts) if greedy else None


def run(config: ConfigTree, workdir: Path, stop: int = 0) -> None:
    """Train to the end, or to step ``stop`` of it: schedules are those of the whole run."""
    s = settings.resolve(config, "rl")
    if config.mesh.actors and jax.process_count() > 1:
        raise UserError(
            "mesh.actors: devices that only sample must be in the same process as those that learn: use one"
        )
    iteration = make_iteration_ahead(s) if config.mesh.actors else make_iteration(s)
    params = initial_state.start_params(s, config.rl.start, workdir)
    state = initial_state.new_state(s, config.rl, params, settings.algorithm(config.rl))
    if config.mesh.actors:
        state = state.replace(ahead=nobody_ahead(s))
    known = initial_state.evaluated(s, config.rl.start, workdir)
    how = settings.loop(s, "rl", workdir, stop)
    loop.train("rl", state, iteration, settings.evaluator(s), score="eval/pass@1", known=known, **how)


def main() -> None:
    command_line.main(run)


if __name__ == "__main__":
    main()
