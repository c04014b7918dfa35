"""Every algorithm of the table, and every choice an algorithm can make, through the learner: micro-batches change nothing."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rljax import learner, transformer
from rljax import policy_gradient as pg
from rljax.structs import Experience, Rewards, Rollout, TrainState
from rljax.transformer import value_head
from tests import exhaustive

B, G, P, T, V = 2, 4, 3, 8, 9
MODEL = transformer.Config(
    vocab_size=V, width=16, heads=2, kv_heads=1, head_width=8, ff_width=24, layers=1, dtype="float64"
)
# An algorithm sees log-probabilities, entropies and values alone. Most are tested on the smallest policy: each token says how
# likely the next one is. It compiles in half the time.
BIGRAM = dataclasses.replace(MODEL, layers=0)
REWARD = np.array([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]])
GREEDY = np.array([1.0, 0.0])


def algorithm(advantage="grpo", surrogate="ppo_clip", aggregation="token_mean", **more):
    return pg.Algorithm(advantage, surrogate, aggregation, **more)


MADE = {  # algorithms of no paper, so that every choice of every table is taken by one
    "batch_std": algorithm("batch_std", correction="token_truncate(hi=1.01)", entropy="bonus(coef=0.1)"),
    "opo": algorithm("opo", "sapo", correction="token_mask(lo=0.9, hi=1.1, normalize=True)"),
    "gpg": algorithm("gpg", "dro(beta=0.5)", correction="sequence_truncate(hi=1.1)"),
    "gdpo": algorithm("gdpo(weights=(1.0, 0.5))", truncated="soft(share=0.5)"),
    "whiten_seq": algorithm("whiten_seq", "dppo(low=0.01, high=0.01)", kl="k2(coef=0.1, unbiased=True)"),
    "remax": algorithm("remax", "dppo(low=0.001, high=0.001, by=kl)", correction="sequence_mask(hi=1.1)"),
    "pkpo": algorithm("pkpo(k=2)", "decoupled_ppo"),
    "passk_training": algorithm("passk_training(k=2)", "luspo(low=0.01, high=0.01)", "seq_mean_token_mean"),
    "passk_best": algorithm(
        "passk_best",
        "gmpo(low=0.02, high=0.02)",
        "seq_mean_token_mean(empty_rows=all)",
        correction="geometric_truncate",
    ),
    "rf_pp_baseline": algorithm("rf_pp_baseline", "gspo_token", "seq_mean_token_mean"),
    "rloo with KL in the reward": algorithm("rloo", "reinforce", "token_sum", kl="k3(coef=0.1, where=reward)"),
    "vespo": algorithm("grpo", "vespo(from_sampler=True)", "seq_mean_token_sum"),
    "clip_cov": algorithm(surrogate="clip_cov(share=0.3, lowest=-0.5)", kl="k1(coef=0.1, grad=k2)"),
    "kl_cov": algorithm(surrogate="kl_cov(share=0.3)", kl="abs(coef=0.1, grad=none)"),
    "adaptive": algorithm(entropy="adaptive(target=9.0, step=0.3)"),
    "top_entropy": algorithm(tokens="top_entropy(share=0.3)", aggregation="prompt_mean"),
    "mixed groups, truncated ones masked": algorithm(
        groups="mixed", truncated="mask", correction="geometric_mask(hi=1.02)"
    ),
    "negative only, near the sampler": algorithm(sign="negative", off_policy_mask=0.01),
    "raw imitation": algorithm("raw", "imitation"),
    "capped, distinct": algorithm("all_correct(cap=1, dedupe=True, by=likeliest)", "imitation"),
}
ALL = pg.ALGORITHMS | MADE
OF_SEVERAL_WIDTHS = "grpo", "dapo", "vapo", "gspo", "adaptive"  # their micro-batches are cut to the tokens in them too


@pytest.fixture(scope="module", autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def wide(tree):
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), tree)


@pytest.fixture(scope="module")
def params(double):
    return wide(jax.jit(transformer.init, static_argnums=0)(BIGRAM, jax.random.key(0)))


@pytest.fixture(scope="module")
def rollout(params):
    return draw_rollout(params)


@pytest.fixture(scope="module")
def deep_params(double):
    """With a layer, for the tests in which a token looks at others."""
    return wide(jax.jit(transformer.init, static_argnums=0)(MODEL, jax.random.key(0)))


@pytest.fixture(scope="module")
def deep_rollout(deep_params):
    return draw_rollout(deep_params)


def model_of(params):
    return MODEL if params["layers"] else BIGRAM


def draw_rollout(params):
    """Random responses, each up to its first stop token, as a sampler drew them that is not quite the policy."""
    rng = np.random.default_rng(3)
    prompt, response = rng.integers(3, V, (B * G, P), np.int32), rng.integers(2, V, (B * G, T), np.int32)
    stop = response == 2
    mask = np.cumsum(stop, -1) - stop == 0
    rollout = Rollout(prompt, prompt > 0, np.where(mask, response, 0), mask, 0.0 * mask, (stop & mask).any(-1))
    logprobs = np.where(mask, score(params, learner.make_policy_batch(rollout, mask)), 0.0)
    rollout = rollout.replace(logprobs=logprobs + 0.05 * rng.normal(size=mask.shape) * mask)
    return jax.tree.map(jnp.asarray, rollout)


@jax.jit
def score(params, batch):
    """The policy's log-probabilities of a batch's responses [N, T]."""
    return transformer.token_logprobs(params, model_of(params), batch["tokens"], batch["mask"], 1.0, P)[0]


SGD = optax.sgd(1.0)


def learner_of(r, params, updates=1, epochs=2, rows=8, widths=(), optimizer=SGD, critic=None, **options):
    if critic is None and r.looks_at("values"):
        critic = learner.CriticLearner(SGD)
    return learner.PolicyLearner(
        algorithm=r,
        model=model_of(params),
        optimizer=optimizer,
        prompt_slots=P,
        max_new_tokens=T,
        group_size=G,
        update=learner.UpdateOptions(updates=updates, epochs=epochs, **options),
        micro_batching=learner.MicroBatching(rows, widths),
        critic=critic,
    )


def earned(rollout, reward=REWARD, greedy=GREEDY):
    """The experience of this rollout when its attempts earned ``reward`` [B, G]."""
    return Experience(rollout, Rewards(jnp.asarray(reward), jnp.asarray(reward[..., None]), {}, jnp.asarray(greedy)))


def state_of(params, r):
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(step=zero, params=params, opt_state=SGD.init(params), key=jax.random.key(7), cursor=zero)
    if r.has_reference:
        state = state.replace(reference=jax.tree.map(lambda x: x * 1.05, params))
    if r.adapts_entropy:
        state = state.replace(entropy_coef=jnp.zeros(()))
    if r.looks_at("values"):
        value = wide(value_head.init_critic(params, "own"))
        value["head"] = value["head"] + 0.1
        state = state.replace(critic=value, critic_opt_state=SGD.init(value))
    return state


@functools.cache  # one compilation for each learner, shared by the tests
def compile_learner(policy_learner):
    """``(state, experience) -> (state, metrics)`` after one rollout's updates."""

    def learn_from(state, experience):
        batch, advantage_metrics = learner.compute_advantages(policy_learner, state, experience)
        state, metrics = learner.update_policy(policy_learner, state, batch)
        return state, metrics | advantage_metrics

    return jax.jit(learn_from)


@functools.cache
def compile_advantages(policy_learner):
    return jax.jit(functools.partial(learner.compute_advantages, policy_learner))


def weigh(r, params, rollout):
    """The batch that is learned from, and the metrics of its advantages."""
    return compile_advantages(learner_of(r, params))(state_of(params, r), earned(rollout))


def learn(r, params, rollout, reward=REWARD, policy_learner=None, state=None, **settings):
    """The state and metrics after one rollout's updates."""
    step = compile_learner(policy_learner or learner_of(r, params, **settings))
    return step(state_of(params, r) if state is None else state, earned(rollout, reward))


def data_of(name, request):
    """The parameters and the rollout that an algorithm is tested with."""
    deep = "deep_" if name in OF_SEVERAL_WIDTHS else ""
    return tuple(request.getfixturevalue(deep + what) for what in ("params", "rollout"))


def moved(before, after):
    learned = lambda s: (s.params, s.critic)
    return jax.tree.map(lambda a, b: np.asarray(a - b), learned(before), learned(after))


def test_the_rollout_used_here_has_unequal_lengths_and_stops(rollout):
    assert len(set(np.asarray(rollout.lengths).tolist())) > 3
    assert 0 < int(rollout.finished.sum()) < B * G


COMMON = ("grpo", "dr_grpo", "on_policy_distillation")


@pytest.mark.parametrize("name", exhaustive.cases(ALL, lambda name: name not in COMMON))
def test_no_algorithm_depends_on_the_micro_batches_and_none_is_upset_where_nobody_is_right(name, request):
    """1 x 8 and 4 x 2 rows: two optimizer steps on the same rollout end at the same parameters."""
    r = ALL[name]
    params, rollout = data_of(name, request)
    begin, of_whole = state_of(params, r), compile_learner(learner_of(r, params))
    whole, metrics = of_whole(begin, earned(rollout))
    change = moved(begin, whole)
    size = float(optax.tree.norm(change))
    assert size > 1e-4 and np.isfinite(size), "nothing moved: this test would prove nothing"
    widths = (P + 4,) if name in OF_SEVERAL_WIDTHS else ()
    cut, more = learn(r, params, rollout, rows=2, widths=widths)
    difference = jax.tree.map(np.subtract, change, moved(begin, cut))
    assert float(optax.tree.norm(difference)) <= 1e-6 * size
    for key in metrics:
        np.testing.assert_allclose(metrics[key], more[key], rtol=1e-6, atol=1e-9, err_msg=key)
    # Nobody is right.
    state, metrics = of_whole(begin, earned(rollout, np.zeros((B, G))))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state.params, state.critic, metrics)))
    assert int(state.skipped_total) == 0


def test_every_choice_of_every_table_is_taken_by_an_algorithm():
    from rljax.policy_gradient.algorithms import TABLES

    for field, table in TABLES.items():
        assert {r.name(field) for r in ALL.values()} | {"refill"} >= set(table), field


def test_masked_tokens_of_the_learner_are_those_the_algorithm_leaves_out(params, rollout):
    kept = lambda **more: float(learn(algorithm(**more), params, rollout)[1]["counted"])
    finished = float(jnp.sum(rollout.mask * rollout.finished[:, None]) / jnp.sum(rollout.mask))
    assert kept(truncated="mask") == pytest.approx(finished) and finished < 1
    lone = np.array([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    _, metrics = learn(algorithm(groups="mixed"), params, rollout, reward=lone)
    assert float(metrics["counted"]) == pytest.approx(float(rollout.lengths[:G].sum() / rollout.lengths.sum()))


def test_a_truncated_response_out_of_the_loss_still_counts_in_the_baseline(params, rollout):
    r = algorithm("mean_center", "reinforce", truncated="mask")
    batch, _ = weigh(r, params, rollout)
    np.testing.assert_allclose(batch["advantage"].reshape(B, G), REWARD - REWARD.mean(-1, keepdims=True))
    assert not batch["loss_mask"][~np.asarray(rollout.finished)].any() and batch["loss_mask"].any()


def test_soft_overlong_lowers_the_reward_of_long_responses_only(params, rollout):
    r = algorithm("raw", "reinforce", truncated="soft(share=0.5)")
    batch, metrics = weigh(r, params, rollout)
    lost = np.clip((T / 2 - np.asarray(rollout.lengths)) / (T / 2), -1, 0)
    np.testing.assert_allclose(batch["advantage"], REWARD.reshape(-1) + lost)
    assert float(metrics["overlong"]) == pytest.approx(lost.mean()) and lost.min() == -1 and lost.max() == 0


def test_a_kl_term_in_the_reward_is_the_penalty_of_the_policy_before_the_update(params, rollout):
    r = algorithm("raw", "reinforce", kl="k1(coef=0.1, where=reward)")
    batch, _ = weigh(r, params, rollout)
    penalty = 0.1 * (score(params, batch) - score(state_of(params, r).reference, batch)).sum(-1)
    np.testing.assert_allclose(batch["advantage"], REWARD.reshape(-1) - penalty, rtol=1e-9)


def test_several_epochs_and_updates_see_every_row_once_an_epoch(params, rollout):
    """With a gradient that is linear in the rows and a frozen policy, every division of a rollout adds up to the same."""
    r = algorithm("mean_center", "reinforce", "seq_mean_token_sum")
    still = optax.sgd(0.0)
    totals = []
    for updates, epochs in ((1, 1), (4, 1), (2, 3)):
        _, metrics = learn(r, params, rollout, updates=updates, epochs=epochs, optimizer=still)
        totals.append(float(metrics["loss"]))
    np.testing.assert_allclose(totals, totals[0], rtol=1e-9)


def test_ratio_clip_fraction_kl_and_ess_are_logged_and_move_once_the_policy_has(params, rollout):
    r = algorithm(kl="k3(coef=0.001)", surrogate="ppo_clip(low=0.01, high=0.01)")
    _, still = learn(r, params, rollout, epochs=1)
    assert float(still["ratio/ess"]) == pytest.approx(1) and float(still["clip_fraction"]) == 0
    assert float(still["ratio/max"]) == pytest.approx(1)
    _, after = learn(r, params, rollout, epochs=3)
    assert 0 < float(after["ratio/ess"]) < 1 - 1e-6 and 0 < float(after["clip_fraction"]) < 1
    assert float(after["kl"]) > 0 and "kl/k1" in after
    assert float(after["sampler/ess"]) < 1 - 1e-4  # the sampler here is not quite the policy


def test_the_entropy_coefficient_rises_while_entropy_is_low_and_falls_when_it_is_not(params, rollout):
    def coefficient(target, begin):
        r = algorithm(entropy=f"adaptive(target={target}, step=0.3)")
        state = state_of(params, r).replace(entropy_coef=jnp.asarray(begin))
        state, metrics = learn(r, params, rollout, epochs=1, rows=4, state=state)
        return float(state.entropy_coef), float(metrics["entropy_coef"])

    assert coefficient(9.0, 0.1) == (pytest.approx(0.4), pytest.approx(0.1))  # acts, then rises
    assert coefficient(0.01, 0.4) == (pytest.approx(0.1), 0.0)  # does not act, falls
    assert coefficient(9.0, 0.9)[0] == 1.0 and coefficient(0.01, 0.1)[0] == 0.0  # within [0, 1]


def test_an_entropy_bonus_raises_entropy(params, rollout):
    entropy = lambda r: learn(r, params, rollout, epochs=4)[1]["entropy"]
    assert float(entropy(algorithm(entropy="bonus(coef=0.5)"))) > float(entropy(algorithm())) + 1e-3


def test_a_reference_that_is_mixed_moves_part_of_the_way(params, rollout):
    r = algorithm(kl="k3(coef=0.001)")
    begin = state_of(params, r)
    after, _ = learn(r, params, rollout, refresh_reference=2, mix_reference=0.25)
    expected = jax.tree.map(lambda p, old: 0.25 * p + 0.75 * old, after.params, begin.reference)
    for a, b in zip(jax.tree.leaves(after.reference), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


# ---------------------------------------------------------------------------------------------------------------------
# The critic.


@jax.jit
def critic_values(critic, params, tokens, mask):
    return value_head.critic_values(critic, params, MODEL, tokens, mask, P)


def test_a_new_critic_says_zero_and_its_own_trunk_is_a_copy(deep_params, deep_rollout):
    tokens = jnp.concatenate([deep_rollout.prompt, deep_rollout.response], 1)
    mask = jnp.concatenate([deep_rollout.prompt_mask, deep_rollout.mask], 1)
    for trunk in ("own", "policy"):
        fresh = value_head.init_critic(deep_params, trunk)
        assert (critic_values(fresh, deep_params, tokens, mask) == 0).all()
        fresh["head"] = fresh["head"] + jnp.arange(16.0)
        before = critic_values(fresh, deep_params, tokens, mask)
        assert before.shape == (B * G, T) and (before[~np.asarray(deep_rollout.mask)] == 0).all()
        changed = jax.tree.map(lambda x: x * 1.1, deep_params)
        same = np.allclose(before, critic_values(fresh, changed, tokens, mask))
        assert same == (trunk == "own")


def test_a_value_does_not_see_the_token_it_comes_before(deep_params, deep_rollout):
    tokens = jnp.concatenate([deep_rollout.prompt, deep_rollout.response], 1)
    mask = jnp.ones(tokens.shape, bool)
    value = value_head.init_critic(deep_params) | {"head": jnp.arange(16.0)}
    see = lambda x: critic_values(value, deep_params, x, mask)
    other = tokens.at[:, P + 2].set((tokens[:, P + 2] + 1) % V)
    change = np.abs(np.asarray(see(other) - see(tokens))).max(0)
    assert (change[:3] == 0).all() and change[3] > 1e-6


@pytest.mark.parametrize("trunk", ("own", "policy"))
def test_the_critic_learns_the_returns_while_the_policy_waits(trunk, deep_params, deep_rollout):
    r, tx = pg.ALGORITHMS["orz_ppo"], optax.adam(0.03)
    options = learner.CriticOptions(trunk=trunk, clip=0.0, warmup=50)
    policy_learner = learner_of(r, deep_params, epochs=1, critic=learner.CriticLearner(tx, options))
    value = wide(value_head.init_critic(deep_params, trunk))
    state = state_of(deep_params, r).replace(critic=value, critic_opt_state=tx.init(value))

    @jax.jit
    def step(state):
        batch, advantage_metrics = learner.compute_advantages(policy_learner, state, earned(deep_rollout))
        state, metrics = learner.update_policy(policy_learner, state, batch)
        return state, metrics | advantage_metrics

    seen = []
    for _ in range(50):
        state, metrics = step(state)
        seen.append(float(metrics["value/explained_variance"]))
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(deep_params), strict=True))
    assert seen[0] == pytest.approx(0, abs=1e-6) and seen[-1] > (0.5 if trunk == "own" else 0.1)
    state, _ = step(state)  # the warm-up is over
    assert not np.array_equal(state.params["embedding"], deep_params["embedding"])


def test_the_critic_learns_though_the_policy_has_nothing_to_learn(params, rollout):
    r = algorithm("gae", "reinforce", sign="negative")
    state, metrics = learn(r, params, rollout, reward=np.ones((B, G)), rows=4)
    assert float(metrics["value/loss"]) > 0 and float(metrics["value/grad_norm"]) > 0


UNSCORED = ["grpo", "r1_zero", "reinforce_pp", "orz_ppo", "vapo", "dapo", "maxrl", "best_of_n", "gpg", "gdpo", "pkpo"]


@pytest.mark.parametrize("name", [*UNSCORED, "batch_std", "rloo with KL in the reward", "adaptive", "kl_cov"])
def test_what_an_attempt_said_that_could_not_be_scored_is_never_learned(name, request):
    """Its tokens and log-probabilities may be anything, NaN as well; what the others teach stays the same and is finite."""
    r = ALL[name]
    params, rollout = data_of(name, request)
    reward = REWARD.copy()
    reward[0, 1] = np.nan
    begin, row = state_of(params, r), jnp.arange(B * G)[:, None] == 1
    other = rollout.replace(
        response=jnp.where(row & rollout.mask, 3, rollout.response), logprobs=jnp.where(row, jnp.nan, rollout.logprobs)
    )
    state, metrics = learn(r, params, rollout, reward=reward)
    again, same = learn(r, params, other, reward=reward)
    change = moved(begin, state)
    assert float(optax.tree.norm(change)) > 1e-4 and int(state.skipped_total) == 0
    difference = jax.tree.map(np.subtract, change, moved(begin, again))
    assert float(optax.tree.norm(difference)) <= 1e-9
    for key in metrics:
        assert np.isfinite(metrics[key]), key
        np.testing.assert_allclose(metrics[key], same[key], rtol=1e-9, atol=1e-12, err_msg=key)
