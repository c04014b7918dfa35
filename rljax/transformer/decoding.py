"""The transformer one token at a time: prefill, decode, and a cache in two parts.

The keys and values of a prompt are computed and stored once and read by all its G attempts. Each attempt stores only its
response columns. On XLA the memory layout decides the speed: one array ``[rows, K, columns, E]`` for each layer; every step
writes one column in place; ``grow_cache`` adds columns in stages, so that columns not reached yet are not read. The
parameters must hold one dict for each layer (``unstack_layers``).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax.transformer import attention, blocks, layer, sequence
from rljax.transformer.config import Array, Config, Params
from rljax.transformer.layer import LayerCache
from rljax.transformer.weight_formats import gather_layer


class Cache(NamedTuple):
    """Keys and values (or latents) of B prompts and of N = B * G responses to them."""

    prompt: list[LayerCache]  # for each layer: [B, K, P, .]
    prompt_mask: Array  # [B, P] bool
    response: list[LayerCache]  # for each layer: [N, K, C, .]
    column: Array  # [] int32, the response column that the next token is written to


def prefill(params: Params, config: Config, prompt: Array, prompt_mask: Array, group_size: int) -> tuple[Array, Cache]:
    """The logits [B, V] of the first response token after the prompts [B, P] (padded on the left), and the cache.

    The cache has no response column yet: call ``grow_cache`` before the first ``decode``.
    """
    x, layers = sequence.run_layers(params, config, prompt, prompt_mask)
    dtype = jnp.dtype(config.cache_dtype)
    layers = [(a.astype(dtype), b.astype(dtype)) for a, b in layers]
    rows = prompt.shape[0] * group_size
    a, b = (jnp.zeros((rows, heads, 0, width), dtype) for heads, width in layer.cached_shapes(config))
    layers = config.layout.constrain(layers, "rows", "heads", "columns")
    cache = Cache(layers, prompt_mask, [(a, b) for _ in layers], jnp.zeros((), jnp.int32))
    return blocks.unembed(params, config, x[:, -1]), cache


def grow_cache(cache: Cache, columns: int) -> Cache:
    """The cache with ``columns`` response columns. New columns are zero."""
    extra = columns - cache.response[0][0].shape[2]
    pad = [(0, 0), (0, 0), (0, extra), (0, 0)]
    return cache._replace(response=[(jnp.pad(k, pad), jnp.pad(v, pad)) for k, v in cache.response])


def decode(params: Params, config: Config, tokens: Array, cache: Cache) -> tuple[Array, Cache]:
    """Append tokens [N] at ``cache.column``: the logits [N, V] float32 of the next token, and the new cache."""
    group = tokens.shape[0] // cache.prompt_mask.shape[0]
    columns = jnp.arange(cache.response[0][0].shape[2])
    prompt_length = cache.prompt_mask.sum(-1)  # [B]
    position = jnp.repeat(prompt_length, group) + cache.column  # [N]
    prompt_position = sequence.token_positions(cache.prompt_mask)  # [B, P]
    x = blocks.embed(params, config, tokens[:, None])
    response = []
    for index, weights in enumerate(params["layers"]):
        weights = gather_layer(weights, config, index)
        h = blocks.rms_norm(x, weights["attention_norm"], config)
        q, new = layer.project_step(weights, h, position[:, None], index, config)  # q: parts [N, K, R, E]
        # Write the new column.
        prompt, old = cache.prompt[index], cache.response[index]
        write = lambda to, x: jax.lax.dynamic_update_slice_in_dim(to, x.astype(to.dtype), cache.column, 2)
        own = config.layout.constrain((write(old[0], new[0]), write(old[1], new[1])), "rows", "heads")
        response.append(own)
        # Scores of the prompt: the queries of all attempts at it, side by side, against its one copy of the keys.
        grouped_q = tuple(join_group(part, group) for part in q)  # [B, K, R * G, E]
        near = attention.within_window((prompt_length + cache.column)[:, None], prompt_position, index, config)
        visible = (cache.prompt_mask & near)[:, None, None]
        of_prompt = attention.attention_scores(grouped_q, layer.cached_keys(prompt, config), visible, config)
        of_prompt = split_group(of_prompt, group)  # [N, K, R, P]
        # Scores of the response so far.
        visible = (columns <= cache.column) & attention.within_window(cache.column, columns, index, config)
        of_response = attention.attention_scores(q, layer.cached_keys(own, config), visible, config)
        # Softmax over both, and the mixed values.
        p = jax.nn.softmax(jnp.concatenate([of_prompt, of_response], -1))
        p_prompt, p_response = join_group(p[..., : of_prompt.shape[-1]], group), p[..., of_prompt.shape[-1] :]
        mixed = split_group(attention.mix_values(p_prompt, layer.cached_values(prompt, config), config), group)
        mixed += attention.mix_values(p_response, layer.cached_values(own, config), config)
        x = layer.finish_layer(weights, x, layer.step_heads(weights, mixed, config), config)
        x = config.layout.constrain(x, "rows")
    return blocks.unembed(params, config, x[:, 0]), cache._replace(response=response, column=cache.column + 1)


def join_group(x: Array, group: int) -> Array:
    """[N, K, R, X] -> [B, K, R * G, X]: the attempts at one prompt side by side. Heads stay outermost: they are sharded."""
    n, k, r, last = x.shape
    return jnp.moveaxis(x.reshape(n // group, group, k, r, last), 1, 3).reshape(n // group, k, r * group, last)


def split_group(x: Array, group: int) -> Array:
    """[B, K, R * G, X] -> [N, K, R, X]: the inverse of ``join_group``."""
    b, k, m, last = x.shape
    return jnp.moveaxis(x.reshape(b, k, m // group, group, last), 3, 1).reshape(b * group, k, m // group, last)
