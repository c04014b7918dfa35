"""Surrogates, values and gradients, against loops written from their formulas; importance weights; KL."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective_batch import B, D, G, T, near

from rljax import policy_gradient as pg
from rljax.errors import UserError


@pytest.fixture(scope="module", autouse=True)
def double():
    with jax.enable_x64(True):
        yield


# ---------------------------------------------------------------------------------------------------------------------
# Surrogates: value and gradient against loops in which the detached quantities are constants.

ADVANTAGE = np.where(D["rewards"] == 0, -0.7, D["rewards"])  # both signs


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def tau(a):
    return 1.0 if a > 0 else 1.05


def token_rule(rule):
    """The loss of one token: rule(lp, lp detached, old, A, sampler)."""

    def of(lp, fixed):
        each = [
            rule(*x) if m else 0.0
            for *x, m in zip(
                *(lp.ravel(), fixed.ravel(), D["old_logprobs"].ravel()),
                *(np.repeat(ADVANTAGE.ravel(), T), D["behaviour_logprobs"].ravel(), D["mask"].ravel()),
                strict=True,
            )
        ]
        return np.reshape(each, lp.shape)

    return of


def row_rule(rule):
    """The losses of one row: rule(lp, lp detached, old, A) of its live tokens."""

    def of(lp, fixed):
        out = np.zeros_like(lp)
        for b, g in np.ndindex(B, G):
            live = D["mask"][b, g] > 0
            if live.any():
                out[b, g, live] = rule(
                    lp[b, g, live], fixed[b, g, live], D["old_logprobs"][b, g, live], ADVANTAGE[b, g]
                )
        return out

    return of


def ppo(rho, a, low, high, free=None):
    return -min((rho if free is None else free) * a, min(max(rho, 1 - low), 1 + high) * a)


def gmpo(lp, _, old, a):
    clipped = [min(max(d, -0.3), 0.3) if (d > 0.3 and a > 0) or (d < -0.3 and a < 0) else d for d in lp - old]
    return -a * math.exp(np.mean(clipped))


def vespo(lp, fixed, old, a):
    w = math.exp(sum(fixed - old))
    k, lam = (2, 3) if a >= 0 else (3, 2)
    return -math.exp(lam + k * math.log(w) - lam * w) * a * lp


def dppo_kl(lp, f, old, a, _):
    p, q = math.exp(min(f, -1e-9)), math.exp(min(old, -1e-9))
    d = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
    bad = d > 0.02 and ((a > 0 and p > q) or (a < 0 and p < q))
    return 0.0 if bad else -a * min(math.exp(f - old), 20) * lp


def dppo_tv(lp, f, old, a, _):
    d = math.exp(f) - math.exp(old)
    return 0.0 if (a > 0 and d > 0.05) or (a < 0 and d < -0.05) else -a * min(math.exp(f - old), 20) * lp


CHOSEN = np.random.default_rng(5).random(D["mask"].shape) < 0.3
mean_ratio = lambda lp, old: math.exp(np.mean(lp - old))
SURROGATES = {
    "reinforce": ({}, token_rule(lambda lp, f, old, a, mu: -a * lp)),
    "imitation": ({}, token_rule(lambda lp, f, old, a, mu: -a * lp)),
    "ppo_clip": (dict(low=0.1, high=0.3), token_rule(lambda lp, f, old, a, mu: ppo(math.exp(lp - old), a, 0.1, 0.3))),
    "ppo_clip dual": (
        dict(dual_clip=1.3),
        token_rule(
            lambda lp, f, old, a, mu: min(ppo(r := math.exp(lp - old), a, 0.2, 0.2), -1.3 * a if a < 0 else r + 99)
        ),
    ),
    "ppo_clip delta": (
        dict(delta=1.4),
        token_rule(lambda lp, f, old, a, mu: ppo(r := math.exp(lp - old), a, 0.2, 0.2, min(r, 1.4))),
    ),
    "decoupled_ppo": (
        {},
        token_rule(lambda lp, f, old, a, mu: math.exp(old - mu) * ppo(math.exp(lp - old), a, 0.2, 0.2)),
    ),
    "cispo": (
        dict(w_min=0.8, w_max=1.3),
        token_rule(lambda lp, f, old, a, mu: -min(max(math.exp(f - old), 0.8), 1.3) * a * lp),
    ),
    "sapo": (
        {},
        token_rule(lambda lp, f, old, a, mu: -a * sigmoid(tau(a) * (math.exp(lp - old) - 1)) * 4 / tau(a)),
    ),
    "dro": (dict(beta=0.5), token_rule(lambda lp, f, old, a, mu: -(a * lp - 0.25 * (lp - old) ** 2))),
    "dppo": (dict(low=0.05, high=0.05), token_rule(dppo_tv)),
    "dppo kl": (dict(low=0.02, high=0.02, by="kl"), token_rule(dppo_kl)),
    "gspo": (dict(low=0.1, high=0.1), row_rule(lambda lp, f, old, a: ppo(mean_ratio(lp, old), a, 0.1, 0.1))),
    "gspo_token": (
        dict(low=0.1, high=0.1),
        row_rule(
            lambda lp, f, old, a: [
                ppo(mean_ratio(f, old) * math.exp(x - y), a, 0.1, 0.1) for x, y in zip(lp, f, strict=True)
            ]
        ),
    ),
    "luspo": (dict(low=0.1, high=0.1), row_rule(lambda lp, f, old, a: len(lp) * ppo(mean_ratio(lp, old), a, 0.1, 0.1))),
    "gmpo": (dict(low=0.3, high=0.3), row_rule(gmpo)),
    "vespo": ({}, row_rule(vespo)),
    "clip_cov": (
        {},
        lambda lp, f: token_rule(lambda x, y, old, a, mu: ppo(math.exp(x - old), a, 0.2, 0.2))(lp, f) * ~CHOSEN,
    ),
    "kl_cov": (
        dict(coef=0.3),
        lambda lp, f: (
            token_rule(lambda x, y, old, a, mu: -math.exp(x - old) * a)(lp, f)
            + 0.3 * CHOSEN * np.abs(lp - D["old_logprobs"]) * D["mask"]
        ),
    ),
}


@pytest.mark.parametrize("name", SURROGATES)
def test_each_surrogate_has_the_value_and_gradient_of_its_formula(name):
    options, formula = SURROGATES[name]
    function = pg.SURROGATE[name.split(" ")[0]]
    known = {k: jnp.asarray(v) for k, v in D.items()} | dict(
        advantage=jnp.asarray(ADVANTAGE), chosen=jnp.asarray(CHOSEN)
    )
    loss = lambda logp: (
        function(*((known | {"logp": logp})[x] for x in pg.choices.inputs(function)), **options) * D["mask"]
    )
    near(loss(known["logp"]), formula(D["logp"], D["logp"]))
    weight = np.random.default_rng(2).random(D["mask"].shape)
    grad = jax.grad(lambda logp: jnp.sum(weight * loss(logp)))(known["logp"])
    for place in zip(*np.nonzero(D["mask"]), strict=True):
        step = np.zeros_like(D["logp"])
        step[place] = 1e-6
        slope = np.sum(weight * (formula(D["logp"] + step, D["logp"]) - formula(D["logp"] - step, D["logp"]))) / 2e-6
        near(grad[place], slope, 1e-6)


def test_every_surrogate_of_the_table_has_its_formula_here():
    assert {name.split(" ")[0] for name in SURROGATES} == set(pg.SURROGATE)


@pytest.mark.parametrize("ratio, advantage, loss, slope", [
    # better than expected: pushed up until the ratio is 1 + high, and always back up from below
    (1.5, 2.0, -1.28 * 2.0, 0.0), (0.5, 2.0, -0.5 * 2.0, -0.5 * 2.0),
    # worse than expected: pushed down until the ratio is 1 - low, and always back down from above
    (0.5, -2.0, 0.8 * 2.0, 0.0), (1.5, -2.0, 1.5 * 2.0, 1.5 * 2.0),
])  # fmt: skip
def test_ppo_clips_two_quadrants_and_leaves_the_other_two(ratio, advantage, loss, slope):
    logp, old, a = jnp.full((1, 1), jnp.log(ratio) - 1), jnp.full((1, 1), -1.0), jnp.full(1, advantage)
    clip = lambda x: pg.ppo_clip(x, old, a, low=0.2, high=0.28).sum()
    near(clip(logp), loss)
    near(jax.grad(clip)(logp), [[slope]])
    row = pg.Algorithm("grpo", "ppo_clip(low=0.2, high=0.28)", "token_mean")
    assert bool(pg.clipped(row, logp, old, a, jnp.ones((1, 1)))[0, 0]) == (slope == 0)


ON_POLICY = [n for n in SURROGATES if n.split(" ")[0] not in ("decoupled_ppo", "clip_cov", "vespo", "luspo")]


@pytest.mark.parametrize("name", ON_POLICY)
def test_with_old_the_policy_itself_every_surrogate_has_the_gradient_of_reinforce(name):
    """One update per rollout: the ratio is 1, nothing is clipped, the weighted gradient is -A."""
    options, _ = SURROGATES[name]
    function = pg.SURROGATE[name.split(" ")[0]]
    lp = jnp.asarray(D["logp"])
    known = dict(
        old_logprobs=lp, advantage=jnp.asarray(ADVANTAGE), mask=jnp.asarray(D["mask"]), chosen=jnp.asarray(CHOSEN)
    )
    weight = pg.weights(D["mask"], "seq_mean_token_mean")
    loss = lambda x: jnp.sum(
        weight * function(*((known | {"logp": x})[k] for k in pg.choices.inputs(function)), **options)
    )
    wanted = -np.asarray(weight) * ADVANTAGE[..., None]
    got = jax.grad(loss)(lp)
    if name == "kl_cov":  # |log rho| has no slope at 0, and any of -1..1 would do
        got, wanted = got[~CHOSEN], wanted[~CHOSEN]
    near(got, wanted)


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("gap", [200.0, -200.0])
def test_a_huge_log_ratio_gives_finite_values_and_gradients(name, gap):
    options, _ = SURROGATES[name]
    function = pg.SURROGATE[name.split(" ")[0]]
    for logp in (jnp.asarray(D["logp"]), jnp.asarray(D["logp"], jnp.float32)):
        known = dict(
            old_logprobs=logp + gap,
            advantage=jnp.asarray(ADVANTAGE, logp.dtype),
            mask=jnp.asarray(D["mask"], logp.dtype),
        )
        known |= dict(behaviour_logprobs=logp, chosen=jnp.asarray(CHOSEN))
        loss = lambda x, k=known: jnp.sum(
            function(*((k | {"logp": x})[n] for n in pg.choices.inputs(function)), **options)
        )
        value, grad = jax.value_and_grad(loss)(logp)
        assert np.isfinite(value) and np.isfinite(grad).all()


def test_luspo_is_gspo_summed_over_tokens():
    known = [jnp.asarray(x) for x in (D["logp"], D["old_logprobs"], ADVANTAGE, D["mask"])]
    luspo = pg.aggregate(pg.luspo(*known), D["mask"], "seq_mean_token_mean")
    near(luspo, pg.aggregate(pg.gspo(*known, low=0.2, high=0.2), D["mask"], "seq_mean_token_sum"))


def test_the_value_loss_takes_the_worse_of_clipped_and_not():
    v, old, returns = jnp.array([1.0, 0.0, 0.5]), jnp.array([0.0, 0.0, 0.5]), jnp.array([2.0, 0.1, -1.0])
    near(pg.value_clipped(v, old, returns, clip=0.2), [0.5 * 1.8**2, 0.5 * 0.01, 0.5 * 1.5**2])
    near(pg.value_clipped(v, old, returns, clip=None), [0.5, 0.5 * 0.01, 0.5 * 1.5**2])


# ---------------------------------------------------------------------------------------------------------------------
# Importance weights.


@pytest.mark.parametrize("level", ["token", "sequence", "geometric"])
@pytest.mark.parametrize("mode", ["truncate", "mask"])
@pytest.mark.parametrize("normalize", [False, True])
def test_importance_weights_are_what_their_formula_says(level, mode, normalize):
    lo, hi = 0.7, 1.4
    expected = np.zeros_like(D["mask"])
    ws = []
    for b, g in np.ndindex(B, G):
        live = D["mask"][b, g] > 0
        if not live.any():
            continue
        gap = (D["old_logprobs"] - D["behaviour_logprobs"])[b, g, live]
        w = np.exp({"token": gap, "sequence": [gap.sum()], "geometric": [gap.mean()]}[level])
        w = np.clip(w, lo, hi) if mode == "truncate" else np.where((w >= lo) & (w <= hi), w, 0)
        ws += list(w)
        expected[b, g, live] = w
    got = pg.is_weights(
        *(jnp.asarray(D[k]) for k in ("old_logprobs", "behaviour_logprobs", "mask")), level, mode, lo, hi, normalize
    )
    near(got, expected / (np.mean(ws) if normalize else 1))
    assert len(set(np.round(ws, 9))) > 1


def test_importance_weights_of_one_and_the_same_policy_are_one():
    old, mask = jnp.asarray(D["old_logprobs"]), jnp.asarray(D["mask"])
    for level in ("token", "sequence", "geometric"):
        near(pg.is_weights(old, old, mask, level, "mask", 0.99, 1.01), mask)


def test_unknown_levels_and_modes_are_refused():
    for level, mode in (("word", "mask"), ("token", "drop")):
        with pytest.raises(UserError, match="choose from"):
            pg.is_weights(jnp.zeros((1, 1)), jnp.zeros((1, 1)), jnp.ones((1, 1)), level, mode)


def test_stale_attempts_are_left_out_only_where_they_did_worse_than_expected():
    logp, sampler = jnp.full((3, 2), -2.0), jnp.full((3, 2), -1.0)
    keep = pg.near_policy(logp, sampler, jnp.array([-1.0, 1.0, -1.0]), jnp.array([[1, 1], [1, 1], [0, 0]]), 0.5)
    near(keep[:, 0], [0, 1, 1])


# ---------------------------------------------------------------------------------------------------------------------
# KL.


def test_k3_is_never_negative_and_k1_can_be():
    logp, ref = jnp.array([-2.0, -1.0, -1.0]), jnp.array([-1.0, -1.0, -2.0])
    near(pg.k1(logp, ref), [-1, 0, 1])
    near(pg.k2(logp, ref), [0.5, 0, 0.5])
    near(pg.k3(logp, ref), [np.e - 2, 0, 1 / np.e])
    near(pg.kl.absolute(logp, ref), [1, 0, 1])


def test_kl_estimates_of_a_huge_gap_are_finite():
    for logp, ref in ((-200.0, 0.0), (0.0, -200.0)):
        for f in pg.kl.ESTIMATORS.values():
            assert jnp.isfinite(jax.grad(lambda x, f=f, ref=ref: f(x, jnp.float32(ref)))(jnp.float32(logp)))


def test_the_kl_term_is_zero_with_its_reference_and_counts_only_with_one():
    row = pg.Algorithm("grpo", "reinforce", "token_mean", kl="k2(coef=0.5)")
    logp, ref, one = jnp.array([[-2.0, -3.0]]), jnp.array([[-1.0, -1.0]]), jnp.ones((1, 2))
    a = jnp.array([4.0])
    near(pg.token_loss(row, logp, logp, a, one), [[8.0, 12.0]])
    near(pg.token_loss(row, logp, logp, a, one, ref_logprobs=ref), [[8.25, 13.0]])
    near(pg.token_loss(row, logp, logp, a, one, ref_logprobs=logp), [[8.0, 12.0]])


def test_an_unknown_kl_gradient_is_refused():
    with pytest.raises(UserError, match="grad='k9'"):
        pg.k1(jnp.zeros(1), jnp.zeros(1), grad="k9")
