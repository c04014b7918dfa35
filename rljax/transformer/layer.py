"""One layer of any kind: its attention, what it caches, and its feed-forward block."""

import jax.numpy as jnp

from rljax.transformer import attention, latent_attention
from rljax.transformer.blocks import dot, feed_forward, rms_norm
from rljax.transformer.config import Array, Config, Params
from rljax.transformer.mixture_of_experts import mixture_of_experts

LayerCache = tuple[Array, Array]  # both [B, K, S, .]: keys and values, or latents and rotated keys


def cached_shapes(config: Config) -> tuple[tuple[int, int], tuple[int, int]]:
    """(heads, width) of each of the two cached arrays of a layer."""
    if config.latent:
        return (1, config.latent), (1, config.rope_width)
    ordinary = config.kv_heads * config.kv_head_copies, config.head_width
    return ordinary, ordinary


def project_sequence(
    layer: Params, x: Array, positions: Array, index: int, config: Config
) -> tuple[Array, Array, Array, LayerCache]:
    """Queries [B, K, R, S, E], keys and values [B, K, S, .] of the normalised x [B, S, D], and what is cached."""
    if not config.latent:
        q, k, v = attention.project_qkv(layer, x, positions, index, config)
        return q, k, v, (k, v)
    pair = latent_attention.latents_to_cache(layer, x, positions, index, config)
    plain, rotated = latent_attention.latent_queries(layer, x, positions, index, config)
    k, v = latent_attention.unpack_latents(layer, pair, config)
    shared_key = jnp.broadcast_to(pair[1], (*k.shape[:-1], config.rope_width)).astype(k.dtype)
    return jnp.concatenate([plain, rotated], -1)[:, :, None], jnp.concatenate([k, shared_key], -1), v, pair


def project_step(
    layer: Params, x: Array, positions: Array, index: int, config: Config
) -> tuple[tuple[Array, ...], LayerCache]:
    """Of one token in each row, x [N, 1, D]: its queries in parts [N, K, R, .], and what to cache.

    The parts are those that ``cached_keys`` returns.
    """
    if not config.latent:
        q, k, v = attention.project_qkv(layer, x, positions, index, config)
        return (q[:, :, :, 0],), (k, v)
    plain, rotated = latent_attention.latent_queries(layer, x, positions, index, config)
    parts = latent_attention.absorb_queries(layer, plain, config), rotated
    pair = latent_attention.latents_to_cache(layer, x, positions, index, config)
    return tuple(p.swapaxes(1, 2) for p in parts), pair


def cached_keys(pair: LayerCache, config: Config) -> tuple[Array, ...]:
    """The cached keys, in parts."""
    return pair if config.latent else pair[:1]


def cached_values(pair: LayerCache, config: Config) -> Array:
    """The cached values, or the latents in their place."""
    return pair[0] if config.latent else pair[1]


def step_heads(layer: Params, mixed: Array, config: Config) -> Array:
    """Mixed cached values [N, K, R, .] -> the mixed values of each head [N, H, 1, .]."""
    mixed = mixed.reshape(mixed.shape[0], config.heads, 1, -1)
    return latent_attention.unpack_mixed(layer, mixed, config) if config.latent else mixed


def finish_layer(layer: Params, x: Array, mixed: Array, config: Config) -> Array:
    """All that follows attention: x [B, S, D] and mixed values [B, H, S, E] -> [B, S, D].

    Output projection, residual sum, and the feed-forward block (dense or a mixture of experts) with its residual sum.
    """
    y = dot("bshe,hed->bsd", mixed.swapaxes(1, 2), layer["out"]["kernel"], config, layer["out"].get("bias"))
    x = x + (rms_norm(y, layer["attention_post_norm"], config) if config.post_norms else y)
    h = rms_norm(x, layer["mlp_norm"], config)
    y = mixture_of_experts(layer, h, config) if "router" in layer else feed_forward(layer, h, config)
    return x + (rms_norm(y, layer["mlp_post_norm"], config) if config.post_norms else y)
