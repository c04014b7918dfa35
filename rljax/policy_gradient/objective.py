"""What a row does: compare attempts, weigh tokens, and turn log-probabilities into the loss of each token."""

import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax.errors import UserError
from rljax.policy_gradient import choices, kl, tokens
from rljax.policy_gradient.aggregation import weights
from rljax.policy_gradient.algorithms import ADVANTAGE, NEEDS_GROUP, Algorithm
from rljax.policy_gradient.choices import Choice
from rljax.policy_gradient.corrections import CORRECTION, near_policy
from rljax.policy_gradient.losses import SURROGATE, over_tokens, stop

Array = jax.Array


class Attempts(NamedTuple):
    """What attempts may be compared by. B prompts, G attempts at each, T tokens, R rewards; None where no row asks."""

    rewards: Array  # [B, G], of all kinds together
    mask: Array  # [B, G, T], tokens that count
    logprobs: Array | None = None  # [B, G, T], nats, of the sampler
    key: Array | None = None
    distinct: Array | None = None  # [B, G] bool, no attempt before it is the same
    parts: Array | None = None  # [B, G, R], rewards by kind
    greedy: Array | None = None  # [B], reward of the greedy response
    values: Array | None = None  # [B, G, T], of the critic
    penalty: Array | None = None  # [B, G, T], coefficient times KL, where it stands in the reward


def compare(row: Algorithm, attempts: Attempts) -> tuple[Array, Array | None]:
    """(advantage [B, G] or [B, G, T], returns [B, G, T] for the critic or None); no gradient flows through them.

    A KL penalty goes into the return token by token where the advantage looks at tokens, else its sum over the response
    is taken from the reward (as in TRL's RLOO).
    """
    if row.name("advantage") in NEEDS_GROUP and attempts.rewards.shape[-1] < 2:
        raise UserError(
            f"advantage {row.name('advantage')!r} compares attempts at one prompt, but group_size is 1: raise rl.group_size"
        )
    if attempts.penalty is not None and not row.looks_at("penalty"):
        attempts = attempts._replace(rewards=attempts.rewards - jnp.sum(attempts.penalty * attempts.mask, -1))
    out = choices.call(row.choice("advantage"), ADVANTAGE, attempts._asdict())
    advantage, target = out if isinstance(out, tuple) else (out, None)
    if row.sign != "both":
        advantage = advantage * ((advantage > 0) if row.sign == "positive" else (advantage < 0))
    return stop(advantage), stop(target)


def token_weights(row: Algorithm, mask: Array, *, group_size: int, const: float) -> Array:
    """The weight of every token of an optimiser batch [N, T] in the loss."""
    empty = row.option("aggregation", "empty_rows")
    return weights(mask, row.name("aggregation"), group_size=group_size, const=const, empty_rows=empty)


def token_loss(
    row: Algorithm,
    logp: Array,
    old: Array,
    advantage: Array,
    mask: Array,
    *,
    sampler: Array | None = None,
    ref: Array | None = None,
    chosen: Array | None = None,
    correction: Array | None = None,
) -> Array:
    """Loss of each token [N, T] before weighting. ``advantage`` [N] or [N, T]; all else [N, T].

    The surrogate; 0 where ``tokens`` or ``off_policy_mask`` leave a token out; times ``correction``; plus the KL term.
    ``chosen`` are the tokens that ``choose_tokens`` found in the whole batch.
    """
    mask = mask.astype(logp.dtype)
    data = dict(logp=logp, old=old, advantage=advantage, mask=mask, sampler=sampler, chosen=chosen)
    loss = choices.call(row.choice("surrogate"), SURROGATE, data)
    if row.name("tokens") != "all":
        loss = loss * chosen
    if row.off_policy_mask is not None and sampler is not None:
        loss = loss * near_policy(logp, sampler, advantage, mask, row.off_policy_mask)
    if correction is not None:
        loss = loss * correction
    if row.kl_in == "loss" and ref is not None:
        grad, unbiased = row.option("kl", "grad") or "auto", row.option("kl", "unbiased")
        loss = loss + row.option("kl", "coef") * kl.term(row.name("kl"), logp, old, ref, grad, unbiased)
    return loss


def clipped(
    row: Algorithm,
    logp: Array,
    old: Array,
    advantage: Array,
    mask: Array,
    *,
    sampler: Array | None = None,
    chosen: Array | None = None,
) -> Array:
    """Bool [N, T]: the tokens that the surrogate gives no gradient although their advantage is not 0."""
    data = dict(old=old, advantage=advantage, mask=mask.astype(logp.dtype), sampler=sampler, chosen=chosen)
    loss = lambda x: choices.call(row.choice("surrogate"), SURROGATE, data | {"logp": x})
    slope = jax.grad(lambda x: jnp.sum(loss(x)))(stop(logp))
    return (slope == 0) & (over_tokens(advantage, logp) != 0)


def correction_weights(row: Algorithm, old: Array, sampler: Array, mask: Array) -> Array:
    """[N, T]: what the row multiplies the token losses by where sampler and trainer differ."""
    return choices.call(row.choice("correction"), CORRECTION, dict(old=old, sampler=sampler, mask=mask))


def choose_tokens(
    row: Algorithm, logp: Array, entropy: Array, old: Array, advantage: Array, mask: Array, key: Array
) -> Array | None:
    """Bool [N, T]: the tokens that the row treats apart, from the whole optimiser batch; None where it ranks none."""
    data = dict(logp=logp, entropy=entropy, old=old, advantage=advantage, mask=mask, key=key)
    if row.name("tokens") != "all":
        return choices.call(row.choice("tokens"), tokens.TOKENS, data)
    chooser = {"clip_cov": tokens.clip_cov_tokens, "kl_cov": tokens.kl_cov_tokens}.get(row.name("surrogate"))
    if chooser is None:
        return None
    known = inspect.signature(chooser).parameters
    options = {k: v for k, v in row.choice("surrogate").options.items() if k in known}
    return choices.call(Choice("it", options), {"it": chooser}, data)
