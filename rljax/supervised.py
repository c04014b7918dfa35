"""Imitation: the next-token loss that pretraining and supervised fine-tuning share."""

import jax
import jax.numpy as jnp

Array = jax.Array


def weights(mask: Array) -> Array:
    """[N, S] float32: each learned token's share of the batch's mean, 1 / (tokens in the whole optimiser batch)."""
    mask = mask.astype(jnp.float32)
    return mask / jnp.maximum(mask.sum(), 1.0)


def loss(logprobs: Array, weight: Array) -> Array:
    """Mean negative log-likelihood in nats a token: the weights already hold the mean's divisor."""
    return -jnp.sum(weight * logprobs)
