"""The transformer one token at a time: a cache in two parts, prefill and decode.

The prompt's keys and values are computed and stored once per *prompt* and read by all its G attempts; each attempt
owns only its response columns. On XLA the layout decides the speed: one array a layer, ``[rows, K, columns, E]``, each
step writing one column in place, and ``grow`` adding columns in stages so that columns nobody has reached are not read.
Parameters come with a dict a layer (``unstack``).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax.transformer import attention, blocks, layer, sequence
from rljax.transformer.config import Array, Config, Params
from rljax.transformer.layer import Pair
from rljax.transformer.weight_formats import used


class Cache(NamedTuple):
    """Keys and values (or latents) of B prompts and of N = B * G responses to them."""

    prompt: list[Pair]  # a layer: [B, K, P, .]
    prompt_mask: Array  # [B, P] bool
    response: list[Pair]  # a layer: [N, K, C, .]
    column: Array  # [] int32, the response column that the next token is written to


def prefill(params: Params, config: Config, prompt: Array, prompt_mask: Array, group_size: int) -> tuple[Array, Cache]:
    """Read the prompts [B, P], padded on the left: logits of the first response token [B, V], and the cache.

    The cache starts with no response column: ``grow`` it before the first ``decode``.
    """
    x, layers = sequence.run(params, config, prompt, prompt_mask)
    dtype = jnp.dtype(config.cache_dtype)
    layers = [(a.astype(dtype), b.astype(dtype)) for a, b in layers]
    rows = prompt.shape[0] * group_size
    a, b = (jnp.zeros((rows, heads, 0, width), dtype) for heads, width in layer.cached_shapes(config))
    layers = config.layout.constrain(layers, "rows", "heads", "columns")
    cache = Cache(layers, prompt_mask, [(a, b) for _ in layers], jnp.zeros((), jnp.int32))
    return blocks.unembed(params, config, x[:, -1]), cache


def grow(cache: Cache, columns: int) -> Cache:
    """The same cache with ``columns`` response columns; new ones are zero."""
    extra = columns - cache.response[0][0].shape[2]
    pad = [(0, 0), (0, 0), (0, extra), (0, 0)]
    return cache._replace(response=[(jnp.pad(k, pad), jnp.pad(v, pad)) for k, v in cache.response])


def decode(params: Params, config: Config, tokens: Array, cache: Cache) -> tuple[Array, Cache]:
    """Append tokens [N] at ``cache.column``: logits of the next token [N, V] float32, and the cache."""
    group = tokens.shape[0] // cache.prompt_mask.shape[0]
    columns = jnp.arange(cache.response[0][0].shape[2])
    prompt_length = cache.prompt_mask.sum(-1)  # [B]
    position = jnp.repeat(prompt_length, group) + cache.column  # [N]
    prompt_position = sequence.positions_of(cache.prompt_mask)  # [B, P]
    x = blocks.embed(params, config, tokens[:, None])
    response = []
    for index, weights in enumerate(params["layers"]):
        weights = used(weights, config, index)
        h = blocks.rms_norm(x, weights["attention_norm"], config)
        q, new = layer.step_heads(weights, h, position[:, None], index, config)  # q: parts [N, K, R, E]
        prompt, old = cache.prompt[index], cache.response[index]
        write = lambda to, x: jax.lax.dynamic_update_slice_in_dim(to, x.astype(to.dtype), cache.column, 2)
        own = config.layout.constrain((write(old[0], new[0]), write(old[1], new[1])), "rows", "heads")
        response.append(own)
        # The queries of a prompt's attempts stand side by side against the one copy of its keys: [B, K, R * G, E].
        together = tuple(join_group(part, group) for part in q)
        near = attention.within_window((prompt_length + cache.column)[:, None], prompt_position, index, config)
        seen = (cache.prompt_mask & near)[:, None, None]
        of_prompt = attention.scores(together, layer.keys(prompt, config), seen, config)  # [B, K, R * G, P]
        of_prompt = split_group(of_prompt, group)  # [N, K, R, P]
        near = attention.within_window(cache.column, columns, index, config)
        of_response = attention.scores(q, layer.keys(own, config), (columns <= cache.column) & near, config)
        p = jax.nn.softmax(jnp.concatenate([of_prompt, of_response], -1))
        p_prompt, p_response = p[..., : of_prompt.shape[-1]], p[..., of_prompt.shape[-1] :]
        mixed = split_group(attention.mix(join_group(p_prompt, group), layer.values(prompt, config), config), group)
        mixed += attention.mix(p_response, layer.values(own, config), config)
        x = layer.after_attention(weights, x, layer.step_mixed(weights, mixed, config), config)
        x = config.layout.constrain(x, "rows")
    return blocks.unembed(params, config, x[:, 0]), cache._replace(response=response, column=cache.column + 1)


def join_group(x: Array, group: int) -> Array:
    """[N, K, R, X] -> [B, K, R * G, X]: one prompt's attempts side by side, heads outermost, as they are split over devices."""
    n, k, r, last = x.shape
    return jnp.moveaxis(x.reshape(n // group, group, k, r, last), 1, 3).reshape(n // group, k, r * group, last)


def split_group(x: Array, group: int) -> Array:
    """[B, K, R * G, X] -> [N, K, R, X]: the inverse of ``join_group``."""
    b, k, m, last = x.shape
    return jnp.moveaxis(x.reshape(b, k, m // group, group, last), 3, 1).reshape(b * group, k, m // group, last)
