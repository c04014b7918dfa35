"""The one attention: scores, softmax and mixing; and how an ordinary layer makes its queries, keys and values.

What is cached of a layer is a pair of arrays ``kept``. Queries and keys are compared in parts, each a product of its own,
so that the same code serves heads that keep keys and values and heads that keep a latent (``latent.py``).
"""

import jax.numpy as jnp

from rljax.transformer.blocks import dot, full, rms_norm, rope, rope_frequencies, rope_stretch
from rljax.transformer.config import Array, Config, Params

MASKED = -1e30  # large and finite: a row that may attend to nothing stays finite


def qkv(layer: Params, x: Array, positions: Array, index: int, config: Config) -> tuple[Array, Array, Array]:
    """x [B, S, D] -> queries [B, K, R, S, E] (scaled), keys and values [B, K, S, E], rotated."""

    def project(name: str) -> Array:
        y = dot("bsd,dhe->bhse", x, layer[name]["kernel"], config)
        return y + layer[name]["bias"].astype(y.dtype)[:, None] if "bias" in layer[name] else y

    q, k, v = project("query"), project("key"), project("value")
    if config.qk_norm:
        q, k = rms_norm(q, layer["query_norm"], config), rms_norm(k, layer["key_norm"], config)
    freq, stretch = rope_frequencies(config, index), rope_stretch(config, index)
    q, k = (rope(y, positions[:, None], freq, stretch) for y in (q, k))
    if config.key_copies > 1:
        k, v = (jnp.repeat(y, config.key_copies, 1) for y in (k, v))
    q = (q * score_scale(config)).reshape(q.shape[0], k.shape[1], -1, *q.shape[2:])
    return q, k, v


def score_scale(config: Config) -> float:
    return config.head_width**-0.5 if config.attention_scale is None else config.attention_scale


def scores(q: tuple[Array, ...], k: tuple[Array, ...], mask: Array, config: Config) -> Array:
    """Attention scores in float32: parts q [..., M, E] against k [..., S, E], added up; MASKED where mask is False."""
    s = sum(
        jnp.einsum("...me,...se->...ms", a, b.astype(a.dtype), preferred_element_type=full(a))
        for a, b in zip(q, k, strict=True)
    )
    if config.attention_softcap:
        s = config.attention_softcap * jnp.tanh(s / config.attention_softcap)
    return jnp.where(mask, s, MASKED)


def mix(p: Array, v: Array, config: Config) -> Array:
    """Weighted values: p [..., M, S] float32 and v [..., S, E] -> [..., M, E] float32."""
    dtype = jnp.dtype(config.dtype)
    p = p.astype(dtype)
    return jnp.einsum("...ms,...se->...me", p, v.astype(dtype), preferred_element_type=full(p))


def within_window(query: Array, key: Array, index: int, config: Config) -> Array | bool:
    """True where a key position is near enough for this layer; positions broadcast."""
    return (query - key) < config.window if config.window and config.slides(index) else True
