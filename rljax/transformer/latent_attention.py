"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): keys and values come from a narrow latent.

For each token only its latent c and one rotated key r, shared by all heads, are cached. Over whole sequences, keys and
values are unpacked from c (equations 9 to 19). Token by token, the unpacking matrices are applied to the query and to the
mixed latents instead. Decoding is then attention with a single key head whose value is c.
"""

import jax.numpy as jnp

from rljax.transformer.attention import score_scale
from rljax.transformer.blocks import (
    apply_rope,
    dot,
    rms_norm,
    rope_attention_factor,
    rope_frequencies,
)
from rljax.transformer.config import Array, Config, Params
from rljax.transformer.products import product
from rljax.transformer.weight_formats import to_dense

LATENT_EPS = 1e-6  # of the two norms on latents, whatever norm_eps is, as the published model computes it


def latent_queries(layer: Params, x: Array, positions: Array, index: int, config: Config) -> tuple[Array, Array]:
    """The unrotated part and the rotated part of each query: [B, H, S, .], both scaled."""
    if config.query_latent:
        c = dot("bsd,dl->bsl", x, layer["query_down"]["kernel"], config, layer["query_down"].get("bias"))
        c = rms_norm(c, layer["query_latent_norm"], config, LATENT_EPS)
        q = dot("bsl,lhe->bhse", c, layer["query_up"]["kernel"], config)
    else:
        q = dot("bsd,dhe->bhse", x, layer["query"]["kernel"], config)
    q = q * score_scale(config)
    plain, rotated = jnp.split(q, [config.head_width - config.rope_width], -1)
    frequencies, factor = rope_frequencies(config, index), rope_attention_factor(config, index)
    return plain, apply_rope(rotated, positions[:, None], frequencies, factor)


def latents_to_cache(layer: Params, x: Array, positions: Array, index: int, config: Config) -> tuple[Array, Array]:
    """What is cached: normalised latents [B, 1, S, L] and rotated keys [B, 1, S, E']."""
    y = dot("bsd,dl->bsl", x, layer["kv_down"]["kernel"], config, layer["kv_down"].get("bias"))
    c, r = jnp.split(y, [config.latent], -1)
    c = rms_norm(c, layer["kv_latent_norm"], config, LATENT_EPS)
    r = apply_rope(r, positions, rope_frequencies(config, index), rope_attention_factor(config, index))
    return c[:, None], r[:, None]


def unpack_latents(layer: Params, pair: tuple[Array, Array], config: Config) -> tuple[Array, Array]:
    """The unrotated keys [B, H, S, .] and the values [B, H, S, .] of cached latents."""
    both = dot("bsl,lhe->bhse", pair[0][:, 0], layer["kv_up"]["kernel"], config)
    key, value = jnp.split(both, [config.head_width - config.rope_width], -1)
    return key, value


def absorb_queries(layer: Params, plain: Array, config: Config) -> Array:
    """Unrotated queries [N, H, S, .] -> queries that are compared with the latents themselves [N, H, S, L]."""
    key = to_dense(layer["kv_up"]["kernel"])[..., : config.head_width - config.rope_width]
    return dot("bhse,lhe->bhsl", plain, key, config)


def unpack_mixed(layer: Params, mixed: Array, config: Config) -> Array:
    """Mixed latents [N, H, S, L] -> mixed values [N, H, S, .] float32."""
    value = to_dense(layer["kv_up"]["kernel"])[..., config.head_width - config.rope_width :]
    return product("bhsl,lhe->bhse", mixed.astype(jnp.dtype(config.dtype)), value)
