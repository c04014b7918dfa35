"""A reward of NaN means that an attempt could not be scored: it learns nothing, and no other attempt notices it.

The oracle of every advantage is itself, on the batch from which the unscored attempts (or groups) were taken out.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective_batch import near

from rljax import policy_gradient as pg
from rljax.policy_gradient.objective import Attempts

B, G, T, R = 5, 5, 4, 2


@pytest.fixture(scope="module", autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def make_attempts(seed=0, binary=True):
    """Groups that differ, a group in which all agree, responses of several lengths, and every field filled in."""
    rng = np.random.default_rng(seed)
    mask = np.arange(T) < rng.integers(1, T + 1, (B, G))[..., None]
    reward = rng.integers(0, 2, (B, G)).astype(float) if binary else rng.normal(size=(B, G))
    reward[0], reward[1, :3] = 1.0, [1, 0, 1]
    terms = np.stack([reward, 0.3 * rng.normal(size=(B, G))], -1)
    by_token = lambda: jnp.asarray(rng.normal(size=(B, G, T)) * mask)
    return Attempts(
        rewards=jnp.asarray(reward),
        mask=jnp.asarray(mask),
        logprobs=by_token(),
        key=jax.random.key(0),
        distinct=jnp.ones((B, G), bool),
        reward_terms=jnp.asarray(terms),
        greedy=jnp.asarray(rng.normal(size=B)),
        values=by_token(),
        ref_logprobs=by_token(),
    )


def without_scores(attempts, where):
    """The same attempts, of which those of ``where`` [B, G] could not be scored. Their other numbers become NaN as well."""
    nan = lambda x: x if x is None else jnp.where(where.reshape(where.shape + (1,) * (x.ndim - 2)), jnp.nan, x)
    numbers = ("rewards", "reward_terms", "values", "logprobs", "ref_logprobs", "penalty")
    return attempts._replace(**{name: nan(getattr(attempts, name)) for name in numbers})


def drop(attempts, keep):
    """``keep`` of every field that has an axis of groups."""
    grouped = {name: x for name, x in attempts._asdict().items() if name != "key" and x is not None}
    return attempts._replace(**{name: keep(x) for name, x in grouped.items()})


def choice(name):
    return f"{name}(k=2)" if name in ("pkpo", "passk_training") else name


VARIANTS = [
    *(choice(name) for name in pg.ADVANTAGE),
    *("rloo(normalize=True)", "gae(whitened=True)", "gae_length_adaptive(whitened=True)", "rf_pp(gamma=0.9)"),
    *("pkpo(k=2, baseline=loo)", "pkpo(k=1, baseline=none)", "grpo(eps=0.0)", "passk_best(eps=0.0)", "grpo(ddof=0)"),
    *("passk_best(norm_by_std=False)", "all_correct(cap=1, by=shortest, dedupe=True)", "best_of_n(by=likeliest)"),
]

# Those with a baseline from the same group
COMPARES = [v for v in VARIANTS if v.split("(")[0] in pg.NEEDS_GROUP and "baseline=none" not in v]


def compute(variant, attempts):
    """(advantage, returns or None) of one advantage of the table, through an algorithm."""
    imitates = variant.split("(")[0] in pg.SELECTS
    algorithm = pg.Algorithm(variant, "imitation" if imitates else "reinforce", "token_mean")
    return pg.compute_advantages(algorithm, attempts)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_unscored_attempts_change_no_other_advantage(variant, binary):
    full = make_attempts(binary=binary)
    hole = np.array([1, 0, 4, 2, 3])  # the attempt of each group that could not be scored
    where = jnp.asarray(np.arange(G) == hole[:, None])
    rest = np.array([[g for g in range(G) if g != h] for h in hole])
    taken_out = drop(full, lambda x: x if x.shape[1:] == () else x[np.arange(B)[:, None], rest])
    got, wanted = compute(variant, without_scores(full, where)), compute(variant, taken_out)
    for a, b in zip(got, wanted, strict=True):
        if b is not None:
            near(a[np.arange(B)[:, None], rest], b)
            assert (a[np.arange(B), hole] == 0).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_group_in_which_nothing_could_be_scored_has_advantage_zero_and_changes_no_other_group(variant):
    full, rest = make_attempts(), [0, 1, 3, 4]
    where = jnp.zeros((B, G), bool).at[2].set(True)
    got, wanted = (
        compute(variant, without_scores(full, where)),
        compute(variant, drop(full, lambda x: x[jnp.array(rest)])),
    )
    for a, b in zip(got, wanted, strict=True):
        if b is not None:
            near(a[jnp.array(rest)], b)
            assert (a[2] == 0).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_in_which_nothing_could_be_scored_has_advantage_zero(variant):
    for x in compute(variant, without_scores(make_attempts(), jnp.ones((B, G), bool))):
        assert x is None or (x == 0).all()


@pytest.mark.parametrize("variant", COMPARES)
@pytest.mark.parametrize("scored", [1, 2, G])
def test_groups_whose_scored_attempts_agree_have_advantage_exactly_zero(variant, scored):
    full = make_attempts()
    full = full._replace(rewards=jnp.full((B, G), 0.1), reward_terms=jnp.full((B, G, R), 0.1))
    where = jnp.broadcast_to(jnp.arange(G) >= scored, (B, G))
    advantage, _ = compute(variant, without_scores(full, where))
    assert (advantage == 0).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_derivatives_of_advantages_are_finite_where_attempts_are_unscored_or_agree(variant):
    """Nothing is learned through them, but a derivative of NaN would spread to whatever they were computed from."""
    attempts = make_attempts()
    where = jnp.zeros((B, G), bool).at[2].set(True).at[3, 1].set(True)
    function = pg.ADVANTAGE[variant.split("(")[0]]
    options = (
        pg.Algorithm(variant, "imitation" if variant.split("(")[0] in pg.SELECTS else "reinforce", "token_mean")
        .choice("advantage")
        .options
    )
    names = [n for n in pg.choices.inputs(function) if n in ("rewards", "values", "reward_terms")]

    def total(known):
        masked = without_scores(attempts._replace(**known), where)._asdict()
        out = function(*(masked[name] for name in pg.choices.inputs(function)), **options)
        return sum(jnp.sum(x) for x in (out if isinstance(out, tuple) else (out,)))

    for name, x in jax.grad(total)({name: getattr(attempts, name) for name in names}).items():
        assert np.isfinite(x).all(), name


def test_every_advantage_of_the_table_is_among_the_variants():
    assert {v.split("(")[0] for v in VARIANTS} == set(pg.ADVANTAGE)
    fields = {name for f in pg.ADVANTAGE.values() for name in inspect.signature(f).parameters}
    attempts = make_attempts()
    assert not [name for name in fields & set(attempts._fields) - {"penalty"} if getattr(attempts, name) is None]


@pytest.mark.parametrize("advantage", ["rf_pp", "rloo"])
def test_a_kl_penalty_of_nan_where_nothing_counts_changes_nothing(advantage):
    attempts = make_attempts()
    row = pg.Algorithm(advantage, "reinforce", "token_mean", kl="k1(coef=0.1, where=reward)")
    penalty = jnp.where(attempts.mask, 0.1, 0.0)
    clean = pg.compute_advantages(row, attempts._replace(penalty=penalty))[0]
    near(pg.compute_advantages(row, attempts._replace(penalty=jnp.where(attempts.mask, 0.1, jnp.nan)))[0], clean)


def test_a_baseline_response_that_could_not_be_scored_leaves_its_prompt_without_advantage():
    attempts = make_attempts()
    advantage = compute("remax", attempts._replace(greedy=attempts.greedy.at[1].set(jnp.nan)))[0]
    assert (advantage[1] == 0).all()
    near(advantage[2:], compute("remax", attempts)[0][2:])


def test_the_best_of_k_is_estimated_from_the_scored_attempts_and_unknown_where_they_are_too_few():
    r = jnp.array([[1.0, jnp.nan, 0.5, 0.0], [1.0, jnp.nan, jnp.nan, jnp.nan]])
    near(pg.max_at_k(r, 2)[0], pg.max_at_k(jnp.array([[1.0, 0.5, 0.0]]), 2)[0])
    assert np.isnan(pg.max_at_k(r, 2)[1])


def test_a_response_counts_as_seen_only_where_it_was_scored():
    tokens, mask = jnp.zeros((1, 3, 2), int), jnp.ones((1, 3, 2))
    scored = jnp.array([[False, True, True]])
    np.testing.assert_array_equal(pg.distinct(tokens, mask, scored), [[True, True, False]])
