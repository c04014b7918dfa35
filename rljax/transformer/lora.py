"""LoRA: learn a low-rank change beside each of some matrices, and nothing else (arXiv 2106.09685).

    W x + (alpha / r) up (down x),    down [inputs, r] random, up [r, outputs] zero at the start

The adapters are a pytree of their own, {path of the matrix: {"down", "up"}}: it is what the optimiser, the checkpoints and
the KL reference see. The policy is a pure function of them and of what they are attached to.
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
from rljax.transformer import Adapted, Config, Params, Weight
from rljax.transformer.weight_formats import low_rank

Array = jax.Array
Adapters = dict[str, dict[str, Array]]


@dataclasses.dataclass(frozen=True)
class LoraOptions:
    """Which matrices learn a low-rank change in the place of all weights."""

    rank: int = option(0, "rank of the adapters; 0: all weights learn", low=0)
    alpha: float = option(32.0, "the change is scaled by alpha / rank", above=0.0)
    targets: tuple[str, ...] = option((), "names of the layers' matrices that get adapters; (): all of them")


class Base(struct.PyTreeNode):
    """What adapters are attached to: parameters that never change."""

    params: Params
    factor: Array  # [] float32, alpha / r


def fingerprint(base: Base) -> Array:
    """[matrices and vectors] float32: a look at the beginning of each, which other weights would not have."""
    first = lambda x: x[(0,) * (x.ndim - 1)][:64].astype(jnp.float32)
    look = lambda x: jnp.sum(first(x) * jnp.cos(jnp.arange(first(x).size)))
    return jnp.stack([look(x) for x in jax.tree.leaves(base.params)])


def targets(model: Config, names: tuple[str, ...]) -> dict[str, Weight]:
    """The layers' matrices of these names, or all but routers, by path. Raises UserError for a name that no layer has."""
    flat = jax.tree_util.tree_flatten_with_path(transformer.weights(model), is_leaf=lambda x: isinstance(x, Weight))[0]
    named = lambda path: [p.key for p in path if isinstance(p, jax.tree_util.DictKey) and p.key != "kernel"]
    inside = [(path, w) for path, w in flat if named(path)[0] == "layers" and w.spread]
    known = {name for path, _ in inside for name in named(path)[1:]}
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"lora: there is no matrix called {unknown[0]!r} in a layer, choose from {sorted(known)}")
    chosen = lambda path: set(named(path)) & set(names) if names else "router" not in named(path)
    return {jax.tree_util.keystr(path): w for path, w in inside if chosen(path)}


def init(model: Config, names: tuple[str, ...], rank: int, key: Array) -> Adapters:
    """Adapters that change nothing yet, float32; a matrix of a stack, or of an expert, has one of its own."""
    out: Adapters = {}
    for n, (path, w) in enumerate(targets(model, names).items()):
        many, inward, outward = w.shape[: w.held], w.shape[w.held :][: w.inputs], w.shape[w.held + w.inputs :]
        spread = math.prod(inward) ** -0.5
        down = spread * jax.random.normal(jax.random.fold_in(key, n), (*many, *inward, rank))
        out[path] = {"down": down, "up": jnp.zeros((*many, rank, *outward))}
    return out


def policy(params: Any, base: Base | None) -> Params:
    """The parameters that the transformer runs with: ``params`` themselves, or these adapters beside their base."""
    if base is None:
        return params

    def one(path: Any, x: Array) -> Array | Adapted:
        adapter = params.get(jax.tree_util.keystr(path))
        return x if adapter is None else Adapted(x, adapter["down"], base.factor * adapter["up"])

    return jax.tree_util.tree_map_with_path(one, base.params)


def merge(params: Any, base: Base | None) -> Params:
    """``policy`` added up, in float32, and rounded to the base's dtype: for export, or to start anew from."""
    if base is None:
        return params

    def one(path: Any, x: Array) -> Array:
        adapter = params.get(jax.tree_util.keystr(path))
        if adapter is None:
            return x
        change = base.factor * low_rank(adapter["down"], adapter["up"], x.shape)
        return (x.astype(jnp.float32) + change).astype(x.dtype)

    return jax.tree_util.tree_map_with_path(one, base.params)
