"""A mixture of experts: each token goes through a few of many feed-forward blocks, and through the shared one.

Tokens are sorted by expert, and every expert multiplies its own consecutive tokens (``jax.lax.ragged_dot``). No token is
dropped and none is padded. So the sampler and the trainer compute the same function, whatever else is in the batch.

Over several devices, each device routes its own tokens. Where the experts are sharded, devices exchange their tokens
(all-gather), each device applies its own experts, and the sums return to the tokens' devices (reduce-scatter). No token is
dropped there either, and no shape depends on the routing.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rljax.transformer.blocks import feed_forward
from rljax.transformer.config import ACTIVATIONS, Array, Config, Params
from rljax.transformer.parameters import WeightSpec, expert_weights, is_weight_spec
from rljax.transformer.products import accumulation_dtype
from rljax.transformer.weight_formats import grouped_matmul, is_array, matrix_axes, to_dense


def mixture_of_experts(layer: Params, h: Array, config: Config) -> Array:
    """The routed experts plus the shared expert: [B, S, D] -> [B, S, D]."""
    x, own = h.astype(jnp.dtype(config.dtype)), {name: layer[name] for name in ("router", "experts")}
    if config.layout.is_sharded:
        y = apply_experts_sharded(own, x, config)
    else:
        y = map_in_chunks(lambda chunk: apply_experts(own, chunk, config), x, config.expert_chunk)
    return y + feed_forward(layer["shared"], h, config) if config.shared_width else y


def map_in_chunks(f: Callable[[Array], Array], x: Array, chunk: int) -> Array:
    """f of the tokens x [B, S, D], ``chunk`` tokens at a time (0: all). The backward pass computes each chunk again."""
    tokens = x.shape[0] * x.shape[1]
    if not 0 < chunk < tokens:
        return f(x)
    flat = jnp.pad(x.reshape(tokens, -1), ((0, -tokens % chunk), (0, 0)))
    y = jax.lax.map(jax.checkpoint(f), flat.reshape(-1, chunk, 1, x.shape[-1]))
    return y.reshape(-1, y.shape[-1])[:tokens].reshape(x.shape)


def apply_experts(own: Params, x: Array, config: Config, first: Array | int = 0) -> Array:
    """The weighted sum of the local experts' outputs for each token of x [B, S, D]. ``first``: number of the first one."""
    flat = x.reshape(-1, x.shape[-1])
    weight, expert = route_tokens(own["router"], flat, config)
    k, e = config.experts_per_token, own["experts"]
    local_experts = jax.tree.leaves(e)[0].shape[0]
    # Sort the M * k (token, expert) pairs by local expert; pairs of other devices' experts come last.
    number = expert.reshape(-1) - first
    is_local = (number >= 0) & (number < local_experts)
    number = jnp.where(is_local, number, local_experts)
    order = jnp.argsort(number)
    sizes = jnp.bincount(number, length=local_experts).astype(jnp.int32)
    # Each expert multiplies its own pairs.
    sorted_x = flat[order // k]
    gate, up = (grouped_matmul(sorted_x, e[name], sizes).astype(x.dtype) for name in ("gate", "up"))
    y = grouped_matmul(ACTIVATIONS[config.activation](gate) * up, e["down"], sizes)
    # Back to the order of the tokens, and the weighted sum over the k experts of each.
    inverse = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)))
    y = y[inverse].reshape(*weight.shape, -1)
    if local_experts < config.experts:
        y = jnp.where(is_local.reshape(weight.shape)[..., None], y, 0.0)
    total = jnp.sum(y * weight[..., None], 1).reshape(x.shape)
    return total.astype(x.dtype if local_experts == config.experts else y.dtype)


def apply_experts_sharded(own: Params, x: Array, config: Config) -> Array:
    """``apply_experts`` over several devices: each has its own tokens, its own experts and its part of their width."""
    layout, specs_of_weights = config.layout, expert_weights(config)
    sizes = dict(layout.mesh.shape) if layout.mesh else {}
    expert_axes, width_axes = layout.axes("expert"), layout.axes("ff")

    def partition_spec(w: WeightSpec, matrix: Any) -> Any:
        spec = lambda y, axes: layout.spec(tuple(None if a == "embed" else a for a in axes), y.shape)
        if isinstance(matrix, Array):
            return spec(matrix, w.axes)
        return jax.tree.map(spec, matrix, matrix_axes(w, matrix), is_leaf=is_array)

    specs = jax.tree.map(partition_spec, {name: specs_of_weights[name] for name in own}, own, is_leaf=is_weight_spec)
    token_spec = layout.spec(("rows", "columns", None), x.shape)
    # Mesh axes over which both experts and tokens are sharded: along these, tokens are exchanged.
    exchanged = tuple(a for a in expert_axes if a in jax.tree.leaves(tuple(token_spec[:1])))

    def apply_chunk(own: Params, x: Array) -> Array:
        for axis in reversed(exchanged):
            x = jax.lax.all_gather(x, axis, axis=0, tiled=True)
        local_experts = jax.tree.leaves(own["experts"])[0].shape[0]
        first = jax.lax.axis_index(expert_axes) * local_experts if expert_axes else 0
        y = apply_experts(own, x, config, first)
        for axis in exchanged:
            y = jax.lax.psum_scatter(y, axis, scatter_dimension=0, tiled=True)
        summed = tuple(a for a in (*expert_axes, *width_axes) if a not in exchanged)
        return (jax.lax.psum(y, summed) if summed else y).astype(x.dtype)

    def apply_on_device(own: Params, x: Array) -> Array:
        chunk = -(-config.expert_chunk // math.prod(sizes[axis] for axis in exchanged))  # of this device's own tokens
        return map_in_chunks(lambda tokens: apply_chunk(own, tokens), x, chunk)

    apply = jax.shard_map(
        apply_on_device, mesh=layout.mesh, in_specs=(specs, token_spec), out_specs=token_spec, check_vma=False
    )
    return apply(own, x)


def route_tokens(router: Params, x: Array, config: Config) -> tuple[Array, Array]:
    """The experts of each token x [M, D] and their weights: (weight [M, k] float32, expert [M, k] int32).

    "softmax" takes the k most probable experts (Qwen 3). "sigmoid" adds a bias to the scores, keeps the groups whose two
    best experts have the highest sum, and takes the k best experts of these groups. The bias affects the choice, not the
    weights (DeepSeek-V3, arXiv 2412.19437, section 2.1.2).
    """
    x32 = x.astype(accumulation_dtype(x))
    kernel = to_dense(router["kernel"]).astype(x32.dtype)
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
        is_open = jnp.any(groups[:, :, None] == jnp.arange(config.router_groups), 1)  # [M, groups]
        choice = jnp.where(is_open[..., None], by_group, -jnp.inf).reshape(choice.shape)
    _, expert = jax.lax.top_k(choice, config.experts_per_token)
    weight = jnp.take_along_axis(score, expert, -1)
    if config.router_normalise:
        weight = weight / (weight.sum(-1, keepdims=True) + (1e-20 if config.router == "sigmoid" else 0.0))
    return weight * config.router_scale, expert
