"""Bytes on each device of what is known without a compiler: arrays with a sharding, the sampler's cache and its weights."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from rljax import transformer
from rljax.distributed import sharding
from rljax.planning.operations import cache_bytes
from rljax.training.run import Run


def on_each(tree: Any, host: bool = False) -> float:
    """Bytes of abstract arrays on each device; or of those that lie in the host's memory, for each device."""
    there = lambda x: (x.sharding.memory_kind == sharding.HOST_MEMORY) == host
    size = lambda x: math.prod(x.sharding.shard_shape(x.shape)) * itemsize(x)
    return float(sum(size(x) for x in jax.tree.leaves(tree) if there(x)))


def itemsize(x: Any) -> int:
    return 8 if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x.dtype.itemsize


def cached(run: Run) -> float:
    """The whole cache, of every prompt and response; growing to it holds the one before as well."""
    model, layout = run.sampler_model, run.sampler_model.layout
    prompts, rows = run.rl.problems.prompts, run.rl.problems.prompts * run.rl.sampling.group_size
    total = prompts * cache_bytes(model, run.task.prompt_slots) / layout.num_shards("columns")
    total += rows * cache_bytes(model, run.rl.sampling.max_new_tokens)
    heads = 1 if model.latent else layout.num_shards("heads")
    return total / layout.num_shards("rows") / heads


def sampler_weights(run: Run) -> float:
    """The copy of the weights that the sampler makes for itself; 0 where it reads those that are there."""
    model = run.sampler_model
    described = transformer.weight_specs(model)
    light = {"bfloat16": 2, "int8": 1}.get(run.rl.sampling.sampler_weights, jnp.dtype(model.dtype).itemsize)
    same = run.model.layout.rules == model.layout.rules or not model.layout.is_sharded

    def one(path: Any, w: transformer.WeightSpec) -> float:
        inside = getattr(path[0], "key", "") == "layers" and w.init_std
        x = jax.ShapeDtypeStruct(w.shape, jnp.dtype(w.dtype or model.weight_dtype))
        lies = [layout.sharding(w.axes, w.shape) for layout in (run.model.layout, model.layout)]
        size = min(light, itemsize(x)) if inside else itemsize(x)
        if size == itemsize(x) and (same or lies[0] == lies[1]):
            return 0.0
        return on_each(jax.ShapeDtypeStruct(w.shape, jnp.int8, sharding=lies[1])) * size

    found = jax.tree_util.tree_map_with_path(one, described, is_leaf=lambda x: isinstance(x, transformer.WeightSpec))
    return float(sum(jax.tree.leaves(found)))
