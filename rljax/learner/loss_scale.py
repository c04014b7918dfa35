"""Dynamic loss scaling for float16 (arXiv 1710.03740, section 3.2).

float16 has no numbers below 6e-8. The weight of a token in the loss is 1 / (tokens of the batch), so that most cotangents
would be rounded to 0. The loss is therefore multiplied by a power of two before it is differentiated, and the gradient is
divided by it in float32. A scale that is too large makes the gradient infinite or NaN, never merely wrong: products round
cotangents to float16, where a number above 65504 is infinite. Such an update is skipped, and the scale is halved.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from rljax import transformer
from rljax.learner.micro_batches import Metrics
from rljax.structs import TrainState

Array = jax.Array
INITIAL_SCALE = 2.0**16
MIN_SCALE, MAX_SCALE = 1.0, 2.0**60  # both far from where float32 ends, also as a factor of a loss
GROWTH_INTERVAL = 200  # updates with finite gradients after which the scale is doubled


class LossScale(struct.PyTreeNode):
    """The factor of the loss, and how long it has been in use."""

    value: Array  # [] float32, a power of two
    finite_updates: Array  # [] int32, updates with a finite gradient since the scale last changed


def uses_loss_scale(model: transformer.Config) -> bool:
    """Whether gradients of this model pass through float16, as activations or as weights."""
    return "float16" in (model.dtype, model.weight_dtype)


def init_loss_scale(model: transformer.Config) -> LossScale | None:
    """The scale that training starts with; None where the dtypes of the model need none."""
    if not uses_loss_scale(model):
        return None
    return LossScale(jnp.float32(INITIAL_SCALE), jnp.zeros((), jnp.int32))


def adapt_loss_scale(scale: LossScale, finite: Array) -> LossScale:
    """The scale of the next update: half of this one after a gradient that was not finite, twice it after many that were."""
    count = jnp.where(finite, scale.finite_updates + 1, 0)
    factor = jnp.where(finite, jnp.where(count >= GROWTH_INTERVAL, 2.0, 1.0), 0.5)
    value = jnp.clip(scale.value * factor, MIN_SCALE, MAX_SCALE)
    return LossScale(value, jnp.where(count >= GROWTH_INTERVAL, 0, count))


def current_scale(state: TrainState) -> Array | None:
    """The factor of the loss in this update, [] float32; None where the loss is not scaled."""
    return None if state.loss_scale is None else state.loss_scale.value


def update_loss_scale(state: TrainState, grads: Any) -> tuple[TrainState, Metrics]:
    """(state with the scale of the next update, the metric loss_scale: that of this one).

    ``grads`` are all gradients that were computed with this scale, those of the critic too. Unchanged, and no metric, where
    the loss is not scaled.
    """
    if state.loss_scale is None:
        return state, {}
    finite = jnp.isfinite(optax.tree.norm(grads))
    return state.replace(loss_scale=adapt_loss_scale(state.loss_scale, finite)), {"loss_scale": state.loss_scale.value}
