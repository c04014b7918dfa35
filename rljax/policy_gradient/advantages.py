"""Advantages: how much better an attempt was than expected. Rewards [B, G] -> [B, G], one number for all its tokens.

G attempts at each of B prompts; ``mask`` [B, G, T] marks the tokens that count. Statistics are over the whole batch they
are given: compare before splitting into micro-batches or over devices. A NaN reward means that an attempt could not be
scored: it stays out of the statistics of its group and of the batch, and has advantage 0. Advantages by token are made in
``returns.py``, and attempts to imitate are chosen in ``selection.py``.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from rljax.errors import UserError
from rljax.policy_gradient.groups import (
    agree,
    center,
    count_scored,
    deviation,
    divide_nonzero,
    is_scored,
    mean_reward,
    whole,
    zscore,
)

Array = jax.Array


# ---------------------------------------------------------------------------------------------------------------------
# Against the other attempts at the same prompt.


def mean_center(rewards: Array) -> Array:
    """r - mean of the group (Dr. GRPO, arXiv 2503.20783). Exactly 0 where a group agrees."""
    return center(rewards)


def grpo(rewards: Array, *, eps: float = 1e-4, ddof: int = 1) -> Array:
    """(r - mean) / (std + eps) within the group (arXiv 2402.03300, eq. 3). Exactly 0 where a group agrees.

    ``ddof`` 1 is the sample deviation (TRL with eps 1e-4, verl and tunix with 1e-6), 0 the population's (lmpo); at G = 4
    they differ by 15 %.
    """
    return divide_nonzero(center(rewards), deviation(rewards, ddof=ddof) + eps)


def batch_std(rewards: Array, *, eps: float = 1e-4, ddof: int = 1) -> Array:
    """(r - mean of the group) / (std of the *batch* + eps) (Lite PPO, arXiv 2508.08221)."""
    return divide_nonzero(center(rewards), deviation(rewards, whole(rewards), ddof) + eps)


def rloo(rewards: Array, *, normalize: bool = False, eps: float = 1e-4, ddof: int = 1) -> Array:
    """r - mean of the *other* attempts (leave-one-out, arXiv 2402.14740): G / (G - 1) times ``mean_center``.

    ``normalize`` then takes the z-score over the batch, as TRL's ``normalize_advantages``.
    """
    scored = count_scored(rewards)
    advantage = center(rewards) * (scored / jnp.maximum(scored - 1, 1))
    return zscore(jnp.where(is_scored(rewards), advantage, jnp.nan), eps, ddof) if normalize else advantage


def opo(rewards: Array, mask: Array) -> Array:
    """r - sum(length r) / sum(length): the baseline of least variance, by length (OPO, arXiv 2505.23585)."""
    length = jnp.where(jnp.isnan(rewards), 0.0, mask.sum(-1).astype(rewards.dtype))
    known = jnp.nan_to_num(rewards)
    baseline = jnp.sum(length * known, -1, keepdims=True) / jnp.maximum(length.sum(-1, keepdims=True), 1.0)
    return jnp.where(agree(rewards) | jnp.isnan(rewards), 0.0, rewards - baseline)


def gpg(rewards: Array, *, f_norm: float = 1.0) -> Array:
    """(r - mean of the group) N / (number of rewards that are not 0) / f_norm (GPG, arXiv 2504.02546).

    N is the number of attempts in the batch that could be scored.
    """
    scale = jnp.sum(is_scored(rewards)) / jnp.maximum(jnp.sum(jnp.nan_to_num(rewards) != 0), 1)
    return center(rewards) * (scale / f_norm)


def gdpo(reward_terms: Array, *, weights: tuple[float, ...] = (), eps: float = 1e-4, ddof: int = 1) -> Array:
    """Several rewards [B, G, R]: z-score of each in its group, weighted sum, z-score over the batch (arXiv 2601.05242).

    ``weights`` are those of the R rewards, all 1 unless given. As in TRL; verl whitens by token instead.
    An attempt with a NaN among its R rewards counts as one that could not be scored.
    """
    scored = is_scored(jnp.sum(reward_terms, -1))
    reward_terms = jnp.where(scored[..., None], reward_terms, jnp.nan)
    each = grpo(jnp.moveaxis(reward_terms, -1, 0), eps=eps, ddof=ddof)  # [R, B, G]
    if weights and len(weights) != each.shape[0]:
        raise UserError(f"advantage gdpo: {len(weights)} weights for {each.shape[0]} rewards")
    scale = jnp.asarray(weights or (1.0,) * each.shape[0], each.dtype)
    return zscore(jnp.where(scored, jnp.tensordot(scale, each, 1), jnp.nan), eps, ddof)


# ---------------------------------------------------------------------------------------------------------------------
# Against something else.


def raw(rewards: Array) -> Array:
    """The reward itself: no baseline. With ``imitation``: reward-weighted imitation."""
    return jnp.where(jnp.isnan(rewards), 0.0, rewards)


def whiten_seq(rewards: Array, *, eps: float = 1e-8, ddof: int = 1) -> Array:
    """z-score over all rewards of the batch, each attempt counted once whatever its length."""
    return zscore(rewards, eps, ddof)


def remax(rewards: Array, greedy: Array) -> Array:
    """r - reward of the greedy response to the same prompt, ``greedy`` [B] (ReMax, arXiv 2310.10505)."""
    return raw(rewards - greedy[..., None])


# ---------------------------------------------------------------------------------------------------------------------
# For the chance that at least one of k attempts succeeds, or for its likelihood.


def maxrl(rewards: Array) -> Array:
    """(r - mean) / mean within the group, 0 where the mean is 0 (MaxRL, arXiv 2602.02710)."""
    mean = mean_reward(rewards)
    return jnp.where(mean == 0, 0.0, center(rewards) / jnp.where(mean == 0, 1.0, mean))


def pkpo(rewards: Array, *, k: int, baseline: Literal["none", "loo", "loo1"] = "loo1") -> Array:
    """Each attempt's share in the unbiased estimate of E[max of k rewards] (PKPO, arXiv 2505.15201); O(G log G).

    s_i = sum of max(I) over all k-subsets I that hold i, / C(n, k), of the n attempts that could be scored; their sum is k
    times ``max_at_k``. ``baseline``: "none"; "loo", minus k/n times max@k of the others; "loo1", minus k/n times max@(k - 1)
    of the others. 0 in a group with too few scored attempts for k, and with a baseline exactly 0 where a group agrees.
    """
    if baseline not in ("none", "loo", "loo1"):
        raise UserError(f"advantage pkpo: baseline={baseline!r} is unknown, choose from none, loo, loo1")
    group = rewards.shape[-1]
    most = group - (baseline == "loo")
    if not 1 <= k <= most:
        raise UserError(f"advantage pkpo: k={k} of {group} attempts, with baseline {baseline} k must be 1 to {most}")
    size = {"none": 0, "loo": k, "loo1": k - 1}[baseline]
    # Row n: the weight of the m-th smallest of n rewards, in its own share, in those of smaller ones, and in a baseline
    own, smaller, others = np.zeros((3, group + 1, group + 1))
    for n in range(k + (baseline == "loo"), group + 1):
        for m in range(1, n + 1):
            own[n, m] = comb(m - 1, k - 1) / comb(n, k)
            smaller[n, m] = comb(m - 2, k - 2) / comb(n, k)
            others[n, m] = k / n * comb(m - 1, size - 1) / comb(n - 1, size) if m < n else 0
    scored, order = count_scored(rewards)[..., 0], jnp.argsort(rewards, -1)  # NaN comes last
    by_rank = jnp.nan_to_num(jnp.take_along_axis(rewards, order, -1))
    weight = lambda table, first: jnp.asarray(table[:, first : first + group], rewards.dtype)[scored]
    larger = jnp.flip(jnp.cumsum(jnp.flip(by_rank * (weight(smaller, 1) - weight(others, 0)), -1), -1), -1)
    below = jnp.cumsum(by_rank * weight(others, 1), -1)
    exclusive = jnp.pad(larger[..., 1:], [(0, 0)] * (rewards.ndim - 1) + [(0, 1)])
    exclusive -= jnp.pad(below[..., :-1], [(0, 0)] * (rewards.ndim - 1) + [(1, 0)])
    share = jnp.take_along_axis(by_rank * weight(own, 1) + exclusive, jnp.argsort(order, -1), -1)
    equal = agree(rewards) if size else False  # what all others would earn too is no advantage
    return jnp.where(is_scored(rewards) & ~jnp.asarray(equal), share, 0.0)


def max_at_k(rewards: Array, k: int) -> Array:
    """Unbiased estimate [B] of the expected best of k rewards, from the n >= k of each group that could be scored.

    NaN where fewer than k could be scored.
    """
    group = rewards.shape[-1]
    shares = [[comb(m, k - 1) / comb(n, k) if m < n else 0.0 for m in range(group)] for n in range(k, group + 1)]
    table = np.array([[0.0] * group] * k + shares)
    scored = count_scored(rewards)[..., 0]
    best = jnp.sum(jnp.nan_to_num(jnp.sort(rewards, -1)) * jnp.asarray(table, rewards.dtype)[scored], -1)
    return jnp.where(scored >= k, best, jnp.nan)


def passk_training(rewards: Array, *, k: int) -> Array:
    """The group-normalised advantage of pass@k, averaged over all k-subsets (arXiv 2508.10751). Right means r >= 1.

    Right: (1 - R) / sigma; wrong: (1 - R - C(wrong - 1, k - 1) / C(n - 1, k - 1)) / sigma, with R = 1 - C(wrong, k) /
    C(n, k), sigma = sqrt(R (1 - R)), and n the attempts that could be scored; 0 where sigma is 0 or n < k.
    """
    group = rewards.shape[-1]
    if not 1 <= k <= group:
        raise UserError(f"advantage passk_training: k={k} of {group} attempts, k must be 1 to {group}")
    fail, also = np.zeros((2, group + 1, group + 1))  # [n, wrong]
    for n in range(k, group + 1):
        fail[n] = [comb(w, k) / comb(n, k) for w in range(group + 1)]
        also[n] = [comb(w - 1, k - 1) / comb(n - 1, k - 1) for w in range(group + 1)]
    right, scored = rewards >= 1, count_scored(rewards)
    wrong = jnp.sum(rewards < 1, -1, keepdims=True)
    fail, also = (jnp.asarray(table, rewards.dtype)[scored, wrong] for table in (fail, also))
    square = (1 - fail) * fail
    advantage = jnp.where(right, fail, fail - also)
    known = (square > 0) & is_scored(rewards)
    return jnp.where(known, advantage / jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def passk_best(rewards: Array, *, norm_by_std: bool = True, eps: float = 1e-6, ddof: int = 1) -> Array:
    """best - second best reward for the best attempt, over std + eps if asked, 0 for the others (arXiv 2503.19595).

    Of the attempts that could be scored; 0 where these are fewer than two.
    """
    known = jnp.where(is_scored(rewards), rewards, -jnp.inf)
    best = jnp.argmax(known, -1, keepdims=True) == jnp.arange(rewards.shape[-1])
    top = jax.lax.top_k(known, 2)[0]
    several = count_scored(rewards) >= 2
    lead = jnp.where(several, top[..., :1], 0.0) - jnp.where(several, top[..., 1:], 0.0)
    lead = divide_nonzero(lead, deviation(rewards, ddof=ddof) + eps) if norm_by_std else lead
    return jnp.where(best, lead, 0.0)


def comb(n: int, k: int) -> int:
    """Binomial coefficient, 0 outside its triangle."""
    return math.comb(n, k) if n >= 0 and k >= 0 else 0
