"""The transformer one token at a time: a cache in two parts, prefill and decode.

The prompt's keys and values are computed and stored once per *prompt* and read by all its G attempts; each attempt
owns only its response columns. On XLA the layout decides the speed: one array a layer, ``[rows, K, columns, E]``, each
step writing one column in place, and ``grow`` adding columns in stages so that columns nobody has reached are not read.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax.transformer import blocks, sequence
from rljax.transformer.config import Array, Config, Params


class Cache(NamedTuple):
    """Keys and values of B prompts and of N = B * G responses to them."""

    prompt: list[tuple[Array, Array]]  # a layer: keys, values [B, K, P, E]
    prompt_mask: Array  # [B, P] bool
    response: list[tuple[Array, Array]]  # a layer: keys, values [N, K, C, E]
    column: Array  # [] int32, the response column that the next token is written to


def prefill(params: Params, config: Config, prompt: Array, prompt_mask: Array, group_size: int) -> tuple[Array, Cache]:
    """Read the prompts [B, P], padded on the left: logits of the first response token [B, V], and the cache.

    The cache starts with no response column: ``grow`` it before the first ``decode``.
    """
    x, layers = sequence.run(params, config, prompt, prompt_mask)
    dtype = jnp.dtype(config.cache_dtype)
    layers = [(k.astype(dtype), v.astype(dtype)) for k, v in layers]
    rows, none = prompt.shape[0] * group_size, (config.kv_heads, 0, config.head_width)
    empty = [(jnp.zeros((rows, *none), dtype), jnp.zeros((rows, *none), dtype)) for _ in layers]
    cache = Cache(layers, prompt_mask, empty, jnp.zeros((), jnp.int32))
    return blocks.unembed(params, config, x[:, -1]), cache


def grow(cache: Cache, columns: int) -> Cache:
    """The same cache with ``columns`` response columns; new ones are zero."""
    extra = columns - cache.response[0][0].shape[2]
    pad = [(0, 0), (0, 0), (0, extra), (0, 0)]
    return cache._replace(response=[(jnp.pad(k, pad), jnp.pad(v, pad)) for k, v in cache.response])


def decode(params: Params, config: Config, tokens: Array, cache: Cache) -> tuple[Array, Cache]:
    """Append tokens [N] at ``cache.column``: logits of the next token [N, V] float32, and the cache."""
    rows, prompts = tokens.shape[0], cache.prompt_mask.shape[0]
    group = rows // prompts
    columns = jnp.arange(cache.response[0][0].shape[2])
    prompt_length = cache.prompt_mask.sum(-1)  # [B]
    position = jnp.repeat(prompt_length, group) + cache.column  # [N]
    prompt_position = sequence.positions_of(cache.prompt_mask)  # [B, P]
    x = blocks.embed(params, config, tokens[:, None])
    response = []
    for index, layer in enumerate(params["layers"]):
        h = blocks.rms_norm(x, layer["attention_norm"], config)
        q, k, v = blocks.qkv(layer, h, position[:, None], index, config)  # q [N, K, R, 1, E]
        keys, values = (
            jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), cache.column, 2)
            for old, new in zip(cache.response[index], (k, v), strict=True)
        )
        response.append((keys, values))
        # The queries of a prompt's attempts stand side by side against the one copy of its keys: [B, K, G * R, E].
        q = q[:, :, :, 0]
        together = join_group(q, group)
        near = blocks.within_window((prompt_length + cache.column)[:, None], prompt_position, index, config)
        seen = (cache.prompt_mask & near)[:, None, None]
        of_prompt = blocks.scores(together, cache.prompt[index][0], seen, config)  # [B, K, G * R, P]
        of_prompt = split_group(of_prompt, group)  # [N, K, R, P]
        near = blocks.within_window(cache.column, columns, index, config)
        of_response = blocks.scores(q, keys, (columns <= cache.column) & near, config)  # [N, K, R, C]
        p = jax.nn.softmax(jnp.concatenate([of_prompt, of_response], -1))
        p_prompt, p_response = p[..., : of_prompt.shape[-1]], p[..., of_prompt.shape[-1] :]
        mixed = split_group(blocks.mix(join_group(p_prompt, group), cache.prompt[index][1], config), group)
        mixed += blocks.mix(p_response, values, config)
        x = blocks.after_attention(layer, x, mixed.reshape(rows, config.heads, 1, -1), config)
    return blocks.unembed(params, config, x[:, 0]), cache._replace(response=response, column=cache.column + 1)


def join_group(x: Array, group: int) -> Array:
    """[N, K, R, X] -> [B, K, G * R, X]: one prompt's attempts side by side."""
    n, k, r, last = x.shape
    return x.reshape(n // group, group, k, r, last).swapaxes(1, 2).reshape(n // group, k, group * r, last)


def split_group(x: Array, group: int) -> Array:
    """[B, K, G * R, X] -> [N, K, R, X]: the inverse of ``join_group``."""
    b, k, m, last = x.shape
    return x.reshape(b, k, group, m // group, last).swapaxes(1, 2).reshape(b * group, k, m // group, last)
