"""Which tokens to treat apart: by entropy, or by how their likelihood goes with the advantage.

These rank tokens against all others of the optimizer batch, so they are chosen from the whole of it, before it is split.
``mask`` [N, T] marks the tokens that count; a share of n tokens is floor(share n), at least one where there is one.
"""

import jax
import jax.numpy as jnp

from rljax.policy_gradient.losses import over_tokens, ppo_clip, ratio, where_counted

Array = jax.Array


def top_entropy(entropy: Array, mask: Array, *, share: float = 0.2) -> Array:
    """Bool [N, T]: the ``share`` of tokens with the highest entropy, where the policy decides (arXiv 2506.01939)."""
    return highest(entropy, mask, share)


def kl_cov_tokens(logp: Array, advantage: Array, mask: Array, *, share: float = 2e-4) -> Array:
    """Bool [N, T]: the ``share`` of tokens of highest ``covariance`` (KL-Cov, arXiv 2505.22617)."""
    return highest(covariance(logp, advantage, mask), mask, share)


def clip_cov_tokens(
    logp: Array, old_logprobs: Array, advantage: Array, mask: Array, key: Array, *, share: float = 2e-4, lowest: float = 1.0,
    highest: float = 5.0, low: float = 0.2, high: float = 0.2,
) -> Array:  # fmt: skip
    """Bool [N, T]: at random, ``share`` of all tokens, from those whose covariance lies within (lowest, highest).

    Tokens that PPO clips already are left alone (Clip-Cov, arXiv 2505.22617).
    """
    clipped = ppo_clip(logp, old_logprobs, advantage, low=low, high=high) > -ratio(logp, old_logprobs) * over_tokens(
        advantage, logp
    )
    cov = covariance(logp, advantage, mask)
    wanted = (mask > 0) & (cov > lowest) & (cov < highest) & ~clipped
    return ranked_first(jax.random.uniform(key, mask.shape), wanted, quota(mask, share))


def covariance(logp: Array, advantage: Array, mask: Array) -> Array:
    """(A - mean A) (log pi - mean log pi), means over the tokens that count."""
    mask = mask.astype(logp.dtype)
    center = lambda x: x - jnp.sum(where_counted(x, mask)) / jnp.maximum(mask.sum(), 1.0)
    return center(jnp.broadcast_to(over_tokens(advantage, logp), logp.shape)) * center(logp)


def highest(x: Array, mask: Array, share: float) -> Array:
    return ranked_first(-x, mask > 0, quota(mask, share))


def quota(mask: Array, share: float) -> Array:
    count = jnp.sum(mask > 0)
    return jnp.maximum(jnp.floor(count * share + 1e-6).astype(jnp.int32), 1)


def ranked_first(x: Array, wanted: Array, count: Array) -> Array:
    """The ``count`` wanted places of smallest x; of equals, the earlier."""
    place = jnp.argsort(jnp.argsort(jnp.where(wanted, x, jnp.inf).reshape(-1))).reshape(x.shape)
    return wanted & (place < count)


TOKENS = {"all": lambda: None, "top_entropy": top_entropy}
