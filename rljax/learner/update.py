"""Applying a gradient, or refusing to."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from rljax.distributed import sharding
from rljax.learner.micro_batches import Metrics
from rljax.structs import TrainState

Array = jax.Array


def update(
    state: TrainState, grads: Any, optimizer: optax.GradientTransformation, hold: Array | bool = False
) -> tuple[TrainState, Metrics]:
    """Apply the policy's gradient; where it is not finite leave parameters and optimiser as they are, and count it.

    ``hold`` leaves them as they are without counting.
    """
    norm = optax.tree.norm(grads)
    fine = jnp.isfinite(norm)
    params, opt_state = apply(state.params, grads, state.opt_state, optimizer, fine & ~jnp.asarray(hold))
    state = state.replace(
        params=params,
        opt_state=opt_state,
        skipped=jnp.where(fine, 0, state.skipped + 1),
        skipped_total=state.skipped_total + ~fine,
    )
    counts = {"skipped_steps": state.skipped_total, "skipped_in_a_row": state.skipped}
    return state, {"grad_norm": norm} | counts


def apply(
    params: Any, grads: Any, opt_state: Any, optimizer: optax.GradientTransformation, really: Array
) -> tuple[Any, Any]:
    """(parameters, optimiser state) after one step, or as they were where ``really`` is False.

    Moments that lie in host memory come to the device, and go back: each array by itself.
    """
    safe = jax.tree.map(lambda g, p: jnp.where(really, g, 0.0).astype(p.dtype), grads, params)
    before = sharding.to_device_memory(opt_state)
    updates, after = optimizer.update(safe, before, params)
    keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(really, a, b), new, old)
    return keep(optax.apply_updates(params, updates), params), sharding.to_memory_of(keep(after, before), opt_state)
