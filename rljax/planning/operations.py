"""Operations and bytes of sampling and of an update, counted from the architecture.

The compiler's own count stops at loops, which it takes to run once, and knows no kernel; so products are counted here, 2
operations each, and everything else is left out. A test compares the count of a forward pass without loops with the
compiler's. All responses are taken to be as long as they may be, and all columns to be real.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from rljax import sampler, transformer
from rljax.training.run import Reinforcement, Run
from rljax.transformer import Config
from rljax.transformer.layer import cached_shapes


@dataclasses.dataclass(frozen=True)
class Work:
    """Of one iteration, over all devices."""

    flops: float
    bytes: float  # read or written in the devices' memories


def matrices(model: Config, active: bool = True) -> float:
    """Parameters that a token is multiplied with in the layers: of experts only those it is sent to, if ``active``."""
    return dense(model) + experts(model) * (
        model.experts_per_token / model.experts if active and model.experts else 1.0
    )


def dense(model: Config) -> float:
    """Parameters of the layers' matrices that every token meets."""
    return counted(model, lambda w: "expert" not in w.axes)


def experts(model: Config) -> float:
    return counted(model, lambda w: "expert" in w.axes)


def counted(model: Config, which: Any) -> float:
    is_weight = lambda x: isinstance(x, transformer.WeightSpec)
    leaves = jax.tree.leaves(transformer.weight_specs(model)["layers"], is_leaf=is_weight)
    return float(sum(math.prod(w.shape) for w in leaves if w.init_std and which(w)))


def head(model: Config) -> float:
    return float(model.vocab_size * model.width)


def attention(model: Config, columns: float, absorbed: bool = False) -> float:
    """Operations of one token's scores and mixing in all layers, against so many columns."""
    if model.latent:
        widths = 2 * model.latent + model.rope_width if absorbed else model.head_width + model.value_width
    else:
        widths = 2 * model.head_width
    return 2.0 * model.layers * model.heads * widths * columns


def forward(model: Config, rows: float, columns: float, scored: float) -> float:
    """Operations of a pass over whole sequences, of which ``scored`` columns reach the head. Masked scores are made too."""
    by_token = 2 * matrices(model) + attention(model, columns)
    return rows * (columns * by_token + scored * 2 * head(model))


def cache_bytes(model: Config, columns: float) -> float:
    """Bytes that the sampler keeps of so many columns of one row, all layers."""
    each = sum(heads * width for heads, width in cached_shapes(model))
    return model.layers * each * columns * jnp.dtype(model.cache_dtype).itemsize


def sampling(rl: Reinforcement, model: Config, prompt_slots: int, devices: int) -> Work:
    """Reading the prompts, then a token at a time: each step reads the weights, on every device, and the cache so far."""
    prompts, g, t = rl.problems.prompts, rl.sampling.group_size, rl.sampling.max_new_tokens
    n = prompts * g
    light = {"": jnp.dtype(model.dtype).itemsize, "bfloat16": 2, "int8": 1}[rl.sampling.sampler_weights]
    flops, moved, before = forward(model, prompts, prompt_slots, 1), 0.0, 0
    read = light * weights_read(model, devices, n)
    for columns in sampler.stage_sizes(t):
        steps, before = columns - before, columns
        seen = prompt_slots + columns
        flops += steps * n * (2 * matrices(model) + 2 * head(model) + attention(model, seen, absorbed=True))
        moved += steps * (read + n * cache_bytes(model, columns) + n / g * cache_bytes(model, prompt_slots))
    return Work(flops, moved)


def weights_read(model: Config, devices: int, tokens: float) -> float:
    """Weights that all devices together read in one pass: each the part that it computes with, of experts those in use."""
    copies = devices / max(model.layout.num_shards("heads"), 1)
    used = min(1.0, tokens * model.experts_per_token / model.experts) if model.experts else 0.0
    return copies * (dense(model) + head(model) + used * experts(model) / model.layout.num_shards("expert"))


def updating(run: Run, prompt_slots: int, held: float) -> Work:
    """Scoring before the update, and the passes of the update; ``held`` bytes of state are read and written each step.

    A backward pass is two forward ones (of adapters one, and little more), and what it makes again is one more. Bytes are
    those of weights, once a pass and micro-batch on each device, of the state, and of 20 activations as wide as the
    residual stream and 6 as wide as the feed-forward block, a layer and pass.
    """
    rl, model = run.rl, run.model
    update, scored = rl.update, rl.sampling.max_new_tokens
    n, columns = rl.problems.prompts * rl.sampling.group_size, prompt_slots + scored
    body = forward(model, n, columns, 0)
    unembedding = forward(model, n, columns, scored) - body
    scores = n * columns * attention(model, columns)
    one = body + unembedding
    backward = one if rl.lora.rank else 2 * one
    again = {"none": 0.0, "dots": scores, "layer": body}[model.remat]
    again += scores if 0 < model.attention_chunk < columns else 0.0
    again += unembedding if 0 < model.logprob_chunk < scored else 0.0
    has_critic = rl.algorithm.looks_at("values")
    looks = scoring_passes(rl)
    critic = 3 * body * (rl.critic.trunk == "own") if has_critic else 0.0
    flops = one * looks["before"] + update.epochs * (one + backward + again + one * looks["within"] + critic)
    flops += body * has_critic

    micro = math.ceil(n / rl.micro_batching.rows)
    passes = looks["before"] + update.epochs * (3 + looks["within"] + (model.remat == "layer"))
    devices = model.layout.mesh.size if model.layout.mesh else 1
    weights = weights_read(model, devices, n * columns / micro) * jnp.dtype(model.dtype).itemsize
    width = 20 * model.width + 6 * (
        model.ff_width if not model.experts else model.expert_width * model.experts_per_token
    )
    activations = n * columns * model.layers * width * jnp.dtype(model.dtype).itemsize
    return Work(flops, passes * (micro * weights + activations) + update.steps * 2 * held)


def scoring_passes(rl: Reinforcement) -> dict[str, int]:
    """Passes that only score: before the updates, and in each."""
    algorithm = rl.algorithm
    old = rl.update.steps > 1 or algorithm.kl_in == "reward" or algorithm.name("correction") != "none"
    within = (algorithm.kl_in == "loss") + algorithm.ranks_tokens
    return {"before": old + (algorithm.kl_in == "reward"), "within": within}
