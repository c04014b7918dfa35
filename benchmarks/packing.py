"""The policy update on responses of varying lengths: padded rows, rows cut to a few widths, packed sequences.

    python -m benchmarks.packing [1M 10M 135M] [--repeats 3] [--columns 512]

1M and 10M: 32 prompts of about 32 tokens, groups of 8, log-normal responses of mean 60, at most 256. 135M: the shape of SmolLM2,
8 prompts of 106 tokens, groups of 8, responses of up to 32. The forms take turns in one process. One JSON line a size: the median
seconds of each form (of CPU time where that is the device), columns computed for each real token (a shared prompt counts once), and the peak of temporary memory.
"""

import argparse
import dataclasses
import json
import os
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rljax import learner, transformer
from rljax import policy_gradient as pg
from rljax.learner.micro_batches import MicroBatching
from rljax.learner.packing import Packing, pack_batch
from rljax.structs import Experience, Rewards, Rollout, TrainState

SMOLLM2: dict[str, Any] = dict(
    layers=30, width=576, heads=9, kv_heads=3, head_width=64, ff_width=1536, vocab_size=49_152
)
MODELS = {
    "1M": transformer.Config(layers=5, width=128, heads=4, kv_heads=4, head_width=32, ff_width=344, vocab_size=512),
    "10M": transformer.Config(layers=8, width=320, heads=5, kv_heads=5, head_width=64, ff_width=856, vocab_size=1024),
    "135M": transformer.Config(**SMOLLM2, tied_head=True, scan_layers=True, remat="layer", logprob_chunk=64),
}


@dataclasses.dataclass(frozen=True)
class Sizes:
    prompts: int
    group: int
    prompt_slots: int
    longest: int
    prompt_mean: float
    response_mean: float


SIZES = {
    "1M": Sizes(32, 8, 48, 256, 32, 60),
    "10M": Sizes(32, 8, 48, 256, 32, 60),
    "135M": Sizes(8, 8, 120, 32, 106, 24),
}


def make_rollout(s: Sizes, vocab: int) -> Rollout:
    """Attempts with log-normal lengths."""
    rng = np.random.default_rng(0)
    rows = s.prompts * s.group
    lengths = np.clip(rng.lognormal(np.log(s.response_mean) - 0.32, 0.8, rows).astype(int), 1, s.longest)
    prompts = np.clip(rng.normal(s.prompt_mean, s.prompt_mean / 10, s.prompts).astype(int), 1, s.prompt_slots)
    tokens = lambda columns: jnp.asarray(rng.integers(3, vocab, (rows, columns)), jnp.int32)
    mask = jnp.asarray(np.arange(s.longest) < lengths[:, None])
    prompt_mask = np.arange(s.prompt_slots) >= s.prompt_slots - np.repeat(prompts, s.group)[:, None]
    prompt = jnp.repeat(tokens(s.prompt_slots)[:: s.group], s.group, 0)
    logprobs = jnp.where(mask, -2.0, 0.0)
    return Rollout(prompt, jnp.asarray(prompt_mask), tokens(s.longest), mask, logprobs, jnp.ones(rows, bool))


def measure(name: str, repeats: int, columns: int, micro_batch: int) -> dict:
    """One line: every form of the update of one size, in turn."""
    model, s = MODELS[name], SIZES[name]
    rollout, key = make_rollout(s, model.vocab_size), jax.random.key(0)
    longest = s.prompt_slots + s.longest
    widths = tuple(s.prompt_slots + w for w in (s.longest // 4, s.longest // 2))
    forms = {
        "padded": MicroBatching(micro_batch),
        "widths": MicroBatching(micro_batch, widths),
        "packed": MicroBatching(micro_batch, packing=Packing(columns, s.prompt_slots)),
    }
    reward = jax.random.bernoulli(key, 0.5, (s.prompts, s.group)).astype(jnp.float32)
    experience = Experience(rollout, Rewards(reward, reward[..., None], {}))
    params, zero = transformer.init(model, key), jnp.zeros((), jnp.int32)
    optimizer = optax.adam(1e-6)
    state = TrainState(zero, params, optimizer.init(params), key, zero)
    real = int(rollout.mask.sum() + rollout.prompt_mask[:: s.group].sum())
    line: dict = {
        "benchmark": "packing",
        "size": name,
        "real_tokens": real,
        "columns": columns,
        "cores": os.cpu_count(),
    }

    steps = {}
    for form, micro_batching in forms.items():
        settings: Any = dict(prompt_slots=s.prompt_slots, max_new_tokens=s.longest, group_size=s.group)
        policy_learner = learner.PolicyLearner(
            pg.ALGORITHMS["dr_grpo"], model, optimizer, micro_batching=micro_batching, **settings
        )

        def step(state, policy_learner=policy_learner):
            batch, _ = learner.compute_advantages(policy_learner, state, experience)
            return learner.update_policy(policy_learner, state, batch)

        compiled = jax.jit(step).lower(state).compile()
        steps[form] = compiled
        memory = compiled.memory_analysis()
        batch = learner.make_policy_batch(rollout, rollout.mask)
        if micro_batching.packing is None:
            index, parts, _ = micro_batching.split(batch)
            computed = int(sum(micro_batching.all_widths(longest)[i] for i in index)) * parts["mask"].shape[1]
        else:
            batch["group"] = jnp.arange(len(rollout.mask), dtype=jnp.int32) // s.group
            at_once = micro_batching.packing.sequences_at_once(micro_batch, longest, 1)
            used = int(pack_batch(batch, micro_batching.packing, at_once).used)
            computed = -(-used // at_once) * at_once * columns
        line[form] = {
            "columns_per_token": round(computed / real, 2),
            "temporary_mb": round(memory.temp_size_in_bytes / 1e6, 1) if memory else None,
        }
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    seconds: dict = {form: [] for form in steps}
    for repeat in range(repeats + 1):
        for form, step in steps.items():
            start = clock()
            jax.block_until_ready(step(state))
            if repeat:
                seconds[form].append(clock() - start)
    for form, values in seconds.items():
        line[form] |= {"seconds": round(statistics.median(values), 3), "spread": round(max(values) - min(values), 3)}
    line["padded_over_packed"] = round(line["padded"]["seconds"] / line["packed"]["seconds"], 2)
    line["widths_over_packed"] = round(line["widths"]["seconds"] / line["packed"]["seconds"], 2)
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("sizes", nargs="*", default=list(MODELS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--columns", type=int, default=512)
    parser.add_argument("--micro_batch", type=int, default=4)
    args = parser.parse_args()
    for name in args.sizes:
        print(json.dumps(measure(name, args.repeats, args.columns, args.micro_batch)), flush=True)


if __name__ == "__main__":
    main()
