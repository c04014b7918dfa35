"""What to make likelier, and by how much: advantages, surrogates, aggregations, KL penalties, and rows that combine them.

An algorithm is a row of ``ALGORITHMS``: advantage x surrogate x aggregation x KL. All functions are pure and elementwise
or group-wise; losses are minimised. Arrays may be [B, G, T] or [N, T] (N = B * G, a group's rows are neighbours); an
advantage of one dimension less broadcasts over tokens. Log-probabilities are float32 nats at the sampling temperature.
"""

import dataclasses

import jax
import jax.numpy as jnp

from rljax.errors import UserError

Array = jax.Array
stop = jax.lax.stop_gradient
MAX_LOG_RATIO = 20.0  # exp of more overflows nothing yet, and says nothing more


# ---------------------------------------------------------------------------------------------------------------------
# Advantages: rewards [B, G] -> [B, G], each attempt compared with the others at its prompt.


def mean_center(rewards: Array) -> Array:
    """r - mean of the group (Dr. GRPO, arXiv 2503.20783). Exactly 0 where a group agrees."""
    return jnp.where(agree(rewards), 0.0, rewards - rewards.mean(-1, keepdims=True))


def agree(rewards: Array) -> Array:
    """[..., 1] bool, True where a group's rewards are equal: by comparison, for three rewards of .1 have a mean of .1 + 7e-9."""
    return jnp.all(rewards == rewards[..., :1], -1, keepdims=True)


def grpo(rewards: Array, eps: float = 1e-4, ddof: int = 1) -> Array:
    """(r - mean) / (std + eps) within the group (arXiv 2402.03300, eq. 3). Exactly 0 where a group agrees.

    ``ddof`` 1 is the sample deviation (TRL, verl), 0 the population's; at G = 4 they differ by 15 %.
    """
    std = jnp.std(rewards, -1, ddof=ddof, keepdims=True)
    return jnp.where(agree(rewards), 0.0, mean_center(rewards) / (std + eps))


def rloo(rewards: Array) -> Array:
    """r - mean of the *other* attempts (leave-one-out, arXiv 2402.14740): G / (G - 1) times ``mean_center``."""
    group = rewards.shape[-1]
    return mean_center(rewards) * (group / (group - 1))


def raw(rewards: Array) -> Array:
    """The reward itself: no baseline."""
    return rewards


def all_correct(rewards: Array) -> Array:
    """1 for each attempt with the full reward of 1 (rejection sampling, STaR, arXiv 2203.14465)."""
    return (rewards >= 1).astype(rewards.dtype)


def shortest_correct(rewards: Array, lengths: Array) -> Array:
    """1 for the shortest correct attempt of each group, the first on ties; none where none is correct."""
    right = all_correct(rewards)
    first = jnp.argmin(jnp.where(right > 0, lengths, jnp.iinfo(jnp.int32).max), -1)
    return jax.nn.one_hot(first, rewards.shape[-1]) * right


ADVANTAGE = {
    "mean_center": mean_center,
    "grpo": grpo,
    "rloo": rloo,
    "raw": raw,
    "all_correct": all_correct,
    "shortest_correct": shortest_correct,
}
NEEDS_GROUP = {"mean_center", "grpo", "rloo"}  # a group of one has advantage 0, or 0 / 0
NEEDS_LENGTHS = {"shortest_correct"}


# ---------------------------------------------------------------------------------------------------------------------
# Surrogates: the loss of each token.


def reinforce(logp: Array, old: Array, advantage: Array, low: float, high: float) -> Array:
    """-A log pi (no ratio; ``old``, ``low`` and ``high`` are not used)."""
    return -advantage * logp


def ppo_clip(logp: Array, old: Array, advantage: Array, low: float, high: float) -> Array:
    """-min(rho A, clip(rho, 1 - low, 1 + high) A), rho = exp(logp - old) (arXiv 1707.06347, eq. 7)."""
    rho = ratio(logp, old)
    return -jnp.minimum(rho * advantage, jnp.clip(rho, 1 - low, 1 + high) * advantage)


def ratio(logp: Array, old: Array) -> Array:
    """pi / pi_old of each token, its logarithm held within +-20."""
    return jnp.exp(jnp.clip(logp - old, -MAX_LOG_RATIO, MAX_LOG_RATIO))


SURROGATE = {"reinforce": reinforce, "ppo_clip": ppo_clip}


# ---------------------------------------------------------------------------------------------------------------------
# Aggregations: the weight of each token in the loss, computed once from the whole optimiser batch. Micro-batches and
# devices then only add: loss = sum(weight * token loss), the same number however the rows are split.


def weights(
    mask: Array, mode: str, *, group_size: int = 1, constant: float | None = None, empty_rows: str = "live"
) -> Array:
    """Float32 weights of the tokens of an optimiser batch, shaped like its mask, [N, T] or [B, G, T]; 0 where that is 0.

    mode (the tokens of row i number |o_i|):
      token_mean                1 / sum of all |o|                            (DAPO, arXiv 2503.14476)
      seq_mean_token_mean       1 / (rows |o_i|)                              (GRPO, arXiv 2402.03300)
      seq_mean_token_sum        1 / rows
      seq_mean_token_sum_const  1 / (all rows * constant)                     (Dr. GRPO, arXiv 2503.20783)
      token_sum                 1
      prompt_mean               1 / (prompts * tokens of the prompt's group)  (ScaleRL, arXiv 2510.13786)
    ``empty_rows`` says whether rows (prompts) without a token count in a mean: "live" (no) or "all".
    """
    if mask.ndim == 3:
        flat = mask.reshape(-1, mask.shape[-1])
        out = weights(flat, mode, group_size=mask.shape[1], constant=constant, empty_rows=empty_rows)
        return out.reshape(mask.shape)
    mask = mask.astype(jnp.float32)
    tokens = mask.sum(-1, keepdims=True)  # [N, 1]
    some = lambda x: jnp.maximum(x, 1.0)
    rows = some(jnp.sum(tokens > 0)) if empty_rows == "live" else mask.shape[0]
    if mode == "token_mean":
        return mask / some(mask.sum())
    if mode == "seq_mean_token_mean":
        return mask / some(tokens) / rows
    if mode == "seq_mean_token_sum":
        return mask / rows
    if mode == "seq_mean_token_sum_const":
        if not constant:
            raise UserError("aggregation seq_mean_token_sum_const needs its constant, the maximum response length")
        return mask / (mask.shape[0] * constant)
    if mode == "token_sum":
        return mask
    if mode == "prompt_mean":
        group = tokens.reshape(-1, group_size).sum(-1)  # [B]
        prompts = some(jnp.sum(group > 0)) if empty_rows == "live" else group.shape[0]
        return mask / some(jnp.repeat(group, group_size))[:, None] / prompts
    raise UserError(f"aggregation {mode!r} is unknown, choose from {AGGREGATIONS}")


AGGREGATIONS = (
    "token_mean",
    "seq_mean_token_mean",
    "seq_mean_token_sum",
    "seq_mean_token_sum_const",
    "token_sum",
    "prompt_mean",
)


# ---------------------------------------------------------------------------------------------------------------------
# KL of the policy from a reference, estimated at each sampled token; x = logp - ref.


def k1(logp: Array, ref: Array) -> Array:
    """x: unbiased, can be negative. Differentiated in a loss, its expected on-policy gradient is zero."""
    return logp - ref


def k2(logp: Array, ref: Array) -> Array:
    """x^2 / 2: in a loss it has the gradient of the reverse KL, on-policy."""
    return 0.5 * (logp - ref) ** 2


def k3(logp: Array, ref: Array) -> Array:
    """exp(-x) + x - 1 >= 0 (GRPO): in a loss it has the gradient of the forward KL, on-policy."""
    x = jnp.clip(logp - ref, -MAX_LOG_RATIO, MAX_LOG_RATIO)
    return jnp.exp(-x) + x - 1


KL = {"k1": k1, "k2": k2, "k3": k3}


# ---------------------------------------------------------------------------------------------------------------------
# Rows.


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """One row: how to compare, what to push, how to weigh tokens, how far to stray."""

    advantage: str
    surrogate: str
    aggregation: str
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl: str = "k3"
    kl_coef: float = 0.0
    imitate: bool = False  # only attempts with a positive weight count, in the loss and in its normaliser

    def __post_init__(self):
        tables = {"advantage": ADVANTAGE, "surrogate": SURROGATE, "aggregation": AGGREGATIONS, "kl": KL}
        for field, table in tables.items():
            if getattr(self, field) not in table:
                raise UserError(f"algorithm: {field}={getattr(self, field)!r} is unknown, choose from {sorted(table)}")


ALGORITHMS = {
    # plain REINFORCE with the reward as it is
    "reinforce": Algorithm("raw", "reinforce", "token_mean"),
    # arXiv 2402.14740
    "rloo": Algorithm("rloo", "reinforce", "seq_mean_token_sum"),
    # arXiv 2402.03300
    "grpo": Algorithm("grpo", "ppo_clip", "seq_mean_token_mean", kl_coef=0.04),
    # arXiv 2501.12948; the clip range of R1-Zero is not published, 0.2 is GRPO's
    "r1_zero": Algorithm("grpo", "ppo_clip", "seq_mean_token_mean", kl_coef=0.001),
    # arXiv 2503.20783
    "dr_grpo": Algorithm("mean_center", "ppo_clip", "seq_mean_token_sum_const"),
    # karpathy/nanochat, scripts/chat_rl.py
    "nanochat": Algorithm("mean_center", "reinforce", "token_mean"),
    # imitation of one's own attempts: all that reached the answer, or only the shortest of them
    "rejection_sampling": Algorithm("all_correct", "reinforce", "token_mean", imitate=True),
    "shortest_correct": Algorithm("shortest_correct", "reinforce", "token_mean", imitate=True),
}


def compare(row: Algorithm, rewards: Array, lengths: Array) -> Array:
    """Advantage [B, G] of attempts with rewards [B, G] and lengths [B, G]; no gradient flows through it."""
    if row.advantage in NEEDS_GROUP and rewards.shape[-1] < 2:
        raise UserError(
            f"advantage {row.advantage!r} compares attempts at one prompt, but group_size is 1: raise rl.group_size"
        )
    extra = (lengths,) if row.advantage in NEEDS_LENGTHS else ()
    return stop(ADVANTAGE[row.advantage](rewards, *extra))


def token_loss(row: Algorithm, logp: Array, old: Array, advantage: Array, ref: Array | None) -> Array:
    """Loss of each token before weighting: the surrogate plus the KL term. logp, old, ref [N, T]; advantage [N]."""
    a = advantage if advantage.ndim == logp.ndim else advantage[..., None]
    loss = SURROGATE[row.surrogate](logp, old, a, row.clip_low, row.clip_high)
    return loss if ref is None else loss + row.kl_coef * KL[row.kl](logp, ref)
