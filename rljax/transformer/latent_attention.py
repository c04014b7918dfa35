"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): keys and values read from a narrow latent.

A token's latent c and one rotated key r for all heads are all that is cached. Over whole sequences keys and values are
unpacked from c (equations 9 to 19); token by token the matrices that unpack them are taken to the other side instead, onto
the query and the mixed latents, so that decoding is attention with a single key head, whose value is c itself.
"""

import jax.numpy as jnp

from rljax.transformer.attention import score_scale
from rljax.transformer.blocks import dot, full, rms_norm, rope, rope_frequencies, rope_stretch
from rljax.transformer.config import Array, Config, Params
from rljax.transformer.weight_formats import whole

LATENT_EPS = 1e-6  # of the two norms on latents, whatever norm_eps is: so the published model computes


def queries(layer: Params, x: Array, positions: Array, index: int, config: Config) -> tuple[Array, Array]:
    """The part of each query that is compared by content, and the part that is rotated: [B, H, S, .], both scaled."""
    if config.query_latent:
        c = dot("bsd,dl->bsl", x, layer["query_down"]["kernel"], config, layer["query_down"].get("bias"))
        c = rms_norm(c, layer["query_latent_norm"], config, LATENT_EPS)
        q = dot("bsl,lhe->bhse", c, layer["query_up"]["kernel"], config)
    else:
        q = dot("bsd,dhe->bhse", x, layer["query"]["kernel"], config)
    q = q * score_scale(config)
    plain, turned = jnp.split(q, [config.head_width - config.rope_width], -1)
    return plain, rope(turned, positions[:, None], rope_frequencies(config, index), rope_stretch(config, index))


def kept(layer: Params, x: Array, positions: Array, index: int, config: Config) -> tuple[Array, Array]:
    """What is cached: latents [B, 1, S, L], normalised, and rotated keys [B, 1, S, E']."""
    y = dot("bsd,dl->bsl", x, layer["kv_down"]["kernel"], config, layer["kv_down"].get("bias"))
    c, r = jnp.split(y, [config.latent], -1)
    c = rms_norm(c, layer["kv_latent_norm"], config, LATENT_EPS)
    r = rope(r, positions, rope_frequencies(config, index), rope_stretch(config, index))
    return c[:, None], r[:, None]


def unpack(layer: Params, pair: tuple[Array, Array], config: Config) -> tuple[Array, Array]:
    """Keys by content [B, H, S, .] and values [B, H, S, .] of cached latents."""
    both = dot("bsl,lhe->bhse", pair[0][:, 0], layer["kv_up"]["kernel"], config)
    key, value = jnp.split(both, [config.head_width - config.rope_width], -1)
    return key, value


def absorb(layer: Params, plain: Array, config: Config) -> Array:
    """Queries by content [N, H, S, .] -> queries of the latents themselves [N, H, S, L]."""
    key = whole(layer["kv_up"]["kernel"])[..., : config.head_width - config.rope_width]
    return dot("bhse,lhe->bhsl", plain, key, config)


def release(layer: Params, mixed: Array, config: Config) -> Array:
    """Mixed latents [N, H, S, L] -> mixed values [N, H, S, .] float32."""
    value = whole(layer["kv_up"]["kernel"])[..., config.head_width - config.rope_width :]
    dtype = jnp.dtype(config.dtype)
    mixed = mixed.astype(dtype)
    return jnp.einsum("bhsl,lhe->bhse", mixed, value.astype(dtype), preferred_element_type=full(mixed))
