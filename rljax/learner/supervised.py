"""A supervised step: next-token learning on demonstrations or pages."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rljax import transformer
from rljax.distributed import sharding
from rljax.learner.micro_batches import Batch, Metrics, MicroBatching, gradients
from rljax.learner.update import update
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
    """One step of next-token learning on ``batch``: tokens, mask (real tokens), loss_mask, all [N, S]."""
    constrain = lambda x: sharding.constrain_state(x, model)
    grads, metrics = gradients(
        make_next_token_loss(model, state.frozen), state.params, add_token_weights(batch), micro_batching, constrain
    )
    state, more = update(state, grads, optimizer)
    tokens = jnp.sum(batch["loss_mask"], dtype=jnp.float32)
    return constrain(state.replace(step=state.step + 1)), metrics | more | {"tokens": tokens}


def supervised_loss(params: Any, batch: Batch, *, model: transformer.Config, micro_batching: MicroBatching) -> Array:
    """Loss of a held-out batch in nats a token."""
    width, micro_batches, _ = micro_batching.split(add_token_weights(batch))
    compute = micro_batching.at_width(lambda b: make_next_token_loss(model)(params, b)[0])
    return jax.lax.map(lambda xs: compute(*xs), (width, micro_batches)).sum()


def add_token_weights(batch: Batch) -> Batch:
    return batch | {"weight": token_weights(batch["loss_mask"] & batch["mask"])}


def token_weights(loss_mask: Array) -> Array:
    """[N, S] float32: each learned token's share of the batch's mean, 1 / (learned tokens in the whole optimiser batch)."""
    mask = loss_mask.astype(jnp.float32)
    return mask / jnp.maximum(mask.sum(), 1.0)


def make_next_token_loss(
    model: transformer.Config, frozen: lora.Base | None = None
) -> Callable[[Any, Batch], tuple[Array, Metrics]]:
    """The loss of a micro-batch and its share of the logged means; ``params`` may be adapters of something ``frozen``."""

    def loss(params: Any, b: Batch) -> tuple[Array, Metrics]:
        policy = lora.policy_params(params, frozen)
        logp, entropy = transformer.token_logprobs(policy, model, b["tokens"], b["mask"])
        weight = b["weight"][:, 1:]
        return -jnp.sum(weight * logp), {"entropy": jnp.sum(weight * jax.lax.stop_gradient(entropy))}

    return loss
