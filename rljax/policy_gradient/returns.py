"""Advantages by token: REINFORCE++, and generalised advantage estimation for a critic. -> [B, G, T]

The reward [B, G] of an attempt is given at its last token that counts. ``penalty`` [B, G, T] (a KL term times its
coefficient, detached) is subtracted token by token. Tokens that do not count (padding, or what a tool wrote) are skipped:
they have advantage 0, and pass on what comes after them. No token counts of an attempt that could not be scored (reward NaN).
"""

import jax
import jax.numpy as jnp

from rljax.policy_gradient.groups import center, is_scored
from rljax.policy_gradient.losses import where_counted

Array = jax.Array


def counted(rewards: Array, mask: Array) -> Array:
    """The mask [B, G, T], without the attempts that could not be scored."""
    return jnp.where(is_scored(rewards)[..., None], mask, 0)


def token_rewards(rewards: Array, mask: Array, penalty: Array | None = None) -> Array:
    """[B, G, T]: the reward at the last token of each attempt, less the penalty at every token."""
    mask = mask.astype(rewards.dtype)
    last = (jnp.cumsum(mask[..., ::-1], -1)[..., ::-1] == 1) * mask
    out = jnp.where(last > 0, rewards[..., None], 0.0)
    return out if penalty is None else out - where_counted(penalty, mask)


def discounted(rewards: Array, mask: Array, decay: Array | float) -> Array:
    """Sum of rewards from each token on [..., T], those later weighted by ``decay`` a token; 0 where mask is 0."""

    def step(after: Array, xs: tuple[Array, Array]) -> tuple[Array, Array]:
        reward, live = xs
        here = jnp.where(live, reward + decay * after, after)
        return here, jnp.where(live, here, 0.0)

    by_time = lambda x: jnp.moveaxis(x, -1, 0)
    xs = by_time(rewards), by_time(mask > 0)
    out = jax.lax.scan(step, jnp.zeros(rewards.shape[:-1], rewards.dtype), xs, reverse=True)[1]
    return jnp.moveaxis(out, 0, -1)


def whiten(x: Array, mask: Array, *, eps: float = 1e-8) -> Array:
    """(x - mean) / sqrt(variance + eps) over all tokens that count, Bessel-corrected; exactly 0 where all are equal.

    Long responses weigh more here than in a z-score over attempts (verl's ``masked_whiten``).
    """
    mask = mask.astype(x.dtype)
    count = mask.sum()
    total = jnp.sum(where_counted(x, mask))
    centered = where_counted(x - total / jnp.maximum(count, 1.0), mask)
    variance = jnp.sum(centered**2) / jnp.maximum(count - 1, 1.0)
    differ = jnp.max(x, where=mask > 0, initial=-jnp.inf) > jnp.min(x, where=mask > 0, initial=jnp.inf)
    return jnp.where(differ, centered * jax.lax.rsqrt(variance + eps), 0.0)


def rf_pp(rewards: Array, mask: Array, penalty: Array | None = None, *, gamma: float = 1.0) -> Array:
    """REINFORCE++ (arXiv 2501.03262): the return from each token on, whitened over the tokens of the batch."""
    mask = counted(rewards, mask)
    return whiten(discounted(token_rewards(rewards, mask, penalty), mask, gamma), mask)


def rf_pp_baseline(rewards: Array, mask: Array) -> Array:
    """REINFORCE++-baseline: r - mean of the group on every token, whitened over the tokens of the batch."""
    return whiten(jnp.broadcast_to(center(rewards)[..., None], mask.shape), counted(rewards, mask))


def gae(
    rewards: Array,
    values: Array,
    mask: Array,
    penalty: Array | None = None,
    *,
    gamma: float = 1.0,
    lam: Array | float = 1.0,
    whitened: bool = False,
) -> tuple[Array, Array]:
    """Generalised advantage estimation (arXiv 1506.02438): (advantages, returns), both [B, G, T].

    delta_t = r_t + gamma V_{t+1} - V_t, A_t = delta_t + gamma lam A_{t+1}; V is 0 after the last token, of truncated
    responses too. returns = A + V, before whitening. ``lam`` is a number, or one for each attempt [B, G].
    """
    mask = counted(rewards, mask)
    live = mask > 0

    def follow(after: Array, xs: tuple[Array, Array]) -> tuple[Array, Array]:
        value, live = xs
        return jnp.where(live, value, after), after

    by_time = lambda x: jnp.moveaxis(x, -1, 0)
    none = jnp.zeros(values.shape[:-1], values.dtype)
    after = jnp.moveaxis(jax.lax.scan(follow, none, (by_time(values), by_time(live)), reverse=True)[1], 0, -1)
    delta = token_rewards(rewards, mask, penalty) + gamma * after - values
    advantage = discounted(delta, mask, gamma * lam)
    returns = jnp.where(live, advantage + values, 0.0)
    return (whiten(advantage, mask) if whitened else advantage), returns


def gae_length_adaptive(
    rewards: Array,
    values: Array,
    mask: Array,
    penalty: Array | None = None,
    *,
    alpha: float = 0.05,
    gamma: float = 1.0,
    lam_critic: float = 1.0,
    whitened: bool = False,
) -> tuple[Array, Array]:
    """GAE whose lambda grows with the response, 1 - 1 / (alpha |o|), and another for the critic (VAPO, arXiv 2504.05118).

    Below |o| = 1 / alpha the formula is negative; it is held within [0, 1]. Returns are those of ``lam_critic``.
    """
    advantage, _ = gae(
        rewards, values, mask, penalty, gamma=gamma, lam=length_adaptive_lam(mask, alpha), whitened=whitened
    )
    return advantage, gae(rewards, values, mask, penalty, gamma=gamma, lam=lam_critic)[1]


def length_adaptive_lam(mask: Array, alpha: float) -> Array:
    """[B, G]: 1 - 1 / (alpha |o|), within [0, 1]."""
    return jnp.clip(1 - 1 / (alpha * jnp.maximum(mask.sum(-1), 1)), 0.0, 1.0)
