"""The order of questions: pure functions of (seed, number), so the data position is one integer.

``shuffled_place`` asks every question once an epoch. ``curriculum_place`` begins with easy questions and adds harder ones.
``mixture_place`` divides the numbers among several data sets.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np

BLOCK = 100  # problems; in each block the shares of a mixture are exact
EASIEST = 0.1  # share of the questions that a curriculum begins with


def make_rng(seed: int, *more: int) -> np.random.Generator:
    """Random numbers that depend on these integers alone."""
    return np.random.default_rng((seed, 0x04DE4, *more))


@functools.lru_cache(maxsize=64)
def epoch_order(seed: int, stream: int, epoch: int, size: int) -> np.ndarray:
    """The order of an epoch: a permutation of 0 .. size - 1."""
    return make_rng(seed, stream, epoch).permutation(size)


def shuffled_place(seed: int, stream: int, number: int, size: int) -> int:
    """The place 0 .. size - 1 of problem ``number``: every place once an epoch, each epoch in another order."""
    epoch, place = divmod(number, size)
    return int(epoch_order(seed, stream, epoch, size)[place])


def curriculum_place(seed: int, stream: int, number: int, size: int, over: int) -> int:
    """The place of problem ``number`` where places are sorted from easy to hard.

    It is drawn from the easiest tenth at first, and from all places from number ``over`` on. The open share is the square
    root of a linear function of ``number`` (competence-based curriculum, arXiv 1903.09848).
    """
    if number >= over:
        return shuffled_place(seed, stream, number - over, size)
    share = math.sqrt(EASIEST**2 + (1 - EASIEST**2) * number / over)
    return int(make_rng(seed, stream, 1 << 20, number).integers(max(1, math.ceil(share * size))))


def block_counts(weights: Sequence[float]) -> np.ndarray:
    """The number of problems of each set in a block, by largest remainder; at least one each."""
    exact = BLOCK * np.asarray(weights, np.float64) / sum(weights)
    out = np.maximum(np.floor(exact).astype(int), 1)
    while out.sum() != BLOCK:
        step = 1 if out.sum() < BLOCK else -1
        out[np.argmax(step * (exact - out) - 1e9 * (out + step < 1))] += step
    return out


@functools.lru_cache(maxsize=256)
def block_order(seed: int, stream: int, number: int, weights: tuple[float, ...]) -> np.ndarray:
    """The set of each problem in block ``number``, [BLOCK]."""
    return make_rng(seed, stream, 2 << 20, number).permutation(
        np.repeat(np.arange(len(weights)), block_counts(weights))
    )


def mixture_place(seed: int, stream: int, number: int, weights: tuple[float, ...]) -> tuple[int, int]:
    """(set, number within that set) of problem ``number``; every block of ``BLOCK`` problems has the exact shares."""
    if len(weights) == 1:
        return 0, number
    blocks, place = divmod(number, BLOCK)
    sets = block_order(seed, stream, blocks, weights)
    which = int(sets[place])
    return which, blocks * int(block_counts(weights)[which]) + int(np.count_nonzero(sets[:place] == which))
