"""Floating-point operations (FLOPs) and bytes accessed by sampling and by an update, counted from the architecture.

The compiler's own count takes every loop to run once and does not know hand-written kernels. Matrix products are therefore
counted here, 2 FLOPs for each multiplication and addition; all other operations are left out. A test compares the count of a
forward pass without loops with the compiler's. Every response is taken to have its maximum length, and padding is counted as
tokens.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax import sampler, transformer
from rljax.training.run import Reinforcement, Run
from rljax.transformer import Config, WeightSpec
from rljax.transformer.layer import cached_shapes


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of one iteration, summed over all devices."""

    flops: float
    bytes: float  # read or written in the devices' memories


class UpdateShape(NamedTuple):
    """What one pass over a rollout's batch computes, padding included."""

    micro_batches: int
    rows: int  # rows, or packed sequences, of all micro-batches
    columns: int  # of each
    scored: int  # columns of each that have logits


class ScoringPasses(NamedTuple):
    """Numbers of forward passes that compute log-probabilities without a gradient."""

    before_update: int
    each_epoch: int


def matrix_parameters(model: Config, active_only: bool = True) -> float:
    """Return the parameters of the layers' matrices. ``active_only``: of the experts only those that one token uses."""
    active_share = model.experts_per_token / model.experts if active_only and model.experts else 1.0
    return dense_parameters(model) + expert_parameters(model) * active_share


def dense_parameters(model: Config) -> float:
    """Return the parameters of the layers' matrices outside the experts."""
    return count_layer_parameters(model, lambda w: "expert" not in w.axes)


def expert_parameters(model: Config) -> float:
    """Return the parameters of all experts."""
    return count_layer_parameters(model, lambda w: "expert" in w.axes)


def count_layer_parameters(model: Config, is_counted: Callable[[WeightSpec], bool]) -> float:
    """Return the parameters of those matrices of the layers for which ``is_counted`` is true."""
    is_weight = lambda x: isinstance(x, WeightSpec)
    specs = jax.tree.leaves(transformer.weight_specs(model)["layers"], is_leaf=is_weight)
    return float(sum(math.prod(w.shape) for w in specs if w.init_std and is_counted(w)))


def unembedding_parameters(model: Config) -> float:
    """Return the parameters of the matrix that makes the logits."""
    return float(model.vocab_size * model.width)


def attention_flops(model: Config, columns: float, absorbed: bool = False) -> float:
    """Return the FLOPs of one token's attention scores and weighted sum over ``columns`` tokens, in all layers.

    ``absorbed``: multi-head latent attention with its up-projections absorbed, as in decoding (arXiv 2405.04434, section 2.1).
    """
    if model.latent:
        widths = 2 * model.latent + model.rope_width if absorbed else model.head_width + model.value_width
    else:
        widths = 2 * model.head_width
    return 2.0 * model.layers * model.heads * widths * columns


def forward_flops(model: Config, rows: float, columns: float, scored: float) -> float:
    """Return the FLOPs of a forward pass over [rows, columns] tokens, with logits for ``scored`` columns.

    Attention scores that are masked afterwards are computed too, and counted.
    """
    token_flops = 2 * matrix_parameters(model) + attention_flops(model, columns)
    return rows * (columns * token_flops + scored * 2 * unembedding_parameters(model))


def cache_bytes(model: Config, columns: float) -> float:
    """Return the bytes of the KV cache of one row with ``columns`` tokens, in all layers."""
    values_per_token = sum(heads * width for heads, width in cached_shapes(model))
    return model.layers * values_per_token * columns * jnp.dtype(model.cache_dtype).itemsize


def sampler_itemsize(rl: Reinforcement, model: Config) -> int:
    """Return the bytes of one parameter in the layers' matrices that the sampler reads."""
    return {"": jnp.dtype(model.dtype).itemsize, "bfloat16": 2, "int8": 1}[rl.sampling.sampler_weights]


def sampling_cost(rl: Reinforcement, model: Config, prompt_slots: int, devices: int) -> Cost:
    """Return the cost of sampling: a prefill of the prompts, then one decoding step for each response token.

    Each decoding step reads the weights on every device, and the KV cache as far as it has been filled. Where rows take turns in
    slots, each of them reads its own copy of its prompt.
    """
    prompts, group_size = rl.problems.prompts, rl.sampling.group_size
    rows = prompts * group_size
    flops, accessed = forward_flops(model, prompts, prompt_slots, 1), 0.0
    at_once = sampler.rows_at_once(rl.sampling.slots, rows, prompts, model.layout)
    sharing, turns = (group_size, 1.0) if at_once == rows else (1, rows / at_once)
    weight_bytes = turns * sampler_itemsize(rl, model) * parameters_read(model, devices, at_once)
    previous = 0
    for response_columns in sampler.stage_sizes(rl.sampling.max_new_tokens):
        steps, previous = response_columns - previous, response_columns
        attended = prompt_slots + response_columns
        token_flops = 2 * matrix_parameters(model) + 2 * unembedding_parameters(model)
        token_flops += attention_flops(model, attended, absorbed=True)
        flops += steps * rows * token_flops
        prompt_cache = rows / sharing * cache_bytes(model, prompt_slots)
        accessed += steps * (weight_bytes + rows * cache_bytes(model, response_columns) + prompt_cache)
    return Cost(flops, accessed)


def parameters_read(model: Config, devices: int, tokens: float) -> float:
    """Return the parameters that all devices together read in one forward pass over this many tokens.

    Each device reads the shard that it computes with. Of the experts only those with tokens are read.
    """
    replicas = devices / max(model.layout.num_shards("heads"), 1)
    used_share = min(1.0, tokens * model.experts_per_token / model.experts) if model.experts else 0.0
    experts = used_share * expert_parameters(model) / model.layout.num_shards("expert")
    return replicas * (dense_parameters(model) + unembedding_parameters(model) + experts)


def update_cost(run: Run, prompt_slots: int, state_bytes: float) -> Cost:
    """Return the cost of the scoring passes and of the policy update.

    ``state_bytes``, over all devices, are read and written once each optimizer step. A backward pass costs two forward passes,
    with LoRA one. Rematerialization costs at most one more. The bytes of a pass are the weights, once for each micro-batch and
    device, and the activations of each layer: 20 of the residual stream's width and 6 of the feed-forward width.
    """
    rl, model, update = run.rl, run.model, run.rl.update
    micro_batches, rows, columns, scored = update_shape(rl, prompt_slots)
    scoring = scoring_passes(rl)
    has_critic = rl.algorithm.looks_at("values")

    # FLOPs
    layers = forward_flops(model, rows, columns, 0)
    unembedding = forward_flops(model, rows, columns, scored) - layers
    attention = rows * columns * attention_flops(model, columns)
    forward = layers + unembedding
    backward = forward if rl.lora.rank else 2 * forward
    recomputed = {"none": 0.0, "dots": attention, "layer": layers}[model.remat]
    recomputed += attention if 0 < model.attention_chunk < columns else 0.0
    recomputed += unembedding if 0 < model.logprob_chunk < scored else 0.0
    critic = 3 * layers * (rl.critic.trunk == "own") if has_critic else 0.0
    epoch = forward + backward + recomputed + forward * scoring.each_epoch + critic
    flops = forward * scoring.before_update + update.epochs * epoch
    flops += layers * has_critic

    # bytes
    itemsize = jnp.dtype(model.dtype).itemsize
    passes = scoring.before_update + update.epochs * (3 + scoring.each_epoch + (model.remat == "layer"))
    devices = model.layout.mesh.size if model.layout.mesh else 1
    weights = parameters_read(model, devices, rows * columns / micro_batches) * itemsize
    ff_width = model.expert_width * model.experts_per_token if model.experts else model.ff_width
    activations = rows * columns * model.layers * (20 * model.width + 6 * ff_width) * itemsize
    accessed = passes * (micro_batches * weights + activations) + update.steps * 2 * state_bytes
    return Cost(flops, accessed)


def update_shape(rl: Reinforcement, prompt_slots: int) -> UpdateShape:
    """Return what a pass over the batch computes where all prompts and responses are as long as they may be."""
    batching, prompts, scored = rl.micro_batching, rl.problems.prompts, rl.sampling.max_new_tokens
    rows, columns = prompts * rl.sampling.group_size, prompt_slots + scored
    at_once = min(batching.rows or rows, rows)
    if batching.packing is None:
        return UpdateShape(math.ceil(rows / at_once), rows, columns, scored)
    width, sequences = (
        batching.packing.columns,
        batching.packing.sequences_at_once(at_once, columns, batching.layout.num_shards("rows")),
    )
    count = math.ceil((rows * scored + prompts * prompt_slots) / width / sequences)
    return UpdateShape(count, count * sequences, width, width)


def scoring_passes(rl: Reinforcement) -> ScoringPasses:
    """Return how many forward passes without a gradient the algorithm needs."""
    algorithm = rl.algorithm
    needs_old = rl.update.steps > 1 or algorithm.kl_in == "reward" or algorithm.name("correction") != "none"
    return ScoringPasses(
        before_update=needs_old + (algorithm.kl_in == "reward" or algorithm.looks_at("ref_logprobs")),
        each_epoch=(algorithm.kl_in == "loss") + algorithm.ranks_tokens,
    )
