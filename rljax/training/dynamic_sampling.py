"""Dynamic sampling (DAPO, arXiv 2503.14476): ask until every group of the batch has something to compare.

A round asks for B problems and samples G attempts at each; groups that disagree are kept, the others make room for the
next round's. What that costs is logged: on an axis of steps it would not be seen.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rljax import rewards
from rljax.structs import Rollout

Array = jax.Array
Round = tuple[Rollout, Array, Any]  # rollout [N, ...], correctness [B, G], anything else with a leading axis [B]
Attempt = Callable[[Array], Round]  # of the number of the round


def refill(attempt: Attempt, rounds: int, compiled: bool) -> tuple[Round, Array | None, Round, Array, dict[str, Array]]:
    """(the batch, keep [B] bool, the first round as it was, number of rounds, what they cost).

    At most ``rounds`` rounds; groups that are still not mixed then have ``keep`` False. 0 rounds: a single one, of which
    all is kept (``keep`` None). ``compiled`` makes the loop a ``lax.while_loop``, for an ``attempt`` that can be traced.
    """
    if not rounds:
        batch = attempt(jnp.int32(0))
        return batch, None, batch, jnp.int32(1), {}
    zero = {"rounds": jnp.int32(0), "mixed": jnp.int32(0), "tokens": jnp.int32(0)}
    if compiled:
        none = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(attempt, jnp.int32(0)))
        start = none, jnp.zeros(none[1].shape[0], bool), none, zero
        wanted = lambda carry: (carry[3]["rounds"] < rounds) & ~jnp.all(carry[1])
        batch, keep, first, cost = jax.lax.while_loop(wanted, lambda carry: one_round(attempt, *carry), start)
    else:
        batch = first = attempt(zero["rounds"])
        keep = rewards.mixed(batch[1])
        cost = counted(batch, zero)
        while cost["rounds"] < rounds and not keep.all():
            batch, keep, first, cost = one_round(attempt, batch, keep, first, cost)
    prompts = cost["rounds"] * keep.shape[0]
    metrics = {
        "refill/rounds": cost["rounds"],
        "refill/prompts": prompts,
        "refill/mixed": cost["mixed"] / prompts,
        "refill/filled": keep.mean(),
        "tokens": cost["tokens"],
    }
    return batch, keep, first, cost["rounds"], metrics


def one_round(
    attempt: Attempt, batch: Round, keep: Array, first: Round, cost: dict[str, Array]
) -> tuple[Round, Array, Round, dict[str, Array]]:
    """Another round: its mixed groups take the places of groups that are not kept, in order."""
    new = attempt(cost["rounds"])
    prompts, group = new[1].shape
    both = jnp.concatenate([keep, rewards.mixed(new[1])])
    chosen = jnp.argsort(~both)[:prompts]  # stable: those kept longest come first

    def place(old: Array, x: Array) -> Array:
        rows = x.shape[0] == prompts * group
        by_prompt = lambda y: y.reshape(prompts, group, *y.shape[1:]) if rows else y
        return jnp.concatenate([by_prompt(old), by_prompt(x)])[chosen].reshape(x.shape)

    merged = jax.tree.map(place, batch, new)
    start = jax.tree.map(lambda f, x: jnp.where(cost["rounds"] == 0, x, f), first, new)
    return merged, both[chosen], start, counted(new, cost)


def counted(new: Round, cost: dict[str, Array]) -> dict[str, Array]:
    """What has been asked and sampled so far."""
    return {
        "rounds": cost["rounds"] + 1,
        "mixed": cost["mixed"] + jnp.sum(rewards.mixed(new[1])),
        "tokens": cost["tokens"] + jnp.sum(new[0].mask),
    }
