"""The supervised step: next-token prediction on demonstrations (SFT) or raw text (pretraining)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rljax import transformer
from rljax.distributed import sharding
from rljax.learner.loss_scale import current_scale, update_loss_scale
from rljax.learner.micro_batches import (
    Batch,
    Metrics,
    MicroBatching,
    fold_micro_batches,
    gradients,
    micro_batch_shapes,
    score_batch,
)
from rljax.learner.update import apply_gradients
from rljax.structs import TrainState
from rljax.transformer import lora

Array = jax.Array


def supervised_step(
    state: TrainState,
    batch: Batch,
    *,
    model: transformer.Config,
    optimizer: optax.GradientTransformation,
    micro_batching: MicroBatching,
) -> tuple[TrainState, Metrics]:
    """(state after one optimizer step of next-token prediction, metrics).

    ``batch`` holds tokens, mask (real tokens) and loss_mask (tokens to learn), all [N, S].
    """
    constrain = lambda x: sharding.constrain_state(x, model)
    loss, batch = make_next_token_loss(model, state.frozen), add_token_weights(batch)
    grads, metrics = gradients(loss, state.params, batch, micro_batching, constrain, current_scale(state))
    state, scale_metrics = update_loss_scale(state, grads)
    state, update_metrics = apply_gradients(state, grads, optimizer)
    tokens = jnp.sum(batch["loss_mask"], dtype=jnp.float32)
    return constrain(state.replace(step=state.step + 1)), metrics | update_metrics | scale_metrics | {"tokens": tokens}


def supervised_loss(params: Any, batch: Batch, *, model: transformer.Config, micro_batching: MicroBatching) -> Array:
    """The loss of a held-out batch, [] float32, in nats per token."""
    compute = lambda b: make_next_token_loss(model)(params, b)[0]
    batch = add_token_weights(batch)
    shape = jax.eval_shape(compute, micro_batch_shapes(batch, micro_batching))
    zero, add = jnp.zeros(shape.shape, shape.dtype), lambda total, loss, rows: total + loss
    return fold_micro_batches(compute, add, zero, batch, micro_batching)


def add_token_weights(batch: Batch) -> Batch:
    """The batch with "weight", the weight of each token in the loss."""
    return batch | {"weight": token_weights(batch["loss_mask"] & batch["mask"])}


def token_weights(loss_mask: Array) -> Array:
    """[N, S] float32: 1 / (learned tokens in the whole optimizer batch) at each learned token, else 0."""
    mask = loss_mask.astype(jnp.float32)
    return mask / jnp.maximum(mask.sum(), 1.0)


def make_next_token_loss(
    model: transformer.Config, frozen: lora.Base | None = None
) -> Callable[[Any, Batch], tuple[Array, Metrics]]:
    """``loss(params, micro_batch) -> (its share of the loss, its share of each logged mean)``.

    ``params`` are adapters where ``frozen`` holds the weights that they are attached to.
    """

    def loss(params: Any, batch: Batch) -> tuple[Array, Metrics]:
        policy = lora.policy_params(params, frozen)
        logp, entropy = score_batch(policy, model, batch)
        weight = batch["weight"][:, 1:]
        mean = lambda x: jnp.sum(weight * jnp.where(weight > 0, x, 0.0))  # 0 times -inf would be NaN
        return -mean(logp), {"entropy": mean(jax.lax.stop_gradient(entropy))}

    return loss
