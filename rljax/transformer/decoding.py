"""The transformer one token at a time: prefill, decode, and a cache in two parts.

The keys and values of a prompt are computed and stored once and read by all its G attempts. Each attempt stores only its
response columns. On XLA the memory layout decides the speed: one array ``[rows, K, columns, E]`` for each layer; every step
writes one column in place; ``grow_cache`` adds columns in stages, so that columns not reached yet are not read.
Rows may also stand at columns of their own (``sampler/slots.py``): their cache is in chunks, and chunks that no row has reached
are not read.
With ``scan_layers``, parameters and cache are stacked, and one loop over the layers reads them where they lie: nothing is
copied but the layer at hand.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.transformer import attention, blocks, layer, sequence
from rljax.transformer.config import Array, Config, Params
from rljax.transformer.layer import LayerCache
from rljax.transformer.weight_formats import gather_layer


class Cache(NamedTuple):
    """Keys and values (or latents) of B prompts and of N = B * G responses to them.

    With ``scan_layers``: for each stack of layers, for each place of its pattern, all repeats along a first axis. Responses are
    then in chunks of columns, because one array for all layers could only grow by being copied. So they are where each row
    has a column of its own: there is one prompt for each row then.
    """

    prompt: list[Any]  # for each layer: [B, K, P, .] twice
    prompt_mask: Array  # [B, P] bool
    response: list[Any]  # for each layer: [N, K, C, .] twice; or a list of such pairs, of the columns of one chunk each
    column: Array  # [] int32, the response column that the next token is written to; or [N], that of each row


def prefill(params: Params, config: Config, prompt: Array, prompt_mask: Array, group_size: int) -> tuple[Array, Cache]:
    """The logits [B, V] of the first response token after the prompts [B, P] (padded on the left), and the cache.

    The cache has no response column yet: call ``grow_cache`` before the first ``decode``.
    """
    x, layers = sequence.run_layers(params, config, prompt, prompt_mask, keep_stacked=True)
    dtype, rows = jnp.dtype(config.cache_dtype), prompt.shape[0] * group_size
    layers = jax.tree.map(lambda y: y.astype(dtype), layers)
    response = jax.tree.map(lambda y: jnp.zeros((*y.shape[:-4], rows, y.shape[-3], 0, y.shape[-1]), dtype), layers)
    if config.scan_layers:
        response = [[[pair] for pair in stack] for stack in response]
    cache = Cache(layers, prompt_mask, response, jnp.zeros((), jnp.int32))
    cache = cache._replace(prompt=constrain_layers(layers, config, "rows", "heads", "columns"))
    return blocks.unembed(params, config, x[:, -1]), cache


def constrain_layers(layers: Any, config: Config, *axes: str) -> Any:
    """What is cached for each layer [., K, S, .], or stacked [repeats, ., K, S, .], sharded along these axes."""
    return config.layout.constrain(layers, *([None] if config.scan_layers else []), *axes)


def count_columns(chunks: list[LayerCache]) -> int:
    return sum(chunk[0].shape[-2] for chunk in chunks)


def grow_cache(cache: Cache, columns: int, config: Config) -> Cache:
    """The cache with ``columns`` response columns, at least as many as it has. New columns are zero."""

    def add_columns(x: Array, kept: int, new: int) -> Array:
        return jnp.pad(x[..., :kept, :], [(0, 0)] * (x.ndim - 2) + [(0, new), (0, 0)])

    def add_chunk(chunks: list[LayerCache]) -> list[LayerCache]:
        new = columns - count_columns(chunks)
        if not new:  # the last chunk is the one that is written to: no empty one may follow it
            return chunks
        a, b = (add_columns(x, 0, new) for x in chunks[-1])
        return [*(chunk for chunk in chunks if chunk[0].shape[-2]), (a, b)]

    if config.scan_layers:
        response: list[Any] = [[add_chunk(chunks) for chunks in stack] for stack in cache.response]
    else:
        grow = lambda x: add_columns(x, x.shape[-2], columns - x.shape[-2])
        response = jax.tree.map(grow, cache.response)
    return cache._replace(response=constrain_layers(response, config, "rows", "heads"))


def chunked_cache(cache: Cache, columns: int, chunk: int) -> Cache:
    """The cache of N prompts, one for each row, with ``columns`` empty response columns, and a column of its own for each row.

    The columns are in chunks of ``chunk``.
    """
    sizes = [min(chunk, columns - start) for start in range(0, columns, chunk)]
    empty = lambda pair, size: tuple(jnp.zeros((*y.shape[:-2], size, y.shape[-1]), y.dtype) for y in pair)
    split = lambda pair: [empty(pair, size) for size in sizes]
    response = jax.tree.map(split, cache.prompt, is_leaf=lambda x: isinstance(x, tuple))
    return cache._replace(response=response, column=jnp.zeros(len(cache.prompt_mask), jnp.int32))


def decode(params: Params, config: Config, tokens: Array, cache: Cache) -> tuple[Array, Cache]:
    """Append tokens [N] at ``cache.column``: the logits [N, V] float32 of the next token, and the new cache."""
    x = blocks.embed(params, config, tokens[:, None])
    by_row = cache.column.ndim > 0
    reach = config.layout.max_over_runs(cache.column.max()) if by_row else None

    def write_column(to: LayerCache, new: LayerCache, column: Array, *first: Array) -> LayerCache:
        """Write new [N, K, 1, .] into the column, of repeat ``first`` where layers are stacked. Columns may lie outside."""

        def write(to: Array, x: Array) -> Array:
            if by_row:
                column_inside = jnp.where((column >= 0) & (column < to.shape[-2]), column, to.shape[-2])
                place = (*first, jnp.arange(x.shape[0]), slice(None), column_inside)
                return to.at[place].set(x[:, :, 0].astype(to.dtype), mode="drop")
            x = x.astype(to.dtype).reshape(*[1] * len(first), *x.shape)
            return jax.lax.dynamic_update_slice(to, x, (*first, 0, 0, column, 0))

        return constrain_layers((write(to[0], new[0]), write(to[1], new[1])), config, "rows", "heads")

    def write_chunks(chunks: list[LayerCache], new: LayerCache, column: Array, *first: Array) -> list[LayerCache]:
        written = []
        for chunk in chunks:
            written.append(write_column(chunk, new, column, *first))
            column = column - chunk[0].shape[-2]
        return written

    # One layer after the other.
    if not config.scan_layers:
        response = []
        for index, (weights, prompt, old) in enumerate(
            zip(params["layers"], cache.prompt, cache.response, strict=True)
        ):

            def write_own(new: LayerCache, old: Any = old) -> list[LayerCache]:
                written = write_chunks(old if by_row else [old], new, cache.column)
                response.append(written if by_row else written[0])
                return written

            x = decode_layer(weights, x, index, prompt, write_own, cache, reach, config)
        return next_logits(params, config, x), cache._replace(response=response, column=cache.column + 1)

    # Or one loop over each stack of layers. The chunks that are written to are carried, so that a column is written in place:
    # the last one, or all where each row has a column of its own.
    stacks = []
    for (first, _, repeats), weights, prompts, old in zip(
        config.layer_stacks(), params["layers"], cache.prompt, cache.response, strict=True
    ):
        written_from = 0 if by_row else -1
        full, last = [chunks[:written_from] for chunks in old], [chunks[written_from:] for chunks in old]
        column = cache.column - count_columns(full[0])

        def decode_pattern(
            carry: Any, repeat: Array, first=first, weights=weights, prompts=prompts, full=full, column=column
        ) -> Any:
            x, last = carry[0], list(carry[1])
            for place, own_weights in enumerate(sequence.take_repeat(weights, repeat)):

                def write_own(new: LayerCache, place: int = place) -> list[LayerCache]:
                    last[place] = write_chunks(last[place], new, column, repeat)
                    take = lambda y: jax.lax.dynamic_index_in_dim(y, repeat, keepdims=False)
                    return [*sequence.take_repeat(full[place], repeat), *jax.tree.map(take, last[place])]

                prompt = sequence.take_repeat(prompts[place], repeat)
                x = decode_layer(own_weights, x, first + place, prompt, write_own, cache, reach, config)
            return (x, last), None

        (x, last), _ = jax.lax.scan(decode_pattern, (x, last), jnp.arange(repeats))
        stacks.append([[*chunks, *written] for chunks, written in zip(full, last, strict=True)])
    return next_logits(params, config, x), cache._replace(response=stacks, column=cache.column + 1)


def next_logits(params: Params, config: Config, x: Array) -> Array:
    """The logits [N, V] float32 behind x [N, 1, D]: computed where the shards of the head lie.

    A sampler divides the rows of logits among all devices. Without this constraint the compiler may gather the head for that.
    """
    return config.layout.constrain(blocks.unembed(params, config, x[:, 0]), "rows", "vocab")


def decode_layer(
    weights: Params,
    x: Array,
    index: int,
    prompt: LayerCache,
    write_own: Callable[[LayerCache], list[LayerCache]],
    cache: Cache,
    reach: Array | None,
    config: Config,
) -> Array:
    """One layer for one token in each row, x [N, 1, D] -> [N, 1, D].

    ``prompt`` is what the layer cached of the prompts. ``write_own`` takes what it caches of the token, writes it, and returns
    what is cached of the responses, the token included: in chunks of columns. Chunks behind the column ``reach`` [] are not read.
    """
    group = x.shape[0] // cache.prompt_mask.shape[0]
    prompt_length = cache.prompt_mask.sum(-1)  # [B]
    position = jnp.repeat(prompt_length, group) + cache.column  # [N]
    prompt_position = sequence.token_positions(cache.prompt_mask)  # [B, P]
    weights = gather_layer(weights, config, index)
    x = config.layout.constrain(x, "rows")  # in a scan the compiler may choose another sharding between two layers
    h = blocks.rms_norm(x, weights["attention_norm"], config)
    q, new = layer.project_step(weights, h, position[:, None], index, config)  # q: parts [N, K, R, E]
    chunks = write_own(new)
    # Scores of the prompt: the queries of all attempts at it, side by side, against its one copy of the keys.
    grouped_q = tuple(join_group(part, group) for part in q)  # [B, K, R * G, E]
    near = attention.within_window((prompt_length + cache.column)[:, None], prompt_position, index, config)
    visible = (cache.prompt_mask & near)[:, None, None]
    of_prompt = attention.attention_scores(grouped_q, layer.cached_keys(prompt, config), visible, config)
    scores = [split_group(of_prompt, group)]  # [N, K, R, P], then those of each chunk
    # Scores of the response so far.
    at = cache.column if reach is None else cache.column[:, None, None, None]
    starts = list(itertools.accumulate((own[0].shape[2] for own in chunks), initial=0))

    def if_reached(start: int, compute: Callable[..., Array], own: LayerCache, *others: Array, fill: float) -> Array:
        if reach is None or not start:
            return compute(own, *others)
        shape = jax.eval_shape(compute, own, *others)
        skip = lambda *_: jnp.full(shape.shape, fill, shape.dtype)
        return jax.lax.cond(reach >= start, compute, skip, own, *others)

    for start, end, own in zip(starts, starts[1:], chunks, strict=False):
        columns = jnp.arange(start, end)
        visible = (columns <= at) & attention.within_window(at, columns, index, config)
        score = lambda own, visible: attention.attention_scores(q, layer.cached_keys(own, config), visible, config)
        scores.append(if_reached(start, score, own, visible, fill=attention.MASKED_SCORE))
    # Softmax over all, and the mixed values.
    p = jax.nn.softmax(jnp.concatenate(scores, -1))
    slots = scores[0].shape[-1]
    p_prompt = join_group(p[..., :slots], group)
    mixed = split_group(attention.mix_values(p_prompt, layer.cached_values(prompt, config), config), group)
    for start, end, own in zip(starts, starts[1:], chunks, strict=False):
        mix = lambda own, p_own: attention.mix_values(p_own, layer.cached_values(own, config), config)
        mixed += if_reached(start, mix, own, p[..., slots + start : slots + end], fill=0.0)
    x = layer.finish_layer(weights, x, layer.step_heads(weights, mixed, config), config)
    return config.layout.constrain(x, "rows")


def join_group(x: Array, group: int) -> Array:
    """[N, K, R, X] -> [B, K, R * G, X]: the attempts at one prompt side by side. Heads stay outermost: they are sharded."""
    n, k, r, last = x.shape
    return jnp.moveaxis(x.reshape(n // group, group, k, r, last), 1, 3).reshape(n // group, k, r * group, last)


def split_group(x: Array, group: int) -> Array:
    """[B, K, R * G, X] -> [N, K, R, X]: the inverse of ``join_group``."""
    b, k, m, last = x.shape
    return jnp.moveaxis(x.reshape(b, k, m // group, group, last), 3, 1).reshape(b * group, k, m // group, last)
