"""The optimizer step: micro-batches, padding, references, gradients that are not finite, optimizers and schedules."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rljax import learner, rewards, sampler, transformer
from rljax import policy_gradient as pg
from rljax.errors import UserError
from rljax.learner.optimizer import OptimizerOptions, make_optimizer, make_schedule
from rljax.structs import Experience, Rewards, Rollout, TrainState

B, G, P, T, V = 4, 4, 3, 12, 11
MODEL = transformer.Config(vocab_size=V, width=16, heads=2, kv_heads=1, head_width=8, ff_width=24, layers=1)
ONCE = learner.UpdateOptions()


@pytest.fixture(scope="module")
def params():
    return jax.jit(transformer.init, static_argnums=0)(MODEL, jax.random.key(0))


@pytest.fixture(scope="module")
def rollout(params):
    prompt = jax.random.randint(jax.random.key(1), (B, P), 3, V)
    mask = jnp.ones((B, P), bool).at[1, 0].set(False)
    return sampler.sample(params, MODEL, prompt, mask, jax.random.key(2), group_size=G, max_new_tokens=T, stop_ids=(2,))


ADVANTAGE = jnp.asarray(np.random.default_rng(0).normal(size=B * G), jnp.float32)


def state_of(params, optimizer=None, reference=None):
    optimizer = optimizer or optax.sgd(1.0)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero,
        params=params,
        opt_state=optimizer.init(params),
        key=jax.random.key(7),
        cursor=zero,
        reference=reference,
    )


SGD = optax.sgd(1.0)
NARROW = learner.MicroBatching(4, (P + 6,))


@functools.cache  # one compilation for each set of choices, shared by the tests
def jitted_step(algorithm, micro_batching, update, optimizer, group_size, temperature):
    sizes = dict(prompt_slots=P, max_new_tokens=T, group_size=group_size, temperature=temperature)
    settings = dict(update=update, micro_batching=micro_batching)
    policy_learner = learner.PolicyLearner(algorithm, MODEL, optimizer, **sizes, **settings)

    @jax.jit
    def step(state, rollout, advantage):
        """The algorithm's loss on these advantages [N]: with ``raw`` a reward is an advantage."""
        earned = rewards.by_group(advantage, group_size)
        experience = Experience(rollout, Rewards(earned, earned[..., None], {}))
        batch, _ = learner.compute_advantages(policy_learner, state, experience)
        return learner.update_policy(policy_learner, state, batch)

    return step


def step_of(name="dr_grpo", micro_batching=NARROW, update=ONCE, optimizer=SGD, group_size=G, temperature=1.0):
    algorithm = dataclasses.replace(pg.ALGORITHMS[name] if isinstance(name, str) else name, advantage="raw")
    return jitted_step(algorithm, micro_batching, update, optimizer, group_size, temperature)


def gradient(algorithm, params, rollout, micro_batching, temperature=1.0, reference=None):
    """The gradient that one SGD step of rate 1 took."""
    state, metrics = step_of(algorithm, micro_batching, temperature=temperature)(
        state_of(params, reference=reference), rollout, ADVANTAGE
    )
    return jax.tree.map(lambda a, b: a - b, params, state.params), metrics


def assert_close(a, b, rtol):
    scale = float(optax.tree.norm(a))
    assert scale > 1e-4, "the gradient is zero: this test would prove nothing"
    assert float(optax.tree.norm(jax.tree.map(lambda x, y: x - y, a, b))) <= rtol * scale


def test_the_rollout_used_here_has_unequal_lengths_and_stops(rollout):
    assert len(set(np.asarray(rollout.lengths).tolist())) > 3
    assert 0 < int(rollout.finished.sum()) < B * G


def test_token_mean_is_not_the_mean_of_micro_batch_means(params, rollout):
    algorithm = pg.ALGORITHMS["nanochat"]
    whole, _ = gradient(algorithm, params, rollout, learner.MicroBatching())
    halves = []
    for rows in (slice(0, 8), slice(8, 16)):
        part = jax.tree.map(lambda x, rows=rows: x[rows], rollout)
        state, _ = step_of(algorithm, learner.MicroBatching())(state_of(params), part, ADVANTAGE[rows])
        halves.append(jax.tree.map(lambda a, b: (a - b) / 2, params, state.params))
    wrong = jax.tree.map(jnp.add, *halves)
    difference = optax.tree.norm(jax.tree.map(lambda a, b: a - b, whole, wrong)) / optax.tree.norm(whole)
    assert float(difference) > 1e-3


def test_on_policy_clip_and_reinforce_have_the_same_gradient(params, rollout):
    clip = pg.Algorithm("mean_center", "ppo_clip", "token_mean")
    assert_close(
        gradient(clip, params, rollout, learner.MicroBatching())[0],
        gradient(pg.ALGORITHMS["nanochat"], params, rollout, learner.MicroBatching())[0],
        1e-5,
    )


def test_the_learner_scores_the_sampled_tokens_as_the_sampler_did(params, rollout):
    _, metrics = gradient("dr_grpo", params, rollout, learner.MicroBatching(4, (P + 6,)))
    assert 0 < float(metrics["sampler_gap/max"]) < 1e-4
    _, cold = gradient("dr_grpo", params, rollout, NARROW, temperature=0.5)
    assert float(cold["sampler_gap/max"]) > 0.1, "scored at another temperature, the gap must show"


def test_with_several_updates_the_old_policy_is_the_one_before_the_first(params, rollout):
    update, large, none = learner.UpdateOptions(updates=4), optax.sgd(3.0), optax.sgd(0.0)
    frozen, still = step_of(update=update, optimizer=none)(state_of(params, none), rollout, ADVANTAGE)
    np.testing.assert_allclose(still["ratio/max"], 1.0, atol=1e-5)
    moved, metrics = step_of(update=update, optimizer=large)(state_of(params, large), rollout, ADVANTAGE)
    assert float(metrics["ratio/max"]) > 1.01
    assert int(moved.step) == int(frozen.step) == 1


def test_the_reference_is_refreshed_by_policy_updates_and_kl_returns_to_zero(params, rollout):
    algorithm = dataclasses.replace(pg.ALGORITHMS["grpo"], kl="k3(coef=0.1)")
    update = learner.UpdateOptions(refresh_reference=2)
    sgd = optax.sgd(0.5)
    step = step_of(algorithm, learner.MicroBatching(), update, sgd)
    state, kl = state_of(params, sgd, reference=params), []
    for _ in range(4):
        state, metrics = step(state, rollout, ADVANTAGE)
        kl.append(float(metrics["kl"]))
    assert kl[0] == pytest.approx(0, abs=1e-7) and kl[1] > 1e-6
    assert kl[2] == pytest.approx(0, abs=1e-7) and kl[3] > 1e-6


def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted(params, rollout):
    adam = optax.adam(1e-2)
    step = step_of(optimizer=adam)
    start = state_of(params, adam)
    bad, metrics = step(start, rollout, ADVANTAGE.at[3].set(jnp.inf))
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), bad.params, start.params)))
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), bad.opt_state, start.opt_state)))
    assert (int(bad.skipped), int(bad.skipped_total), int(bad.step)) == (1, 1, 1)
    good, _ = step(bad, rollout, ADVANTAGE)
    assert (int(good.skipped), int(good.skipped_total)) == (0, 1)
    assert not np.array_equal(good.params["embedding"], params["embedding"])


def test_imitation_learns_only_from_the_chosen_attempts(params, rollout):
    chosen = jnp.zeros(B * G).at[5].set(1.0)
    state, _ = step_of("rejection_sampling", learner.MicroBatching(5, (P + 6,)))(state_of(params), rollout, chosen)
    alone = jax.tree.map(lambda x: x[5:6], rollout)
    single, _ = step_of("rejection_sampling", learner.MicroBatching(), group_size=1)(
        state_of(params), alone, jnp.ones(1)
    )
    difference = lambda s: jax.tree.map(lambda a, b: a - b, params, s.params)
    assert_close(difference(state), difference(single), 1e-5)


def test_zero_advantage_is_zero_gradient(params, rollout):
    _, metrics = step_of()(state_of(params), rollout, jnp.zeros(B * G))
    assert float(metrics["grad_norm"]) == 0.0


def test_reinforce_makes_rewarded_attempts_likelier_and_others_less_likely(params, rollout):
    state, _ = step_of()(state_of(params), rollout, ADVANTAGE)
    batch = learner.make_policy_batch(rollout, rollout.mask)
    total = jax.jit(lambda p: transformer.token_logprobs(p, MODEL, batch["tokens"], batch["mask"], 1.0, P)[0].sum(-1))
    gain = total(state.params) - total(params)
    assert float(jnp.sum(gain * ADVANTAGE)) > 0


def supervised_batch(rows=12):
    rng = np.random.default_rng(3)
    lengths = rng.integers(4, 20, rows)
    mask = np.arange(20) < lengths[:, None]
    return {
        "tokens": rng.integers(0, V, (rows, 20)).astype(np.int32),
        "mask": mask,
        "loss_mask": mask & (np.arange(20) > 2),
    }


def test_supervised_gradient_does_not_depend_on_micro_batches(params):
    batch, of = supervised_batch(), dict(model=MODEL)
    supervised_step = jax.jit(learner.supervised_step, static_argnames=("model", "optimizer", "micro_batching"))
    supervised_loss = jax.jit(learner.supervised_loss, static_argnames=("model", "micro_batching"))

    def step(micro_batching):
        state, metrics = supervised_step(state_of(params), batch, optimizer=SGD, micro_batching=micro_batching, **of)
        return jax.tree.map(lambda a, b: a - b, params, state.params), metrics

    whole, metrics = step(learner.MicroBatching())
    parts, more = step(learner.MicroBatching(5, (8, 14)))
    assert_close(whole, parts, 1e-5)
    np.testing.assert_allclose(metrics["loss"], more["loss"], rtol=1e-6)
    held = supervised_loss(params, batch, micro_batching=learner.MicroBatching(5, (8, 14)), **of)
    np.testing.assert_allclose(held, metrics["loss"], rtol=1e-6)
    logits = jax.jit(transformer.forward, static_argnums=1)(params, MODEL, batch["tokens"], batch["mask"])
    logp = np.asarray(jax.nn.log_softmax(logits))[:, :-1]
    picked = np.take_along_axis(logp, batch["tokens"][:, 1:, None], -1)[..., 0]
    learn = (batch["loss_mask"] & batch["mask"])[:, 1:]
    np.testing.assert_allclose(metrics["loss"], -(picked * learn).sum() / learn.sum(), rtol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd"])
def test_every_optimizer_lowers_the_loss(name, params):
    options = OptimizerOptions(learning_rate=0.3 if name == "sgd" else 0.01, name=name, warmup=2)
    tx = make_optimizer(options, MODEL, 30)
    state, losses = state_of(params, tx), []
    step = jax.jit(
        functools.partial(learner.supervised_step, model=MODEL, optimizer=tx, micro_batching=learner.MicroBatching())
    )
    for _ in range(30):
        state, metrics = step(state, supervised_batch())
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] - 0.2


def test_the_first_moment_may_be_kept_in_bfloat16(params):
    moments = {}
    for dtype in ("", "bfloat16"):
        options = OptimizerOptions(learning_rate=0.01, moment_dtype=dtype, warmup=2)
        tx = make_optimizer(options, MODEL, 30)
        step = jax.jit(
            functools.partial(
                learner.supervised_step, model=MODEL, optimizer=tx, micro_batching=learner.MicroBatching()
            )
        )
        state, metrics = step(state_of(params, tx), supervised_batch())
        for _ in range(9):
            state, metrics = step(state, supervised_batch())
        found = {str(x.dtype): x.size for x in jax.tree.leaves(optax.tree.get(state.opt_state, "mu"))}
        moments[dtype] = found, float(metrics["loss"])
    assert list(moments[""][0]) == ["float32"] and list(moments["bfloat16"][0]) == ["bfloat16"]
    assert abs(moments[""][1] - moments["bfloat16"][1]) < 0.01
    with pytest.raises(UserError, match="only adamw keeps its first moment"):
        OptimizerOptions(name="sgd", moment_dtype="bfloat16").check("rl.optimizer.")


def test_the_cosine_schedule_warms_up_and_falls_to_its_final_share():
    options = OptimizerOptions(learning_rate=1.0, warmup=10, schedule="cosine", final=0.1)
    rate = make_schedule(options, 110)
    assert float(rate(0)) == 0.0 and float(rate(5)) == pytest.approx(0.5)
    assert float(rate(10)) == pytest.approx(1.0) and float(rate(110)) == pytest.approx(0.1)
    assert float(rate(60)) == pytest.approx(0.55)


def test_a_rollout_is_a_pytree_whose_mask_includes_the_stop_token(rollout):
    assert isinstance(jax.tree.map(lambda x: x, rollout), Rollout)
    stopped = np.asarray(rollout.finished)
    last = np.asarray(rollout.response)[np.arange(B * G), np.asarray(rollout.lengths) - 1]
    assert (last[stopped] == 2).all()
