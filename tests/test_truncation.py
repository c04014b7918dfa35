"""Top-k and top-p keep what sorting the vocabulary would keep, ties at the edge included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import sampler
from tests import exhaustive

SIZES = (100, 1000, 50_257, 151_936, 262_144)
ROUNDING = 3e-7  # float32 sums over the vocabulary: a set whose mass is this near top_p may fall on either side
truncate = jax.jit(sampler.truncate, static_argnums=(1, 2))


def kept_by_sorting(logits, top_k, top_p):
    """The kept tokens of one row by definition, in float64: all that are as likely as the last one that is needed."""
    logits = logits.astype(np.float64)
    if top_k:
        logits = np.where(logits >= np.sort(logits)[-top_k], logits, -np.inf)
    chances = np.exp(logits - logits.max())
    falling = np.sort(chances)[::-1]
    mass = np.cumsum(falling) / chances.sum()
    last = falling[min(np.searchsorted(mass, top_p), np.sum(falling > 0) - 1)]
    return (chances >= last) & (chances > 0)


def rows(size):
    """{shape: logits [size]}."""
    rng = np.random.default_rng(size)
    return {
        "flat": 1e-3 * rng.normal(size=size),
        "language-like": 2 * rng.normal(size=size),
        "peaked": 8 * rng.normal(size=size),
        "one token has nearly all": np.where(np.arange(size) == size // 3, 20.0, rng.normal(size=size)),
        "equal": np.zeros(size),
        "two levels": np.where(np.arange(size) % 3 == 0, 1.0, 0.0),
        "half is impossible": np.where(rng.random(size) < 0.5, -np.inf, 2 * rng.normal(size=size)),
        "many ties": np.round(4 * rng.normal(size=size)) / 4,
    }


@pytest.mark.parametrize("top_k", [0, 50])
@pytest.mark.parametrize("size", exhaustive.cases(SIZES, lambda size: size > 100_000))
def test_the_kept_set_is_the_one_that_sorting_gives(size, top_k):
    made, exact = rows(size), 0
    logits = np.stack(list(made.values())).astype(np.float32)
    for top_p in (0.1, 0.5, 0.9, 0.99):
        found = np.asarray(truncate(logits, top_k, top_p))
        for name, row, out in zip(made, logits, found, strict=True):
            kept = np.isfinite(out)
            assert (out[kept] == row[kept]).all()
            fewer, more = (kept_by_sorting(row, top_k, top_p + e) for e in (-ROUNDING, ROUNDING))
            assert not (fewer & ~kept).any() and not (kept & ~more).any(), name
            assert row[kept].min() > max(row[~kept], default=-np.inf), name  # ties stay together
            exact += (kept == kept_by_sorting(row, top_k, top_p)).all()
    assert exact >= 31  # of 32


@pytest.mark.parametrize("size", SIZES)
def test_top_k_keeps_the_k_likeliest_and_all_that_tie_with_the_last(size):
    made = rows(size)
    logits = np.stack(list(made.values())).astype(np.float32)
    found = np.isfinite(np.asarray(truncate(logits, 50, 1.0)))
    for name, row, kept in zip(made, logits, found, strict=True):
        np.testing.assert_array_equal(kept, (row >= np.sort(row)[-50]) & np.isfinite(row), err_msg=name)
    count = dict(zip(made, found.sum(-1).tolist(), strict=True))
    assert count["peaked"] == 50 and count["equal"] == size and count["many ties"] >= 50
    assert count["two levels"] == (100 if size == 100 else -(-size // 3))  # 34 of 100 are on the upper level


@pytest.mark.parametrize("top_k, top_p", [(0, 0.5), (3, 1.0), (3, 0.6), (3, 0.01)])
def test_equal_probabilities_are_kept_or_left_out_together(top_k, top_p):
    assert np.isfinite(np.asarray(truncate(np.zeros((2, 10), np.float32), top_k, top_p))).all()
    tied = np.log(np.float32([[0.4, 0.2, 0.2, 0.1, 0.1]]))
    kept = np.isfinite(np.asarray(truncate(tied, top_k, top_p)))[0].tolist()
    assert kept == ([True] + [False] * 4 if top_p == 0.01 else [True] * 3 + [False] * 2)


def test_top_p_works_on_what_top_k_left():
    chances = np.log(np.float32([[0.4, 0.3, 0.2, 0.1]]))
    kept = lambda *how: np.isfinite(np.asarray(truncate(chances, *how)))[0].sum()
    assert (kept(0, 0.5), kept(2, 0.5), kept(2, 0.6)) == (2, 1, 2)  # 0.4 is 57 % of what top-2 leaves


def test_what_is_impossible_is_never_kept():
    logits = np.full((1, 300), -np.inf, np.float32)
    logits[0, [7, 130]] = 0.0, -1.0
    for top_k, top_p in ((0, 0.9999), (50, 1.0), (50, 0.9999)):
        out = np.asarray(truncate(jnp.asarray(logits), top_k, top_p))
        assert np.flatnonzero(np.isfinite(out[0])).tolist() == [7, 130]
