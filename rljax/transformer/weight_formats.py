"""The formats of a matrix: an array, int8 with one scale for each column, or either of them with a LoRA change beside it.

Every product of the transformer goes through ``einsum`` or ``grouped_matmul``, so each format works in every block.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.errors import UserError
from rljax.transformer.config import Array, Config, Params
from rljax.transformer.grouped_products import grouped_product
from rljax.transformer.parameters import WeightSpec, is_weight_spec, layer_weights, weight_specs
from rljax.transformer.products import product, split_einsum

WEIGHT_FORMATS = ("bfloat16", "int8")  # of the layers' matrices while sampling; "" (not listed): as they are


class Int8Matrix(NamedTuple):
    """The matrix ``values * scale``. ``scale`` is float32 and has length 1 along the axes that a product sums over."""

    values: Array  # int8
    scale: Array


class LoraMatrix(NamedTuple):
    """The matrix ``base + down @ up`` (LoRA, arXiv 2106.09685). The sum is never computed."""

    base: "Array | Int8Matrix"
    down: Array  # [inputs, r]
    up: Array  # [r, outputs], multiplied by alpha / r


Matrix = Array | Int8Matrix | LoraMatrix


# Products


def einsum(spec: str, x: Array, w: Matrix) -> Array:
    """``jnp.einsum(spec, x, w)`` in x's dtype, accumulated and returned in float32 (or float64)."""
    if isinstance(w, LoraMatrix):
        left, right, out = split_einsum(spec)
        inputs = "".join(c for c in right if c not in out)
        middle = "".join(c for c in left if c not in inputs) + "z"
        narrow = einsum(f"{left},{inputs}z->{middle}", x, w.down).astype(x.dtype)
        outputs = "".join(c for c in right if c in out)
        return einsum(spec, x, w.base) + einsum(f"{middle},z{outputs}->{out}", narrow, w.up)
    if isinstance(w, Int8Matrix):
        _, right, out = split_einsum(spec)
        scale = jnp.einsum(f"{right}->{''.join(c for c in out if c in right)}", w.scale)
        shape = iter(scale.shape)
        return einsum(spec, x, w.values) * scale.reshape([next(shape) if c in right else 1 for c in out])
    return product(spec, x, w)


def grouped_matmul(x: Array, w: Matrix, sizes: Array) -> Array:
    """[M, F]: the first ``sizes[0]`` rows of x [M, D] times w[0], the next ``sizes[1]`` rows times w[1], and so on.

    w has the shape [X, D, F]. Accumulated and returned in float32 (or float64).
    """
    if isinstance(w, LoraMatrix):
        narrow = grouped_matmul(x, w.down, sizes).astype(x.dtype)
        return grouped_matmul(x, w.base, sizes) + grouped_matmul(narrow, w.up, sizes)
    if isinstance(w, Int8Matrix):
        group = jnp.repeat(jnp.arange(len(sizes)), sizes, total_repeat_length=x.shape[0])
        return grouped_matmul(x, w.values, sizes) * w.scale[group, 0]
    return grouped_product(x, w, sizes)


def to_dense(w: Matrix) -> Array:
    """The matrix as one array. A LoRA change is added in float32 and rounded to the dtype of the base."""
    if isinstance(w, Int8Matrix):
        return w.values * w.scale
    if not isinstance(w, LoraMatrix):
        return w
    base = to_dense(w.base)
    change = low_rank_product(w.down, w.up, base.shape)
    return (base + change).astype(base.dtype)


def low_rank_product(down: Array, up: Array, shape: tuple[int, ...]) -> Array:
    """``down @ up`` as a float32 array of this shape. Axes before the inputs hold several matrices: one product each."""
    stacked = down.ndim + up.ndim - 2 - len(shape)  # number of leading axes that both have
    rank = down.shape[-1]
    flat_down = down.reshape(*down.shape[:stacked], -1, rank).astype(jnp.float32)
    flat_up = up.reshape(*up.shape[:stacked], rank, -1).astype(jnp.float32)
    return jnp.matmul(flat_down, flat_up, precision=jax.lax.Precision.HIGHEST).reshape(shape)


# Sharding


def gather_layer(layer: Params, config: Config, index: int) -> Params:
    """The parameters of layer ``index`` as its products need them: gathered along ``embed`` where they are sharded."""
    layout = config.layout
    if not layout.axes("embed"):
        return layer

    def gather_matrix(w: WeightSpec, x: Matrix) -> Matrix:
        if isinstance(x, LoraMatrix):
            return x._replace(base=gather_matrix(w, x.base))
        if isinstance(x, Int8Matrix):
            return x._replace(values=gather_matrix(w, x.values))
        return layout.gather_weight(x, w.axes)

    return jax.tree.map(gather_matrix, layer_weights(config, index), layer, is_leaf=is_weight_spec)


def constrain_params(params: Params, config: Config) -> Params:
    """Inside a jit: the parameters, in whatever format, sharded as ``config.layout`` says."""
    layout = config.layout
    if not layout.is_sharded:
        return params

    def constrain_matrix(w: WeightSpec, x: Matrix) -> Matrix:
        constrain = lambda y, axes: layout.constrain(y, *axes)
        if isinstance(x, Array):
            return constrain(x, w.axes)
        return jax.tree.map(constrain, x, matrix_axes(w, x), is_leaf=is_array)

    return jax.tree.map(constrain_matrix, weight_specs(config), params, is_leaf=is_weight_spec)


def param_shardings(params: Params, config: Config) -> Any:
    """The sharding of each array of the parameters, in whatever format they are: a pytree like ``params``."""

    def matrix_sharding(w: WeightSpec, x: Matrix) -> Any:
        sharding = lambda y, axes: config.layout.sharding(axes, y.shape)
        axes = matrix_axes(w, x)
        return sharding(x, axes) if isinstance(x, Array) else jax.tree.map(sharding, x, axes, is_leaf=is_array)

    return jax.tree.map(matrix_sharding, weight_specs(config), params, is_leaf=is_weight_spec)


def is_array(x: Any) -> bool:
    return isinstance(x, Array)


def matrix_axes(w: WeightSpec, x: Matrix) -> Any:
    """The logical axes of each array of a matrix: a pytree like x."""
    if isinstance(x, Int8Matrix):
        scale_axes = tuple(axis if n > 1 else None for axis, n in zip(w.axes, x.scale.shape, strict=True))
        return x._replace(values=w.axes, scale=scale_axes)
    if isinstance(x, LoraMatrix):
        stacked, rest = w.axes[: w.stacked_axes], w.axes[w.stacked_axes :]
        inputs, outputs = rest[: w.input_axes], rest[w.input_axes :]
        return x._replace(base=matrix_axes(w, x.base), down=(*stacked, *inputs, None), up=(*stacked, None, *outputs))
    return w.axes


# Quantization


def quantize_matrix(w: Array, axes: tuple[int, ...]) -> Int8Matrix:
    """w in symmetric int8 with one scale for each column. ``axes`` are the axes that a product sums over."""
    w32 = w.astype(jnp.float32)
    scale = jnp.max(jnp.abs(w32), axes, keepdims=True) / 127
    scale = jnp.where(scale > 0, scale, 1.0)
    return Int8Matrix(jnp.round(w32 / scale).astype(jnp.int8), scale)


def quantize_params(params: Params, config: Config, weight_format: str) -> Params:
    """The parameters with the layers' matrices in "int8", or cast to a float dtype where that dtype is narrower.

    LoRA changes stay exact. Routers, norms, biases, embedding and head stay exact too: they are small, or a small error in
    them has a large effect.
    """
    if weight_format not in (*WEIGHT_FORMATS, "float16", "float32", "float64"):
        raise UserError(f"sampler: weights={weight_format!r} is unknown, choose from {WEIGHT_FORMATS}")

    def quantize(path: Any, w: WeightSpec, x: Matrix) -> Matrix:
        names = {getattr(step, "key", None) for step in path}
        if "layers" not in names or "router" in names or not w.init_std:
            return x
        if isinstance(x, LoraMatrix):
            return x._replace(base=quantize(path, w, x.base))
        if isinstance(x, Int8Matrix):
            return x
        if weight_format != "int8":
            dtype = jnp.dtype(weight_format)
            return x.astype(dtype) if dtype.itemsize < x.dtype.itemsize else x
        first = w.stacked_axes
        if (
            "layer" in w.axes
        ):  # one layer at a time: all float32 copies together would need the most memory of the program
            return jax.lax.map(lambda y: quantize_matrix(y, tuple(range(first - 1, first - 1 + w.input_axes))), x)
        return quantize_matrix(x, tuple(range(first, first + w.input_axes)))

    return jax.tree_util.tree_map_with_path(quantize, weight_specs(config), params, is_leaf=is_weight_spec)
