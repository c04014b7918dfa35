"""KL of the policy from a reference, estimated at each sampled token; x = logp - ref, in nats.

``grad`` says what a loss differentiates: "auto" the estimate as it stands, "k2" the gradient of k2 under the value of
the estimate (on-policy that is the gradient of the reverse KL), "none" nothing.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from rljax.errors import UserError
from rljax.policy_gradient.losses import MAX_LOG_RATIO, ratio, stop_gradient

Array = jax.Array
Gradient = Literal["auto", "k2", "none"]  # what a loss differentiates


def k1(logp: Array, ref_logprobs: Array, grad: str = "auto") -> Array:
    """x: unbiased, can be negative. Differentiated in a loss, its expected on-policy gradient is zero."""
    return with_gradient(logp - ref_logprobs, logp, ref_logprobs, grad)


def k2(logp: Array, ref_logprobs: Array, grad: str = "auto") -> Array:
    """x^2 / 2: in a loss it has the gradient of the reverse KL, on-policy; equal to k1, detached, in the reward."""
    return with_gradient(0.5 * (logp - ref_logprobs) ** 2, logp, ref_logprobs, grad)


def k3(logp: Array, ref_logprobs: Array, grad: str = "auto") -> Array:
    """exp(-x) + x - 1 >= 0 (GRPO): in a loss it has the gradient of the *forward* KL, on-policy. x is within +-20."""
    x = jnp.clip(logp - ref_logprobs, -MAX_LOG_RATIO, MAX_LOG_RATIO)
    return with_gradient(jnp.exp(-x) + x - 1, logp, ref_logprobs, grad)


def absolute(logp: Array, ref_logprobs: Array, grad: str = "auto") -> Array:
    """|x|."""
    return with_gradient(jnp.abs(logp - ref_logprobs), logp, ref_logprobs, grad)


def with_gradient(value: Array, logp: Array, ref_logprobs: Array, grad: str) -> Array:
    """``value``, differentiated as ``grad`` says."""
    if grad == "auto":
        return value
    if grad == "none":
        return stop_gradient(value)
    if grad == "k2":
        straight = 0.5 * (logp - ref_logprobs) ** 2
        return stop_gradient(value) + straight - stop_gradient(straight)
    raise UserError(f"kl: grad={grad!r} is unknown, choose from auto, k2, none")


ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3, "abs": absolute}


def kl_term(
    name: str, logp: Array, old_logprobs: Array, ref_logprobs: Array, grad: str = "auto", unbiased: bool = False
) -> Array:
    """An estimate for the loss. ``unbiased`` multiplies it by pi / pi_old, not detached (arXiv 2512.02556)."""
    value = ESTIMATORS[name](logp, ref_logprobs, grad)
    return value * ratio(logp, old_logprobs) if unbiased else value


def kl_options(
    *, coef: float, where: Literal["loss", "reward"] = "loss", grad: Gradient | None = None, unbiased: bool = False
) -> None:
    """The options of an algorithm's KL term: coef, where = loss | reward, grad = auto | k2 | none, unbiased."""


KL = {"none": lambda: None} | dict.fromkeys(ESTIMATORS, kl_options)
