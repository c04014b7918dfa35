"""The worker of rljax: one case, on the folder that the peers load too. Started by ``benchmarks.peers``."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.packing import MODELS
from benchmarks.peers.json_worker import Run, serve
from rljax import learner, pretrained, sampler, transformer
from rljax import policy_gradient as pg
from rljax.learner.packing import Packing
from rljax.structs import Experience, Rewards, Rollout, TrainState

RATE = 1e-6  # of AdamW: small, so that the model counts down in every run


def prepare(case: dict[str, Any]) -> Run:
    computed = {name: getattr(MODELS[case["size"]], name) for name in ("scan_layers", "remat", "logprob_chunk")}
    config = pretrained.read_config(case["folder"], weight_dtype=case["dtype"], dtype=case["dtype"], **computed)
    params = pretrained.read_params(case["folder"], config, case["dtype"])
    draw = make_draw(case, config)
    if case["work"] == "sampler":
        sample = jax.jit(draw)
        return lambda seed: int(sample(params, jax.random.key(seed)).mask.sum())
    optimizer, zero = optax.adamw(RATE), functools.partial(jnp.zeros, (), jnp.int32)
    state = TrainState(zero(), params, optimizer.init(params), jax.random.key(0), zero())
    state = jax.device_put(state, jax.devices()[0])  # as the step returns it: else the second one compiles again
    step = jax.jit(make_step(case, config, optimizer, draw), donate_argnums=0)
    given = given_rollout(case) if case["work"] == "update" else None
    states = [state]

    def run(seed: int) -> int:
        states[0], tokens = step(states[0], jax.random.key(seed), given)
        jax.block_until_ready(states[0])
        return int(tokens)

    return run


def make_draw(case: dict[str, Any], config: transformer.Config) -> Callable[..., Rollout]:
    """``draw(params, key)``: the rollout of the case."""
    prompt = jnp.asarray(case["prompt_ids"], jnp.int32)
    rows = case["prompts"] * case["group"]
    how = dict(group_size=case["group"], max_new_tokens=case["new"], stop_ids=(0,))
    slots = sampler.choose_slots(rows, config.layout)
    ones = jnp.ones(prompt.shape, bool)
    return lambda params, key: sampler.sample(params, config, prompt, ones, key, slots=slots, **how)


def make_step(case: dict[str, Any], config: transformer.Config, optimizer: Any, draw: Callable[..., Rollout]) -> Any:
    """``step(state, key, rollout)``: (state after the update, tokens). A rollout of None is sampled first."""
    packing = Packing(case["packing"], case["prompt_slots"]) if case["packing"] else None
    sizes = dict(prompt_slots=case["prompt_slots"], max_new_tokens=case["new"], group_size=case["group"])
    batching = learner.MicroBatching(4, packing=packing)
    policy_learner = learner.PolicyLearner(
        pg.ALGORITHMS["dr_grpo"], config, optimizer, micro_batching=batching, **sizes
    )
    reward = jnp.asarray(case["rewards"], jnp.float32).reshape(case["prompts"], case["group"])

    def step(state: TrainState, key: jax.Array, rollout: Rollout | None) -> tuple[TrainState, jax.Array]:
        rollout = draw(state.params, key) if rollout is None else rollout
        experience = Experience(rollout, Rewards(reward, reward[..., None], {}))
        batch, _ = learner.compute_advantages(policy_learner, state, experience)
        return learner.update_policy(policy_learner, state, batch)[0], rollout.mask.sum()

    return step


def given_rollout(case: dict[str, Any]) -> Rollout:
    """The responses of the case as a rollout."""
    lengths = np.array([len(x) for x in case["responses"]])
    response = np.array([x + [0] * (case["new"] - len(x)) for x in case["responses"]], np.int32)
    mask = np.arange(case["new"]) < lengths[:, None]
    prompt = np.repeat(np.array(case["prompt_ids"], np.int32), case["group"], 0)
    ones, logprobs = jnp.ones(prompt.shape, bool), jnp.zeros(mask.shape)
    return Rollout(
        jnp.asarray(prompt), ones, jnp.asarray(response), jnp.asarray(mask), logprobs, jnp.ones(len(mask), bool)
    )


if __name__ == "__main__":
    serve(prepare, ("rljax", "jax"))
