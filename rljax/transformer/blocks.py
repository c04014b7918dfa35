"""The pieces of a layer: norm, rotary positions, the one attention, the feed-forward block, embedding and head."""

import math

import jax
import jax.numpy as jnp

from rljax.transformer.config import ACTIVATIONS, Array, Config, Params

MASKED = -1e30  # large and finite: a row that may attend to nothing stays finite


def full(x: Array) -> jnp.dtype:
    """What sums are accumulated in: float32, and float64 where the activations are."""
    return jnp.promote_types(x.dtype, jnp.float32)


def rms_norm(x: Array, weight: Array, config: Config) -> Array:
    """x / rms(x) * w, computed in float32 (arXiv 1910.07467); ``1 + w`` where the config says so."""
    x32 = x.astype(full(x))
    x32 = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, -1, keepdims=True) + config.norm_eps)
    w = weight.astype(x32.dtype)
    return (x32 * (1 + w if config.norm_plus_one else w)).astype(x.dtype)


def rope_frequencies(config: Config, layer: int) -> Array:
    """[E / 2] float32, radians a position (arXiv 2104.09864), scaled as Llama 3 or linearly where asked."""
    local = config.rope_base_sliding if config.slides(layer) else None
    base = local or config.rope_base
    freq = 1.0 / base ** (jnp.arange(0, config.head_width, 2, dtype=jnp.float32) / config.head_width)
    if not config.rope_scaling or local:
        return freq
    kind, factor, *rest = config.rope_scaling
    if kind == "linear":
        return freq / factor
    low, high, original = rest
    turns = original * freq / (2 * jnp.pi)  # full turns within the original window
    smooth = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
    return freq / factor * (1 - smooth) + freq * smooth


def rope(x: Array, positions: Array, freq: Array) -> Array:
    """Rotate x [..., S, E] by positions [..., S]; pairs are (i, i + E / 2)."""
    angle = positions[..., None].astype(jnp.float32) * freq
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    a, b = jnp.split(x.astype(full(x)), 2, -1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)


def dot(spec: str, x: Array, w: Array, config: Config) -> Array:
    """Einsum in the activations' dtype that accumulates, and first appears, in float32."""
    dtype = jnp.dtype(config.dtype)
    x = x.astype(dtype)
    return jnp.einsum(spec, x, w.astype(dtype), preferred_element_type=full(x)).astype(dtype)


def qkv(layer: Params, x: Array, positions: Array, index: int, config: Config) -> tuple[Array, Array, Array]:
    """x [B, S, D] -> queries [B, K, R, S, E] (scaled), keys and values [B, K, S, E], rotated."""

    def project(name: str) -> Array:
        p = layer[name]
        y = dot("bsd,dhe->bhse", x, p["kernel"], config)
        return y + p["bias"].astype(y.dtype)[:, None] if "bias" in p else y

    q, k, v = project("query"), project("key"), project("value")
    if config.qk_norm:
        q, k = rms_norm(q, layer["query_norm"], config), rms_norm(k, layer["key_norm"], config)
    freq = rope_frequencies(config, index)
    q, k = (rope(y, positions[:, None], freq) for y in (q, k))
    scale = config.head_width**-0.5 if config.attention_scale is None else config.attention_scale
    q = (q * scale).reshape(q.shape[0], config.kv_heads, -1, *q.shape[2:])
    return q, k, v


def scores(q: Array, k: Array, mask: Array, config: Config) -> Array:
    """Attention scores in float32: q [..., M, E] against k [..., S, E], MASKED where mask is False."""
    s = jnp.einsum("...me,...se->...ms", q, k.astype(q.dtype), preferred_element_type=full(q))
    if config.attention_softcap:
        s = config.attention_softcap * jnp.tanh(s / config.attention_softcap)
    return jnp.where(mask, s, MASKED)


def mix(p: Array, v: Array, config: Config) -> Array:
    """Weighted values: p [..., M, S] float32 and v [..., S, E] -> [..., M, E] float32."""
    dtype = jnp.dtype(config.dtype)
    p = p.astype(dtype)
    return jnp.einsum("...ms,...se->...me", p, v.astype(dtype), preferred_element_type=full(p))


def after_attention(layer: Params, x: Array, mixed: Array, config: Config) -> Array:
    """Output projection, residual, and the feed-forward block: x [B, S, D], mixed [B, H, S, E] -> [B, S, D]."""
    y = dot("bhse,hed->bsd", mixed, layer["out"]["kernel"], config)
    if "bias" in layer["out"]:
        y += layer["out"]["bias"].astype(y.dtype)
    x = x + (rms_norm(y, layer["attention_post_norm"], config) if config.post_norms else y)
    h = rms_norm(x, layer["mlp_norm"], config)
    gate = ACTIVATIONS[config.activation](dot("bsd,df->bsf", h, layer["gate"], config))
    y = dot("bsf,fd->bsd", gate * dot("bsd,df->bsf", h, layer["up"], config), layer["down"], config)
    return x + (rms_norm(y, layer["mlp_post_norm"], config) if config.post_norms else y)


def within_window(query: Array, key: Array, index: int, config: Config) -> Array | bool:
    """True where a key position is near enough for this layer; positions broadcast."""
    return (query - key) < config.window if config.window and config.slides(index) else True


def embed(params: Params, config: Config, tokens: Array) -> Array:
    """[B, S] int32 -> [B, S, D]."""
    x = params["embedding"][tokens].astype(jnp.dtype(config.dtype))
    return x * jnp.asarray(math.sqrt(config.width), x.dtype) if config.scale_embedding else x


def unembed(params: Params, config: Config, x: Array) -> Array:
    """Final norm and head: [..., D] -> logits [..., V] float32.

    Full float32 precision also where the backend's default is lower (TPU bfloat16 passes, GPU TF32): an error of 1e-2
    here is an error of 1e-2 in every ratio.
    """
    x = rms_norm(x, params["norm"], config)
    head, spec = (params["embedding"], "...d,vd->...v") if config.tied_head else (params["head"], "...d,dv->...v")
    logits = jnp.einsum(
        spec, x, head.astype(x.dtype), preferred_element_type=full(x), precision=jax.lax.Precision.HIGHEST
    )
    return config.logit_softcap * jnp.tanh(logits / config.logit_softcap) if config.logit_softcap else logits
