"""Problems drawn on the device, split by content.

A candidate is a pure function of its key. Its content is what makes two problems the same to a solver, whatever the order
or the names in the prompt. The hash of the content decides the split, so no training problem can be a test problem. Problem
number ``index`` of a split is the first candidate of its own endless sequence that is sound and belongs to the split. No
list is stored.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
SPLIT_TENTHS = {"train": (0, 8), "validation": (8, 9), "test": (9, 10)}  # of all contents


def hash_content(content: Array) -> Array:
    """Content [K] integers -> hash [] uint32 (the mixing steps of MurmurHash3)."""

    def mix(h: Array, x: Array) -> tuple[Array, None]:
        h = h ^ (x.astype(jnp.uint32) * jnp.uint32(0xCC9E2D51))
        h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
        h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
        return h ^ (h >> 16), None

    return jax.lax.scan(mix, jnp.uint32(0x9E3779B9), content)[0]


def in_split(content: Array, split: str) -> Array:
    """Whether problems with this content [K] belong to the split: [] bool."""
    low, high = SPLIT_TENTHS[split]
    tenth = hash_content(content) % 10
    return (low <= tenth) & (tenth < high)


def draw_facts(
    candidate: Callable[[Array], tuple[Any, Array, Array]], seed: int | Array, index: Array, split: str
) -> Any:
    """Facts of problems number ``index`` [B] of a split, each array with a leading axis B.

    ``candidate(key) -> (facts, content [K] integers, sound [] bool)`` makes one problem; those that are not sound are
    drawn again.
    """
    root = jax.random.fold_in(jax.random.key(seed), list(SPLIT_TENTHS).index(split))

    def draw_one(index: Array) -> Any:
        key = jax.random.fold_in(root, index)

        def attempt(carry: Any) -> Any:
            trial, _, _ = carry
            facts, content, sound = candidate(jax.random.fold_in(key, trial))
            return trial + 1, facts, sound & in_split(content, split)

        blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(candidate, key)[0])
        start = jnp.zeros((), jnp.int32), blank, jnp.zeros((), bool)
        return jax.lax.while_loop(lambda carry: ~carry[2], attempt, start)[1]

    return jax.vmap(draw_one)(jnp.asarray(index))
