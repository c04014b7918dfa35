"""LoRA (arXiv 2106.09685): only a low-rank change of some matrices learns.

    W x + (alpha / r) up (down x),    down [inputs, r] starts random, up [r, outputs] starts at zero

The adapters are a pytree of their own, {path of the matrix: {"down", "up"}}. The optimizer, the checkpoints and the KL
reference hold only this pytree. The policy is a pure function of the adapters and of their base.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from rljax import transformer
from rljax.errors import UserError
from rljax.options import option
from rljax.transformer import Config, LoraMatrix, Params, WeightSpec
from rljax.transformer.weight_formats import low_rank_product

Array = jax.Array
Adapters = dict[str, dict[str, Array]]


@dataclasses.dataclass(frozen=True)
class LoraOptions:
    """Which matrices learn a low-rank change in place of all weights."""

    rank: int = option(0, "rank of the adapters; 0: all weights learn", low=0, high=65_536)
    alpha: float = option(32.0, "the change is scaled by alpha / rank", above=0.0)
    targets: tuple[str, ...] = option((), "names of the layers' matrices that get adapters; (): all of them", items=str)


class Base(struct.PyTreeNode):
    """The parameters that adapters are attached to. They never change."""

    params: Params
    factor: Array  # [] float32, alpha / r


def base_fingerprint(base: Base) -> Array:
    """[number of weights] float32: one number from the first values of each weight, to recognise the base by."""
    first = lambda x: x[(0,) * (x.ndim - 1)][:64].astype(jnp.float32)
    look = lambda x: jnp.sum(first(x) * jnp.cos(jnp.arange(first(x).size)))
    return jnp.stack([look(x) for x in jax.tree.leaves(base.params)])


def target_matrices(model: Config, names: tuple[str, ...]) -> dict[str, WeightSpec]:
    """The layers' matrices of these names by path; of no names: all but routers. Raises UserError for an unknown name."""
    flat = jax.tree_util.tree_flatten_with_path(
        transformer.weight_specs(model), is_leaf=lambda x: isinstance(x, WeightSpec)
    )[0]
    named = lambda path: [p.key for p in path if isinstance(p, jax.tree_util.DictKey) and p.key != "kernel"]
    inside = [(path, w) for path, w in flat if named(path)[0] == "layers" and w.init_std]
    known = {name for path, _ in inside for name in named(path)[1:]}
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"lora: no layer has a matrix called {unknown[0]!r}, choose from {sorted(known)}")
    chosen = lambda path: set(named(path)) & set(names) if names else "router" not in named(path)
    return {jax.tree_util.keystr(path): w for path, w in inside if chosen(path)}


def init_adapters(model: Config, names: tuple[str, ...], rank: int, key: Array) -> Adapters:
    """float32 adapters that change nothing yet. Every layer of a stack and every expert has its own."""
    out: Adapters = {}
    for n, (path, w) in enumerate(target_matrices(model, names).items()):
        stacked, matrix = w.shape[: w.stacked_axes], w.shape[w.stacked_axes :]
        inputs, outputs = matrix[: w.input_axes], matrix[w.input_axes :]
        std = math.prod(inputs) ** -0.5
        down = std * jax.random.normal(jax.random.fold_in(key, n), (*stacked, *inputs, rank))
        out[path] = {"down": down, "up": jnp.zeros((*stacked, rank, *outputs))}
    return out


def policy_params(params: Any, base: Base | None) -> Params:
    """The parameters that the transformer runs with: ``params`` themselves, or the base with these adapters beside it."""
    if base is None:
        return params

    def attach(path: Any, x: Array) -> Array | LoraMatrix:
        adapter = params.get(jax.tree_util.keystr(path))
        return x if adapter is None else LoraMatrix(x, adapter["down"], base.factor * adapter["up"])

    return jax.tree_util.tree_map_with_path(attach, base.params)


def merge_adapters(params: Any, base: Base | None, dtype: Any = None) -> Params:
    """``policy_params`` as plain arrays, added in float32: for export and a new start.

    The sums are rounded to the base's dtype, or to ``dtype``.
    """
    if base is None:
        return params

    def merge(path: Any, x: Array) -> Array:
        adapter = params.get(jax.tree_util.keystr(path))
        if adapter is None:
            return x
        change = base.factor * low_rank_product(adapter["down"], adapter["up"], x.shape)
        return (x.astype(jnp.float32) + change).astype(dtype or x.dtype)

    return jax.tree_util.tree_map_with_path(merge, base.params)
