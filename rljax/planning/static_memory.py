"""Bytes on each device of what is known without a compiler: arrays with a sharding, the sampler's cache and its weights."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from rljax import transformer
from rljax.distributed import sharding
from rljax.planning.operations import cache_bytes
from rljax.training.settings import Settings


def on_each(tree: Any, host: bool = False) -> float:
    """Bytes of abstract arrays on each device; or of those that lie in the host's memory, for each device."""
    there = lambda x: (x.sharding.memory_kind == sharding.HOST) == host
    size = lambda x: math.prod(x.sharding.shard_shape(x.shape)) * itemsize(x)
    return float(sum(size(x) for x in jax.tree.leaves(tree) if there(x)))


def itemsize(x: Any) -> int:
    return 8 if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x.dtype.itemsize


def cached(s: Settings) -> float:
    """The whole cache, of every prompt and response; growing to it holds the one before as well."""
    c, layout = s.config.rl, s.actor.layout
    n = c.prompts * c.group_size
    total = c.prompts * cache_bytes(s.actor, s.task.prompt_slots) / layout.ways("columns")
    total += n * cache_bytes(s.actor, c.max_new_tokens)
    heads = 1 if s.actor.latent else layout.ways("heads")
    return total / layout.ways("rows") / heads


def sampler_weights(s: Settings) -> float:
    """The copy of the weights that the sampler makes for itself; 0 where it reads those that are there."""
    described = transformer.weights(s.actor)
    light = {"bfloat16": 2, "int8": 1}.get(s.config.rl.sampler_weights, jnp.dtype(s.actor.dtype).itemsize)
    same = s.model.layout.rules == s.actor.layout.rules or not s.actor.layout.split

    def one(path: Any, w: transformer.Weight) -> float:
        inside = getattr(path[0], "key", "") == "layers" and w.spread
        x = jax.ShapeDtypeStruct(w.shape, jnp.dtype(w.dtype or s.actor.weight_dtype))
        lies = [layout.sharding(w.axes, w.shape) for layout in (s.model.layout, s.actor.layout)]
        size = min(light, itemsize(x)) if inside else itemsize(x)
        if size == itemsize(x) and (same or lies[0] == lies[1]):
            return 0.0
        return on_each(jax.ShapeDtypeStruct(w.shape, jnp.int8, sharding=lies[1])) * size

    found = jax.tree_util.tree_map_with_path(one, described, is_leaf=lambda x: isinstance(x, transformer.Weight))
    return float(sum(jax.tree.leaves(found)))
