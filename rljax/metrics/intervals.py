"""95 % intervals of means over questions or seeds, and of paired differences between two arms.

There is one kind of 95 % interval in rljax: Student's t interval of a mean of n independent values,

    mean ± t(n - 1) · s / √n,    t(n - 1) the 97.5 % quantile of Student's t distribution with n - 1 degrees of freedom.

"±" before a number always means its half-width. The independent values are questions for one policy, because attempts at the
same question resemble each other. They are seeds for several runs: a seed decides the weights, the problems and the noise.

Why Student's t and not a bootstrap: most experiments here have three seeds. Resampled means of three values stay
between the smallest and the largest. For symmetric noise that range holds the true mean only 75 % of the time (1 - 2 · (1/2)^3), even
where its percentiles are expanded (Hesterberg, arXiv 1411.5279, sec. 5.3). Student's interval holds it 95 % of the time for
normal values, and stays close to that for means over questions. Its disadvantage: with three seeds it is wide (t = 4.30), and for a
share near 0 or 1 it may reach beyond 0 or 1. More seeds make it narrower (t = 2.78 for five seeds).
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A mean over seeds and its 95 % interval; low and high are nan for a single seed."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval; nan for a single seed."""
        return (self.high - self.low) / 2

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval; False where there is no interval."""
        return self.low > 0 or self.high < 0


def t_quantile(count: int | None) -> float:
    """The 97.5 % quantile of Student's t for a mean of ``count`` values: 4.30 for 3, close to 1.96 for many.

    None means many values, of unknown number: 1.96. The result is nan for fewer than two values.
    """
    if count is None:
        return 1.959963984540054  # the limit: the quantile of the normal distribution
    if count < 2:
        return float("nan")
    from scipy.special import stdtrit

    return float(stdtrit(count - 1, 0.975))


def half_width(standard_error: float, count: int | None = None) -> float:
    """Half of the 95 % interval of a mean with this standard error: the number after "±".

    ``count`` is the number of independent values in the mean, questions or seeds. None means many, of unknown number.
    The result is nan where the standard error is nan, or where the mean is of fewer than two values.
    """
    return standard_error * t_quantile(count)


def standard_error(values: np.ndarray) -> float:
    """The standard error of the mean of independent values [n]: sample deviation / sqrt(n).

    Values that are nan are left out. nan where fewer than two are left.
    """
    x = np.asarray(values, np.float64)
    x = x[~np.isnan(x)]
    return float(x.std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else float("nan")


def confidence_interval(values: np.ndarray) -> Estimate:
    """The mean of values [seeds] and its 95 % interval. Values that are nan are left out."""
    x = np.asarray(values, np.float64)
    x = x[~np.isnan(x)]
    mean = float(x.mean()) if len(x) else math.nan
    half = half_width(standard_error(x), len(x))
    return Estimate(mean, mean - half, mean + half, len(x))


def paired_difference(a: Mapping[int, float], b: Mapping[int, float]) -> Estimate:
    """The mean of a - b over the seeds that both {seed: value} have, and its 95 % interval.

    A seed has the same starting weights and held-out problems in both arms. So what makes a seed easier for both cancels.
    """
    seeds = sorted(a.keys() & b.keys())
    return confidence_interval(np.array([a[s] - b[s] for s in seeds]))


def confidence_bands(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean [n], low [n], high [n]) over seeds, of curves [seeds, n]."""
    estimates = [confidence_interval(column) for column in np.asarray(values, np.float64).T]
    mean, low, high, _ = np.array(estimates, np.float64).reshape(-1, 4).T
    return mean, low, high
