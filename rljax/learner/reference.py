"""The reference of the KL term: a copy of the policy that the run starts from, which moves only where the config says so."""

from typing import Any

import jax
import jax.numpy as jnp

from rljax import transformer
from rljax.learner.policy import UpdateOptions
from rljax.transformer import WeightSpec
from rljax.transformer.products import accumulation_dtype

Array = jax.Array


def never_moves(options: UpdateOptions) -> bool:
    """Whether the reference stays what it was at the start. Checkpoints then leave it out."""
    return not options.refresh_reference


def copy_reference(params: Any, model: transformer.Config, options: UpdateOptions, adapters: bool = False) -> Any:
    """The reference that a run with these parameters starts with.

    One that never moves is kept in the dtype of the products where that has fewer bits: every product rounds its matrix to
    that dtype, so the log-probabilities have the same bits. Norms and routers compute in float32, and one that moves is
    added to: these stay as they are. So do ``adapters``, which are small. One that is mixed with the policy has at least
    float32: in fewer bits a small share of a small difference would be rounded away, at every refresh.
    """
    if adapters or not never_moves(options):
        mixed = options.mix_reference != 1.0
        return jax.tree.map(lambda x: x.astype(accumulation_dtype(x)) if mixed else jnp.copy(x), params)
    dtype = jnp.dtype(model.dtype)

    def copy(path: Any, w: WeightSpec, x: Array) -> Array:
        is_rounded = w.init_std and "router" not in {getattr(step, "key", None) for step in path}
        return x.astype(dtype) if is_rounded and dtype.itemsize < x.dtype.itemsize else jnp.copy(x)

    is_spec = lambda x: isinstance(x, WeightSpec)
    return jax.tree_util.tree_map_with_path(copy, transformer.weight_specs(model), params, is_leaf=is_spec)
