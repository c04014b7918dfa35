"""Dynamic sampling (DAPO, arXiv 2503.14476): sample until every group of the batch is mixed, so that it has an advantage.

A round asks B problems and samples G attempts at each. Mixed groups are kept; the others make room for the next round's.
The cost is logged, because a curve over steps would not show it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax import rewards
from rljax.structs import Experience

Array = jax.Array
SampleRound = Callable[[Array], Experience]  # of the number of the round


class Collected(NamedTuple):
    """What several rounds of sampling brought."""

    experience: Experience  # the batch
    keep: Array | None  # [B] bool, the groups that are mixed; None: nothing was selected
    first: Experience  # the first round as it was, before any selection
    rounds: Array | int  # how many were sampled
    cost: dict[str, Array]  # metrics of what they cost


def one_round(sample_round: SampleRound) -> Collected:
    """A single round, of which all is kept."""
    experience = sample_round(jnp.int32(0))
    return Collected(experience, None, experience, jnp.int32(1), {})


def sample_until_mixed(sample_round: SampleRound, rounds: int, compiled: bool) -> Collected:
    """At most ``rounds`` rounds; groups that are still not mixed then have ``keep`` False.

    ``compiled`` makes the loop a ``lax.while_loop``, for a ``sample_round`` that can be traced.
    """
    zero = {"rounds": jnp.int32(0), "mixed": jnp.int32(0), "tokens": jnp.int32(0)}
    if compiled:
        shapes = jax.eval_shape(sample_round, jnp.int32(0))
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        start = nothing, jnp.zeros(nothing.rewards.correct.shape[0], bool), nothing, zero
        wanted = lambda carry: (carry[3]["rounds"] < rounds) & ~jnp.all(carry[1])
        batch, keep, first, cost = jax.lax.while_loop(wanted, lambda carry: add_round(sample_round, *carry), start)
    else:
        batch = first = sample_round(zero["rounds"])
        keep = rewards.mixed_groups(batch.rewards)
        cost = add_cost(batch, zero)
        while cost["rounds"] < rounds and not keep.all():
            batch, keep, first, cost = add_round(sample_round, batch, keep, first, cost)
    prompts = cost["rounds"] * keep.shape[0]
    metrics = {
        "refill/rounds": cost["rounds"],
        "refill/prompts": prompts,
        "refill/mixed": cost["mixed"] / prompts,
        "refill/filled": keep.mean(),
        "tokens": cost["tokens"],
    }
    return Collected(batch, keep, first, cost["rounds"], metrics)


def add_round(
    sample_round: SampleRound, batch: Experience, keep: Array, first: Experience, cost: dict[str, Array]
) -> tuple[Experience, Array, Experience, dict[str, Array]]:
    """Another round: its mixed groups take the places of groups that are not kept, in order."""
    new = sample_round(cost["rounds"])
    prompts, group = new.rewards.correct.shape
    both = jnp.concatenate([keep, rewards.mixed_groups(new.rewards)])
    chosen = jnp.argsort(~both)[:prompts]  # stable: those kept longest come first

    def select(old: Array, x: Array) -> Array:
        is_rows = x.shape[0] == prompts * group
        by_prompt = lambda y: y.reshape(prompts, group, *y.shape[1:]) if is_rows else y
        return jnp.concatenate([by_prompt(old), by_prompt(x)])[chosen].reshape(x.shape)

    merged = jax.tree.map(select, batch, new)
    start = jax.tree.map(lambda f, x: jnp.where(cost["rounds"] == 0, x, f), first, new)
    return merged, both[chosen], start, add_cost(new, cost)


def add_cost(new: Experience, cost: dict[str, Array]) -> dict[str, Array]:
    """What has been asked and sampled so far."""
    return {
        "rounds": cost["rounds"] + 1,
        "mixed": cost["mixed"] + jnp.sum(rewards.mixed_groups(new.rewards)),
        "tokens": cost["tokens"] + jnp.sum(new.rollout.mask),
    }
