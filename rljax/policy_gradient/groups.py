"""Statistics of rewards [B, G] that are exact where they should be: groups that agree have deviations of exactly 0.

NaN stands for an attempt that could not be scored. It is left out of every statistic here.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def is_scored(rewards: Array) -> Array:
    """Bool, True where an attempt could be scored."""
    return ~jnp.isnan(rewards)


def count_scored(rewards: Array, axis: int | tuple[int, ...] = -1) -> Array:
    """The number of attempts along ``axis`` (kept) that could be scored."""
    return jnp.sum(is_scored(rewards), axis, keepdims=True)


def mean_reward(rewards: Array, axis: int | tuple[int, ...] = -1) -> Array:
    """The mean along ``axis`` (kept); 0 where nothing could be scored."""
    mean = jnp.nanmean(rewards, axis, keepdims=True)
    return jnp.where(jnp.isnan(mean), 0.0, mean)


def agree(rewards: Array, axis: int | tuple[int, ...] = -1) -> Array:
    """True where all rewards along ``axis`` (kept) are equal: by comparison, for the mean of three .1 is .1 + 7e-9."""
    return ~(jnp.nanmax(rewards, axis, keepdims=True) > jnp.nanmin(rewards, axis, keepdims=True))


def center(rewards: Array, axis: int | tuple[int, ...] = -1) -> Array:
    """r - mean along ``axis``; exactly 0 where all agree, and where an attempt could not be scored."""
    return jnp.where(agree(rewards, axis) | jnp.isnan(rewards), 0.0, rewards - mean_reward(rewards, axis))


def deviation(rewards: Array, axis: int | tuple[int, ...] = -1, ddof: int = 1) -> Array:
    """Standard deviation along ``axis`` (kept): ``ddof`` 1 of a sample, 0 of a population."""
    square = jnp.nanvar(rewards, axis, ddof=ddof, keepdims=True)
    return jnp.sqrt(jnp.where(square > 0, square, 0.0))


def whole(rewards: Array) -> tuple[int, ...]:
    """All axes: statistics of the batch rather than of each group."""
    return tuple(range(rewards.ndim))


def zscore(x: Array, eps: float, ddof: int) -> Array:
    """(x - mean) / (std + eps) over the whole batch; exactly 0 where all are equal."""
    centered = center(x, whole(x))
    return divide_nonzero(centered, deviation(x, whole(x), ddof) + eps)


def divide_nonzero(a: Array, b: Array) -> Array:
    """a / b; 0 where a is 0, also where b is 0 there."""
    return jnp.where(a == 0, 0.0, a / jnp.where(a == 0, 1.0, b))
