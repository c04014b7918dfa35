"""A mixture of experts: each token goes through a few of many feed-forward blocks, and through the shared one.

Tokens are sorted by expert and every expert multiplies its own run of them (``jax.lax.ragged_dot``): no token is dropped
and none is padded, so the sampler and the trainer compute the same function whatever else is in the batch.
"""

import jax
import jax.numpy as jnp

from rljax.transformer.blocks import feed_forward
from rljax.transformer.config import ACTIVATIONS, Array, Config, Params
from rljax.transformer.stored import full, grouped, whole


def mixture(layer: Params, h: Array, config: Config) -> Array:
    """[B, S, D] -> [B, S, D]."""
    x = h.reshape(-1, h.shape[-1]).astype(jnp.dtype(config.dtype))
    weight, expert = route(layer["router"], x, config)
    k = config.experts_per_token
    order = jnp.argsort(expert.reshape(-1))  # of the M * k (token, expert) pairs
    sizes = jnp.bincount(expert.reshape(-1), length=config.experts).astype(jnp.int32)
    dtype, e = x.dtype, layer["experts"]
    sorted_x = x[order // k]
    gate, up = (grouped(sorted_x, e[name], sizes).astype(dtype) for name in ("gate", "up"))
    y = grouped(ACTIVATIONS[config.activation](gate) * up, e["down"], sizes)
    back = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)))
    y = jnp.sum(y[back].reshape(*weight.shape, -1) * weight[..., None], 1).astype(dtype).reshape(h.shape)
    return y + feed_forward(layer["shared"], h, config) if config.shared_width else y


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
