"""NaN stands where nothing counts: losses, gradients, weights and statistics are what they would be with any number there.

Also where a reward is unknown: the loss mask, the groups that are kept, the metrics.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective_batch import ADVANTAGE_OF_BATCH, D, near

from rljax import metrics, rewards
from rljax import policy_gradient as pg
from rljax.learner import supervised
from rljax.structs import Rewards, Rollout
from rljax.transformer import value_head


@pytest.fixture(scope="module", autouse=True)
def double():
    with jax.enable_x64(True):
        yield


flat = lambda x: jnp.asarray(x).reshape(-1, x.shape[-1])
MASK = flat(D["mask"])
CHOSEN = jnp.asarray(np.random.default_rng(3).random(MASK.shape) < 0.5)
NAMES = ("old_logprobs", "behaviour_logprobs", "ref_logprobs")
OPTIONS = {"dro": "(beta=0.5)"}
SURROGATES = [*pg.SURROGATE, "dppo(by=kl)", "vespo(from_sampler=True)", "ppo_clip(dual_clip=3.0, delta=4.0)"]


def spoil(x, mask=MASK, by=jnp.nan):
    return jnp.where(mask > 0, x, by)


def make_algorithm(surrogate, **changes):
    name = surrogate.split("(")[0]
    one_for_all = name in ("gspo", "luspo", "gmpo")
    advantage = "raw" if name == "imitation" else "grpo"
    return pg.Algorithm(
        surrogate=surrogate + ("" if "(" in surrogate else OPTIONS.get(name, "")),
        aggregation="seq_mean_token_mean" if one_for_all else "token_mean",
        **({"advantage": advantage} | changes),
    )


def loss_and_gradient(algorithm, change=lambda x: x, correction=None):
    """The loss of the whole batch and its gradient, where ``change`` was done to every log-probability."""
    weight = pg.token_weights(algorithm, MASK, group_size=4, const=6)
    known = {name: change(flat(D[name])) for name in NAMES}

    def loss(logp):
        more = dict(chosen=CHOSEN, correction=None if correction is None else change(correction))
        return jnp.sum(
            weight
            * pg.token_loss(algorithm, logp, advantage=ADVANTAGE_OF_BATCH.reshape(-1), mask=MASK, **known, **more)
        )

    return jax.value_and_grad(loss)(change(flat(D["logp"])))


@pytest.mark.parametrize("by", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_no_surrogate_and_no_gradient_reads_what_does_not_count(surrogate, by):
    algorithm = make_algorithm(surrogate)
    near(loss_and_gradient(algorithm, functools.partial(spoil, by=by))[0], loss_and_gradient(algorithm)[0])
    near(loss_and_gradient(algorithm, functools.partial(spoil, by=by))[1], loss_and_gradient(algorithm)[1])


@pytest.mark.parametrize("changes", [
    *(dict(kl=f"{kind}(coef=0.1, grad={grad})") for kind in ("k1", "k2", "k3", "abs") for grad in ("auto", "k2", "none")),
    dict(kl="k3(coef=0.1, unbiased=True)"), dict(off_policy_mask=0.01), dict(tokens="top_entropy"),
    dict(correction="token_mask(lo=0.9, hi=1.1)"), dict(correction="sequence_truncate(normalize=True)"),
])  # fmt: skip
def test_no_other_term_of_the_loss_reads_what_does_not_count(changes):
    algorithm = make_algorithm("ppo_clip", **changes)
    weights = lambda change: (
        pg.correction_weights(algorithm, *(change(flat(D[n])) for n in NAMES[:2]), MASK)
        if "correction" in changes
        else None
    )
    clean, spoilt = (
        loss_and_gradient(algorithm, correction=weights(lambda x: x)),
        loss_and_gradient(algorithm, spoil, weights(spoil)),
    )
    near(spoilt[0], clean[0])
    near(spoilt[1], clean[1])


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_the_share_of_clipped_tokens_ignores_what_does_not_count(surrogate):
    algorithm = make_algorithm(surrogate)
    clip = lambda change: pg.clipped(
        algorithm, change(flat(D["logp"])), change(flat(D["old_logprobs"])), ADVANTAGE_OF_BATCH.reshape(-1), MASK,
        behaviour_logprobs=change(flat(D["behaviour_logprobs"])), chosen=CHOSEN,
    )  # fmt: skip
    np.testing.assert_array_equal(clip(spoil) & (MASK > 0), clip(lambda x: x) & (MASK > 0))


@pytest.mark.parametrize("level", ["token", "sequence", "geometric"])
@pytest.mark.parametrize("normalize", [False, True])
def test_importance_weights_ignore_what_does_not_count(level, normalize):
    known = [flat(D[name]) for name in NAMES[:2]]
    weigh = lambda x, y: pg.is_weights(x, y, MASK, level, "truncate", 0.7, 1.4, normalize)
    near(weigh(*map(spoil, known)), weigh(*known))
    grads = jax.grad(lambda x: jnp.sum(weigh(x, spoil(known[1]))))(spoil(known[0]))
    assert np.isfinite(grads).all()


@pytest.mark.parametrize("mode", pg.AGGREGATIONS)
def test_aggregations_and_their_gradients_ignore_what_does_not_count(mode):
    total = lambda loss: pg.aggregate(loss, MASK, mode, const=6, group_size=4)
    value, grad = jax.value_and_grad(total)(spoil(flat(D["logp"])))
    near(value, total(flat(D["logp"])))
    near(grad, jax.grad(total)(flat(D["logp"])))


@pytest.mark.parametrize("choose", [
    lambda lp, entropy: pg.tokens.top_entropy(entropy, MASK, share=0.3),
    lambda lp, entropy: pg.tokens.kl_cov_tokens(lp, ADVANTAGE_OF_BATCH.reshape(-1), MASK, share=0.3),
    lambda lp, entropy: pg.tokens.clip_cov_tokens(
        lp, entropy, ADVANTAGE_OF_BATCH.reshape(-1), MASK, jax.random.key(0), share=0.3, lowest=0.0
    ),
])  # fmt: skip
def test_the_choice_of_tokens_ignores_what_does_not_count(choose):
    known = flat(D["logp"]), flat(D["old_logprobs"])
    chosen = choose(*known)
    np.testing.assert_array_equal(choose(*map(spoil, known)), chosen)
    assert chosen.any() and not (chosen & (MASK == 0)).any()


def test_whitening_returns_and_explained_variance_ignore_what_does_not_count():
    mask, values, r = (jnp.asarray(D[name]) for name in ("mask", "values", "rewards"))
    dirty = spoil(values, mask)
    near(pg.whiten(dirty, mask), pg.whiten(values, mask))
    assert np.isfinite(jax.grad(lambda x: jnp.sum(pg.whiten(x, mask) ** 3))(dirty)).all()
    for a, b in zip(pg.gae(r, dirty, mask, whitened=True), pg.gae(r, values, mask, whitened=True), strict=True):
        near(a, b)
    near(pg.rf_pp(r, mask, dirty), pg.rf_pp(r, mask, values))
    explained = lambda x, y: value_head.explained_variance(x, y, mask)
    near(explained(dirty, spoil(2 * values + 1, mask)), explained(values, 2 * values + 1))


# ---------------------------------------------------------------------------------------------------------------------
# Rewards that are not known.


def test_a_group_is_mixed_by_its_scored_attempts_only():
    nan = np.nan
    reward = np.array([[1, nan, 0], [1, nan, 1], [nan, nan, nan], [nan, 0, nan], [1.0, 0, 1]])
    np.testing.assert_array_equal(rewards.mixed(reward), [True, False, False, False, True])
    terms = np.stack([reward, np.where(np.arange(3) == 1, nan, 0.5) * np.ones((5, 1))], -1)
    known = Rewards(jnp.asarray(np.nan_to_num(reward)), jnp.asarray(terms), {})
    np.testing.assert_array_equal(rewards.mixed_groups(known), [True, False, False, False, False])


def test_the_metrics_of_a_rollout_are_those_of_its_scored_attempts():
    nan = jnp.nan
    correct = jnp.array([[1, nan], [nan, nan], [0, 1], [0, nan]])
    mask = jnp.ones((8, 3), bool)
    rollout = Rollout(jnp.zeros((8, 1), int), mask[:, :1], jnp.zeros((8, 3), int), mask, 0.0 * mask, mask[:, 0])
    found = rewards.summarize_rewards(rollout, Rewards(correct, jnp.stack([correct, 0.5 * correct], -1), {}))
    assert float(found["reward"]) == pytest.approx(1.5 * 2 / 4) and float(found["reward/correct"]) == 0.5
    shares = [float(found[f"groups/{name}"]) for name in ("all_wrong", "mixed", "all_right")]
    np.testing.assert_allclose(shares, [1 / 3, 1 / 3, 1 / 3])


def test_evaluation_estimates_are_those_of_scored_attempts():
    nan = np.nan
    correct = np.array([[1, 0, nan, 0], [nan, nan, nan, nan], [1, nan, nan, nan], [1, 1, 0, 0]], np.float32)
    np.testing.assert_allclose(metrics.success_rates(correct), [1 / 3, nan, 1, 0.5])
    np.testing.assert_allclose(metrics.pass_at_k(correct, 1), [1 / 3, nan, 1, 0.5])
    np.testing.assert_allclose(metrics.pass_at_k(correct, 2), [2 / 3, nan, nan, 5 / 6])
    assert metrics.mean_known(metrics.pass_at_k(correct, 2)) == pytest.approx(0.75)
    assert np.isnan(metrics.mean_known(np.full(3, nan)))
    rates = metrics.success_rates(correct)
    assert metrics.standard_error(rates) == pytest.approx(metrics.standard_error(rates[[0, 2, 3]]))


def test_a_prompt_token_of_probability_zero_leaves_the_supervised_loss_as_it_is(monkeypatch):
    logp, entropy = jnp.asarray([[-jnp.inf, -1.0, -3.0]]), jnp.asarray([[jnp.nan, 0.5, 0.7]])
    monkeypatch.setattr(supervised, "score_batch", lambda *_: (logp, entropy))
    batch = {"tokens": jnp.ones((1, 4), jnp.int32), "mask": jnp.ones((1, 4), bool)}
    batch = supervised.add_token_weights(batch | {"loss_mask": jnp.asarray([[False, False, True, True]])})
    loss, metrics = supervised.make_next_token_loss(None)({}, batch)
    assert float(loss) == 2.0 and round(float(metrics["entropy"]), 6) == 0.6
