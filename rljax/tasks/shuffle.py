"""Which question is number ``index``? Pure functions of (seed, index): the data position stays one integer.

``shuffled_place`` goes through all of them, in another order each time; ``curriculum_place`` opens harder ones little by little;
``mixture_place`` splits the numbers between several sets.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np

BLOCK = 100  # problems in which a mixture holds exactly
EASIEST = 0.1  # share of the questions that a curriculum begins with


def make_rng(seed: int, *more: int) -> np.random.Generator:
    return np.random.default_rng((seed, 0x04DE4, *more))


@functools.lru_cache(maxsize=64)
def epoch_order(seed: int, stream: int, epoch: int, size: int) -> np.ndarray:
    return make_rng(seed, stream, epoch).permutation(size)


def shuffled_place(seed: int, stream: int, number: int, size: int) -> int:
    """Place 0 .. size - 1 of problem ``number``: each once an epoch, in an order of the epoch's own."""
    epoch, place = divmod(number, size)
    return int(epoch_order(seed, stream, epoch, size)[place])


def curriculum_place(seed: int, stream: int, number: int, size: int, over: int) -> int:
    """Place in an order from easy to hard: at first among the easiest tenth, among all from number ``over`` on.

    The share that is open grows with the square root of ``number`` (competence-based curriculum, arXiv 1903.09848).
    """
    if number >= over:
        return shuffled_place(seed, stream, number - over, size)
    share = math.sqrt(EASIEST**2 + (1 - EASIEST**2) * number / over)
    return int(make_rng(seed, stream, 1 << 20, number).integers(max(1, math.ceil(share * size))))


def block_counts(weights: Sequence[float]) -> np.ndarray:
    """Problems of each set in a block, by largest remainder; a set with any weight has one at least."""
    exact = BLOCK * np.asarray(weights, np.float64) / sum(weights)
    out = np.maximum(np.floor(exact).astype(int), 1)
    while out.sum() != BLOCK:
        step = 1 if out.sum() < BLOCK else -1
        out[np.argmax(step * (exact - out) - 1e9 * (out + step < 1))] += step
    return out


@functools.lru_cache(maxsize=256)
def block_order(seed: int, stream: int, number: int, weights: tuple[float, ...]) -> np.ndarray:
    return make_rng(seed, stream, 2 << 20, number).permutation(
        np.repeat(np.arange(len(weights)), block_counts(weights))
    )


def mixture_place(seed: int, stream: int, number: int, weights: tuple[float, ...]) -> tuple[int, int]:
    """(set, number within that set) of problem ``number``: exact in every block of a hundred, shuffled within it."""
    if len(weights) == 1:
        return 0, number
    blocks, place = divmod(number, BLOCK)
    sets = block_order(seed, stream, blocks, weights)
    which = int(sets[place])
    return which, blocks * int(block_counts(weights)[which]) + int(np.count_nonzero(sets[:place] == which))
