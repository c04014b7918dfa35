"""Products of arrays whose backward pass runs in the same dtype as the forward pass.

Operands have the dtype of the activations, sums are accumulated in float32. JAX's own rule would not keep that: a product of
bfloat16 operands that returns float32 gets a float32 cotangent, and its two backward products would multiply float32 by
bfloat16, at a fraction of a chip's rate. Here the cotangent is first cast to the operands' dtype. The gradient of a weight
is returned as it was accumulated, in the dtype that the weight is stored in.

Operands of float32 or float64 need none of this: their products are JAX's own, forward and backward. Products of grouped rows
(experts) follow the same rules: ``grouped_products.py``.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rljax.transformer.config import Array


def accumulation_dtype(x: Array) -> jnp.dtype:
    """The dtype that sums over x are accumulated in: float32, or float64 where x is float64."""
    return jnp.promote_types(x.dtype, jnp.float32)


def is_low_precision(x: Array) -> bool:
    """Whether x has fewer bits than sums over it are accumulated in."""
    return x.dtype != accumulation_dtype(x)


# Einsum of two operands


def product(spec: str, x: Array, w: Array, precision: jax.lax.Precision | None = None) -> Array:
    """``jnp.einsum(spec, x, w)`` in x's dtype, accumulated and returned in float32 (or float64).

    ``spec`` names every axis, but for a leading ``...`` that x and the result share. ``precision`` is that of a product of
    float32 operands; the products of shorter operands are exact in float32.
    """
    if not is_low_precision(x):
        dtype = accumulation_dtype(x)
        return jnp.einsum(spec, x, w.astype(x.dtype), preferred_element_type=dtype, precision=precision)
    leading = "ABCDEF"[: x.ndim - len(split_einsum(spec)[0].replace("...", ""))]
    w = w if jnp.issubdtype(w.dtype, jnp.floating) else w.astype(x.dtype)  # int8 has no gradient
    return low_precision_product(spec.replace("...", leading), x, w)


def low_precision_einsum(spec: str, x: Array, w: Array) -> Array:
    """``product`` where x has fewer bits than float32. w may be stored in another dtype."""
    return jnp.einsum(spec, x, w.astype(x.dtype), preferred_element_type=accumulation_dtype(x))


low_precision_product = jax.custom_vjp(low_precision_einsum, nondiff_argnums=(0,))


def product_forward(spec: str, x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    return low_precision_product(spec, x, w), (x, w)


def product_backward(spec: str, saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    """The cotangents of x and w, both from a product in x's dtype."""
    (x, w), (left, right, out) = saved, split_einsum(spec)
    g = g.astype(x.dtype)
    return (
        low_precision_product(f"{out},{right}->{left}", g, w).astype(x.dtype),
        low_precision_product(f"{left},{out}->{right}", x, g).astype(w.dtype),
    )


low_precision_product.defvjp(product_forward, product_backward)


def split_einsum(spec: str) -> tuple[str, str, str]:
    """The axes of the first operand, the second and the result: ``ab,bc->ac`` gives ("ab", "bc", "ac")."""
    terms, out = spec.split("->")
    left, right = terms.split(",")
    return left, right, out


# Sums over tokens that are no products


def add_bias(y: Array, bias: Array) -> Array:
    """y + bias in y's dtype. The gradient of the bias, a sum over all tokens, is accumulated in float32 (or float64)."""
    return low_precision_add_bias(y, bias) if is_low_precision(y) else y + bias.astype(y.dtype)


@jax.custom_vjp
def low_precision_add_bias(y: Array, bias: Array) -> Array:
    """``add_bias`` where y has fewer bits than float32."""
    return y + bias.astype(y.dtype)


def bias_forward(y: Array, bias: Array) -> tuple[Array, Array]:
    return low_precision_add_bias(y, bias), bias


def bias_backward(bias: Array, g: Array) -> tuple[Array, Array]:
    """The cotangents of y and of the bias."""
    new = g.ndim - bias.ndim
    axes = [*range(new), *(new + axis for axis, size in enumerate(bias.shape) if size == 1)]
    total = jnp.sum(g, axes, dtype=accumulation_dtype(g), keepdims=True)
    return g, total.reshape(bias.shape).astype(bias.dtype)


low_precision_add_bias.defvjp(bias_forward, bias_backward)


def take_rows(table: Array, rows: Array) -> Array:
    """``table[rows]``. The gradient of the table, a sum over all places of a row, is accumulated in float32 (or float64)."""
    return low_precision_take_rows(table, rows) if is_low_precision(table) else table[rows]


@jax.custom_vjp
def low_precision_take_rows(table: Array, rows: Array) -> Array:
    """``take_rows`` where the table has fewer bits than float32."""
    return table[rows]


def rows_forward(table: Array, rows: Array) -> tuple[Array, tuple[Array, Array]]:
    return low_precision_take_rows(table, rows), (table, rows)


def rows_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, np.ndarray]:
    """The cotangent of the table; the row numbers have none."""
    table, rows = saved
    dtype = accumulation_dtype(table)
    total = jnp.zeros(table.shape, dtype).at[rows].add(g.astype(dtype))
    return total.astype(table.dtype), np.zeros(rows.shape, jax.dtypes.float0)


low_precision_take_rows.defvjp(rows_forward, rows_backward)
