"""The transformer over whole sequences: logits, hidden states, and the log-probability of each token."""

from typing import Any

import jax
import jax.numpy as jnp

from rljax.transformer.attention import attend_sequence
from rljax.transformer.blocks import embed, rms_norm, unembed
from rljax.transformer.config import ATTENTION_KERNELS, Array, Config, Params
from rljax.transformer.layer import LayerCache, finish_layer, project_sequence
from rljax.transformer.weight_formats import gather_layer

REMAT = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "layer": None}


def token_positions(mask: Array) -> Array:
    """Positions of the real tokens, counted from 0 whatever padding precedes them: cumsum(mask) - 1, at least 0."""
    return jnp.maximum(jnp.cumsum(mask, -1) - 1, 0)


def run_layers(
    params: Params, config: Config, tokens: Array, mask: Array, keep_stacked: bool = False
) -> tuple[Array, list[Any]]:
    """All layers over tokens [B, S]: the residual stream [B, S, D], and what each layer caches, [B, K, S, .].

    With ``scan_layers`` the list for the cache is empty, unless ``keep_stacked`` asks for it: it is then stacked as the
    parameters are, and there is no gradient. Columns may be sharded over devices. Each device then compares its own queries
    with all keys.
    """
    # Pad the columns so that they divide among devices, and move real tokens to the front where a kernel needs that.
    constrain, real = config.layout.constrain, tokens.shape[1]
    extra = -real % config.layout.num_shards("columns")
    tokens, mask = (jnp.pad(y, [(0, 0), (0, extra)]) for y in (tokens, mask))
    order = None
    if config.attention in ATTENTION_KERNELS:  # kernels count columns: these are positions once real tokens come first
        order = jnp.argsort(~mask, -1)
        tokens, mask = (permute_columns(y, order) for y in (tokens, mask))
    positions = token_positions(mask)

    def run_layer(layer: Params, x: Array, index: int) -> tuple[Array, LayerCache]:
        layer = gather_layer(layer, config, index)
        h = rms_norm(x, layer["attention_norm"], config)
        q, k, v, pair = project_sequence(layer, h, positions, index, config)
        q, (k, v) = constrain(q, "rows", "heads", None, "columns"), constrain((k, v), "rows", "heads")
        mixed = attend_sequence(q, k, v, mask, positions, index, config)
        x = finish_layer(layer, x, mixed, config)
        return constrain(x, "rows", "columns"), pair

    def restore_columns(x: Array, axis: int) -> Array:
        x = x if order is None else permute_columns(x, jnp.argsort(order, -1), axis)
        return jax.lax.slice_in_dim(x, 0, real, axis=axis)

    if config.remat != "none":
        policy, prevent_cse = REMAT[config.remat], not config.scan_layers
        run_layer = jax.checkpoint(run_layer, static_argnums=2, policy=policy, prevent_cse=prevent_cse)
    # One layer after the other, or one scan over each stack of layers.
    x, cache = embed(params, config, tokens), []
    if not config.scan_layers:
        for index, layer in enumerate(params["layers"]):
            x, pair = run_layer(layer, x, index)
            cache.append(tuple(restore_columns(y, 2) for y in pair))
        return restore_columns(x, 1), cache
    restore_stacked = jax.vmap(lambda y: restore_columns(y, 2))
    for (first, _, repeats), stacked in zip(config.layer_stacks(), params["layers"], strict=True):

        def run_pattern(x: Array, layers: list[Params], first: int = first) -> tuple[Array, list[LayerCache]]:
            pairs = []
            for place, layer in enumerate(layers):
                x, pair = run_layer(layer, x, first + place)
                pairs.append(pair)
            return x, pairs if keep_stacked else []

        if keep_stacked:
            run_repeat = lambda x, n, run=run_pattern, stacked=stacked: run(x, take_repeat(stacked, n))
            x, pairs = jax.lax.scan(run_repeat, x, jnp.arange(repeats))
            cache.append(jax.tree.map(restore_stacked, pairs))
        else:
            x, _ = jax.lax.scan(run_pattern, x, stacked)
    return restore_columns(x, 1), cache


def take_repeat(stacked: Any, repeat: Array) -> Any:
    """In the body of a loop over the repeats of a stack: the arrays of this one.

    The barrier keeps the compiler from converting the whole stack before the loop, which would be a copy of all weights.
    """
    stacked, repeat = jax.lax.optimization_barrier((stacked, repeat))
    return jax.tree.map(lambda y: jax.lax.dynamic_index_in_dim(y, repeat, keepdims=False), stacked)


def permute_columns(x: Array, order: Array, axis: int = 1) -> Array:
    """x [B, ...] with the entries along ``axis`` of each row in that row's order [B, S]."""
    shape = [y if a in (0, axis) else 1 for a, y in enumerate(x.shape)]
    return jnp.take_along_axis(x, order.reshape(shape), axis)


def hidden_states(params: Params, config: Config, tokens: Array, mask: Array) -> Array:
    """[B, S, D]: the residual stream after the last layer and the final norm, which the head reads."""
    return rms_norm(run_layers(params, config, tokens, mask)[0], params["norm"], config)


def forward(params: Params, config: Config, tokens: Array, mask: Array | None = None) -> Array:
    """Logits [B, S, V] float32 of tokens [B, S] int32; column s scores the token at column s + 1.

    ``mask`` [B, S] bool is True on real tokens (default: all). Padding, left or right, changes no real column.
    """
    x, _ = run_layers(params, config, tokens, jnp.ones(tokens.shape, bool) if mask is None else mask)
    return unembed(params, config, x)


def token_logprobs(
    params: Params,
    config: Config,
    tokens: Array,
    mask: Array,
    temperature: Array | float = 1.0,
    start: int = 1,
    sampling_mask: Array | None = None,
) -> tuple[Array, Array]:
    """The log-probability of each token given those before it, and the entropy of the distribution it was drawn from.

    tokens, mask [B, S] -> (logprobs, entropy), both [B, S - start] float32 in nats. Column j describes the token at column
    ``start + j`` (start >= 1). Logits are divided by ``temperature`` first: score at the temperature of sampling. Columns
    whose mask is False are 0. With ``config.logprob_chunk`` only the logits of that many columns exist at once, and the
    backward pass computes them again: [B, S, V] never exists.

    ``sampling_mask`` [B, S - start, ceil(V / 8)] uint8 has a bit for each token that the sampler kept, as ``jnp.packbits``
    orders them. Both results are then of the distribution over these tokens ("keep sampling mask", arXiv 2512.02556, 3.1). A
    column without any bit keeps the whole vocabulary.
    """
    x, _ = run_layers(params, config, tokens, mask)
    x, targets, is_real = x[:, start - 1 : -1], tokens[:, start:], mask[:, start:]

    def score(x: Array, targets: Array, bits: Array | None) -> tuple[Array, Array]:
        logits, kept = unembed(params, config, x) / temperature, None
        if bits is not None:
            kept = unpack_sampling_mask(bits, config)
            logits = jnp.where(kept, logits, -jnp.inf)
        logp = jax.nn.log_softmax(logits)
        if config.layout.axes("vocab"):  # a sum over each device's shard; an index would gather all logits
            chosen = jnp.sum(jnp.where(jnp.arange(logp.shape[-1]) == targets[..., None], logp, 0.0), -1)
        else:
            chosen = jnp.take_along_axis(logp, targets[..., None], -1)[..., 0]
        logp = logp if kept is None else jnp.where(kept, logp, 0.0)  # 0 * -inf would be NaN
        return chosen, -jnp.sum(jnp.exp(logp) * logp, -1)

    chunk, columns = config.logprob_chunk, x.shape[1]
    if chunk and chunk < columns:
        logp, entropy = score_in_chunks(score, (x, targets, sampling_mask), chunk, config)
    else:
        logp, entropy = score(x, targets, sampling_mask)
    return jnp.where(is_real, logp, 0.0), jnp.where(is_real, entropy, 0.0)


def unpack_sampling_mask(bits: Array, config: Config) -> Array:
    """[..., V] bool of the packed bits [..., ceil(V / 8)] uint8: the tokens that were kept. All where no bit is set."""
    kept = jnp.unpackbits(bits, axis=-1, count=config.vocab_size).astype(bool) | ~jnp.any(bits, -1, keepdims=True)
    between = (None,) * (kept.ndim - 3)
    return config.layout.constrain(kept, "rows", "columns", *between, "vocab")


def score_in_chunks(
    score: Any, arrays: tuple[Array, Array, Array | None], chunk: int, config: Config
) -> tuple[Array, Array]:
    """``score`` of arrays [B, S, ...], about ``chunk`` columns at a time: each device takes its share of every chunk."""
    columns, shards = arrays[0].shape[1], config.layout.num_shards("columns")
    share = -(-chunk // shards)
    pad = -columns % (shards * share)

    def split_chunks(y: Array) -> Array:
        y = jnp.pad(y, [(0, 0), (0, pad)] + [(0, 0)] * (y.ndim - 2))
        y = jnp.moveaxis(y.reshape(y.shape[0], shards, -1, share, *y.shape[2:]), 2, 0)
        return config.layout.constrain(y, None, "rows", "columns")

    out = jax.lax.map(lambda xs: jax.checkpoint(score)(*xs), jax.tree.map(split_chunks, arrays))
    logp, entropy = (jnp.moveaxis(y, 0, 2).reshape(y.shape[1], -1)[:, :columns] for y in out)
    return logp, entropy
