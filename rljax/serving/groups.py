"""A group of attempts at one question: what they say together, and what an algorithm would push, and how hard."""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax import metrics
from rljax import policy_gradient as pg
from rljax.errors import UserError
from rljax.evaluation import canonicalize_answers
from rljax.json_lines import shorten_float
from rljax.serving.shapes import power_of_two
from rljax.tasks import Attempt

KEPT = 32  # groups that a gradient step may be taken on
OF_OTHER_DATA = ("values", "greedy", "ref_logprobs")  # what an algorithm may look at that a group alone does not have


class Group(NamedTuple):
    """Attempts that have ended, as a gradient step needs them."""

    policy: str  # the name of the one that was asked
    prompt: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]  # ids of each attempt
    finished: tuple[bool, ...]
    logprobs: tuple[tuple[float, ...], ...]  # of the distribution that was sampled from
    correct: tuple[float, ...]  # NaN where there is no verdict
    temperature: float
    max_new_tokens: int


class Groups:
    """The groups that were sampled last, by number."""

    def __init__(self):
        self.kept: OrderedDict[str, Group] = OrderedDict()
        self.lock, self.last = threading.Lock(), 0

    def keep(self, group: Group) -> str:
        """Keep a group; returns its number."""
        with self.lock:
            self.last += 1
            self.kept[str(self.last)] = group
            while len(self.kept) > KEPT:
                self.kept.popitem(last=False)
            return str(self.last)

    def find(self, number: str) -> Group:
        """Raises UserError for a group that is no longer kept."""
        with self.lock:
            if number not in self.kept:
                raise UserError(f"group: {number[:20]!r} is not kept any longer (the last {KEPT} are): ask again")
            return self.kept[number]


def usable_algorithms() -> list[str]:
    """The algorithms that need nothing but a group of attempts."""
    return [name for name, a in pg.ALGORITHMS.items() if not any(map(a.looks_at, OF_OTHER_DATA))]


def find_algorithm(name: str) -> pg.Algorithm:
    """The algorithm of this name. Raises UserError for one that a group is not enough for."""
    if name not in usable_algorithms():
        raise UserError(f"algorithm: {name[:40]!r} is unknown here, choose from {', '.join(usable_algorithms())}")
    return pg.ALGORITHMS[name]


def summarize_group(
    correct: Sequence[float],
    lengths: Sequence[int],
    attempts: Sequence[Attempt],
    same_answer: Callable[[str, str], bool],
) -> dict[str, Any]:
    """pass@1, pass@k and cons@k of a group, and the mean lengths of right and wrong attempts; None for what is not known."""
    reward, count = np.asarray([correct], np.float64), len(correct)
    known = reward[~np.isnan(reward)]
    out: dict[str, Any] = {"attempts": count, "right": int((known > 0).sum()), "unknown": int(count - known.size)}
    mean = lambda chosen: float(np.mean(chosen)) if len(chosen) else None
    out["length/right"] = mean([n for n, c in zip(lengths, correct, strict=True) if c > 0])
    out["length/wrong"] = mean([n for n, c in zip(lengths, correct, strict=True) if c <= 0])
    if not known.size:
        return out
    powers = [1 << i for i in range(count.bit_length())]
    for k in sorted({*powers, count}):
        out[f"pass@{k}"] = none_if_nan(float(metrics.pass_at_k(reward, k)[0]))
    votes, gold = canonicalize_answers([list(attempts)], np.nan_to_num(reward), same_answer)
    out[f"cons@{count}"] = float(metrics.cons_at_k(votes, gold, count)[0])
    return out


def none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def group_advantages(
    algorithm: pg.Algorithm, correct: Sequence[float], responses: Sequence[Sequence[int]]
) -> list[float]:
    """The advantage of each attempt; of one whose tokens differ, their mean. 0 for one without a verdict.

    Raises UserError where the algorithm compares attempts and there is only one.
    """
    count, columns = len(correct), power_of_two(max(map(len, responses), default=1) or 1)
    mask, ids = np.zeros((1, count, columns), bool), np.zeros((1, count, columns), np.int32)
    for n, response in enumerate(responses):
        mask[0, n, : len(response)], ids[0, n, : len(response)] = True, response
    rewards = jnp.asarray([list(correct)], jnp.float32)
    attempts = pg.Attempts(
        rewards=rewards,
        mask=jnp.asarray(mask),
        logprobs=jnp.zeros(mask.shape),
        key=jax.random.key(0),
        distinct=pg.distinct(jnp.asarray(ids), jnp.asarray(mask), ~jnp.isnan(rewards)),
        reward_terms=rewards[..., None],
        penalty=jnp.zeros(mask.shape),
    )
    advantage = np.asarray(pg.compute_advantages(algorithm, attempts)[0])[0]
    if advantage.ndim == 2:
        advantage = np.where(mask[0], advantage, 0).sum(-1) / np.maximum(mask[0].sum(-1), 1)
    return [shorten_float(x) for x in advantage]
