"""Float32 master weights beside weights of fewer bits (arXiv 1710.03740, section 3.1), as an optax transformation.

bfloat16 has 8 bits of precision: a weight of 0.1 does not move by a step of 1e-6, however often the step is taken. So the
optimizer keeps each such weight in float32, where steps add up, and the model computes with the rounded copy. Moments are
those of the float32 weights. Weights of float32 or more are left alone, and so is the state of their optimizer.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Array = jax.Array


class MasterWeightsState(NamedTuple):
    """The state of an optimizer whose model has weights of fewer bits than float32."""

    weights: Any  # a pytree like the parameters: float32, or None where the parameter itself is precise enough
    inner: Any  # the state of the optimizer that moves them


def with_master_weights(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimizer, applied to float32 master weights where parameters have fewer bits, and itself where none has.

    After ``apply_updates`` each parameter is its master weight, rounded.
    """

    def init(params: Any) -> Any:
        if not any(needs_master(p) for p in jax.tree.leaves(params)):
            return optimizer.init(params)
        weights = jax.tree.map(lambda p: p.astype(jnp.float32) if needs_master(p) else None, params)
        return MasterWeightsState(weights, optimizer.init(precise_weights(params, weights)))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if not isinstance(state, MasterWeightsState):
            return optimizer.update(updates, state, params)
        before = precise_weights(params, state.weights)
        grads = jax.tree.map(lambda g, w: g.astype(w.dtype), updates, before)
        updates, inner = optimizer.update(grads, state.inner, before)
        after = optax.apply_updates(before, updates)
        weights = jax.tree.map(lambda w, p: w if needs_master(p) else None, after, params)
        return updates, MasterWeightsState(weights, inner)

    return optax.GradientTransformation(init, update)


def needs_master(p: Array) -> bool:
    """Whether a parameter has too few bits for small steps to add up."""
    return jnp.issubdtype(p.dtype, jnp.floating) and p.dtype.itemsize < 4


def gradient_dtype(p: Array, opt_state: Any) -> Any:
    """The dtype in which the optimizer gets a parameter's gradient: that of its master weight, or its own."""
    return jnp.float32 if isinstance(opt_state, MasterWeightsState) and needs_master(p) else p.dtype


def precise_weights(params: Any, weights: Any) -> Any:
    """The parameters, with their master weights in the place of those that have one."""
    return jax.tree.map(lambda p, master: p if master is None else master, params, weights)


def apply_updates(params: Any, updates: Any, opt_state: Any) -> Any:
    """The parameters after an update of the optimizer, which left the state ``opt_state``."""
    if not isinstance(opt_state, MasterWeightsState):
        return optax.apply_updates(params, updates)
    round_master = lambda p, u, master: optax.apply_updates(p, u) if master is None else master.astype(p.dtype)
    return jax.tree.map(round_master, params, updates, opt_state.weights)
