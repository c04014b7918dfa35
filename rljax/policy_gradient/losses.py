"""Surrogates: the loss of each token, [B, G, T] or [N, T], to be minimised; ``aggregation`` sums it up.

``logp`` carries the gradient; ``old`` are the log-probabilities before the first update on this rollout. rho = pi /
pi_old = exp(logp - old), its logarithm held within +-20. An advantage of one dimension less is that of all tokens. A loss
of a whole sequence stands on each of its tokens, so that ``seq_mean_token_mean`` is the mean over sequences.

What does not count is never multiplied by 0, for NaN times 0 is NaN: ``jnp.where`` takes 0 in its place. A surrogate by token
knows no mask; ``objective.token_loss`` gives it 0 where nothing counts, so that its gradient is finite too.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from rljax.errors import UserError

Array = jax.Array
stop_gradient = jax.lax.stop_gradient
MAX_LOG_RATIO = 20.0  # exp of more overflows nothing yet, and says nothing more


def ratio(logp: Array, old_logprobs: Array) -> Array:
    """pi / pi_old of each token, its logarithm held within +-20."""
    return jnp.exp(jnp.clip(logp - old_logprobs, -MAX_LOG_RATIO, MAX_LOG_RATIO))


def over_tokens(advantage: Array, like: Array) -> Array:
    """An advantage by attempt -> by token."""
    return advantage if advantage.ndim == like.ndim else advantage[..., None]


def where_counted(x: Any, mask: Array) -> Any:
    """x where the mask is not 0, else 0; None stays None."""
    return None if x is None else jnp.where(mask > 0, x, jnp.zeros_like(x))


def mean_by_sequence(x: Array, mask: Array) -> Array:
    """[..., 1]: mean over the tokens that count; 0 for an empty row."""
    return jnp.sum(where_counted(x, mask), -1, keepdims=True) / jnp.maximum(mask.sum(-1, keepdims=True), 1.0)


# ---------------------------------------------------------------------------------------------------------------------
# Without a ratio.


def reinforce(logp: Array, advantage: Array) -> Array:
    """-A log pi."""
    return -over_tokens(advantage, logp) * logp


def imitation(logp: Array, advantage: Array) -> Array:
    """-w log pi, w >= 0. What sets it apart from ``reinforce``: attempts of weight 0 do not count in the mean either."""
    return reinforce(logp, advantage)


# ---------------------------------------------------------------------------------------------------------------------
# Ratios by token.


def ppo_clip(
    logp: Array,
    old_logprobs: Array,
    advantage: Array,
    *,
    low: float = 0.2,
    high: float = 0.2,
    dual_clip: float | None = None,
    delta: float | None = None,
) -> Array:
    """-min(rho A, clip(rho, 1 - low, 1 + high) A) (arXiv 1707.06347, eq. 7).

    ``dual_clip`` c bounds the loss by -c A where A < 0 (arXiv 1912.09729; always on, at 3, in verl). ``delta`` caps the
    ratio of the unclipped branch (INTELLECT-2, arXiv 2505.07291).
    """
    a, rho = over_tokens(advantage, logp), ratio(logp, old_logprobs)
    free = rho if delta is None else jnp.minimum(rho, delta)
    loss = -jnp.minimum(free * a, jnp.clip(rho, 1 - low, 1 + high) * a)
    return loss if dual_clip is None else jnp.where(a < 0, jnp.minimum(loss, -dual_clip * a), loss)


def decoupled_ppo(
    logp: Array,
    old_logprobs: Array,
    advantage: Array,
    behaviour_logprobs: Array,
    *,
    low: float = 0.2,
    high: float = 0.2,
) -> Array:
    """PPO around a proximal policy ``old`` on samples of another, ``sampler``: pi_old / mu times ``ppo_clip``.

    arXiv 2110.00641; AReaL, arXiv 2505.24298.
    """
    return stop_gradient(ratio(old_logprobs, behaviour_logprobs)) * ppo_clip(
        logp, old_logprobs, advantage, low=low, high=high
    )


def cispo(logp: Array, old_logprobs: Array, advantage: Array, *, w_min: float = 0.0, w_max: float = 5.0) -> Array:
    """-clip(rho, w_min, w_max) A log pi, the weight detached: every token keeps a gradient (arXiv 2506.13585).

    The bounds are those of the weight itself, as in TRL; verl's are 1 - low and 1 + high.
    """
    return -stop_gradient(jnp.clip(ratio(logp, old_logprobs), w_min, w_max)) * over_tokens(advantage, logp) * logp


def sapo(logp: Array, old_logprobs: Array, advantage: Array, *, tau_pos: float = 1.0, tau_neg: float = 1.05) -> Array:
    """-A sigmoid(tau (rho - 1)) 4 / tau: a soft gate in the place of the clip (arXiv 2511.20347)."""
    a = over_tokens(advantage, logp)
    tau = jnp.where(a > 0, tau_pos, tau_neg)
    return -a * jax.nn.sigmoid(tau * (ratio(logp, old_logprobs) - 1)) * 4 / tau


def dro(logp: Array, old_logprobs: Array, advantage: Array, *, beta: float) -> Array:
    """-(A log pi - beta / 2 (log pi - log pi_old)^2) (arXiv 2405.19107). ``beta`` has no default."""
    return -(over_tokens(advantage, logp) * logp - beta / 2 * (logp - old_logprobs) ** 2)


def dppo(
    logp: Array,
    old_logprobs: Array,
    advantage: Array,
    *,
    low: float = 0.15,
    high: float = 0.15,
    by: Literal["tv", "kl"] = "tv",
    cap: float = 20.0,
) -> Array:
    """-A min(rho, cap) log pi, the weight detached, for tokens that stay near pi_old (DPPO, arXiv 2602.04879).

    ``by`` "tv": pushed up while pi - pi_old <= high, pushed down while pi_old - pi <= low. ``by`` "kl": the same bounds
    on the KL between (this token, any other) under pi_old and under pi.
    """
    a, p, q = over_tokens(advantage, logp), jnp.exp(stop_gradient(logp)), jnp.exp(old_logprobs)
    if by not in ("tv", "kl"):
        raise UserError(f"surrogate dppo: by={by!r} is unknown, choose from tv, kl")
    if by == "tv":
        distance = jnp.abs(p - q)
    else:
        rest = lambda x: jnp.log(jnp.maximum(1 - x, 1e-8))
        distance = q * (old_logprobs - stop_gradient(logp)) + (1 - q) * (rest(q) - rest(p))
    near = jnp.where(a > 0, (distance <= high) | (p <= q), (distance <= low) | (p >= q))
    return jnp.where(near, -a * stop_gradient(jnp.minimum(ratio(logp, old_logprobs), cap)) * logp, 0.0)


def clip_cov(
    logp: Array, old_logprobs: Array, advantage: Array, chosen: Array, *, share: float = 2e-4, lowest: float = 1.0,
    highest: float = 5.0, low: float = 0.2, high: float = 0.2,
) -> Array:  # fmt: skip
    """``ppo_clip`` without the ``chosen`` tokens: a random ``share`` of those whose covariance with the advantage lies
    within (lowest, highest) and drives entropy down (arXiv 2505.22617). ``tokens.clip_cov_tokens`` chooses.
    """
    return jnp.where(chosen, 0.0, ppo_clip(logp, old_logprobs, advantage, low=low, high=high))


def kl_cov(
    logp: Array, old_logprobs: Array, advantage: Array, chosen: Array, *, share: float = 2e-4, coef: float = 0.1
) -> Array:  # fmt: skip
    """-rho A, plus coef |log rho| on the ``chosen`` tokens, the ``share`` of highest covariance (arXiv 2505.22617).

    There is no clip, as in verl. ``tokens.kl_cov_tokens`` chooses.
    """
    loss = -ratio(logp, old_logprobs) * over_tokens(advantage, logp)
    return loss + jnp.where(chosen, coef * jnp.abs(logp - old_logprobs), 0.0)


# ---------------------------------------------------------------------------------------------------------------------
# Ratios by sequence. The advantage is the attempt's.


def gspo(
    logp: Array, old_logprobs: Array, advantage: Array, mask: Array, *, low: float = 3e-4, high: float = 4e-4
) -> Array:
    """PPO's clip on s = exp(mean over tokens of log rho), the same on every token (GSPO, arXiv 2507.18071, eq. 5)."""
    s = sequence_ratio(logp, old_logprobs, mask)
    a = over_tokens(advantage, logp)
    return jnp.broadcast_to(-jnp.minimum(s * a, jnp.clip(s, 1 - low, 1 + high) * a), logp.shape)


def gspo_token(
    logp: Array, old_logprobs: Array, advantage: Array, mask: Array, *, low: float = 3e-4, high: float = 4e-4
) -> Array:
    """GSPO whose advantage may differ by token: s detached, times pi / (pi detached) (arXiv 2507.18071, eq. 13)."""
    s, a = (
        stop_gradient(sequence_ratio(logp, old_logprobs, mask)) * jnp.exp(logp - stop_gradient(logp)),
        over_tokens(advantage, logp),
    )
    return -jnp.minimum(s * a, jnp.clip(s, 1 - low, 1 + high) * a)


def luspo(
    logp: Array, old_logprobs: Array, advantage: Array, mask: Array, *, low: float = 0.2, high: float = 0.2
) -> Array:
    """GSPO times the length of the response: its mean over sequences favours no length (arXiv 2602.05261)."""
    return gspo(logp, old_logprobs, advantage, mask, low=low, high=high) * mask.sum(-1, keepdims=True)


def gmpo(
    logp: Array, old_logprobs: Array, advantage: Array, mask: Array, *, low: float = 0.4, high: float = 0.4
) -> Array:
    """-A times the geometric mean of the tokens' ratios, each clipped in log space (arXiv 2507.20673)."""
    a, d = over_tokens(advantage, logp), logp - old_logprobs
    sign = jnp.sign(a)
    clipped = sign * jnp.minimum(sign * d, sign * jnp.clip(d, -low, high))
    log_ratio = jnp.clip(mean_by_sequence(clipped, mask), -MAX_LOG_RATIO, MAX_LOG_RATIO)
    return jnp.broadcast_to(-a * jnp.exp(log_ratio), logp.shape)


def vespo(
    logp: Array, old_logprobs: Array, advantage: Array, mask: Array, behaviour_logprobs: Array | None = None, *, k_pos: float = 2.0,
    lam_pos: float = 3.0, k_neg: float = 3.0, lam_neg: float = 2.0, from_sampler: bool = False,
) -> Array:  # fmt: skip
    """-phi(W) A log pi, phi detached, W = prod of rho over the sequence, phi = W^k exp(lam (1 - W)) (arXiv 2602.10693).

    ``from_sampler`` measures W from the sampler's log-probabilities: the correction of its mismatch is part of W.
    """
    a, start = (
        over_tokens(advantage, logp),
        behaviour_logprobs if from_sampler and behaviour_logprobs is not None else old_logprobs,
    )
    log_w = jnp.clip(jnp.sum(where_counted(logp - start, mask), -1, keepdims=True), -MAX_LOG_RATIO, MAX_LOG_RATIO)
    k, lam = jnp.where(a >= 0, k_pos, k_neg), jnp.where(a >= 0, lam_pos, lam_neg)
    return -stop_gradient(jnp.exp(lam + k * log_w - lam * jnp.exp(log_w))) * a * logp


def sequence_ratio(logp: Array, old_logprobs: Array, mask: Array) -> Array:
    """[..., 1]: geometric mean over the tokens of pi / pi_old, its logarithm held within +-20."""
    return jnp.exp(jnp.clip(mean_by_sequence(logp - old_logprobs, mask), -MAX_LOG_RATIO, MAX_LOG_RATIO))


# ---------------------------------------------------------------------------------------------------------------------
# The critic's loss.


def value_clipped(values: Array, old_values: Array, returns: Array, *, clip: float | None = 0.2) -> Array:
    """1/2 max((v - R)^2, (v_old + clip(v - v_old, +-clip) - R)^2) of each token; ``clip`` None leaves the first.

    0.2 is common; verl's default is 0.5.
    """
    loss = (values - returns) ** 2
    if clip is not None:
        loss = jnp.maximum(loss, (old_values + jnp.clip(values - old_values, -clip, clip) - returns) ** 2)
    return 0.5 * loss


SURROGATE = {
    "reinforce": reinforce,
    "imitation": imitation,
    "ppo_clip": ppo_clip,
    "decoupled_ppo": decoupled_ppo,
    "cispo": cispo,
    "sapo": sapo,
    "dro": dro,
    "dppo": dppo,
    "clip_cov": clip_cov,
    "kl_cov": kl_cov,
    "gspo": gspo,
    "gspo_token": gspo_token,
    "luspo": luspo,
    "gmpo": gmpo,
    "vespo": vespo,
}
