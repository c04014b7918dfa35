"""Advantages: how much better an attempt was than expected. Rewards [B, G] -> [B, G], one number for all its tokens.

G attempts at each of B prompts; ``mask`` [B, G, T] marks the tokens that count. Statistics are over the whole batch they
are given: compare before splitting into micro-batches or over devices. A NaN reward means that an attempt could not be
scored: it stays out of its group's statistics and has advantage 0 (pass@k objectives expect every reward). Advantages by token are made in ``returns.py`` and
attempts to imitate are chosen in ``selection.py``.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from rljax.errors import UserError
from rljax.policy_gradient.groups import agree, center, deviation, whole, zscore

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
    centered = center(rewards)
    return jnp.where(centered == 0, 0.0, centered / (deviation(rewards, ddof=ddof) + eps))


def batch_std(rewards: Array, *, eps: float = 1e-4, ddof: int = 1) -> Array:
    """(r - mean of the group) / (std of the *batch* + eps) (Lite PPO, arXiv 2508.08221)."""
    centered = center(rewards)
    return jnp.where(centered == 0, 0.0, centered / (deviation(rewards, whole(rewards), ddof) + eps))


def rloo(rewards: Array, *, normalize: bool = False, eps: float = 1e-4, ddof: int = 1) -> Array:
    """r - mean of the *other* attempts (leave-one-out, arXiv 2402.14740): G / (G - 1) times ``mean_center``.

    ``normalize`` then takes the z-score over the batch, as TRL's ``normalize_advantages``.
    """
    scored = jnp.sum(~jnp.isnan(rewards), -1, keepdims=True)
    advantage = center(rewards) * (scored / jnp.maximum(scored - 1, 1))
    return zscore(advantage, eps, ddof) if normalize else advantage


def opo(rewards: Array, mask: Array) -> Array:
    """r - sum(length r) / sum(length): the baseline of least variance, by length (OPO, arXiv 2505.23585)."""
    length = jnp.where(jnp.isnan(rewards), 0.0, mask.sum(-1).astype(rewards.dtype))
    known = jnp.nan_to_num(rewards)
    baseline = jnp.sum(length * known, -1, keepdims=True) / jnp.maximum(length.sum(-1, keepdims=True), 1.0)
    return jnp.where(agree(rewards) | jnp.isnan(rewards), 0.0, rewards - baseline)


def gpg(rewards: Array, *, f_norm: float = 1.0) -> Array:
    """(r - mean of the group) N / (number of rewards that are not 0) / f_norm, N = B G (GPG, arXiv 2504.02546)."""
    scale = rewards.size / jnp.maximum(jnp.sum(jnp.nan_to_num(rewards) != 0), 1)
    return center(rewards) * (scale / f_norm)


def gdpo(reward_terms: Array, *, weights: tuple[float, ...] = (), eps: float = 1e-4, ddof: int = 1) -> Array:
    """Several rewards [B, G, R]: z-score of each in its group, weighted sum, z-score over the batch (arXiv 2601.05242).

    ``weights`` are those of the R rewards, all 1 unless given. As in TRL; verl whitens by token instead.
    """
    each = grpo(jnp.moveaxis(reward_terms, -1, 0), eps=eps, ddof=ddof)  # [R, B, G]
    if weights and len(weights) != each.shape[0]:
        raise UserError(f"advantage gdpo: {len(weights)} weights for {each.shape[0]} rewards")
    scale = jnp.asarray(weights or (1.0,) * each.shape[0], each.dtype)
    return zscore(jnp.tensordot(scale, each, 1), eps, ddof)


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
    mean = jnp.nanmean(rewards, -1, keepdims=True)
    return jnp.where(mean == 0, 0.0, center(rewards) / jnp.where(mean == 0, 1.0, mean))


def pkpo(rewards: Array, *, k: int, baseline: Literal["none", "loo", "loo1"] = "loo1") -> Array:
    """Each attempt's share in the unbiased estimate of E[max of k rewards] (PKPO, arXiv 2505.15201); O(G^2).

    s_i = sum of max(I) over all k-subsets I that hold i, / C(G, k); their sum is k times ``max_at_k``. ``baseline``:
    "none"; "loo", minus k/G times max@k of the others; "loo1", minus k/G times max@(k - 1) of the others.
    """
    if baseline not in ("none", "loo", "loo1"):
        raise UserError(f"advantage pkpo: baseline={baseline!r} is unknown, choose from none, loo, loo1")
    group = rewards.shape[-1]
    most = group - (baseline == "loo")
    if not 1 <= k <= most:
        raise UserError(f"advantage pkpo: k={k} of {group} attempts, with baseline {baseline} k must be 1 to {most}")
    share = np.zeros((group, group))  # of the m-th smallest reward in the advantage of the j-th smallest
    for j in range(1, group + 1):
        for m in range(1, group + 1):
            own = comb(m - 1, k - 1) if m == j else comb(m - 2, k - 2) if m > j else 0
            rank = m - (m > j)  # of m among the others
            size = {"none": 0, "loo": k, "loo1": k - 1}[baseline]
            others = 0.0 if m == j or not size else comb(rank - 1, size - 1) / comb(group - 1, size)
            share[j - 1, m - 1] = own / comb(group, k) - k / group * others
    order = jnp.argsort(rewards, -1)
    by_rank = jnp.take_along_axis(rewards, order, -1) @ jnp.asarray(share.T, rewards.dtype)
    return jnp.take_along_axis(by_rank, jnp.argsort(order, -1), -1)


def max_at_k(rewards: Array, k: int) -> Array:
    """Unbiased estimate [B] of the expected best of k rewards, from G >= k of each group."""
    group = rewards.shape[-1]
    share = np.array([comb(m, k - 1) / comb(group, k) for m in range(group)])
    return jnp.sort(rewards, -1) @ jnp.asarray(share, rewards.dtype)


def passk_training(rewards: Array, *, k: int) -> Array:
    """The group-normalised advantage of pass@k, averaged over all k-subsets (arXiv 2508.10751). Right means r >= 1.

    Right: (1 - R) / sigma; wrong: (1 - R - C(wrong - 1, k - 1) / C(G - 1, k - 1)) / sigma, with R = 1 - C(wrong, k) /
    C(G, k) and sigma = sqrt(R (1 - R)); 0 where sigma is 0.
    """
    group = rewards.shape[-1]
    if not 1 <= k <= group:
        raise UserError(f"advantage passk_training: k={k} of {group} attempts, k must be 1 to {group}")
    fail = jnp.asarray([comb(n, k) / comb(group, k) for n in range(group + 1)], rewards.dtype)
    also = jnp.asarray([comb(n - 1, k - 1) / comb(group - 1, k - 1) for n in range(group + 1)], rewards.dtype)
    right = rewards >= 1
    wrong = jnp.sum(~right, -1, keepdims=True)
    square = (1 - fail[wrong]) * fail[wrong]
    advantage = jnp.where(right, fail[wrong], fail[wrong] - also[wrong])
    return jnp.where(square > 0, advantage / jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def passk_best(rewards: Array, *, norm_by_std: bool = True, eps: float = 1e-6, ddof: int = 1) -> Array:
    """best - second best reward for the best attempt, over std + eps if asked, 0 for the others (arXiv 2503.19595)."""
    best = jax.nn.one_hot(jnp.argmax(rewards, -1), rewards.shape[-1], dtype=rewards.dtype)
    top = jax.lax.top_k(rewards, 2)[0]
    lead = top[..., :1] - top[..., 1:]
    return best * (lead / (deviation(rewards, ddof=ddof) + eps) if norm_by_std else lead)


def comb(n: int, k: int) -> int:
    """Binomial coefficient, 0 outside its triangle."""
    return math.comb(n, k) if n >= 0 and k >= 0 else 0
