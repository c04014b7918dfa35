"""The five steps of reinforcement learning as functions of named values, each bound to a run's settings.

``experiments.rl`` composes them. Whoever else needs one of them (a plan, a benchmark) takes it from here.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax import learner, rewards, sampler
from rljax.distributed import sharding
from rljax.learner.optimizer import make_optimizer
from rljax.sampler import PolicySampler
from rljax.structs import Problems, Rewards, Rollout, TrainState
from rljax.tasks.curriculum import make_asker
from rljax.training.dynamic_sampling import Collected, SampleRound, one_round, sample_until_mixed
from rljax.training.run import Run
from rljax.transformer import lora

Array = jax.Array
Metrics = dict[str, Array]
TrainStep = Callable[[TrainState], tuple[TrainState, Metrics]]


class Steps(NamedTuple):
    """What one train step is made of."""

    ask: Callable[[TrainState, Array], Problems]  # (state, round) -> B problems
    sample: Callable[[TrainState, Problems, Array], tuple[Rollout, Any]]  # -> (rollout, that of the next step or None)
    verify: Callable[[Rollout, Problems], Rewards]
    collect: Callable[[SampleRound], Collected]  # one round of the three above, or dynamic sampling
    compute_advantages: Callable[[TrainState, Collected], tuple[learner.Batch, Metrics]]
    update_policy: Callable[[TrainState, learner.Batch], tuple[TrainState, Metrics]]
    advance: Callable[[TrainState, Collected], TrainState]  # the data position, and what was sampled ahead


def make_steps(run: Run) -> Steps:
    """The steps of this run. With ``mesh.actors``, some devices sample one step ahead of those that learn."""
    rl, ahead = run.rl, run.mesh.actors > 0
    prompts, rounds = rl.problems.prompts, rl.algorithm.option("groups", "rounds") or 0
    on_device, where = not is_hosted(run), run.model.layout if ahead else run.sampler_model.layout
    problems_from, draw, policy_learner = make_asker(rl.problems, run.task, run.seed), make_draw(run), make_learner(run)
    if run.task.on_device and not is_one_program(run):
        problems_from = jax.jit(
            problems_from
        )  # outside a program, each of its loops would be compiled anew in every step
    verify = make_verify(run)
    advantages = jax.jit(functools.partial(learner.compute_advantages, policy_learner))
    update = jax.jit(functools.partial(learner.update_policy, policy_learner), donate_argnums=0)
    collect = functools.partial(sample_until_mixed, rounds=rounds, compiled=on_device) if rounds else one_round
    without_parts = lambda x: x.replace(rollout=x.rollout.replace(earlier=None))  # they have been verified
    without_ahead = lambda x: x.replace(ahead=None)  # it lies on other devices

    def ask(state: TrainState, round: Array) -> Problems:
        problems = problems_from(state.cursor + round * prompts)
        if on_device:
            return sharding.shard_rows(problems, where)
        # Only the host reads the facts: to collect them from several processes, it would wait for what is being sampled
        return sharding.shard_rows(problems.replace(facts=()), where).replace(facts=problems.facts)

    return Steps(
        ask=ask,
        sample=make_sample_ahead(run, draw, problems_from) if ahead else make_sample(draw, dynamic=rounds > 0),
        verify=jax.jit(verify) if ahead and on_device else verify,
        collect=lambda sample_round: collect(lambda number: without_parts(sample_round(number))),
        compute_advantages=lambda state, collected: advantages(
            without_ahead(state), without_ahead(collected.experience), collected.keep
        ),
        update_policy=lambda state, batch: update(without_ahead(state), batch),
        advance=lambda state, collected: state.replace(
            cursor=state.cursor + collected.rounds * prompts, ahead=collected.experience.ahead
        ),
    )


def make_learner(run: Run) -> learner.PolicyLearner:
    """The policy (and, where the algorithm has one, the critic) as the update sees it."""
    rl = run.rl
    critic = None
    if rl.algorithm.looks_at("values"):
        tx = make_optimizer(rl.critic_optimizer, run.model, rl.optimizer_steps)
        critic = learner.CriticLearner(tx, rl.critic)
    return learner.PolicyLearner(
        algorithm=rl.algorithm,
        model=run.model,
        optimizer=make_optimizer(rl.optimizer, run.model, rl.optimizer_steps),
        prompt_slots=run.task.prompt_slots,
        max_new_tokens=rl.sampling.max_new_tokens,
        group_size=rl.sampling.group_size,
        temperature=rl.sampling.temperature,
        update=rl.update,
        micro_batching=rl.micro_batching,
        critic=critic,
        teacher=rl.teacher_model,
    )


def make_draw(run: Run) -> PolicySampler:
    """``draw(params, problems, key, step) -> Rollout``, with greedy responses where the algorithm compares with them."""
    draw = sampler.make_sampler(run.rl.sampling, run.sampler_model, to_learn_from=True, parts=choose_parts(run))
    draw_greedy = sampler.make_sampler(run.rl.sampling, run.sampler_model, greedy=True)
    with_greedy = run.rl.algorithm.looks_at("greedy")

    def draw_rollout(params: Any, problems: Problems, key: Array, step: Array | int = 0) -> Rollout:
        rollout = draw(params, problems, key, step)
        return rollout.replace(greedy=draw_greedy(params, problems, key, step)) if with_greedy else rollout

    return draw_rollout


def choose_parts(run: Run) -> int:
    """In how many parts a rollout is verified: more than one where the host can begin before all of it is sampled.

    Where some devices sample ahead, the rollout that is verified is complete long before.
    """
    if run.mesh.actors or not is_hosted(run):
        return 1
    return run.rl.sampling.verify_parts or (8 if run.task.slow_verifier else 1)


def make_verify(run: Run) -> Callable[[Rollout, Problems], Rewards]:
    """``verify(rollout, problems) -> Rewards`` with the reward of this run."""
    rl = run.rl
    sizes = rl.sampling.group_size, run.workers, rl.reward, rl.sampling.max_new_tokens, run.max_unscored
    return rewards.make_reward_fn(run.task, *sizes)


def make_sample(draw: PolicySampler, dynamic: bool) -> Callable[..., tuple[Rollout, None]]:
    """Sample with the current policy; ``dynamic`` gives each round of dynamic sampling a key of its own."""

    def sample(state: TrainState, problems: Problems, round: Array) -> tuple[Rollout, None]:
        key = state.round_key(round) if dynamic else state.step_key()
        return draw(lora.policy_params(state.params, state.frozen), problems, key, state.step), None

    return sample


def make_sample_ahead(
    run: Run, draw: PolicySampler, problems_from: Callable[[Array], Problems]
) -> Callable[..., tuple[Rollout, Rollout]]:
    """Take the rollout that the sampling devices have made, and start the next step's before the update.

    While the other devices learn from step k, these sample step k + 1 with the policy from before the update. They are never
    further ahead; the algorithm's correction weighs the difference.
    """
    layout, prompts = run.sampler_model.layout, run.rl.problems.prompts
    replicate = lambda x: sharding.replicate(x, layout)

    def draw_there(state: TrainState, policy: Any, problems: Problems) -> Rollout:
        there = sharding.shard_rows(problems.replace(facts=()), layout)
        return draw(policy, there, replicate(state.step_key()), int(state.step))

    def sample(state: TrainState, problems: Problems, round: Array) -> tuple[Rollout, Rollout]:
        policy = sharding.reshard_params(lora.policy_params(state.params, state.frozen), run.sampler_model)
        rollout = state.ahead if int(state.step) else draw_there(state, policy, problems)
        following = state.replace(step=state.step + 1)
        ahead = draw_there(following, policy, problems_from(state.cursor + prompts))
        return sharding.shard_rows(rollout, run.model.layout), ahead

    return sample


def empty_rollout(run: Run) -> Rollout:
    """A rollout of this run's shape in which nothing has been sampled, laid out as its sampler lays rollouts out."""
    sampling, slots = run.rl.sampling, run.task.prompt_slots
    masked_vocab = run.model.vocab_size if sampling.stores_sampling_mask else 0
    empty = lambda rows, masked_vocab=0: Rollout.empty(rows, slots, sampling.max_new_tokens, masked_vocab)
    rollout = empty(run.rl.problems.prompts * sampling.group_size, masked_vocab)
    if run.rl.algorithm.looks_at("greedy"):
        rollout = rollout.replace(greedy=empty(run.rl.problems.prompts))
    return sharding.shard_rows(jax.tree.map(np.asarray, rollout), run.sampler_model.layout)


def compile_train_step(make_train_step: Callable[[Run], TrainStep], run: Run) -> TrainStep:
    """The train step of a run as one compiled function where nothing in it reads text on the host, else as it is.

    The numbers of the run (seed, temperature, learning rate, options of the algorithm) are arguments of the compiled program:
    runs that differ in nothing else share it.
    """
    if not is_one_program(run):
        return make_train_step(run)

    def step(numbers: Mapping[str, Array], state: TrainState) -> tuple[TrainState, Metrics]:
        return make_train_step(run.with_numbers(numbers))(state)

    return functools.partial(jax.jit(step, donate_argnums=1), run.numbers())


def summarize_experience(state: TrainState, collected: Collected) -> Metrics:
    """Metrics of the first round, and of what all rounds cost; ``state`` is the one after the update."""
    first, ahead = collected.first, collected.experience.ahead is not None
    lag: Metrics = {"lag": jnp.int32(min(int(state.step) - 1, 1))} if ahead else {}
    return rewards.summarize_rewards(first.rollout, first.rewards) | collected.cost | lag


def is_one_program(run: Run) -> bool:
    """Whether a train step of this run is one compiled function."""
    return not run.mesh.actors and not is_hosted(run)


def is_hosted(run: Run) -> bool:
    """Whether a train step of this run reads text on the host, between its compiled parts."""
    return rewards.needs_host(run.task, run.rl.reward)
