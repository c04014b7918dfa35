"""How a matrix may be kept: as an array, as int8 with a scale a column, or as either with a low-rank change beside it.

Every product of the transformer goes through ``product`` or ``grouped``, so that each form works in every block.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.errors import UserError
from rljax.transformer.config import Array, Config, Params, Weight, is_weight, layer_weights, weights

LIGHTER = ("bfloat16", "int8")  # ways to keep the layers' matrices while sampling, apart from as they are


class Int8(NamedTuple):
    """values * scale; ``scale`` float32 is 1 wide along the axes that a product sums over."""

    values: Array  # int8
    scale: Array


class Adapted(NamedTuple):
    """base + down . up (LoRA, arXiv 2106.09685), never added up: ``down`` [inputs, r], ``up`` [r, outputs]."""

    base: "Array | Int8"
    down: Array
    up: Array  # the factor alpha / r is in it


Stored = Array | Int8 | Adapted


def full(x: Array) -> jnp.dtype:
    """What sums are accumulated in: float32, and float64 where the activations are."""
    return jnp.promote_types(x.dtype, jnp.float32)


def product(spec: str, x: Array, w: Stored) -> Array:
    """``einsum(spec, x, w)`` in x's dtype, accumulated and returned in float32 (or wider)."""
    if isinstance(w, Adapted):
        left, right, out = letters(spec)
        inputs = "".join(c for c in right if c not in out)
        middle = "".join(c for c in left if c not in inputs) + "z"
        narrow = product(f"{left},{inputs}z->{middle}", x, w.down).astype(x.dtype)
        outputs = "".join(c for c in right if c in out)
        return product(spec, x, w.base) + product(f"{middle},z{outputs}->{out}", narrow, w.up)
    if isinstance(w, Int8):
        _, right, out = letters(spec)
        scale = jnp.einsum(f"{right}->{''.join(c for c in out if c in right)}", w.scale)
        shape = iter(scale.shape)
        return product(spec, x, w.values) * scale.reshape([next(shape) if c in right else 1 for c in out])
    return jnp.einsum(spec, x, w.astype(x.dtype), preferred_element_type=full(x))


def letters(spec: str) -> tuple[str, str, str]:
    """``ab,bc->ac`` -> ("ab", "bc", "ac")."""
    terms, out = spec.split("->")
    left, right = terms.split(",")
    return left, right, out


def grouped(x: Array, w: Stored, sizes: Array) -> Array:
    """Rows x [M, D], of which the first ``sizes[0]`` meet w[0], the next ``sizes[1]`` w[1] ...: w [X, D, F] -> [M, F].

    Accumulated and returned in float32 (or wider).
    """
    if isinstance(w, Adapted):
        narrow = grouped(x, w.down, sizes).astype(x.dtype)
        return grouped(x, w.base, sizes) + grouped(narrow, w.up, sizes)
    if isinstance(w, Int8):
        row = jnp.repeat(jnp.arange(len(sizes)), sizes, total_repeat_length=x.shape[0])
        return grouped(x, w.values, sizes) * w.scale[row, 0]
    return jax.lax.ragged_dot(x, w.astype(x.dtype), sizes, preferred_element_type=full(x))


def whole(w: Stored) -> Array:
    """The matrix as an array; a low-rank change is added in float32 and rounded to the base's dtype."""
    if isinstance(w, Int8):
        return w.values * w.scale
    if not isinstance(w, Adapted):
        return w
    base = whole(w.base)
    change = low_rank(w.down, w.up, base.shape)
    return (base + change).astype(base.dtype)


def low_rank(down: Array, up: Array, shape: tuple[int, ...]) -> Array:
    """down . up as an array of this shape, float32; axes before the inputs hold several matrices, one product each."""
    held = down.ndim + up.ndim - 2 - len(shape)  # axes that both have
    rank = down.shape[-1]
    flat_down = down.reshape(*down.shape[:held], -1, rank).astype(jnp.float32)
    flat_up = up.reshape(*up.shape[:held], rank, -1).astype(jnp.float32)
    return jnp.matmul(flat_down, flat_up, precision=jax.lax.Precision.HIGHEST).reshape(shape)


def used(layer: Params, config: Config, index: int) -> Params:
    """A layer's parameters as its products need them: what is only kept in parts is collected."""
    layout = config.layout
    if not layout.axes("embed"):
        return layer

    def one(w: Weight, x: Stored) -> Stored:
        if isinstance(x, Adapted):
            return x._replace(base=one(w, x.base))
        return x._replace(values=one(w, x.values)) if isinstance(x, Int8) else layout.gathered(x, w.axes)

    return jax.tree.map(one, layer_weights(config, index), layer, is_leaf=is_weight)


def laid_out(params: Params, config: Config) -> Params:
    """Inside a jit: parameters where ``config.layout`` has them, in whatever form they are kept."""
    layout = config.layout
    if not layout.split:
        return params

    def one(w: Weight, x: Stored) -> Stored:
        lay = lambda y, axes: layout.constrain(y, *axes)
        if isinstance(x, Array):
            return lay(x, w.axes)
        return jax.tree.map(lay, x, stored_axes(w, x), is_leaf=is_array)

    return jax.tree.map(one, weights(config), params, is_leaf=is_weight)


def stored_shardings(params: Params, config: Config) -> Any:
    """The sharding of each array of parameters in whatever form they are kept."""

    def one(w: Weight, x: Stored) -> Any:
        lie = lambda y, axes: config.layout.sharding(axes, y.shape)
        axes = stored_axes(w, x)
        return lie(x, axes) if isinstance(x, Array) else jax.tree.map(lie, x, axes, is_leaf=is_array)

    return jax.tree.map(one, weights(config), params, is_leaf=is_weight)


def is_array(x: Any) -> bool:
    return isinstance(x, Array)


def stored_axes(w: Weight, x: Stored) -> Any:
    """The logical axes of each array that a matrix is kept as, a pytree like x."""
    if isinstance(x, Int8):
        along = tuple(axis if n > 1 else None for axis, n in zip(w.axes, x.scale.shape, strict=True))
        return x._replace(values=w.axes, scale=along)
    if isinstance(x, Adapted):
        held, inward, outward = w.axes[: w.held], w.axes[w.held :][: w.inputs], w.axes[w.held + w.inputs :]
        return x._replace(base=stored_axes(w, x.base), down=(*held, *inward, None), up=(*held, None, *outward))
    return w.axes


def quantize(w: Array, axes: tuple[int, ...]) -> Int8:
    """Symmetric int8, one scale for each column: ``axes`` are those that a product sums over."""
    w32 = w.astype(jnp.float32)
    scale = jnp.max(jnp.abs(w32), axes, keepdims=True) / 127
    scale = jnp.where(scale > 0, scale, 1.0)
    return Int8(jnp.round(w32 / scale).astype(jnp.int8), scale)


def lighter(params: Params, config: Config, way: str) -> Params:
    """The same parameters with the layers' matrices kept as "int8", or cast to a dtype where that is narrower.

    Low-rank changes stay exact. So do routers, norms, biases, embedding and head: they are few, or decide too much.
    """
    if way not in (*LIGHTER, "float16", "float32", "float64"):
        raise UserError(f"sampler: weights={way!r} is unknown, choose from {LIGHTER}")

    def one(path: Any, w: Weight, x: Stored) -> Stored:
        names = {getattr(step, "key", None) for step in path}
        if "layers" not in names or "router" in names or not w.spread:
            return x
        if isinstance(x, Adapted):
            return x._replace(base=one(path, w, x.base))
        if isinstance(x, Int8):
            return x
        if way != "int8":
            return x.astype(jnp.dtype(way)) if jnp.dtype(way).itemsize < x.dtype.itemsize else x
        if "layer" in w.axes:  # one at a time: their float32 forms together would be the largest thing in memory
            return jax.lax.map(lambda y: quantize(y, tuple(range(w.held - 1, w.held - 1 + w.inputs))), x)
        return quantize(x, tuple(range(w.held, w.held + w.inputs)))

    return jax.tree_util.tree_map_with_path(one, weights(config), params, is_leaf=lambda x: isinstance(x, Weight))
