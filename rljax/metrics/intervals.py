"""Numbers over seeds: a mean and its 95 % interval, and differences of two arms seed by seed.

The seed is the unit: it decides the weights, the problems and the noise of a run. Arms share their seeds' starts and held-out
problems, so that their difference is taken seed by seed, and what makes one seed easier falls out.
"""

from typing import NamedTuple

import numpy as np

DRAWS = 10_000  # resamples; their key is fixed, so that the same numbers give the same interval


class Estimate(NamedTuple):
    """A mean over seeds and its 95 % interval; low and high are nan for a single seed."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def sure(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def interval(values: np.ndarray) -> Estimate:
    """Bootstrap over seeds of the mean of values [seeds]; those that are nan are left out.

    Percentiles of resampled means are too narrow for few seeds; they are taken further out, where Student's interval of as
    many normal values would be (the expanded percentile interval: Hesterberg, arXiv 1411.5279, sec. 5.3). With three seeds
    that is all that resampling can give: the smallest to the largest value.
    """
    x = np.asarray(values, np.float64)
    x = x[~np.isnan(x)]
    if len(x) < 2:
        mean = float(x[0]) if len(x) else float("nan")
        return Estimate(mean, float("nan"), float("nan"), len(x))
    from scipy.special import ndtr, stdtrit

    n = len(x)
    tail = float(ndtr(np.sqrt(n / (n - 1)) * stdtrit(n - 1, 0.025)))
    chosen = np.random.default_rng(0).integers(0, n, (DRAWS, n))
    low, high = np.quantile(x[chosen].mean(1), [tail, 1 - tail])
    return Estimate(float(x.mean()), float(low), float(high), n)


def paired(a: dict[int, float], b: dict[int, float]) -> Estimate:
    """The mean difference a - b over the seeds that both have, {seed: value} each."""
    seeds = sorted(a.keys() & b.keys())
    return interval(np.array([a[s] - b[s] for s in seeds]))


def bands(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean, low, high), [n] each, of values [seeds, n] over seeds."""
    found = [interval(column) for column in np.asarray(values, np.float64).T]
    mean, low, high, _ = np.array(found, np.float64).reshape(-1, 4).T
    return mean, low, high
