"""The product of experts: rows that are sorted by group, and one matrix for each group.

On TPU and GPU this is ``jax.lax.ragged_dot``. On the CPU, XLA would multiply *all* rows by every matrix and keep one of the
results: 128 times the work for 128 experts. There, rows are multiplied in blocks instead, each by the matrix of its group:
a loop over as many blocks as these group sizes need.

The backward pass follows the rule of ``products.py``: the cotangent is cast to the dtype of x, sums are accumulated in float32.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rljax.transformer.config import Array
from rljax.transformer.products import accumulation_dtype

# The gradient of the matrices: x [M, D] and g [M, F] are summed over the rows of each group -> [X, D, F].
SUM_OVER_ROWS = jax.lax.RaggedDotDimensionNumbers(
    (((0,), (0,)), ((), ())), lhs_ragged_dimensions=(0,), rhs_group_dimensions=()
)
MAX_BLOCK = 128  # rows


@jax.custom_vjp
def grouped_product(x: Array, w: Array, sizes: Array) -> Array:
    """[M, F]: the first ``sizes[0]`` rows of x [M, D] times w[0], the next ``sizes[1]`` rows times w[1], and so on.

    w has the shape [X, D, F], in any dtype. Rows after the last group give 0. Computed in x's dtype, accumulated and returned
    in float32 (or float64).
    """
    return jax.lax.platform_dependent(x, w, sizes, cpu=multiply_in_blocks, default=multiply_groups)


def grouped_forward(x: Array, w: Array, sizes: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return grouped_product(x, w, sizes), (x, w, sizes)


def grouped_backward(saved: tuple[Array, Array, Array], g: Array) -> tuple[Array, Array | np.ndarray, np.ndarray]:
    """The cotangents of x and w, both from a product in x's dtype; the sizes have none, and int8 matrices have none."""
    x, w, sizes = saved
    g = g.astype(x.dtype)
    no_cotangent = lambda y: np.zeros(y.shape, jax.dtypes.float0)
    of_x = grouped_product(g, w.swapaxes(1, 2), sizes).astype(x.dtype)
    if not jnp.issubdtype(w.dtype, jnp.floating):
        return of_x, no_cotangent(w), no_cotangent(sizes)
    of_w = jax.lax.platform_dependent(x, g, sizes, cpu=sum_outer_in_blocks, default=sum_outer)
    return of_x, of_w.astype(w.dtype), no_cotangent(sizes)


grouped_product.defvjp(grouped_forward, grouped_backward)


# By one instruction


def multiply_groups(x: Array, w: Array, sizes: Array) -> Array:
    return jax.lax.ragged_dot(x, w.astype(x.dtype), sizes, preferred_element_type=accumulation_dtype(x))


def sum_outer(x: Array, g: Array, sizes: Array) -> Array:
    """For each group, the sum of the outer products of its rows x [M, D] and g [M, F]: [X, D, F]."""
    return jax.lax.ragged_dot_general(x, g, sizes, SUM_OVER_ROWS, preferred_element_type=accumulation_dtype(x))


# In blocks of rows of one group


def multiply_in_blocks(x: Array, w: Array, sizes: Array) -> Array:
    """``multiply_groups`` by a loop over blocks. A group's last block also writes rows of the next, which then writes them."""
    block, count, find = row_blocks(x.shape[0], sizes)
    padded = jnp.pad(x, ((0, block), (0, 0)))

    def multiply_block(i: Array, out: Array) -> Array:
        matrices, i = jax.lax.optimization_barrier((w, i))  # else all of them are converted before the loop
        group, start, _ = find(i)
        rows = jax.lax.dynamic_slice_in_dim(padded, start, block)
        matrix = jax.lax.dynamic_index_in_dim(matrices, group, keepdims=False).astype(x.dtype)
        y = jnp.matmul(rows, matrix, preferred_element_type=out.dtype)
        return jax.lax.dynamic_update_slice_in_dim(out, y, start, 0)

    out = jnp.zeros((padded.shape[0], w.shape[2]), accumulation_dtype(x))
    out = jax.lax.fori_loop(0, count, multiply_block, out)[: x.shape[0]]
    return jnp.where(jnp.arange(x.shape[0])[:, None] < sizes.sum(), out, 0)


def sum_outer_in_blocks(x: Array, g: Array, sizes: Array) -> Array:
    """``sum_outer`` by a loop over blocks."""
    block, count, find = row_blocks(x.shape[0], sizes)
    x, g = (jnp.pad(y, ((0, block), (0, 0))) for y in (x, g))

    def add_block(i: Array, out: Array) -> Array:
        group, start, size = find(i)
        rows, cotangents = (jax.lax.dynamic_slice_in_dim(y, start, block) for y in (x, g))
        rows = jnp.where(jnp.arange(block)[:, None] < size, rows, 0)
        so_far = jax.lax.dynamic_index_in_dim(out, group, keepdims=False)
        so_far += jnp.matmul(rows.T, cotangents, preferred_element_type=out.dtype)
        return jax.lax.dynamic_update_index_in_dim(out, so_far, group, 0)

    out = jnp.zeros((len(sizes), x.shape[1], g.shape[1]), accumulation_dtype(x))
    return jax.lax.fori_loop(0, count, add_block, out)


def row_blocks(rows: int, sizes: Array):
    """(rows of a block, number of blocks [] int32, block number -> (group, first row, number of rows of the group in it))."""
    block = min(MAX_BLOCK, max(4, 1 << max(0, rows // len(sizes) - 1).bit_length()))  # about a group of average size
    blocks, first_row = -(-sizes // block), jnp.cumsum(sizes) - sizes
    up_to = jnp.cumsum(blocks)

    def find(i: Array) -> tuple[Array, Array, Array]:
        group = jnp.sum(up_to <= i)
        before = (i - (up_to - blocks)[group]) * block  # rows of the group in the blocks before this one
        return group, first_row[group] + before, jnp.minimum(sizes[group] - before, block)

    return block, up_to[-1], find
