"""When the policy that sampled is not quite the policy that learns: importance weights, and leaving stale attempts out."""

import jax
import jax.numpy as jnp

from rljax.errors import UserError
from rljax.policy_gradient.losses import MAX_LOG_RATIO, mean_by_sequence, over_tokens, stop_gradient, where_counted

Array = jax.Array


def is_weights(
    old_logprobs: Array,
    behaviour_logprobs: Array,
    mask: Array,
    level: str = "token",
    mode: str = "truncate",
    lo: float | None = None,
    hi: float | None = None,
    normalize: bool = False,
) -> Array:
    """Weights pi_old / mu of tokens that another program or an older policy sampled, detached; 0 where mask is 0.

    old, sampler, mask [..., T]: log-probabilities by the trainer and by the sampler. ``level`` "token"; "sequence", the
    product over the response; "geometric", its |o|-th root (for long responses, where a product is always extreme). ``mode``
    "truncate" brings weights into [lo, hi], "mask" sets those outside to 0 (IcePop). ``normalize`` divides by the mean over
    the batch's tokens (rows, for the other levels).
    """
    mask = mask.astype(old_logprobs.dtype)
    log_w = where_counted(old_logprobs - behaviour_logprobs, mask)
    if level == "sequence":
        log_w = log_w.sum(-1, keepdims=True)
    elif level == "geometric":
        log_w = mean_by_sequence(log_w, mask)
    elif level != "token":
        raise UserError(f"importance weights: level={level!r} is unknown, choose from token, sequence, geometric")
    w = jnp.exp(jnp.clip(log_w, -MAX_LOG_RATIO, MAX_LOG_RATIO))
    low, high = (0.0 if lo is None else lo), (jnp.inf if hi is None else hi)
    if mode == "truncate":
        w = jnp.clip(w, low, high)
    elif mode == "mask":
        w = jnp.where((w >= low) & (w <= high), w, 0.0)
    else:
        raise UserError(f"importance weights: mode={mode!r} is unknown, choose from truncate, mask")
    if normalize:
        live = mask if level == "token" else jnp.any(mask > 0, -1, keepdims=True).astype(w.dtype)
        mean = jnp.sum(w * live) / jnp.maximum(live.sum(), 1.0)
        w = w / jnp.where(mean > 0, mean, 1.0)
    return stop_gradient(w * mask)


def near_policy(logp: Array, behaviour_logprobs: Array, advantage: Array, mask: Array, delta: float) -> Array:
    """[..., 1] 0 or 1: 0 for a response with A < 0 that the sampler thought likelier by more than ``delta`` nats a token.

    DeepSeek-V3.2, arXiv 2512.02556, eq. 9: nothing is to be learned from the mistakes of another policy.
    """
    gap = mean_by_sequence(behaviour_logprobs - stop_gradient(logp), mask)
    return 1.0 - ((mean_by_sequence(over_tokens(advantage, logp), mask) < 0) & (gap > delta))


def correct(level: str, mode: str, high: float):
    """An entry of the table: ``is_weights`` at this level and mode, its bounds as options."""

    def weigh(
        old_logprobs: Array,
        behaviour_logprobs: Array,
        mask: Array,
        *,
        lo: float | None = None,
        hi: float = high,
        normalize: bool = False,
    ) -> Array:
        return is_weights(old_logprobs, behaviour_logprobs, mask, level, mode, lo, hi, normalize)

    return weigh


CORRECTION = {
    "none": lambda: None,
    "token_truncate": correct("token", "truncate", 2.0),
    "token_mask": correct("token", "mask", 2.0),
    "sequence_truncate": correct("sequence", "truncate", 2.0),
    "sequence_mask": correct("sequence", "mask", 3.0),
    "geometric_truncate": correct("geometric", "truncate", 1.05),
    "geometric_mask": correct("geometric", "mask", 1.05),
}
