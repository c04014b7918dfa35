"""Which attempts to imitate: weights [B, G] of 1 (learn from this one) and 0, for the loss ``imitation``.

"Pick the best of n and train on it" and GRPO are neighbours: both compare attempts at one prompt. Here the comparison
ends in yes or no.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from rljax.errors import UserError

Array = jax.Array
Order = Literal["first", "shortest", "likeliest", "random"]  # which of several good attempts is taken first


def best_of_n(
    rewards: Array,
    mask: Array | None = None,
    logprobs: Array | None = None,
    key: Array | None = None,
    *,
    by: Order = "first",
    at_least: float = -float("inf"),
) -> Array:
    """1 for the attempt with the best reward at each prompt (RAFT, arXiv 2304.06767), none below ``at_least``.

    Several may share the best reward: ``by`` takes the first of them, the shortest (``mask`` [B, G, T]), the likeliest
    (``logprobs`` [B, G, T] of their tokens, summed) or one at ``random`` (``key``).
    """
    best = (rewards == jnp.nanmax(rewards, -1, keepdims=True)) & (rewards >= at_least)
    return first_of(best, order(rewards, mask, logprobs, key, by), 1).astype(rewards.dtype)


def all_correct(
    rewards: Array,
    mask: Array | None = None,
    logprobs: Array | None = None,
    key: Array | None = None,
    distinct: Array | None = None,
    *,
    at_least: float = 1.0,
    cap: int = 0,
    by: Order = "first",
    dedupe: bool = False,
) -> Array:
    """1 for every attempt with a reward of ``at_least`` (rejection sampling; STaR, arXiv 2203.14465).

    At most ``cap`` a prompt (0: all; ReST-EM, arXiv 2312.06585), taken in the order ``by`` as in ``best_of_n``; with
    ``dedupe`` the same response is learned once (``distinct`` [B, G] marks its first occurrence).
    """
    right = rewards >= at_least
    if dedupe and distinct is not None:
        right &= distinct
    if cap:
        right = first_of(right, order(rewards, mask, logprobs, key, by), cap)
    return right.astype(rewards.dtype)


def order(rewards: Array, mask: Array | None, logprobs: Array | None, key: Array | None, by: str) -> Array:
    """[B, G]: the smaller, the sooner an attempt is taken."""
    if by == "first":
        return jnp.broadcast_to(jnp.arange(rewards.shape[-1], dtype=float), rewards.shape)
    if by == "shortest" and mask is not None:
        return mask.sum(-1).astype(float)
    if by == "likeliest" and logprobs is not None:
        return -(logprobs if mask is None else jnp.where(mask > 0, logprobs, 0.0)).sum(-1)
    if by == "random" and key is not None:
        return jax.random.uniform(key, rewards.shape)
    raise UserError(f"choosing attempts by={by!r} is unknown or lacks its data, choose from {get_args(Order)}")


def first_of(wanted: Array, order: Array, count: int) -> Array:
    """The ``count`` wanted attempts of each group that come first in ``order``; of equals, those of lower index."""
    place = jnp.argsort(jnp.argsort(jnp.where(wanted, order, jnp.inf), -1), -1)
    return wanted & (place < count)


def distinct(tokens: Array, mask: Array, scored: Array | None = None) -> Array:
    """[B, G] bool: no attempt before this one in its group has the same tokens [B, G, T].

    Attempts that could not be scored (``scored`` [B, G] is False) do not count as attempts before.
    """
    shown = jnp.where(mask > 0, tokens, -1)
    same = jnp.all(shown[..., :, None, :] == shown[..., None, :, :], -1)  # [B, G, G]
    if scored is not None:
        same &= scored[..., None, :]
    return ~jnp.any(jnp.tril(same, -1), -1)
