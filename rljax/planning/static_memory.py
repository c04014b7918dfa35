"""Bytes on each device that are known without compiling: arrays with a sharding, the KV cache and the sampler's weights."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from rljax import sampler, transformer
from rljax.distributed import sharding
from rljax.planning.operations import cache_bytes, sampler_itemsize
from rljax.training.run import Run


def bytes_per_device(tree: Any, host: bool = False) -> float:
    """Return the bytes of abstract arrays on each device. With ``host``: those in host memory instead, for each device."""
    is_counted = lambda x: (x.sharding.memory_kind == sharding.HOST_MEMORY) == host
    shard_bytes = lambda x: math.prod(x.sharding.shard_shape(x.shape)) * itemsize(x)
    return float(sum(shard_bytes(x) for x in jax.tree.leaves(tree) if is_counted(x)))


def itemsize(x: Any) -> int:
    """Return the bytes of one element. A random key has 8."""
    return 8 if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x.dtype.itemsize


def kv_cache_bytes(run: Run, prompts: int = 0, rows: int = 0) -> float:
    """Return the bytes of the complete KV cache of ``rows`` responses to ``prompts`` prompts; 0: those of a rollout.

    The cache grows in stages. While it grows, the smaller cache exists beside the larger one; that is not counted here. Where
    rows take turns in slots, each slot has a copy of its prompt's cache.
    """
    model, layout = run.sampler_model, run.sampler_model.layout
    prompts = prompts or run.rl.problems.prompts
    rows = rows or prompts * run.rl.sampling.group_size
    total = prompts * cache_bytes(model, run.task.prompt_slots) / layout.num_shards("columns")
    at_once = sampler.rows_at_once(run.rl.sampling.slots, rows, prompts, layout)
    total += at_once * cache_bytes(model, run.rl.sampling.max_new_tokens)
    total += at_once * cache_bytes(model, run.task.prompt_slots) if at_once < rows else 0
    head_shards = 1 if model.latent else layout.num_shards("heads")
    return total / layout.num_shards("rows") / head_shards


def sampler_weight_bytes(run: Run) -> float:
    """Return the bytes of the weights that the sampler copies; 0 where it reads the training weights in place."""
    model = run.sampler_model
    sampler_bytes = sampler_itemsize(run.rl, model)
    same_layout = run.model.layout.rules == model.layout.rules or not model.layout.is_sharded

    def copied_bytes(path: Any, w: transformer.WeightSpec) -> float:
        is_layer_matrix = getattr(path[0], "key", "") == "layers" and w.init_std
        stored_bytes = itemsize(jax.ShapeDtypeStruct(w.shape, jnp.dtype(w.dtype or model.weight_dtype)))
        size = min(sampler_bytes, stored_bytes) if is_layer_matrix else stored_bytes
        here, there = (layout.sharding(w.axes, w.shape) for layout in (run.model.layout, model.layout))
        if size == stored_bytes and (same_layout or here == there):
            return 0.0
        return bytes_per_device(jax.ShapeDtypeStruct(w.shape, jnp.int8, sharding=there)) * size

    is_weight = lambda x: isinstance(x, transformer.WeightSpec)
    copies = jax.tree_util.tree_map_with_path(copied_bytes, transformer.weight_specs(model), is_leaf=is_weight)
    return float(sum(jax.tree.leaves(copies)))
