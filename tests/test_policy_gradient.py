"""Aggregations, and the policy-gradient theorem by enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective_batch import near

from rljax import policy_gradient as pg
from rljax.errors import UserError


@pytest.fixture(scope="module", autouse=True)
def double():
    with jax.enable_x64(True):
        yield


# ---------------------------------------------------------------------------------------------------------------------
# Aggregations.

MASK = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]])  # 3, 1, 0 and 2 tokens; groups of 2
SHARES = {  # the weight of one token of each row, where empty rows do not count in a mean, and where they do
    "token_mean": ([1 / 6, 1 / 6, 0, 1 / 6], [1 / 6, 1 / 6, 0, 1 / 6]),
    "seq_mean_token_mean": ([1 / 9, 1 / 3, 0, 1 / 6], [1 / 12, 1 / 4, 0, 1 / 8]),
    "seq_mean_token_sum": ([1 / 3, 1 / 3, 0, 1 / 3], [1 / 4, 1 / 4, 0, 1 / 4]),
    "seq_mean_token_sum_const": ([1 / 40, 1 / 40, 0, 1 / 40], [1 / 40, 1 / 40, 0, 1 / 40]),
    "token_sum": ([1, 1, 0, 1], [1, 1, 0, 1]),
    "prompt_mean": ([1 / 8, 1 / 8, 0, 1 / 4], [1 / 8, 1 / 8, 0, 1 / 4]),
}


@pytest.mark.parametrize("mode", pg.AGGREGATIONS)
def test_each_aggregation_gives_a_token_its_share(mode):
    for empty, share in zip(("live", "all"), SHARES[mode], strict=True):
        more = dict(group_size=2, const=10, empty_rows=empty)
        near(pg.weights(MASK, mode, **more), MASK * np.asarray(share)[:, None])
        near(
            pg.weights(MASK.reshape(2, 2, 4), mode, const=10, empty_rows=empty).reshape(4, 4),
            MASK * np.asarray(share)[:, None],
        )


@pytest.mark.parametrize("mode", pg.AGGREGATIONS)
def test_parts_of_a_batch_add_up_with_the_counts_of_the_whole(mode):
    loss = np.random.default_rng(0).normal(size=MASK.shape)
    whole = pg.aggregate(loss, MASK, mode, const=10, group_size=2)
    counts = dict(n_tokens=6, n_seqs=4 if mode.endswith("const") else 2 if mode == "prompt_mean" else 3, const=10)
    parts = [pg.aggregate(loss[i : i + 2], MASK[i : i + 2], mode, group_size=2, **counts) for i in (0, 2)]
    near(sum(parts), whole)
    if mode not in ("token_sum", "seq_mean_token_sum_const"):
        alone = [pg.aggregate(loss[i : i + 2], MASK[i : i + 2], mode, const=10, group_size=2) for i in (0, 2)]
        assert abs(np.mean(alone) - whole) > 1e-3 or mode == "prompt_mean"


def test_a_prompt_without_tokens_counts_only_where_asked():
    mask = np.array([[1, 1], [1, 0], [0, 0], [0, 0]])
    near(pg.weights(mask, "prompt_mean", group_size=2).sum(), 1)
    near(pg.weights(mask, "prompt_mean", group_size=2, empty_rows="all").sum(), 0.5)


@pytest.mark.parametrize("mode", pg.AGGREGATIONS)
def test_a_batch_without_a_token_weighs_nothing_and_is_finite(mode):
    assert (pg.weights(np.zeros((4, 3)), mode, group_size=2, const=3) == 0).all()


def test_unknown_or_incomplete_aggregations_are_refused():
    for match, more in (("nonsense", {}), ("constant", {}), ("empty_rows", {"empty_rows": "some"})):
        mode = {"nonsense": "nonsense", "constant": "seq_mean_token_sum_const"}.get(match, "token_mean")
        with pytest.raises(UserError, match=match):
            pg.weights(MASK, mode, **more)


# ---------------------------------------------------------------------------------------------------------------------
# The policy-gradient theorem, by enumeration: token 0 stops, token 1 goes on, two tokens at most.

SEQUENCES = np.array([[0, 0], [1, 0], [1, 1]])
SEEN = np.array([[1, 0], [1, 1], [1, 1]])
REWARD = np.array([0.3, 1.0, -0.5])
THETA = np.array([[0.2, -0.4], [0.7, 0.1]])  # logits of the first and of the second token


def token_logp(theta):
    """[3, 2]: log-probability of each token of each sequence."""
    return jax.nn.log_softmax(theta)[jnp.arange(2), SEQUENCES] * SEEN


def true_gradient():
    return jax.grad(lambda theta: jnp.sum(jnp.exp(token_logp(theta).sum(-1)) * REWARD))(jnp.asarray(THETA))


def mean_update(row, group):
    """Minus the expected gradient of a row's loss over every possible group of sequences at one prompt."""
    probability = jnp.exp(token_logp(jnp.asarray(THETA)).sum(-1))

    def loss(theta, chosen):
        logp, mask = token_logp(theta)[chosen], jnp.asarray(SEEN, float)[chosen]
        advantage = pg.compute_advantages(row, pg.Attempts(jnp.asarray(REWARD)[chosen][None], mask[None]))[0][0]
        weight = pg.token_weights(row, mask, group_size=group, const=2)
        return jnp.sum(weight * pg.token_loss(row, logp, pg.stop_gradient(logp), advantage, mask))

    groups = jnp.asarray(list(itertools.product(range(3), repeat=group)))
    grads = jax.vmap(jax.grad(loss), (None, 0))(jnp.asarray(THETA), groups)
    return -jnp.tensordot(jnp.prod(probability[groups], -1), grads, 1)


@pytest.mark.parametrize("advantage, surrogate, group", [
    ("raw", "reinforce", 2), ("rloo", "reinforce", 3), ("rloo", "ppo_clip", 2), ("rloo", "cispo", 2), ("rloo", "sapo", 2)
])  # fmt: skip
def test_the_expected_update_is_the_gradient_of_the_expected_reward(advantage, surrogate, group):
    near(mean_update(pg.Algorithm(advantage, surrogate, "seq_mean_token_sum"), group), true_gradient())
    assert jnp.abs(true_gradient()).max() > 0.1


def test_the_group_mean_as_baseline_shrinks_the_update_by_g_minus_one_over_g():
    near(mean_update(pg.Algorithm("mean_center", "reinforce", "seq_mean_token_sum"), 3), true_gradient() * 2 / 3)


def test_dr_grpo_is_unbiased_up_to_a_constant_and_per_sequence_means_are_not():
    near(
        mean_update(pg.ALGORITHMS["dr_grpo"], 3), true_gradient() * (2 / 3) / 2
    )  # times (G - 1) / G, by the constant 2
    biased = mean_update(pg.Algorithm("rloo", "reinforce", "seq_mean_token_mean"), 3)
    cosine = jnp.vdot(biased, true_gradient()) / jnp.linalg.norm(biased) / jnp.linalg.norm(true_gradient())
    assert cosine < 0.999


def test_pkpo_is_the_gradient_of_the_expected_best_of_two():
    """Of three attempts, by enumeration: the expected update is the gradient of E[max of 2 rewards], over G."""
    best = lambda theta: sum(
        jnp.exp(token_logp(theta)[i].sum() + token_logp(theta)[j].sum()) * max(REWARD[i], REWARD[j])
        for i, j in itertools.product(range(3), repeat=2)
    )
    wanted = jax.grad(best)(jnp.asarray(THETA)) / 3
    for baseline in ("none", "loo", "loo1"):
        near(mean_update(pg.Algorithm(f"pkpo(k=2, baseline={baseline})", "reinforce", "seq_mean_token_sum"), 3), wanted)
