"""Truncated sampling: the set that the sampler kept travels with the rollout, and the policy is scored over that set."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_dynamic_sampling import easy, train_steps

from rljax import learner, rewards, sampler, transformer
from rljax import policy_gradient as pg
from rljax.errors import UserError
from rljax.planning import lowering
from rljax.structs import Experience, Problems, Rewards, TrainState
from rljax.training.checks import check_algorithm
from rljax.training.rl_steps import empty_rollout, make_draw

B, G, P, T, V = 4, 4, 3, 12, 27
MODEL = transformer.Config(vocab_size=V, width=16, heads=2, kv_heads=1, head_width=8, ff_width=24, layers=1)
TEMPERATURE = 0.7
TRUNCATIONS = {"top_p=.5": dict(top_p=0.5), "top_k=5": dict(top_k=5), "both": dict(top_k=9, top_p=0.8)}
IN_PARTS = learner.MicroBatching(3, (P + 5,))  # 16 rows: the last part is not full


@functools.cache
def params():
    """Random weights with a head large enough that a set of half the mass holds a few tokens."""
    made = jax.jit(transformer.init, static_argnums=0)(MODEL, jax.random.key(0))
    return made | {"head": 40 * jax.random.normal(jax.random.key(5), made["head"].shape) * 0.02}


@functools.cache
def rollout(truncation, to_learn_from=True):
    sampling = sampler.Sampling(group_size=G, max_new_tokens=T, temperature=TEMPERATURE, stop_ids=(2,))
    sampling = dataclasses.replace(sampling, **TRUNCATIONS[truncation])
    draw = sampler.make_sampler(sampling, MODEL, to_learn_from=to_learn_from)
    prompt = jax.random.randint(jax.random.key(1), (B, P), 3, V)
    return draw(params(), Problems(prompt, jnp.ones((B, P), bool).at[1, 0].set(False), ()), jax.random.key(2))


def kept_tokens(r):
    return np.unpackbits(np.asarray(r.sampling_mask), axis=-1, count=V).astype(bool)


def whole(r):
    return jnp.concatenate([r.prompt, r.response], 1), jnp.concatenate([r.prompt_mask, r.mask], 1)


@jax.jit
def all_logits(weights, r):
    return transformer.forward(weights, MODEL, *whole(r))[:, P - 1 : -1] / TEMPERATURE


@jax.jit
def brute_force(weights, r):
    """(log-probabilities, entropies) [N, T] over the kept set: a softmax whose other terms are struck out."""
    logits = all_logits(weights, r)
    kept = jnp.unpackbits(r.sampling_mask, axis=-1, count=V).astype(bool) | ~r.mask[..., None]
    chances = jnp.where(kept, jnp.exp(logits), 0.0)
    chances /= chances.sum(-1, keepdims=True)
    chosen = jnp.take_along_axis(chances, r.response[..., None], -1)[..., 0]
    entropy = -jnp.sum(jnp.where(kept, chances * jnp.log(jnp.where(kept, chances, 1.0)), 0.0), -1)
    return jnp.where(r.mask, jnp.log(chosen), 0.0), jnp.where(r.mask, entropy, 0.0)


@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_the_rollout_holds_the_set_that_was_sampled_from(truncation):
    r = rollout(truncation)
    assert r.sampling_mask.dtype == jnp.uint8 and r.sampling_mask.shape == (B * G, T, 4)  # 27 bits
    kept, mask = kept_tokens(r), np.asarray(r.mask)
    assert np.take_along_axis(kept, np.asarray(r.response)[..., None], -1)[..., 0][mask].all()
    assert not kept[~mask].any() and not mask.all()
    logits, top = all_logits(params(), r), TRUNCATIONS[truncation]
    truncate = jax.jit(lambda logits: sampler.truncate(logits, top.get("top_k", 0), top.get("top_p", 1.0)))
    again = truncate(logits.reshape(-1, V))
    np.testing.assert_array_equal(kept[mask], np.isfinite(again).reshape(kept.shape)[mask])
    sizes = kept[mask].sum(-1)
    assert sizes.max() < V / 2 and (truncation == "top_k=5") == (set(sizes.tolist()) == {5})


def test_only_a_rollout_to_learn_from_stores_the_set_and_the_tokens_are_the_same():
    with_mask, without = rollout("both"), rollout("both", to_learn_from=False)
    assert without.sampling_mask is None
    jax.tree.map(np.testing.assert_array_equal, with_mask.replace(sampling_mask=None), without)
    whole_distribution = sampler.make_sampler(sampler.Sampling(max_new_tokens=T), MODEL, to_learn_from=True)
    problems = Problems(jnp.ones((1, P), jnp.int32), jnp.ones((1, P), bool), ())
    assert jax.eval_shape(whole_distribution, params(), problems, jax.random.key(0)).sampling_mask is None


@pytest.mark.parametrize("chunk", [0, 5])
@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_log_probabilities_entropies_and_gradients_are_those_of_a_masked_softmax(truncation, chunk):
    r = rollout(truncation)
    (grad, ours), (right_grad, right) = grad_and_scores(params(), r, chunk), grad_and_scores(params(), r, None)
    for one, other in zip(ours, right, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    np.testing.assert_allclose(ours[0], r.logprobs, atol=2e-5)  # as the sampler recorded them
    assert_close(grad, right_grad, 1e-4)


@functools.partial(jax.jit, static_argnums=2)
def grad_and_scores(weights, r, chunk):
    """The gradient of a sum of log-probabilities and entropies, and these; ``chunk`` None: of the masked softmax."""
    config = dataclasses.replace(MODEL, logprob_chunk=chunk or 0)

    def total(p):
        score = lambda: transformer.token_logprobs(p, config, *whole(r), TEMPERATURE, P, r.sampling_mask)
        found = brute_force(p, r) if chunk is None else score()
        factors = jax.random.normal(jax.random.key(3), (2, B * G, T))
        return sum(jnp.sum(w * x) for w, x in zip(factors, found, strict=True)), found

    return jax.grad(total, has_aux=True)(weights)


def assert_close(a, b, rtol):
    scale = float(optax.tree.norm(b))
    assert scale > 1e-3 and float(optax.tree.norm(jax.tree.map(jnp.subtract, a, b))) < rtol * scale


# In the update


def updated(algorithm, r, steps=1, reference=None, micro_batching=IN_PARTS):
    """(what one SGD step of rate 1 took from the parameters, metrics, batch)."""
    algorithm = dataclasses.replace(pg.ALGORITHMS[algorithm] if isinstance(algorithm, str) else algorithm)
    sizes = dict(prompt_slots=P, max_new_tokens=T, group_size=G, temperature=TEMPERATURE)
    policy_learner = learner.PolicyLearner(
        dataclasses.replace(algorithm, advantage="raw"),
        MODEL,
        SGD,
        **sizes,
        update=learner.UpdateOptions(updates=steps),
        micro_batching=micro_batching,
    )
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(zero, params(), SGD.init(params()), jax.random.key(7), zero, reference)
    after, metrics, batch = compile_update(policy_learner)(state, r)
    return jax.tree.map(jnp.subtract, params(), after.params), metrics, batch


SGD = optax.sgd(1.0)


@functools.cache  # one compilation for each learner, shared by the tests
def compile_update(policy_learner):
    def step(state, r):
        earned = rewards.by_group(jnp.asarray(ADVANTAGE), G)
        experience = Experience(r, Rewards(earned, earned[..., None], {}))
        batch, _ = learner.compute_advantages(policy_learner, state, experience)
        return *learner.update_policy(policy_learner, state, batch), batch

    return jax.jit(step)


ADVANTAGE = np.random.default_rng(0).normal(size=B * G).astype(np.float32)


@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_on_policy_the_ratio_to_the_sampler_is_one(truncation):
    corrected = dataclasses.replace(pg.ALGORITHMS["dr_grpo"], correction="token_truncate(hi=2.0)")
    _, metrics, batch = updated(corrected, rollout(truncation))
    assert float(metrics["sampler_gap/max"]) < 2e-5
    for name in ("sampler/mean", "sampler/ess", "ratio/mean"):
        assert float(metrics[name]) == pytest.approx(1, abs=1e-5)
    mask = np.asarray(batch["loss_mask"])
    np.testing.assert_allclose(np.asarray(batch["correction"])[mask], 1, atol=2e-5)
    _, metrics, _ = updated(corrected, rollout(truncation, to_learn_from=False))  # over the whole vocabulary
    assert float(metrics["sampler/mean"]) < 0.98 and float(metrics["sampler_gap/max"]) > 0.05


@pytest.mark.parametrize("micro_batching", [learner.MicroBatching(), IN_PARTS], ids=["whole", "in parts"])
def test_the_gradient_of_an_update_is_that_of_a_masked_softmax(micro_batching):
    r = rollout("top_p=.5")
    ours, _, _ = updated("nanochat", r, micro_batching=micro_batching)
    mean = r.mask / r.mask.sum()
    right = jax.jit(jax.grad(lambda p: -jnp.sum(mean * ADVANTAGE[:, None] * brute_force(p, r)[0])))(params())
    assert_close(ours, right, 1e-4)


@pytest.mark.exhaustive  # the gradient above shows the policy's side
def test_the_reference_of_the_kl_term_is_measured_over_the_same_set():
    algorithm = dataclasses.replace(pg.ALGORITHMS["dr_grpo"], kl="k3(coef=0.1)")
    r = rollout("top_p=.5")
    _, metrics, _ = updated(algorithm, r, reference=params())
    assert abs(float(metrics["kl"])) < 1e-6
    other = jax.tree.map(lambda x: 1.1 * x, params())
    _, metrics, _ = updated(algorithm, r, reference=other)
    gap = brute_force(other, r)[0] - brute_force(params(), r)[0]
    mean = r.mask / r.mask.sum()
    assert float(metrics["kl"]) == pytest.approx(float(jnp.sum(mean * (jnp.exp(gap) - gap - 1))), rel=1e-3)
    assert float(metrics["entropy"]) == pytest.approx(float(jnp.sum(mean * brute_force(params(), r)[1])), rel=1e-4)


def test_several_updates_keep_each_rows_set():
    _, metrics, batch = updated("dr_grpo", rollout("both"), steps=4)
    mask = np.asarray(batch["loss_mask"])[:, P:]
    old = np.asarray(batch["old_logprobs"])[:, P:]
    np.testing.assert_allclose(old[mask], np.asarray(rollout("both").logprobs)[mask], atol=2e-5)
    assert np.isfinite(float(metrics["grad_norm"])) and float(metrics["ratio/max"]) > 1.001  # policies after the first


# In a run


@pytest.mark.exhaustive
@pytest.mark.parametrize("hosted", [False, True])
def test_dynamic_sampling_carries_the_set_and_the_ratio_stays_one(hosted):
    _, seen = train_steps(easy(hosted=hosted, algorithm="dapo", top_p=0.9), 2)
    assert any(m["refill/rounds"] > 1 for m in seen)
    for metrics in seen:
        assert all(np.isfinite(x).all() for x in metrics.values())
        assert metrics["sampler_gap/max"] < 1e-4 and metrics["sampler/mean"] == pytest.approx(1, abs=1e-5)
        assert metrics["grad_norm"] > 0


@pytest.mark.exhaustive  # the gradient above is exact
def test_a_policy_learns_from_truncated_samples():
    changes = {
        "optimizer.learning_rate": 0.02,
        "optimizer.schedule": "constant",
        "optimizer.warmup": 0,
        "group_size": 16,
    }
    run = easy(
        algorithm="dr_grpo", top_p=0.9, top_k=60, prompts=8, **{k.replace(".", "__"): x for k, x in changes.items()}
    )
    _, seen = train_steps(run, 15)
    reward = [float(m["reward"]) for m in seen]
    assert np.mean(reward[-3:]) > np.mean(reward[:3]) + 0.2, reward


def test_a_rollout_in_flight_has_the_shape_of_one_that_was_sampled():
    for changes in (
        {"top_p": 0.9},
        {"top_p": 0.9, "keep_sampling_mask": False, "row__correction": "token_truncate"},
        {},
    ):
        run = easy(**changes)
        slots, prompts = run.task.prompt_slots, run.rl.problems.prompts
        asked = Problems(jnp.zeros((prompts, slots), jnp.int32), jnp.ones((prompts, slots), bool), ())
        weights = jax.eval_shape(lambda run=run: transformer.init(run.model, jax.random.key(0)))
        drawn = jax.eval_shape(make_draw(run), weights, asked, jax.random.key(0))
        empty = empty_rollout(run)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), drawn) == jax.tree.map(lambda x: (x.shape, x.dtype), empty)
        assert (empty.sampling_mask is not None) == (changes == {"top_p": 0.9})


def test_without_the_set_a_truncated_distribution_needs_a_correction():
    check_algorithm(easy(top_k=5).rl)
    with pytest.raises(UserError, match="use rl.keep_sampling_mask=True"):
        easy(top_k=5, keep_sampling_mask=False)
    check_algorithm(easy(top_k=5, keep_sampling_mask=False, row__correction="token_truncate").rl)


@pytest.mark.exhaustive
def test_the_plan_counts_the_set():
    def program(**changes):
        run = easy(**changes)
        return run, {n: lowering.compile_program(lower(), (1.0,)) for n, lower in lowering.lower_programs(run).items()}

    run, kept = program(top_k=5)
    _, full = program(top_k=5, keep_sampling_mask=False, row__correction="token_truncate")
    rows = run.rl.problems.prompts * run.rl.sampling.group_size
    size = rows * run.rl.sampling.max_new_tokens * -(-run.model.vocab_size // 8)
    assert kept["sample"].output - full["sample"].output == pytest.approx(size, abs=64)
