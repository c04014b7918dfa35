"""Tokens a second of the sampler and of the update, on the shapes that the peers were measured on.

    python -m benchmarks.throughput [S M]

S: 1.0 M parameters (4 layers, width 128, V 128), M: 9.6 M (6 layers, width 384, V 512); prompts of 32 tokens, groups of
8, 64 new tokens, float32. One JSON line a measurement; the best of three timings after a warm-up.
"""

import functools
import json
import os
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rljax import learner, sampler, transformer
from rljax import policy_gradient as pg
from rljax.structs import Experience, Rewards, TrainState

PROMPT, GROUP, NEW = 32, 8, 64
SIZES = {
    "S": transformer.Config(layers=4, width=128, heads=4, kv_heads=2, head_width=32, ff_width=512, vocab_size=128),
    "M": transformer.Config(layers=6, width=384, heads=6, kv_heads=2, head_width=64, ff_width=1024, vocab_size=512),
}


def best(function, *args) -> float:
    """Seconds of the fastest of three calls, after one that compiles."""
    jax.block_until_ready(function(*args))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        times.append(time.perf_counter() - start)
    return min(times)


def measure(size: str, rows: int) -> None:
    model = SIZES[size]
    params = transformer.init(model, jax.random.key(0))
    prompt = jax.random.randint(jax.random.key(1), (rows // GROUP, PROMPT), 0, model.vocab_size)
    mask = jnp.ones(prompt.shape, bool)
    draw = functools.partial(sampler.sample, config=model, group_size=GROUP, max_new_tokens=NEW, stop_ids=())
    sampling = lambda key: draw(params, prompt=prompt, prompt_mask=mask, key=key)
    seconds = best(sampling, jax.random.key(2))
    report(size, rows, params, "sample", seconds)

    adam, zero = optax.adamw(1e-4), jnp.zeros((), jnp.int32)
    state = TrainState(step=zero, params=params, opt_state=adam.init(params), key=jax.random.key(0), cursor=zero)
    sizes: dict[str, Any] = dict(prompt_slots=PROMPT, max_new_tokens=NEW, group_size=GROUP)
    batching = learner.MicroBatching(4)
    policy_learner = learner.PolicyLearner(pg.ALGORITHMS["dr_grpo"], model, adam, **sizes, micro_batching=batching)

    @jax.jit
    def update(state, rollout, reward):
        experience = Experience(rollout, Rewards(reward, reward[..., None], {}))
        batch, _ = learner.compute_advantages(policy_learner, state, experience)
        return learner.update_policy(policy_learner, state, batch)

    reward = jax.random.bernoulli(jax.random.key(3), 0.5, (rows // GROUP, GROUP)).astype(jnp.float32)
    report(size, rows, params, "update", best(update, state, sampling(jax.random.key(2)), reward))


def report(size: str, rows: int, params, what: str, seconds: float) -> None:
    line = {"benchmark": what, "size": size, "parameters": transformer.count(params), "batch": f"{rows}x{NEW}"}
    line |= {"seconds": round(seconds, 4), "tokens_per_second": round(rows * NEW / seconds)}
    line |= {"backend": jax.default_backend(), "cores": os.cpu_count(), "jax": jax.__version__}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    for name in sys.argv[1:] or ["S", "M"]:
        for count in (32, 128):
            measure(name, count)
