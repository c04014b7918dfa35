"""A mixture of experts: each token goes through a few of many feed-forward blocks, and through the shared one.

Tokens are sorted by expert and every expert multiplies its own run of them (``jax.lax.ragged_dot``): no token is dropped
and none is padded, so the sampler and the trainer compute the same function whatever else is in the batch.

Over several devices each routes the tokens that it holds. Where the experts are split over devices, these show each other
their tokens, each applies the experts that it has, and the sums go back to where the tokens live: nothing is dropped
there either, and no shape depends on who is routed where.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rljax.transformer.blocks import feed_forward
from rljax.transformer.config import ACTIVATIONS, Array, Config, Params, Weight, expert_weights, is_weight
from rljax.transformer.weight_formats import full, grouped, stored_axes, whole


def mixture(layer: Params, h: Array, config: Config) -> Array:
    """[B, S, D] -> [B, S, D]."""
    x, own = h.astype(jnp.dtype(config.dtype)), {name: layer[name] for name in ("router", "experts")}
    if config.layout.split:
        y = on_devices(own, x, config)
    else:
        y = in_chunks(lambda some: apply(own, some, config), x, config.expert_chunk)
    return y + feed_forward(layer["shared"], h, config) if config.shared_width else y


def in_chunks(f: Callable[[Array], Array], x: Array, chunk: int) -> Array:
    """f of the tokens x [B, S, D], so many at a time (0: all): memory grows by a chunk, made again in the backward pass."""
    tokens = x.shape[0] * x.shape[1]
    if not 0 < chunk < tokens:
        return f(x)
    flat = jnp.pad(x.reshape(tokens, -1), ((0, -tokens % chunk), (0, 0)))
    y = jax.lax.map(jax.checkpoint(f), flat.reshape(-1, chunk, 1, x.shape[-1]))
    return y.reshape(-1, y.shape[-1])[:tokens].reshape(x.shape)


def apply(own: Params, x: Array, config: Config, first: Array | int = 0) -> Array:
    """What the experts that are here, number ``first`` and those after it, add for each token of x [B, S, D]."""
    flat = x.reshape(-1, x.shape[-1])
    weight, expert = route(own["router"], flat, config)
    k, e = config.experts_per_token, own["experts"]
    here = jax.tree.leaves(e)[0].shape[0]
    number = expert.reshape(-1) - first  # of the M * k (token, expert) pairs
    mine = (number >= 0) & (number < here)
    number = jnp.where(mine, number, here)
    order = jnp.argsort(number)
    sizes = jnp.bincount(number, length=here).astype(jnp.int32)
    sorted_x = flat[order // k]
    gate, up = (grouped(sorted_x, e[name], sizes).astype(x.dtype) for name in ("gate", "up"))
    y = grouped(ACTIVATIONS[config.activation](gate) * up, e["down"], sizes)
    back = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)))
    y = y[back].reshape(*weight.shape, -1)
    if here < config.experts:
        y = jnp.where(mine.reshape(weight.shape)[..., None], y, 0.0)
    return jnp.sum(y * weight[..., None], 1).reshape(x.shape).astype(x.dtype if here == config.experts else y.dtype)


def on_devices(own: Params, x: Array, config: Config) -> Array:
    """The same, each device with its tokens, its experts and its part of their width."""
    layout, described = config.layout, expert_weights(config)
    sizes = dict(layout.mesh.shape) if layout.mesh else {}
    over, width = layout.axes("expert"), layout.axes("ff")

    def spec(w: Weight, kept: Any) -> Any:
        lay = lambda y, axes: layout.spec(tuple(None if a == "embed" else a for a in axes), y.shape)
        if isinstance(kept, Array):
            return lay(kept, w.axes)
        return jax.tree.map(lay, kept, stored_axes(w, kept), is_leaf=lambda y: isinstance(y, Array))

    specs = jax.tree.map(spec, {name: described[name] for name in own}, own, is_leaf=is_weight)
    at = layout.spec(("rows", "columns", None), x.shape)
    shown = tuple(a for a in over if a in jax.tree.leaves(tuple(at[:1])))  # axes that tokens are split over as well

    def some(own: Params, x: Array) -> Array:
        for axis in reversed(shown):
            x = jax.lax.all_gather(x, axis, axis=0, tiled=True)
        here = jax.tree.leaves(own["experts"])[0].shape[0]
        first = jax.lax.axis_index(over) * here if over else 0
        y = apply(own, x, config, first)
        for axis in shown:
            y = jax.lax.psum_scatter(y, axis, scatter_dimension=0, tiled=True)
        sums = tuple(a for a in (*over, *width) if a not in shown)
        return (jax.lax.psum(y, sums) if sums else y).astype(x.dtype)

    def part(own: Params, x: Array) -> Array:
        chunk = -(-config.expert_chunk // math.prod(sizes[axis] for axis in shown))  # of the tokens that are here
        return in_chunks(lambda some_x: some(own, some_x), x, chunk)

    return jax.shard_map(part, mesh=layout.mesh, in_specs=(specs, at), out_specs=at, check_vma=False)(own, x)


def route(router: Params, x: Array, config: Config) -> tuple[Array, Array]:
    """The experts of each token x [M, D] and their weights: (weight [M, k] float32, expert [M, k] int32).

    "softmax" takes the k likeliest experts (Qwen 3). "sigmoid" adds a bias to the scores, keeps the groups whose best two
    add up highest, and of these the k best; the bias chooses and does not weigh (DeepSeek-V3, arXiv 2412.19437, section
    2.1.2).
    """
    x32 = x.astype(full(x))
    kernel = whole(router["kernel"]).astype(x32.dtype)
    logits = jnp.matmul(x32, kernel, precision=jax.lax.Precision.HIGHEST)
    if config.router == "softmax":
        score = choice = jax.nn.softmax(logits)
    else:
        score = jax.nn.sigmoid(logits)
        choice = score + router["bias"].astype(score.dtype)
    if config.router_groups > 1:
        by_group = choice.reshape(len(x), config.router_groups, -1)
        best = jax.lax.top_k(by_group, 2)[0].sum(-1)
        _, groups = jax.lax.top_k(best, config.router_top_groups)
        open_to = jnp.any(groups[:, :, None] == jnp.arange(config.router_groups), 1)  # [M, groups]
        choice = jnp.where(open_to[..., None], by_group, -jnp.inf).reshape(choice.shape)
    _, expert = jax.lax.top_k(choice, config.experts_per_token)
    weight = jnp.take_along_axis(score, expert, -1)
    if config.router_normalise:
        weight = weight / (weight.sum(-1, keepdims=True) + (1e-20 if config.router == "sigmoid" else 0.0))
    return weight * config.router_scale, expert
