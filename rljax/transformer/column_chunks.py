"""A function of the columns of a sequence, a chunk of columns at a time, forward and backward.

Only one chunk's intermediate values exist at once: the backward pass computes each chunk again. JAX's own derivative of a loop
would keep a copy of the weights for each chunk, where chunks are left out by a condition.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rljax.transformer.config import Array
from rljax.transformer.layout import Layout
from rljax.transformer.products import accumulation_dtype

ChunkFunction = Callable[[Any, Array, Any], Any]  # (weights, x of a chunk, other arrays of it) -> arrays of it


def map_columns(
    function: ChunkFunction,
    weights: Any,
    x: Array,
    others: Any,
    chunk: int,
    layout: Layout,
    count: Array | None = None,
) -> Any:
    """``function(weights, x, others)`` of x and others [B, S, ...], about ``chunk`` columns at a time: arrays [B, S, ...].

    Each device takes its share of every chunk. With ``count`` [] the chunks that begin at this column or behind it are not
    computed, and give 0. There is a gradient of ``weights``, summed in float32 (or float64), and of ``x``.
    """
    columns, shards = x.shape[1], layout.num_shards("columns")
    share = -(-chunk // shards)
    pad = -columns % (shards * share)

    def split_chunks(y: Array) -> Array:
        y = jnp.pad(y, [(0, 0), (0, pad)] + [(0, 0)] * (y.ndim - 2))
        y = jnp.moveaxis(y.reshape(y.shape[0], shards, -1, share, *y.shape[2:]), 2, 0)
        return layout.constrain(y, None, "rows", "columns")

    def join_chunks(y: Array) -> Array:
        y = jnp.moveaxis(y, 0, 2)
        return y.reshape(y.shape[0], -1, *y.shape[4:])[:, :columns]

    x, others = jax.tree.map(split_chunks, (x, others))
    used = x.shape[0] if count is None else jnp.minimum(-(-count // (shards * share)), x.shape[0])
    return jax.tree.map(join_chunks, map_chunks(function, weights, x, others, used))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def map_chunks(function: ChunkFunction, weights: Any, x: Array, others: Any, used: Array | int) -> Any:
    """``function`` of the first ``used`` [] of n chunks, one after the other: arrays [n, ...], 0 for the other chunks.

    ``x`` and ``others`` are arrays [n, B, shards, columns of a shard, ...]. ``weights`` are the same for all chunks.
    """

    def compute(number: Array, out: Any) -> Any:
        return put_chunk(out, number, function(weights, *take_chunk((x, others), number)))

    shapes = jax.eval_shape(function, weights, *take_chunk((x, others), 0))
    zeros = jax.tree.map(lambda s: jnp.zeros((x.shape[0], *s.shape), s.dtype), shapes)
    return jax.lax.fori_loop(0, used, compute, zeros)


def chunks_forward(
    function: ChunkFunction, weights: Any, x: Array, others: Any, used: Array | int
) -> tuple[Any, tuple[Any, ...]]:
    return map_chunks(function, weights, x, others, used), (weights, x, others, used)


def chunks_backward(function: ChunkFunction, saved: tuple[Any, ...], g: Any) -> tuple[Any, Array, None, None]:
    """The cotangents of the weights and of x; ``others`` and ``used`` have none."""
    weights, x, others, used = saved

    def compute(number: Array, sums: tuple[Any, Array]) -> tuple[Any, Array]:
        x_chunk, other_chunks, g_chunk = take_chunk((x, others, g), number)
        _, pull_back = jax.vjp(lambda w, y: function(w, y, other_chunks), weights, x_chunk)
        of_weights, of_x = pull_back(g_chunk)
        total = jax.tree.map(lambda a, b: a + b.astype(a.dtype), sums[0], of_weights)
        return total, put_chunk(sums[1], number, of_x)

    zeros = jax.tree.map(lambda w: jnp.zeros(jnp.shape(w), accumulation_dtype(jnp.asarray(w))), weights)
    total, of_x = jax.lax.fori_loop(0, used, compute, (zeros, jnp.zeros_like(x)))
    return jax.tree.map(lambda t, w: t.astype(jnp.asarray(w).dtype), total, weights), of_x, None, None


map_chunks.defvjp(chunks_forward, chunks_backward)


def take_chunk(arrays: Any, number: Array | int) -> Any:
    """Arrays [n, ...] -> those of one chunk, [...]."""
    return jax.tree.map(lambda y: jax.lax.dynamic_index_in_dim(y, number, keepdims=False), arrays)


def put_chunk(arrays: Any, number: Array, chunk: Any) -> Any:
    """Arrays [n, ...] with those of one chunk, [...], in its place."""
    return jax.tree.map(lambda y, c: jax.lax.dynamic_update_index_in_dim(y, c, number, 0), arrays, chunk)
