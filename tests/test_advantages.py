"""Advantages against loops written from their formulas; groups that agree; attempts that could not be scored."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective_batch import B, D, G, near

from rljax import policy_gradient as pg
from rljax.errors import UserError


@pytest.fixture(scope="module", autouse=True)
def double():
    with jax.enable_x64(True):
        yield


# ---------------------------------------------------------------------------------------------------------------------
# Advantages, by loops.


def by_group(rule):
    """An advantage of one group at a time."""

    def of(d):
        return np.array([rule(list(r), m.sum(-1)) for r, m in zip(d["rewards"], d["mask"], strict=True)])

    return of


def std(x, ddof=1):
    return math.sqrt(sum((v - sum(x) / len(x)) ** 2 for v in x) / (len(x) - ddof))


def zscore(x, eps):
    flat = list(np.ravel(x))
    return (np.asarray(x) - np.mean(flat)) / (std(flat) + eps)


def centered(d):
    return by_group(lambda r, _: [x - sum(r) / G for x in r])(d)


def others(r, i):
    return r[:i] + r[i + 1 :]


def best_of_subsets(r, k):
    return np.mean([max(s) for s in itertools.combinations(r, k)]) if k else 0.0


def pkpo(r, k, baseline):
    out = []
    for i in range(len(r)):
        holding = [max(s) for s in itertools.combinations(range(len(r)), k) if i in s for s in [[r[j] for j in s]]]
        size = {"none": 0, "loo": k, "loo1": k - 1}[baseline]
        out.append(sum(holding) / math.comb(len(r), k) - k / len(r) * best_of_subsets(others(r, i), size) * (size > 0))
    return out


def passk_training(r, k):
    """The z-score of a random subset's pass@k, averaged over the subsets that hold this attempt."""
    right = [x >= 1 for x in r]
    subsets = list(itertools.combinations(range(len(r)), k))
    won = [float(any(right[j] for j in s)) for s in subsets]
    mean = np.mean(won)
    if mean in (0, 1):
        return [0.0] * len(r)
    scores = [(w - mean) / math.sqrt(mean * (1 - mean)) for w in won]
    return [np.mean([x for s, x in zip(subsets, scores, strict=True) if i in s]) for i in range(len(r))]


def passk_best(r, _):
    top = sorted(r)[::-1]
    return [(top[0] - top[1]) / (std(r) + 1e-6) * (i == r.index(top[0])) for i in range(G)]


def opo(r, lengths):
    return [x - sum(lengths * np.array(r)) / max(sum(lengths), 1) for x in r]


def maxrl(r, _):
    mean = sum(r) / G
    return [(x - mean) / mean if mean else 0.0 for x in r]


def spread(a, mask):
    return a[..., None] * mask


def returns_of(d, gamma=1.0, penalty=0.0):
    """Reward-to-go with the reward at the last token that counts, over the tokens that count."""
    out = np.zeros_like(d["mask"])
    for b, g in np.ndindex(B, G):
        after, seen = 0.0, False
        for t in reversed(np.flatnonzero(d["mask"][b, g])):
            after = (0.0 if seen else d["rewards"][b, g]) - np.broadcast_to(penalty, out.shape)[b, g, t] + gamma * after
            out[b, g, t], seen = after, True
    return out


def whitened(x, mask):
    live = x[mask > 0]
    return (x - live.mean()) / np.sqrt(live.var(ddof=1) + 1e-8) * mask


def gae(d, gamma, lam):
    advantage = np.zeros_like(d["mask"])
    for b, g in np.ndindex(B, G):
        after, value = 0.0, 0.0
        live = np.flatnonzero(d["mask"][b, g])
        for t in reversed(live):
            reward = d["rewards"][b, g] if t == live[-1] else 0.0
            delta = reward + gamma * value - d["values"][b, g, t]
            after = delta + gamma * np.broadcast_to(lam, (B, G))[b, g] * after
            advantage[b, g, t], value = after, d["values"][b, g, t]
    return advantage, (advantage + d["values"]) * d["mask"]


def adaptive(d, alpha):
    lam = np.array([[min(max(1 - 1 / (alpha * max(n, 1)), 0), 1) for n in row] for row in d["mask"].sum(-1)])
    return gae(d, 1.0, lam)[0]


PENALTY = 0.1 * (D["old_logprobs"] - D["ref_logprobs"])
PARTS = np.stack([D["rewards"], D["values"][..., 0]], -1)
ADVANTAGES = {
    "mean_center": (lambda d: pg.mean_center(d["rewards"]), centered),
    "grpo": (
        lambda d: pg.grpo(d["rewards"]),
        by_group(lambda r, _: [(x - sum(r) / G) / (std(r) + 1e-4) for x in r]),
    ),
    "grpo, population": (
        lambda d: pg.grpo(d["rewards"], eps=1e-6, ddof=0),
        by_group(lambda r, _: [(x - sum(r) / G) / (std(r, 0) + 1e-6) for x in r]),
    ),
    "batch_std": (
        lambda d: pg.batch_std(d["rewards"]),
        lambda d: centered(d) / (std(list(d["rewards"].reshape(-1))) + 1e-4),
    ),
    "rloo": (
        lambda d: pg.rloo(d["rewards"]),
        by_group(lambda r, _: [x - sum(others(r, i)) / (G - 1) for i, x in enumerate(r)]),
    ),
    "rloo, normalised": (
        lambda d: pg.rloo(d["rewards"], normalize=True),
        lambda d: zscore(by_group(lambda r, _: [x - sum(others(r, i)) / (G - 1) for i, x in enumerate(r)])(d), 1e-4),
    ),
    "opo": (lambda d: pg.opo(d["rewards"], d["mask"]), by_group(opo)),
    "gpg": (
        lambda d: pg.gpg(d["rewards"], f_norm=2.0),
        lambda d: centered(d) * d["rewards"].size / np.sum(d["rewards"] != 0) / 2,
    ),
    "gdpo": (
        lambda d: pg.gdpo(PARTS, weights=(1.0, 0.5)),
        lambda d: zscore(
            sum(
                w
                * by_group(lambda r, _: [(x - sum(r) / G) / (std(r) + 1e-4) for x in r])(d | {"rewards": PARTS[..., i]})
                for i, w in enumerate((1.0, 0.5))
            ),
            1e-4,
        ),
    ),
    "whiten_seq": (lambda d: pg.whiten_seq(d["rewards"]), lambda d: zscore(d["rewards"], 1e-8)),
    "remax": (lambda d: pg.remax(d["rewards"], d["greedy"]), lambda d: d["rewards"] - d["greedy"][:, None]),
    "maxrl": (lambda d: pg.maxrl(d["rewards"]), by_group(maxrl)),
    "passk_best": (lambda d: pg.passk_best(d["rewards"]), by_group(passk_best)),
    "rf_pp": (
        lambda d: pg.rf_pp(d["rewards"], d["mask"], PENALTY, gamma=0.9),
        lambda d: whitened(returns_of(d, 0.9, PENALTY), d["mask"]),
    ),
    "rf_pp_baseline": (
        lambda d: pg.rf_pp_baseline(d["rewards"], d["mask"]),
        lambda d: whitened(spread(centered(d), d["mask"]), d["mask"]),
    ),
    "gae": (lambda d: pg.gae(d["rewards"], d["values"], d["mask"], gamma=0.9, lam=0.8), lambda d: gae(d, 0.9, 0.8)),
    "gae, whitened": (
        lambda d: pg.gae(d["rewards"], d["values"], d["mask"], whitened=True)[0],
        lambda d: whitened(gae(d, 1.0, 1.0)[0], d["mask"]),
    ),
    "gae_length_adaptive": (
        lambda d: pg.gae_length_adaptive(d["rewards"], d["values"], d["mask"], alpha=0.5),
        lambda d: (adaptive(d, 0.5), gae(d, 1.0, 1.0)[1]),
    ),
}
for k, how in itertools.product((1, 2, 3), ("none", "loo", "loo1")):
    ADVANTAGES[f"pkpo, k={k}, {how}"] = (
        lambda d, k=k, how=how: pg.pkpo(d["rewards"], k=k, baseline=how),
        by_group(lambda r, _, k=k, how=how: pkpo(r, k, how)),
    )
for k in (1, 2, 4):
    ADVANTAGES[f"passk_training, k={k}"] = (
        lambda d, k=k: pg.passk_training(d["rewards"], k=k),
        by_group(lambda r, _, k=k: passk_training(r, k)),
    )


@pytest.mark.parametrize("name", ADVANTAGES)
def test_each_advantage_is_what_its_formula_says(name):
    ours, formula = ADVANTAGES[name]
    d = {k: jnp.asarray(v) for k, v in D.items()}
    got, wanted = ours(d), formula(D)
    for a, b in zip(
        got if isinstance(got, tuple) else [got], wanted if isinstance(wanted, tuple) else [wanted], strict=True
    ):
        near(a, b, 1e-7 if "rf_pp" in name else 1e-9)


def test_the_shares_of_pkpo_add_up_to_k_times_the_best_of_k():
    r = jnp.asarray(np.random.default_rng(1).normal(size=(3, 6)))
    for k in (1, 3, 6):
        near(pg.pkpo(r, k=k, baseline="none").sum(-1), k * pg.max_at_k(r, k))
        near(pg.max_at_k(r, k), [best_of_subsets(list(x), k) for x in r])


def test_maxrl_is_the_gradient_of_the_log_of_the_success_rate():
    """sum_i A_i S_i / G = sum over right attempts of S_i / K - mean of S_i, for any scores S."""
    r, s = np.array([1.0, 0, 0, 1, 0, 0]), np.random.default_rng(0).normal(size=6)
    near(np.mean(np.asarray(pg.maxrl(r[None])[0]) * s), s[r > 0].mean() - s.mean())


# ---------------------------------------------------------------------------------------------------------------------
# Zero variance, groups, unscorable attempts.

GROUPWISE = {
    **{name: getattr(pg, name) for name in ("mean_center", "grpo", "batch_std", "rloo", "gpg", "maxrl", "passk_best")},
    "opo": lambda r: pg.opo(r, jnp.ones((*r.shape, 2))),
    "passk_training": lambda r: pg.passk_training(r, k=2),
    "pkpo": lambda r: pg.pkpo(r, k=2, baseline="loo"),
    "rf_pp_baseline": lambda r: pg.rf_pp_baseline(r, jnp.ones((*r.shape, 2))),
}


@pytest.mark.parametrize("name", GROUPWISE)
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1])
@pytest.mark.parametrize("bits", [32, 64])
def test_a_group_that_agrees_has_advantage_exactly_zero(name, reward, bits):
    """Three times .1 has not exactly the mean .1: an error of 1e-8 over an eps of 1e-8 must not become an advantage."""
    advantage = GROUPWISE[name](jnp.full((1, 3), reward, f"float{bits}"))
    near(advantage, 0 * advantage, 1e-9 if name == "pkpo" else 0)


def test_eps_and_ddof_are_options_and_ddof_matters():
    one = jnp.array([[1.0, 0, 0, 0]])
    near(pg.grpo(one, eps=0.0), [[1.5, -0.5, -0.5, -0.5]])  # deviation 1/2
    near(pg.grpo(one, eps=0.0, ddof=0)[0, 0], 3**0.5)  # deviation .433
    noise = jnp.array([[0.1 + 0.2, 0.3, 0.3, 0.3]])  # equal but for rounding: a large eps keeps it small
    assert 0 < jnp.abs(pg.grpo(noise)).max() < 1e-11


def test_nothing_is_nan_where_groups_agree_nor_in_the_gradient():
    for name in GROUPWISE:
        f = GROUPWISE[name]
        out = jax.jit(f)(jnp.zeros((2, 4)))
        grad = jax.jit(jax.grad(lambda r, f=f: jnp.sum(pg.stop_gradient(f(r)))))(jnp.ones((2, 4)))
        assert np.isfinite(out).all() and (grad == 0).all()


def test_each_prompt_is_compared_with_its_own_attempts_only():
    both = jnp.array([[1.0, 0.0, 0.0, 0.5], [10.0, 12.0, 10.0, 12.0]])
    for name in ("mean_center", "grpo", "rloo", "maxrl", "passk_best", "passk_training", "pkpo", "opo"):
        f = GROUPWISE[name]
        near(f(both), jnp.concatenate([f(both[:1]), f(both[1:])]))
    assert not np.allclose(pg.batch_std(both)[0], pg.batch_std(both[:1])[0])  # this one is over the batch


def test_an_attempt_that_could_not_be_scored_stays_out_and_has_advantage_zero():
    with_hole, without = jnp.array([[1.0, jnp.nan, 0.0, 0.0]]), jnp.array([[1.0, 0.0, 0.0]])
    for f in (pg.mean_center, pg.grpo, pg.rloo, pg.maxrl, lambda r: pg.opo(r, jnp.ones((*r.shape, 2)))):
        out = f(with_hole)
        assert out[0, 1] == 0
        near(out[0, [0, 2, 3]], f(without)[0])


def test_a_group_of_one_is_refused():
    for name in pg.NEEDS_GROUP:
        choice = f"{name}(k=1)" if name in ("pkpo", "passk_training") else name
        row = pg.Algorithm(choice, "reinforce", "token_mean", truncated="soft" if name == "gdpo" else "keep")
        with pytest.raises(UserError, match="group_size"):
            pg.compute_advantages(row, pg.Attempts(jnp.ones((3, 1)), jnp.ones((3, 1, 2))))


def test_no_gradient_flows_through_the_advantage():
    row = pg.Algorithm("grpo", "reinforce", "token_mean")
    grad = jax.grad(lambda r: jnp.sum(pg.compute_advantages(row, pg.Attempts(r, jnp.ones((1, 4, 2))))[0] ** 2))(
        jnp.arange(4.0)[None]
    )
    assert (grad == 0).all()


def test_positive_and_negative_only_split_the_signed_advantage():
    of = lambda sign: pg.compute_advantages(
        pg.Algorithm("grpo", "ppo_clip", "token_mean", sign=sign), pg.Attempts(jnp.asarray(D["rewards"]), D["mask"])
    )[0]
    near(of("positive") + of("negative"), of("both"))
    assert (of("positive") >= 0).all() and (of("negative") <= 0).all() and of("both").min() < 0 < of("both").max()
