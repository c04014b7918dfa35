"""A layer, whatever its kind: which attention it has, what of it is cached, and which feed-forward block."""

import jax.numpy as jnp

from rljax.transformer import attention, latent_attention
from rljax.transformer.blocks import dot, feed_forward, rms_norm
from rljax.transformer.config import Array, Config, Params
from rljax.transformer.mixture_of_experts import mixture

Pair = tuple[Array, Array]  # what is cached of a layer, both [B, K, S, .]: keys and values, or latents and rotated keys


def cached_shapes(config: Config) -> tuple[tuple[int, int], tuple[int, int]]:
    """(heads, width) of each of a layer's two cached arrays."""
    if config.latent:
        return (1, config.latent), (1, config.rope_width)
    ordinary = config.kv_heads * config.key_copies, config.head_width
    return ordinary, ordinary


def sequence_heads(
    layer: Params, x: Array, positions: Array, index: int, config: Config
) -> tuple[Array, Array, Array, Pair]:
    """Of x [B, S, D], normalised: queries [B, K, R, S, E], keys and values [B, K, S, .], and what is cached."""
    if not config.latent:
        q, k, v = attention.qkv(layer, x, positions, index, config)
        return q, k, v, (k, v)
    pair = latent_attention.kept(layer, x, positions, index, config)
    plain, turned = latent_attention.queries(layer, x, positions, index, config)
    k, v = latent_attention.unpack(layer, pair, config)
    one_for_all = jnp.broadcast_to(pair[1], (*k.shape[:-1], config.rope_width)).astype(k.dtype)
    return jnp.concatenate([plain, turned], -1)[:, :, None], jnp.concatenate([k, one_for_all], -1), v, pair


def step_heads(layer: Params, x: Array, positions: Array, index: int, config: Config) -> tuple[tuple[Array, ...], Pair]:
    """Of one token a row, x [N, 1, D]: queries in parts [N, K, R, .], as the cache is compared, and what to cache."""
    if not config.latent:
        q, k, v = attention.qkv(layer, x, positions, index, config)
        return (q[:, :, :, 0],), (k, v)
    plain, turned = latent_attention.queries(layer, x, positions, index, config)
    parts = latent_attention.absorb(layer, plain, config), turned
    return tuple(p.swapaxes(1, 2) for p in parts), latent_attention.kept(layer, x, positions, index, config)


def keys(pair: Pair, config: Config) -> tuple[Array, ...]:
    """The cached keys, in the parts that ``step_heads`` has queries for."""
    return pair if config.latent else pair[:1]


def values(pair: Pair, config: Config) -> Array:
    return pair[0] if config.latent else pair[1]


def step_mixed(layer: Params, mixed: Array, config: Config) -> Array:
    """Mixed cached values [N, K, R, .] -> mixed values of each head [N, H, 1, .]."""
    mixed = mixed.reshape(mixed.shape[0], config.heads, 1, -1)
    return latent_attention.release(layer, mixed, config) if config.latent else mixed


def after_attention(layer: Params, x: Array, mixed: Array, config: Config) -> Array:
    """Output projection, residual, and the feed-forward block: x [B, S, D], mixed [B, H, S, E] -> [B, S, D]."""
    y = dot("bhse,hed->bsd", mixed, layer["out"]["kernel"], config, layer["out"].get("bias"))
    x = x + (rms_norm(y, layer["attention_post_norm"], config) if config.post_norms else y)
    h = rms_norm(x, layer["mlp_norm"], config)
    y = mixture(layer, h, config) if "router" in layer else feed_forward(layer, h, config)
    return x + (rms_norm(y, layer["mlp_post_norm"], config) if config.post_norms else y)
