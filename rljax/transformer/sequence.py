"""Whole sequences at once: logits, and the log-probability of each token."""

from typing import Any

import jax
import jax.numpy as jnp

from rljax.transformer.attention import attend
from rljax.transformer.blocks import embed, rms_norm, unembed
from rljax.transformer.config import KERNELS, Array, Config, Params
from rljax.transformer.layer import Pair, after_attention, sequence_heads
from rljax.transformer.weight_formats import used

REMAT = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "layer": None}


def positions_of(mask: Array) -> Array:
    """Positions of real tokens counted from 0, whatever padding stands before them: cumsum(mask) - 1, at least 0."""
    return jnp.maximum(jnp.cumsum(mask, -1) - 1, 0)


def run(params: Params, config: Config, tokens: Array, mask: Array) -> tuple[Array, list[Pair]]:
    """All layers over tokens [B, S]: the residual stream [B, S, D] and what each layer caches, [B, K, S, .].

    With ``scan_layers`` nothing is returned for the cache: unstack the parameters first. Columns may be split over devices:
    each then compares its own queries with the keys of all.
    """
    lay, real = config.layout.constrain, tokens.shape[1]
    extra = -real % config.layout.ways("columns")
    tokens, mask = (jnp.pad(y, [(0, 0), (0, extra)]) for y in (tokens, mask))
    order = None
    if config.attention in KERNELS:  # these count columns, which are positions once the real tokens stand first
        order = jnp.argsort(~mask, -1)
        tokens, mask = (reorder(y, order) for y in (tokens, mask))
    positions = positions_of(mask)

    def block(layer: Params, x: Array, index: int) -> tuple[Array, Pair]:
        layer = used(layer, config, index)
        h = rms_norm(x, layer["attention_norm"], config)
        q, k, v, pair = sequence_heads(layer, h, positions, index, config)
        q, (k, v) = lay(q, "rows", "heads", None, "columns"), lay((k, v), "rows", "heads")
        mixed = attend(q, k, v, mask, positions, index, config)
        x = after_attention(layer, x, mixed, config)
        return lay(x, "rows", "columns"), pair

    def back(x: Array, axis: int) -> Array:
        x = x if order is None else reorder(x, jnp.argsort(order, -1), axis)
        return jax.lax.slice_in_dim(x, 0, real, axis=axis)

    if config.remat != "none":
        block = jax.checkpoint(block, static_argnums=2, policy=REMAT[config.remat], prevent_cse=not config.scan_layers)
    x, cache = embed(params, config, tokens), []
    if not config.scan_layers:
        for index, layer in enumerate(params["layers"]):
            x, pair = block(layer, x, index)
            cache.append(tuple(back(y, 2) for y in pair))
        return back(x, 1), cache
    for (first, _, _), stacked in zip(config.stacks(), params["layers"], strict=True):

        def pattern(x: Array, layers: list[Params], first: int = first) -> tuple[Array, None]:
            for place, layer in enumerate(layers):
                x, _ = block(layer, x, first + place)
            return x, None

        x, _ = jax.lax.scan(pattern, x, stacked)
    return back(x, 1), cache


def reorder(x: Array, order: Array, axis: int = 1) -> Array:
    """Each row of x [B, ...] with its places along an axis in the row's order [B, S]."""
    shape = [y if a in (0, axis) else 1 for a, y in enumerate(x.shape)]
    return jnp.take_along_axis(x, order.reshape(shape), axis)


def features(params: Params, config: Config, tokens: Array, mask: Array) -> Array:
    """[B, S, D]: the residual stream after the last layer and the final norm, what the head reads."""
    return rms_norm(run(params, config, tokens, mask)[0], params["norm"], config)


def forward(params: Params, config: Config, tokens: Array, mask: Array | None = None) -> Array:
    """Logits [B, S, V] float32 of tokens [B, S] int32; column s scores the token at column s + 1.

    ``mask`` [B, S] bool is True on real tokens (default: all). Padding, left or right, changes no real column.
    """
    x, _ = run(params, config, tokens, jnp.ones(tokens.shape, bool) if mask is None else mask)
    return unembed(params, config, x)


def token_logprobs(
    params: Params, config: Config, tokens: Array, mask: Array, temperature: Array | float = 1.0, start: int = 1
) -> tuple[Array, Array]:
    """Log-probability of each token given those before it, and the entropy of the distribution it was drawn from.

    tokens, mask [B, S] -> (logprobs, entropy), both [B, S - start] float32 in nats: column j describes the token at
    column ``start + j`` (start >= 1). Logits are divided by ``temperature`` first: score at the temperature you sampled
    at. Columns whose mask is False are 0. With ``config.logprob_chunk`` the logits are made, used and made again in the
    backward pass that many columns at a time, so that [B, S, V] never exists.
    """
    x, _ = run(params, config, tokens, mask)
    x, targets, live = x[:, start - 1 : -1], tokens[:, start:], mask[:, start:]

    def score(x: Array, targets: Array) -> tuple[Array, Array]:
        logp = jax.nn.log_softmax(unembed(params, config, x) / temperature)
        if config.layout.axes("vocab"):  # a sum over what each device holds, where picking would collect all logits
            chosen = jnp.sum(jnp.where(jnp.arange(logp.shape[-1]) == targets[..., None], logp, 0.0), -1)
        else:
            chosen = jnp.take_along_axis(logp, targets[..., None], -1)[..., 0]
        return chosen, -jnp.sum(jnp.exp(logp) * logp, -1)

    chunk, columns = config.logprob_chunk, x.shape[1]
    if chunk and chunk < columns:
        logp, entropy = in_chunks(score, (x, targets), chunk, config)
    else:
        logp, entropy = score(x, targets)
    return jnp.where(live, logp, 0.0), jnp.where(live, entropy, 0.0)


def in_chunks(score: Any, of: tuple[Array, Array], chunk: int, config: Config) -> tuple[Array, Array]:
    """``score`` of arrays [B, S, ...], about ``chunk`` columns at a time: of every device its share of them."""
    columns, parts = of[0].shape[1], config.layout.ways("columns")
    share = -(-chunk // parts)
    pad = -columns % (parts * share)

    def cut(y: Array) -> Array:
        y = jnp.pad(y, [(0, 0), (0, pad)] + [(0, 0)] * (y.ndim - 2))
        y = jnp.moveaxis(y.reshape(y.shape[0], parts, -1, share, *y.shape[2:]), 2, 0)
        return config.layout.constrain(y, None, "rows", "columns")

    out = jax.lax.map(lambda xs: jax.checkpoint(score)(*xs), jax.tree.map(cut, of))
    logp, entropy = (jnp.moveaxis(y, 0, 2).reshape(y.shape[1], -1)[:, :columns] for y in out)
    return logp, entropy
