"""KL of the policy from a reference, estimated at each sampled token; x = logp - ref, in nats.

``grad`` says what a loss differentiates: "auto" the estimate as it stands, "k2" the gradient of k2 under the value of
the estimate (on-policy that is the gradient of the reverse KL), "none" nothing.
"""

import jax
import jax.numpy as jnp

from rljax.errors import UserError
from rljax.policy_gradient.losses import MAX_LOG_RATIO, ratio, stop

Array = jax.Array


def k1(logp: Array, ref: Array, grad: str = "auto") -> Array:
    """x: unbiased, can be negative. Differentiated in a loss, its expected on-policy gradient is zero."""
    return with_gradient(logp - ref, logp, ref, grad)


def k2(logp: Array, ref: Array, grad: str = "auto") -> Array:
    """x^2 / 2: in a loss it has the gradient of the reverse KL, on-policy; equal to k1, detached, in the reward."""
    return with_gradient(0.5 * (logp - ref) ** 2, logp, ref, grad)


def k3(logp: Array, ref: Array, grad: str = "auto") -> Array:
    """exp(-x) + x - 1 >= 0 (GRPO): in a loss it has the gradient of the *forward* KL, on-policy. x is within +-20."""
    x = jnp.clip(logp - ref, -MAX_LOG_RATIO, MAX_LOG_RATIO)
    return with_gradient(jnp.exp(-x) + x - 1, logp, ref, grad)


def abs(logp: Array, ref: Array, grad: str = "auto") -> Array:
    """|x|."""
    return with_gradient(jnp.abs(logp - ref), logp, ref, grad)


def with_gradient(value: Array, logp: Array, ref: Array, grad: str) -> Array:
    """``value``, differentiated as ``grad`` says."""
    if grad == "auto":
        return value
    if grad == "none":
        return stop(value)
    if grad == "k2":
        straight = 0.5 * (logp - ref) ** 2
        return stop(value) + straight - stop(straight)
    raise UserError(f"kl: grad={grad!r} is unknown, choose from auto, k2, none")


ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3, "abs": abs}


def term(name: str, logp: Array, old: Array, ref: Array, grad: str = "auto", unbiased: bool = False) -> Array:
    """An estimate for the loss. ``unbiased`` multiplies it by pi / pi_old, not detached (arXiv 2512.02556)."""
    value = ESTIMATORS[name](logp, ref, grad)
    return value * ratio(logp, old) if unbiased else value


def in_loss_or_reward(*, coef: float, where: str = "loss", grad: str | None = None, unbiased: bool = False) -> None:
    """The options of a row's KL term: coef, where = loss | reward, grad = auto | k2 | none, unbiased."""


KL = {"none": lambda: None} | dict.fromkeys(ESTIMATORS, in_loss_or_reward)
