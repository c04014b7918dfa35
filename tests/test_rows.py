"""Every row of the table, and every choice a row can make, through the learner: cuts of the batch change nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rljax import learner, sampler, transformer
from rljax import policy_gradient as pg
from rljax.structs import TrainState
from rljax.transformer import value_head

B, G, P, T, V = 2, 4, 3, 8, 9
MODEL = transformer.Config(
    vocab_size=V, width=16, heads=2, kv_heads=1, head_width=8, ff_width=24, layers=1, dtype="float64"
)
REWARD = np.array([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]])
GREEDY = np.array([1.0, 0.0])


def row(advantage="grpo", surrogate="ppo_clip", aggregation="token_mean", **more):
    return pg.Algorithm(advantage, surrogate, aggregation, **more)


MADE = {  # rows that no paper has, so that every choice of every table is taken by one
    "batch_std": row("batch_std"),
    "opo": row("opo", "sapo"),
    "gpg": row("gpg", "dro(beta=0.5)"),
    "gdpo": row("gdpo(weights=(1.0, 0.5))", truncated="soft(share=0.5)"),
    "whiten_seq": row("whiten_seq", "dppo(low=0.01, high=0.01)"),
    "remax": row("remax", "dppo(low=0.001, high=0.001, by=kl)"),
    "pkpo": row("pkpo(k=2)", "decoupled_ppo"),
    "passk_training": row("passk_training(k=2)", "luspo(low=0.01, high=0.01)", "seq_mean_token_mean"),
    "passk_best": row("passk_best", "gmpo(low=0.02, high=0.02)", "seq_mean_token_mean(empty_rows=all)"),
    "rf_pp_baseline": row("rf_pp_baseline", "gspo_token", "seq_mean_token_mean"),
    "rloo with KL in the reward": row("rloo", "reinforce", "token_sum", kl="k3(coef=0.1, where=reward)"),
    "vespo": row("grpo", "vespo(from_sampler=True)", "seq_mean_token_sum"),
    "clip_cov": row(surrogate="clip_cov(share=0.3, lowest=-0.5)"),
    "kl_cov": row(surrogate="kl_cov(share=0.3)"),
    "k2, unbiased": row(kl="k2(coef=0.1, unbiased=True)"),
    "k1 with the gradient of k2": row(kl="k1(coef=0.1, grad=k2)"),
    "abs, detached": row(kl="abs(coef=0.1, grad=none)"),
    "bonus": row(entropy="bonus(coef=0.1)", aggregation="prompt_mean"),
    "adaptive": row(entropy="adaptive(target=9.0, step=0.3)"),
    "top_entropy": row(tokens="top_entropy(share=0.3)"),
    "token_truncate": row(correction="token_truncate(hi=1.01)"),
    "token_mask": row(correction="token_mask(lo=0.9, hi=1.1, normalize=True)"),
    "sequence_truncate": row(correction="sequence_truncate(hi=1.1)"),
    "sequence_mask": row(correction="sequence_mask(hi=1.1)"),
    "geometric_truncate": row(correction="geometric_truncate"),
    "geometric_mask": row(correction="geometric_mask(hi=1.02)"),
    "mixed groups, truncated ones masked": row(groups="mixed", truncated="mask"),
    "negative only, near the sampler": row(sign="negative", off_policy_mask=0.01),
    "raw imitation": row("raw", "imitation"),
    "capped, distinct": row("all_correct(cap=1, dedupe=True, by=likeliest)", "imitation"),
}
ROWS = pg.ALGORITHMS | MADE


@pytest.fixture(scope="module", autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def wide(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, tree)


@pytest.fixture(scope="module")
def params(double):
    return wide(transformer.init(MODEL, jax.random.key(0)))


@pytest.fixture(scope="module")
def rollout(params):
    with jax.enable_x64(False):
        prompt = jax.random.randint(jax.random.key(1), (B, P), 3, V)
        draw = dict(group_size=G, max_new_tokens=T, stop_ids=(2,))
        plain, mask = dataclasses.replace(MODEL, dtype="float32"), jnp.ones((B, P), bool)
        out = sampler.sample(jax.tree.map(np.float32, params), plain, prompt, mask, jax.random.key(2), **draw)
    other = np.random.default_rng(3).normal(size=out.mask.shape)  # a sampler that is not quite the policy
    return out.replace(logprobs=jnp.where(out.mask, jnp.asarray(out.logprobs, float) + 0.05 * other, 0.0))


SGD = optax.sgd(1.0)


def plan_of(r, updates=1, epochs=2):
    value = learner.CriticUpdate(SGD) if r.looks_at("values") else None
    return learner.PolicyUpdate(T, G, updates=updates, epochs=epochs, critic=value)


def state_of(params, r, plan):
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(step=zero, params=params, opt_state=SGD.init(params), key=jax.random.key(7), cursor=zero)
    if r.kl_in:
        state = state.replace(reference=jax.tree.map(lambda x: x * 1.05, params))
    if r.adapts_entropy:
        state = state.replace(entropy_coef=jnp.zeros(()))
    if plan.critic:
        value = wide(value_head.init_critic(params, "own"))
        value["head"] = value["head"] + 0.1
        state = state.replace(critic=value, critic_opt_state=SGD.init(value))
    return state


def learn(r, params, rollout, split, reward=REWARD, plan=None, state=None):
    """The state and metrics after one rollout's updates."""
    plan = plan or plan_of(r)
    how = dict(row=r, model=MODEL, plan=plan, split=split)

    @jax.jit
    def both(state, rollout, reward):
        batch, compared = learner.compare(state, rollout, reward, greedy=jnp.asarray(GREEDY), **how)
        state, metrics = learner.push(state, batch, optimizer=SGD, start=P, **how)
        return state, metrics | compared

    return both(state or state_of(params, r, plan), rollout, jnp.asarray(reward))


def moved(before, after):
    learned = lambda s: (s.params, s.critic)
    return jax.tree.map(lambda a, b: np.asarray(a - b), learned(before), learned(after))


def test_the_rollout_used_here_has_unequal_lengths_and_stops(rollout):
    assert len(set(np.asarray(rollout.lengths).tolist())) > 3
    assert 0 < int(rollout.finished.sum()) < B * G


@pytest.mark.parametrize("name", ROWS)
def test_pitfall_07_no_row_depends_on_the_micro_batches(name, params, rollout):
    """1 x 8, 2 x 4 and 8 x 1 rows: two optimiser steps on the same rollout end at the same parameters."""
    r = ROWS[name]
    begin = state_of(params, r, plan_of(r))
    whole, metrics = learn(r, params, rollout, learner.Split(8))
    change = moved(begin, whole)
    size = float(optax.tree.norm(change))
    assert size > 1e-4 and np.isfinite(size), "nothing moved: this test would prove nothing"
    for rows, widths in ((4, ()), (1, (P + 4,))):
        cut, more = learn(r, params, rollout, learner.Split(rows, widths))
        difference = jax.tree.map(np.subtract, change, moved(begin, cut))
        assert float(optax.tree.norm(difference)) <= 1e-6 * size
        for key in metrics:
            np.testing.assert_allclose(metrics[key], more[key], rtol=1e-6, atol=1e-9, err_msg=key)


@pytest.mark.parametrize("name", ROWS)
def test_a_batch_in_which_nobody_is_right_stays_finite(name, params, rollout):
    state, metrics = learn(ROWS[name], params, rollout, learner.Split(4), reward=np.zeros((B, G)))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state.params, state.critic, metrics)))
    assert int(state.skipped_total) == 0


def test_every_choice_of_every_table_is_taken_by_a_row():
    from rljax.policy_gradient.algorithms import TABLES

    for field, table in TABLES.items():
        assert {r.name(field) for r in ROWS.values()} | {"refill"} >= set(table), field


def test_masked_tokens_of_the_learner_are_those_the_row_leaves_out(params, rollout):
    kept = lambda **more: float(learn(row(**more), params, rollout, learner.Split(8))[1]["counted"])
    finished = float(jnp.sum(rollout.mask * rollout.finished[:, None]) / jnp.sum(rollout.mask))
    assert kept(truncated="mask") == pytest.approx(finished) and finished < 1
    lone = np.array([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    _, metrics = learn(row(groups="mixed"), params, rollout, learner.Split(8), reward=lone)
    assert float(metrics["counted"]) == pytest.approx(float(rollout.lengths[:G].sum() / rollout.lengths.sum()))


def test_pitfall_06_a_truncated_response_out_of_the_loss_still_counts_in_the_baseline(params, rollout):
    r, how = (
        row("mean_center", "reinforce", truncated="mask"),
        dict(model=MODEL, plan=plan_of(row()), split=learner.Split(8)),
    )
    batch, _ = learner.compare(state_of(params, r, plan_of(r)), rollout, jnp.asarray(REWARD), row=r, **how)
    np.testing.assert_allclose(batch["advantage"].reshape(B, G), REWARD - REWARD.mean(-1, keepdims=True))
    assert not batch["counted"][~np.asarray(rollout.finished)].any() and batch["counted"].any()


def test_soft_overlong_lowers_the_reward_of_long_responses_only(params, rollout):
    r, how = (
        row("raw", "reinforce", truncated="soft(share=0.5)"),
        dict(model=MODEL, plan=plan_of(row()), split=learner.Split(8)),
    )
    batch, metrics = learner.compare(state_of(params, r, plan_of(r)), rollout, jnp.asarray(REWARD), row=r, **how)
    lost = np.clip((T / 2 - np.asarray(rollout.lengths)) / (T / 2), -1, 0)
    np.testing.assert_allclose(batch["advantage"], REWARD.reshape(-1) + lost)
    assert float(metrics["overlong"]) == pytest.approx(lost.mean()) and lost.min() == -1 and lost.max() == 0


def test_a_kl_term_in_the_reward_is_the_penalty_of_the_policy_before_the_update(params, rollout):
    r = row("raw", "reinforce", kl="k1(coef=0.1, where=reward)")
    state, how = state_of(params, r, plan_of(r)), dict(model=MODEL, plan=plan_of(r), split=learner.Split(8))
    batch, _ = learner.compare(state, rollout, jnp.asarray(REWARD), row=r, **how)
    score = lambda p: transformer.token_logprobs(p, MODEL, batch["tokens"], batch["mask"], 1.0, P)[0]
    penalty = 0.1 * (score(params) - score(state.reference)).sum(-1)
    np.testing.assert_allclose(batch["advantage"], REWARD.reshape(-1) - penalty, rtol=1e-9)


def test_several_epochs_and_updates_see_every_row_once_an_epoch(params, rollout):
    """With a gradient that is linear in the rows and a frozen policy, every division of a rollout adds up to the same."""
    r = row("mean_center", "reinforce", "seq_mean_token_sum")
    still = optax.sgd(0.0)
    totals = []
    for updates, epochs in ((1, 1), (4, 1), (2, 3)):
        plan = learner.PolicyUpdate(T, G, updates=updates, epochs=epochs)
        how = dict(row=r, model=MODEL, plan=plan, split=learner.Split(8))
        state = state_of(params, r, plan)
        batch, _ = learner.compare(state, rollout, jnp.asarray(REWARD), **how)
        _, metrics = learner.push(state, batch, optimizer=still, start=P, **how)
        totals.append(float(metrics["loss"]))
    np.testing.assert_allclose(totals, totals[0], rtol=1e-9)


def test_ratio_clip_fraction_kl_and_ess_are_logged_and_move_once_the_policy_has(params, rollout):
    r = row(kl="k3(coef=0.001)", surrogate="ppo_clip(low=0.01, high=0.01)")
    plan = dataclasses.replace(plan_of(r), epochs=1, updates=1)
    _, still = learn(r, params, rollout, learner.Split(8), plan=plan)
    assert float(still["ratio/ess"]) == pytest.approx(1) and float(still["clip_fraction"]) == 0
    assert float(still["ratio/max"]) == pytest.approx(1)
    _, after = learn(r, params, rollout, learner.Split(8), plan=dataclasses.replace(plan, epochs=3))
    assert 0 < float(after["ratio/ess"]) < 1 - 1e-6 and 0 < float(after["clip_fraction"]) < 1
    assert float(after["kl"]) > 0 and "kl/k1" in after
    assert float(after["sampler/ess"]) < 1 - 1e-4  # the sampler here is not quite the policy


def test_the_entropy_coefficient_rises_while_entropy_is_low_and_falls_when_it_is_not(params, rollout):
    def coefficient(target, begin):
        r = row(entropy=f"adaptive(target={target}, step=0.3)")
        state = state_of(params, r, plan_of(r, epochs=1)).replace(entropy_coef=jnp.asarray(begin))
        state, metrics = learn(r, params, rollout, learner.Split(4), plan=plan_of(r, epochs=1), state=state)
        return float(state.entropy_coef), float(metrics["entropy_coef"])

    assert coefficient(9.0, 0.1) == (pytest.approx(0.4), pytest.approx(0.1))  # acts, then rises
    assert coefficient(0.01, 0.4) == (pytest.approx(0.1), 0.0)  # does not act, falls
    assert coefficient(9.0, 0.9)[0] == 1.0 and coefficient(0.01, 0.1)[0] == 0.0  # within [0, 1]


def test_an_entropy_bonus_raises_entropy(params, rollout):
    entropy = lambda r: learn(r, params, rollout, learner.Split(8), plan=plan_of(r, epochs=4))[1]["entropy"]
    assert float(entropy(row(entropy="bonus(coef=0.5)"))) > float(entropy(row())) + 1e-3


def test_a_reference_that_is_mixed_moves_part_of_the_way(params, rollout):
    r = row(kl="k3(coef=0.001)")
    plan = dataclasses.replace(plan_of(r), refresh_reference=2, mix_reference=0.25)
    begin = state_of(params, r, plan)
    after, _ = learn(r, params, rollout, learner.Split(8), plan=plan)
    expected = jax.tree.map(lambda p, old: 0.25 * p + 0.75 * old, after.params, begin.reference)
    for a, b in zip(jax.tree.leaves(after.reference), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


# ---------------------------------------------------------------------------------------------------------------------
# The critic.


def test_a_new_critic_says_zero_and_its_own_trunk_is_a_copy(params, rollout):
    tokens = jnp.concatenate([rollout.prompt, rollout.response], 1)
    mask = jnp.concatenate([rollout.prompt_mask, rollout.mask], 1)
    for trunk in value_head.TRUNKS:
        fresh = value_head.init_critic(params, trunk)
        assert (value_head.critic_values(fresh, params, MODEL, tokens, mask, P) == 0).all()
        fresh["head"] = fresh["head"] + jnp.arange(16.0)
        before = value_head.critic_values(fresh, params, MODEL, tokens, mask, P)
        assert before.shape == (B * G, T) and (before[~np.asarray(rollout.mask)] == 0).all()
        changed = jax.tree.map(lambda x: x * 1.1, params)
        same = np.allclose(before, value_head.critic_values(fresh, changed, MODEL, tokens, mask, P))
        assert same == (trunk == "own")


def test_a_value_does_not_see_the_token_it_comes_before(params, rollout):
    tokens = jnp.concatenate([rollout.prompt, rollout.response], 1)
    mask = jnp.ones(tokens.shape, bool)
    value = value_head.init_critic(params) | {"head": jnp.arange(16.0)}
    see = lambda x: value_head.critic_values(value, params, MODEL, x, mask, P)
    other = tokens.at[:, P + 2].set((tokens[:, P + 2] + 1) % V)
    change = np.abs(np.asarray(see(other) - see(tokens))).max(0)
    assert (change[:3] == 0).all() and change[3] > 1e-6


@pytest.mark.parametrize("trunk", value_head.TRUNKS)
def test_the_critic_learns_the_returns_while_the_policy_waits(trunk, params, rollout):
    r, tx = pg.ALGORITHMS["orz_ppo"], optax.adam(0.03)
    plan = learner.PolicyUpdate(T, G, critic=learner.CriticUpdate(tx, clip=0.0, warmup=50))
    value = wide(value_head.init_critic(params, trunk))
    state = state_of(params, r, plan).replace(critic=value, critic_opt_state=tx.init(value))
    how = dict(row=r, model=MODEL, plan=plan, split=learner.Split(8))

    @jax.jit
    def step(state):
        batch, compared = learner.compare(state, rollout, jnp.asarray(REWARD), **how)
        state, metrics = learner.push(state, batch, optimizer=SGD, start=P, **how)
        return state, metrics | compared

    seen = []
    for _ in range(50):
        state, metrics = step(state)
        seen.append(float(metrics["value/explained_variance"]))
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True))
    assert seen[0] == pytest.approx(0, abs=1e-6) and seen[-1] > (0.5 if trunk == "own" else 0.1)
    state, _ = step(state)  # the warm-up is over
    assert not np.array_equal(state.params["embedding"], params["embedding"])


def test_the_critic_learns_though_the_policy_has_nothing_to_learn(params, rollout):
    r = row("gae", "reinforce", sign="negative")
    plan = plan_of(r)
    state, metrics = learn(r, params, rollout, learner.Split(4), reward=np.ones((B, G)), plan=plan)
    assert float(metrics["value/loss"]) > 0 and float(metrics["value/grad_norm"]) > 0
