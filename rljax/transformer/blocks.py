"""What every kind of layer is made of: RMSNorm, RoPE, matrix products, the dense block, embedding and head."""

import math

import jax
import jax.numpy as jnp

from rljax.transformer.config import ACTIVATIONS, Array, Config, Params
from rljax.transformer.products import accumulation_dtype, add_bias, product, take_rows
from rljax.transformer.weight_formats import Matrix, einsum


def rms_norm(x: Array, weight: Array, config: Config, eps: float | None = None) -> Array:
    """x / rms(x) * w, computed in float32 (arXiv 1910.07467); times 1 + w where ``config.norm_plus_one``."""
    x32 = x.astype(accumulation_dtype(x))
    x32 = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, -1, keepdims=True) + (config.norm_eps if eps is None else eps))
    w = weight.astype(x32.dtype)
    return (x32 * (1 + w if config.norm_plus_one else w)).astype(x.dtype)


# Rotary positions


def rope_frequencies(config: Config, layer: int) -> Array:
    """[E / 2] float32, radians per position (arXiv 2104.09864), scaled linearly, as Llama 3 does, or by YaRN."""
    local = config.rope_base_sliding if config.is_sliding(layer) else None
    base, width = local or config.rope_base, config.rope_width or config.head_width
    frequencies = 1.0 / base ** (jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    if not config.rope_scaling or local:
        return frequencies
    kind, factor, *rest = config.rope_scaling
    if kind == "linear":
        return frequencies / factor
    if kind == "llama3":
        low, high, original = rest
        rotations = original * frequencies / (2 * jnp.pi)  # full rotations within the original window
        unscaled = jnp.clip((rotations - low) / (high - low), 0.0, 1.0)
    else:  # YaRN, arXiv 2309.00071: fast pairs keep their frequency, slow pairs are interpolated
        fast, slow, original, _, round_range = rest
        pair = lambda rotations: width * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))
        first, last = pair(fast), pair(slow)
        first, last = (math.floor(first), math.ceil(last)) if round_range else (first, last)
        first, last = max(first, 0), min(last, width - 1)
        ramp = (jnp.arange(width // 2, dtype=jnp.float32) - first) / (last - first if last > first else 0.001)
        unscaled = 1 - jnp.clip(ramp, 0.0, 1.0)
    return frequencies / factor * (1 - unscaled) + frequencies * unscaled


def rope_attention_factor(config: Config, layer: int) -> float:
    """YaRN's factor of sine and cosine (``attention_factor`` of Hugging Face configs); 1 without YaRN."""
    local = config.rope_base_sliding if config.is_sliding(layer) else None
    return config.rope_scaling[5] if config.rope_scaling[:1] == ("yarn",) and not local else 1.0


def apply_rope(x: Array, positions: Array, frequencies: Array, factor: float = 1.0) -> Array:
    """x [..., S, E] rotated by positions [..., S]. The pair of element i is i + E / 2. Sine and cosine times ``factor``."""
    angle = positions[..., None].astype(jnp.float32) * frequencies
    sin, cos = factor * jnp.sin(angle), factor * jnp.cos(angle)
    a, b = jnp.split(x.astype(accumulation_dtype(x)), 2, -1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)


# Products


def dot(spec: str, x: Array, w: Matrix, config: Config, bias: Array | None = None) -> Array:
    """Einsum of x and w, plus the bias: accumulated in float32, returned in the dtype of the activations."""
    dtype = jnp.dtype(config.dtype)
    y = einsum(spec, x.astype(dtype), w).astype(dtype)
    return y if bias is None else add_bias(y, bias)


def feed_forward(layer: Params, h: Array, config: Config) -> Array:
    """The dense gated block (SwiGLU, GeGLU): [B, S, D] -> [B, S, D]."""
    gate = dot("bsd,df->bsf", h, layer["gate"], config, layer.get("gate_bias"))
    up = dot("bsd,df->bsf", h, layer["up"], config, layer.get("up_bias"))
    return dot("bsf,fd->bsd", ACTIVATIONS[config.activation](gate) * up, layer["down"], config, layer.get("down_bias"))


def embed(params: Params, config: Config, tokens: Array) -> Array:
    """The embeddings of tokens [B, S] int32 -> [B, S, D]."""
    table = config.layout.gather_weight(params["embedding"], ("vocab", "embed"))
    table = config.layout.constrain(table, "vocab")  # its gradient is summed first, then sharded
    x = config.layout.constrain(take_rows(table, tokens).astype(jnp.dtype(config.dtype)), "rows", "columns")
    return x * jnp.asarray(math.sqrt(config.width), x.dtype) if config.scale_embedding else x


def head_weights(params: Params, config: Config) -> Params:
    """The parameters that ``unembed`` reads."""
    return {name: params[name] for name in ("norm", "embedding" if config.tied_head else "head")}


def unembed(params: Params, config: Config, x: Array) -> Array:
    """The final norm and the head: [..., D] -> logits [..., V] float32.

    Forward, the product of float32 activations has full float32 precision even where the backend's default is lower
    (bfloat16 passes of a TPU, TF32 of a GPU): an error of 1e-2 in a logit is an error of 1e-2 in every probability ratio.
    Backward, it has the same precision. Products of bfloat16 activations are exact in float32 either way: forward they are
    accumulated in float32, and backward the cotangent of the logits is rounded to bfloat16 first, as in every other
    product. That rounding is independent for each logit, and averages out in a gradient.
    """
    x = rms_norm(x, params["norm"], config)
    name, axes, spec = "head", ("embed", "vocab"), "...d,dv->...v"
    if config.tied_head:
        name, axes, spec = "embedding", ("vocab", "embed"), "...d,vd->...v"
    head = config.layout.gather_weight(params[name], axes)
    logits = product(spec, x, head, precision=jax.lax.Precision.HIGHEST)
    return config.logit_softcap * jnp.tanh(logits / config.logit_softcap) if config.logit_softcap else logits
