"""The pieces that every kind of layer is made of: norm, rotary positions, products, the dense block, embedding, head."""

import math

import jax
import jax.numpy as jnp

from rljax.transformer.config import ACTIVATIONS, Array, Config, Params
from rljax.transformer.weight_formats import Stored, full, product


def rms_norm(x: Array, weight: Array, config: Config, eps: float | None = None) -> Array:
    """x / rms(x) * w, computed in float32 (arXiv 1910.07467); ``1 + w`` where the config says so."""
    x32 = x.astype(full(x))
    x32 = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, -1, keepdims=True) + (config.norm_eps if eps is None else eps))
    w = weight.astype(x32.dtype)
    return (x32 * (1 + w if config.norm_plus_one else w)).astype(x.dtype)


def rope_frequencies(config: Config, layer: int) -> Array:
    """[E / 2] float32, radians a position (arXiv 2104.09864), scaled as Llama 3, YaRN or linearly where asked."""
    local = config.rope_base_sliding if config.slides(layer) else None
    base, width = local or config.rope_base, config.rope_width or config.head_width
    freq = 1.0 / base ** (jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    if not config.rope_scaling or local:
        return freq
    kind, factor, *rest = config.rope_scaling
    if kind == "linear":
        return freq / factor
    if kind == "llama3":
        low, high, original = rest
        turns = original * freq / (2 * jnp.pi)  # full turns within the original window
        kept = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
    else:  # YaRN, arXiv 2309.00071: pairs that turn often are kept, those that turn seldom interpolated
        fast, slow, original, _, whole = rest
        pair = lambda turns: width * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))
        first, last = pair(fast), pair(slow)
        first, last = (math.floor(first), math.ceil(last)) if whole else (first, last)
        first, last = max(first, 0), min(last, width - 1)
        ramp = (jnp.arange(width // 2, dtype=jnp.float32) - first) / (last - first if last > first else 0.001)
        kept = 1 - jnp.clip(ramp, 0.0, 1.0)
    return freq / factor * (1 - kept) + freq * kept


def rope_stretch(config: Config, layer: int) -> float:
    """What YaRN multiplies sine and cosine by; 1 without it."""
    local = config.rope_base_sliding if config.slides(layer) else None
    return config.rope_scaling[5] if config.rope_scaling[:1] == ("yarn",) and not local else 1.0


def rope(x: Array, positions: Array, freq: Array, stretch: float = 1.0) -> Array:
    """Rotate x [..., S, E] by positions [..., S]; pairs are (i, i + E / 2)."""
    angle = positions[..., None].astype(jnp.float32) * freq
    sin, cos = stretch * jnp.sin(angle), stretch * jnp.cos(angle)
    a, b = jnp.split(x.astype(full(x)), 2, -1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)


def dot(spec: str, x: Array, w: Stored, config: Config, bias: Array | None = None) -> Array:
    """Einsum in the activations' dtype that accumulates, and first appears, in float32."""
    dtype = jnp.dtype(config.dtype)
    y = product(spec, x.astype(dtype), w).astype(dtype)
    return y if bias is None else y + bias.astype(dtype)


def feed_forward(layer: Params, h: Array, config: Config) -> Array:
    """The dense block, gated: [B, S, D] -> [B, S, D]."""
    gate = dot("bsd,df->bsf", h, layer["gate"], config, layer.get("gate_bias"))
    up = dot("bsd,df->bsf", h, layer["up"], config, layer.get("up_bias"))
    return dot("bsf,fd->bsd", ACTIVATIONS[config.activation](gate) * up, layer["down"], config, layer.get("down_bias"))


def embed(params: Params, config: Config, tokens: Array) -> Array:
    """[B, S] int32 -> [B, S, D]."""
    table = config.layout.gathered(params["embedding"], ("vocab", "embed"))
    table = config.layout.constrain(table, "vocab")  # its gradient is added up first, and then split
    x = config.layout.constrain(table[tokens].astype(jnp.dtype(config.dtype)), "rows", "columns")
    return x * jnp.asarray(math.sqrt(config.width), x.dtype) if config.scale_embedding else x


def unembed(params: Params, config: Config, x: Array) -> Array:
    """Final norm and head: [..., D] -> logits [..., V] float32.

    Full float32 precision also where the backend's default is lower (TPU bfloat16 passes, GPU TF32): an error of 1e-2
    here is an error of 1e-2 in every ratio.
    """
    x = rms_norm(x, params["norm"], config)
    name, axes, spec = "head", ("embed", "vocab"), "...d,dv->...v"
    if config.tied_head:
        name, axes, spec = "embedding", ("vocab", "embed"), "...d,vd->...v"
    head = config.layout.gathered(params[name], axes)
    logits = jnp.einsum(
        spec, x, head.astype(x.dtype), preferred_element_type=full(x), precision=jax.lax.Precision.HIGHEST
    )
    return config.logit_softcap * jnp.tanh(logits / config.logit_softcap) if config.logit_softcap else logits
