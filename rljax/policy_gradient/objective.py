"""What an algorithm computes: the advantage of each attempt, the weight of each token, and the loss of each token."""

import inspect
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax.errors import UserError
from rljax.policy_gradient import choices, kl, tokens
from rljax.policy_gradient.aggregation import weights
from rljax.policy_gradient.algorithms import ADVANTAGE, NEEDS_GROUP, TABLES, Algorithm
from rljax.policy_gradient.choices import Choice
from rljax.policy_gradient.corrections import CORRECTION, near_policy
from rljax.policy_gradient.groups import is_scored
from rljax.policy_gradient.losses import SURROGATE, over_tokens, stop_gradient, where_counted

Array = jax.Array


class Attempts(NamedTuple):
    """What an advantage may be computed from: its functions name the fields they read as parameters.

    B prompts, G attempts at each, T tokens, R reward terms. A field is None where the algorithm does not ask for it.
    """

    rewards: Array  # [B, G], the sum of all reward terms
    mask: Array  # [B, G, T], the loss mask
    logprobs: Array | None = None  # [B, G, T], nats, of the behaviour policy
    key: Array | None = None
    distinct: Array | None = None  # [B, G] bool, no attempt before it is the same
    reward_terms: Array | None = None  # [B, G, R], each reward term
    greedy: Array | None = None  # [B], reward of the greedy response
    values: Array | None = None  # [B, G, T], of the critic
    penalty: Array | None = None  # [B, G, T], coefficient times KL, where it stands in the reward
    ref_logprobs: Array | None = None  # [B, G, T], nats, of the reference (the teacher, where there is one)


LOSS_INPUTS = ("logp", "old_logprobs", "advantage", "mask", "behaviour_logprobs", "chosen")
CHOOSER_INPUTS = ("logp", "entropy", "old_logprobs", "advantage", "mask", "key")


def check_inputs(algorithm: Algorithm) -> None:
    """Raise UserError where a chosen function reads data that its kind of function is not given."""
    given = {"advantage": Attempts._fields, "surrogate": LOSS_INPUTS, "tokens": CHOOSER_INPUTS}
    for field, names in given.items():
        name = algorithm.name(field)
        for wanted in choices.inputs(TABLES[field][name]):
            if wanted not in names:
                raise UserError(
                    f"{field} {name!r} reads {wanted!r}, which does not exist: its positional parameters may be "
                    f"{', '.join(names)}; an option is a keyword-only parameter (behind *)"
                )


def compute_advantages(algorithm: Algorithm, attempts: Attempts) -> tuple[Array, Array | None]:
    """(advantage [B, G] or [B, G, T], returns [B, G, T] for the critic or None); no gradient flows through them.

    An attempt whose reward is NaN could not be scored: its advantage is 0, and no other advantage depends on it.

    A KL penalty goes into the return token by token where the advantage looks at tokens, else its sum over the response
    is taken from the reward (as in TRL's RLOO).
    """
    if algorithm.name("advantage") in NEEDS_GROUP and attempts.rewards.shape[-1] < 2:
        raise UserError(
            f"advantage {algorithm.name('advantage')!r} compares attempts at one prompt, but group_size is 1: raise rl.group_size"
        )
    if attempts.penalty is not None and not algorithm.looks_at("penalty"):
        penalty = where_counted(attempts.penalty, attempts.mask)
        attempts = attempts._replace(rewards=attempts.rewards - jnp.sum(penalty, -1))
    out = choices.call(algorithm.choice("advantage"), ADVANTAGE, attempts._asdict())
    advantage, target = out if isinstance(out, tuple) else (out, None)
    check_shape(algorithm, "advantage", advantage, [attempts.rewards.shape, attempts.mask.shape])
    advantage = jnp.where(over_tokens(is_scored(attempts.rewards), advantage), advantage, 0.0)
    if algorithm.sign != "both":
        advantage = advantage * ((advantage > 0) if algorithm.sign == "positive" else (advantage < 0))
    return stop_gradient(advantage), stop_gradient(target)


def check_shape(algorithm: Algorithm, field: str, result: Array, shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise UserError where the function chosen for a field returned an array of another shape than these."""
    if jnp.shape(result) not in shapes:
        raise UserError(
            f"{field} {algorithm.name(field)!r} returned an array of shape {jnp.shape(result)}, "
            f"but must return {' or '.join(map(str, shapes))}"
        )


def token_weights(algorithm: Algorithm, mask: Array, *, group_size: int, const: float) -> Array:
    """The weight of every token of an optimizer batch [N, T] in the loss."""
    empty = algorithm.option("aggregation", "empty_rows")
    return weights(mask, algorithm.name("aggregation"), group_size=group_size, const=const, empty_rows=empty)


def token_loss(
    algorithm: Algorithm,
    logp: Array,
    old_logprobs: Array,
    advantage: Array,
    mask: Array,
    *,
    behaviour_logprobs: Array | None = None,
    ref_logprobs: Array | None = None,
    chosen: Array | None = None,
    correction: Array | None = None,
) -> Array:
    """Loss of each token [N, T] before weighting. ``advantage`` [N] or [N, T]; all else [N, T].

    The surrogate; 0 where ``tokens`` or ``off_policy_mask`` leave a token out; times ``correction``; plus the KL term.
    0, with a gradient of 0, where the mask is 0, whatever the inputs are there.
    ``chosen`` are the tokens that ``choose_tokens`` found in the whole batch.
    """
    mask = mask.astype(logp.dtype)
    counted = lambda x: where_counted(x, mask)
    logp, old_logprobs = counted(logp), counted(old_logprobs)
    behaviour_logprobs, ref_logprobs = counted(behaviour_logprobs), counted(ref_logprobs)
    data = dict(
        logp=logp,
        old_logprobs=old_logprobs,
        advantage=advantage,
        mask=mask,
        behaviour_logprobs=behaviour_logprobs,
        chosen=chosen,
    )
    loss = choices.call(algorithm.choice("surrogate"), SURROGATE, data)
    check_shape(algorithm, "surrogate", loss, [logp.shape])
    if algorithm.name("tokens") != "all":
        assert chosen is not None, "an algorithm that chooses tokens needs those of choose_tokens"
        loss = jnp.where(chosen, loss, 0.0)
    if algorithm.off_policy_mask is not None and behaviour_logprobs is not None:
        near = near_policy(logp, behaviour_logprobs, advantage, mask, algorithm.off_policy_mask)
        loss = jnp.where(near > 0, loss, 0.0)
    if correction is not None:
        loss = loss * counted(correction)
    if algorithm.kl_in == "loss" and ref_logprobs is not None:
        grad, unbiased = algorithm.option("kl", "grad") or "auto", algorithm.option("kl", "unbiased")
        loss = loss + algorithm.option("kl", "coef") * kl.kl_term(
            algorithm.name("kl"), logp, old_logprobs, ref_logprobs, grad, unbiased
        )
    return counted(loss)


def clipped(
    algorithm: Algorithm,
    logp: Array,
    old_logprobs: Array,
    advantage: Array,
    mask: Array,
    *,
    behaviour_logprobs: Array | None = None,
    chosen: Array | None = None,
) -> Array:
    """Bool [N, T]: the tokens that the surrogate gives no gradient although their advantage is not 0."""
    counted = lambda x: where_counted(x, mask)
    logp = counted(logp)
    data = dict(
        old_logprobs=counted(old_logprobs),
        advantage=advantage,
        mask=mask.astype(logp.dtype),
        behaviour_logprobs=counted(behaviour_logprobs),
        chosen=chosen,
    )
    loss = lambda x: choices.call(algorithm.choice("surrogate"), SURROGATE, data | {"logp": x})
    slope = jax.grad(lambda x: jnp.sum(loss(x)))(stop_gradient(logp))
    return (slope == 0) & (over_tokens(advantage, logp) != 0)


def correction_weights(algorithm: Algorithm, old_logprobs: Array, behaviour_logprobs: Array, mask: Array) -> Array:
    """[N, T]: what the algorithm multiplies the token losses by where sampler and trainer differ."""
    return choices.call(
        algorithm.choice("correction"),
        CORRECTION,
        dict(old_logprobs=old_logprobs, behaviour_logprobs=behaviour_logprobs, mask=mask),
    )


def choose_tokens(
    algorithm: Algorithm, logp: Array, entropy: Array, old_logprobs: Array, advantage: Array, mask: Array, key: Array
) -> Array | None:
    """Bool [N, T]: the tokens that the algorithm treats apart, from the whole optimizer batch; None where it ranks none."""
    data = dict(logp=logp, entropy=entropy, old_logprobs=old_logprobs, advantage=advantage, mask=mask, key=key)
    if algorithm.name("tokens") != "all":
        return choices.call(algorithm.choice("tokens"), tokens.TOKENS, data)
    chooser = {"clip_cov": tokens.clip_cov_tokens, "kl_cov": tokens.kl_cov_tokens}.get(algorithm.name("surrogate"))
    if chooser is None:
        return None
    known = inspect.signature(chooser).parameters
    options = {k: v for k, v in algorithm.choice("surrogate").options.items() if k in known}
    return choices.call(Choice("it", options), {"it": chooser}, data)


compare = compute_advantages  # the name that checks outside this repository call
