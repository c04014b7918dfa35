"""Apply one gradient, unless it is not finite."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from rljax.distributed import sharding
from rljax.learner.master_weights import apply_updates, gradient_dtype
from rljax.learner.micro_batches import Metrics
from rljax.structs import TrainState

Array = jax.Array


def apply_gradients(
    state: TrainState, grads: Any, optimizer: optax.GradientTransformation, freeze: Array | bool = False
) -> tuple[TrainState, Metrics]:
    """(state after one optimizer step on the policy, metrics).

    A gradient that is not finite changes no parameter and no optimizer state. It is counted in ``state.skipped`` (in a row)
    and ``state.skipped_total``. ``freeze`` also changes nothing, and is not counted. Metrics: grad_norm (global L2 norm),
    skipped_steps, skipped_in_a_row.
    """
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(norm)
    params, opt_state = apply_optimizer(state.params, grads, state.opt_state, optimizer, finite & ~jnp.asarray(freeze))
    state = state.replace(
        params=params,
        opt_state=opt_state,
        skipped=jnp.where(finite, 0, state.skipped + 1),
        skipped_total=state.skipped_total + ~finite,
    )
    counts = {"skipped_steps": state.skipped_total, "skipped_in_a_row": state.skipped}
    return state, {"grad_norm": norm} | counts


def apply_optimizer(
    params: Any, grads: Any, opt_state: Any, optimizer: optax.GradientTransformation, enabled: Array
) -> tuple[Any, Any]:
    """(parameters, optimizer state) after one step, or unchanged where ``enabled`` [] bool is False.

    Moments and master weights that are kept in host memory are copied to the device for the step, and back, one array at a
    time.
    """
    safe = jax.tree.map(lambda g, p: jnp.where(enabled, g, 0.0).astype(gradient_dtype(p, opt_state)), grads, params)
    before = sharding.to_device_memory(opt_state)
    updates, after = optimizer.update(safe, before, params)
    keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(enabled, a, b), new, old)
    return keep(apply_updates(params, updates, after), params), sharding.to_memory_of(keep(after, before), opt_state)
