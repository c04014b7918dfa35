"""Loss scaling: float16 learns as precisely as it rounds, whatever the size of the batch; other dtypes are left alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_train_step import generous, tiny_config

from experiments import rl
from rljax import learner, transformer
from rljax.learner.loss_scale import (
    GROWTH_INTERVAL,
    INITIAL_SCALE,
    MAX_SCALE,
    MIN_SCALE,
    LossScale,
    init_loss_scale,
    update_loss_scale,
)
from rljax.structs import TrainState
from rljax.training import checkpoint, initial_state
from rljax.training.rl_steps import compile_train_step
from rljax.training.run import resolve
from rljax.transformer import lora
from tests import exhaustive

SMALL = dict(vocab_size=64, layers=2, width=32, heads=4, kv_heads=2, head_width=8, ff_width=64)
KINDS = {
    "dense": {},
    "latents and experts": dict(
        kv_heads=4, latent=16, query_latent=16, rope_width=4, value_width=8, experts=4, expert_width=16
    ),
}
ROUNDING = 2.0**-10  # of float16: the distance of two neighbours, relative
SGD = optax.sgd(0.1)


def scale_of(value, finite_updates=0):
    return LossScale(jnp.float32(value), jnp.int32(finite_updates))


def norm(tree):
    return float(optax.tree.norm(jax.tree.map(lambda x: x.astype(jnp.float32), tree)))


@functools.cache  # one compilation for all sizes of the batch
def compile_gradient(kind, dtype, scaled, rank):
    """``(weight of a token, scale) -> gradient`` of a loss over two micro-batches."""
    exact = transformer.Config(**SMALL | KINDS[kind])
    params, frozen = jax.jit(transformer.init, static_argnums=0)(exact, jax.random.key(0)), None
    if rank:
        frozen, params = lora.Base(params, jnp.float32(1)), lora.init_adapters(exact, (), rank, jax.random.key(3))
        params = jax.tree.map(lambda x: x + 0.05, params)
    tokens, model = jax.random.randint(jax.random.key(1), (4, 32), 0, 64), dataclasses.replace(exact, dtype=dtype)

    def loss(params, batch):
        policy = lora.policy_params(params, frozen)
        logprobs, _ = transformer.token_logprobs(policy, model, batch["tokens"], batch["mask"])
        return jnp.sum(batch["weight"][:, 1:] * jnp.sin(jnp.arange(logprobs.shape[1])) * logprobs), {}

    @jax.jit
    def gradient(params, weight, scale):
        batch = {"tokens": tokens, "mask": jnp.ones(tokens.shape, bool), "weight": jnp.full(tokens.shape, weight)}
        return learner.gradients(loss, params, batch, learner.MicroBatching(2), loss_scale=scale if scaled else None)[0]

    return functools.partial(gradient, params)


def gradient_error(kind, weight, scale, rank=0):
    """||g16 - g32|| / ||g32|| of the gradient of a loss whose tokens have this weight."""
    found = compile_gradient(kind, "float16", scale is not None, rank)(weight, scale)
    expected = compile_gradient(kind, "float32", False, rank)(weight, None)
    return norm(jax.tree.map(lambda a, b: a - b, found, expected)) / norm(expected)


@pytest.mark.parametrize("kind", exhaustive.cases(KINDS, lambda kind: kind != "dense"))
@pytest.mark.parametrize("tokens", exhaustive.cases([256 * 512, 512 * 32768], lambda tokens: tokens < 2**20))
def test_the_gradient_of_a_large_batch_is_as_precise_as_float16_rounds(kind, tokens):
    unscaled, scaled = gradient_error(kind, 1 / tokens, None), gradient_error(kind, 1 / tokens, INITIAL_SCALE)
    assert unscaled > 50 * ROUNDING and scaled < 1.5 * ROUNDING


@pytest.mark.exhaustive  # so are those of whole weights
def test_the_gradient_of_adapters_is_as_precise_as_float16_rounds():
    assert gradient_error("dense", 1 / (512 * 32768), INITIAL_SCALE, rank=4) < 1.5 * ROUNDING


# Supervised steps


def supervised(dtype="float16"):
    """(state, batch, step) of a tiny model."""
    model = transformer.Config(**SMALL | dict(layers=1, dtype=dtype))
    params, zero = transformer.init(model, jax.random.key(0)), jnp.zeros((), jnp.int32)
    opt_state, scale = optax.adam(1e-3).init(params), init_loss_scale(model)
    state = TrainState(zero, params, opt_state, jax.random.key(1), zero, loss_scale=scale)
    tokens = jax.random.randint(jax.random.key(1), (4, 16), 0, model.vocab_size)
    batch = {name: jnp.ones(tokens.shape, bool) for name in ("mask", "loss_mask")} | {"tokens": tokens}
    step = functools.partial(
        learner.supervised_step, model=model, optimizer=optax.adam(1e-3), micro_batching=learner.MicroBatching(2)
    )
    return state, batch, jax.jit(step)


@pytest.fixture(scope="module")
def trained():
    return supervised()


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_a_gradient_that_is_not_finite_halves_the_scale_and_changes_no_weight_and_no_moment(trained):
    state, batch, step = trained
    before = state.replace(loss_scale=scale_of(MAX_SCALE, 7))
    after, metrics = step(before, batch)
    assert same((before.params, before.opt_state), (after.params, after.opt_state))
    assert float(after.loss_scale.value) == MAX_SCALE / 2 and int(after.loss_scale.finite_updates) == 0
    assert float(metrics["loss_scale"]) == MAX_SCALE and int(metrics["skipped_in_a_row"]) == 1
    assert np.isfinite(metrics["loss"])  # the loss itself, not the one that is scaled


def test_a_scale_that_is_too_large_is_halved_until_the_run_learns(trained):
    state, batch, step = trained
    state, scales = state.replace(loss_scale=scale_of(2.0**28)), []
    for _ in range(12):
        state, metrics = step(state, batch)
        scales.append(float(metrics["loss_scale"]))
    assert 1 < int(state.skipped_total) < 10 and int(state.skipped) == 0
    assert scales[0] == 2.0**28 and scales[-1] == 2.0 ** (28 - int(state.skipped_total))


def test_the_scale_is_doubled_after_many_finite_updates_in_a_row_and_has_limits(trained):
    state, batch, step = trained
    last = lambda value, count: step(state.replace(loss_scale=scale_of(value, count)), batch)[0].loss_scale
    grown, waiting = last(2.0**10, GROWTH_INTERVAL - 1), last(2.0**10, GROWTH_INTERVAL - 2)
    assert (float(grown.value), int(grown.finite_updates)) == (2.0**11, 0)
    assert (float(waiting.value), int(waiting.finite_updates)) == (2.0**10, GROWTH_INTERVAL - 1)
    broken = state.replace(loss_scale=scale_of(MIN_SCALE), params=jax.tree.map(lambda x: x * jnp.nan, state.params))
    assert float(step(broken, batch)[0].loss_scale.value) == MIN_SCALE


def test_norm_loss_and_step_do_not_depend_on_the_scale(trained):
    state, batch, step = trained
    (a, small), (b, large) = (step(state.replace(loss_scale=scale_of(2.0**k)), batch) for k in (10, 16))
    assert float(small["loss"]) == float(large["loss"])
    assert float(small["grad_norm"]) == pytest.approx(float(large["grad_norm"]), rel=ROUNDING)
    exact_state, _, exact_step = supervised("float32")
    exact = exact_step(exact_state, batch)[1]
    assert float(large["grad_norm"]) == pytest.approx(float(exact["grad_norm"]), rel=2 * ROUNDING)


def test_other_dtypes_have_no_scale_in_state_and_metrics():
    for dtype in ("float32", "bfloat16", "float64"):
        assert init_loss_scale(transformer.Config(vocab_size=8, dtype=dtype)) is None
    assert init_loss_scale(transformer.Config(vocab_size=8, weight_dtype="float16")) is not None
    state, batch, step = supervised("bfloat16")
    after, metrics = step(state, batch)
    assert after.loss_scale is None and "loss_scale" not in metrics
    assert not [name for name in checkpoint.state_without_params(after) if "scale" in name]


# Reinforcement learning


def test_a_critic_whose_gradient_is_not_finite_halves_the_scale_too(trained):
    state, ones = trained[0], {"w": jnp.ones(3)}
    after, _ = update_loss_scale(state, {"policy": ones, "critic": {"w": jnp.full(3, jnp.inf)}})
    assert float(after.loss_scale.value) == INITIAL_SCALE / 2
    assert float(update_loss_scale(state, {"policy": ones, "critic": ones})[0].loss_scale.value) == INITIAL_SCALE


@pytest.mark.exhaustive
def test_vmapped_runs_with_a_critic_have_a_scale_each(tmp_path):
    run = resolve(tiny_config(**{"model.dtype": "float16", "rl.algorithm": "orz_ppo", "rl.updates": 2}))
    run = dataclasses.replace(run, task=generous(run.task))
    start = initial_state.new_state(run, run.rl, transformer.init(run.model, jax.random.key(3)))
    assert float(start.loss_scale.value) == INITIAL_SCALE
    data = lambda s: s.replace(key=jax.random.key_data(s.key))
    states = [data(start), data(start.replace(loss_scale=scale_of(MAX_SCALE)))]
    both = jax.tree.map(lambda *x: jnp.stack(x), *states)
    train_step = compile_train_step(rl.make_train_step, run)

    def step(state):
        state, metrics = train_step(state.replace(key=jax.random.wrap_key_data(state.key)))
        return data(state), metrics

    both, metrics = jax.jit(jax.vmap(step))(both)
    learned, stood = (jax.tree.map(lambda x, r=r: x[r], both) for r in range(2))
    moved = lambda name: not same(getattr(learned, name), getattr(start, name))
    assert moved("params") and moved("critic") and int(learned.skipped_total) == 0
    assert same((stood.params, stood.opt_state), (start.params, start.opt_state))
    assert int(stood.skipped) == 2 and float(stood.loss_scale.value) == MAX_SCALE / 4
    assert float(learned.loss_scale.value) == INITIAL_SCALE and int(learned.loss_scale.finite_updates) == 2
    assert metrics["loss_scale"].tolist() == [INITIAL_SCALE, MAX_SCALE / 2]

    # A checkpoint holds the scale
    manager = checkpoint.open_manager(tmp_path)
    saved = learned.replace(key=jax.random.wrap_key_data(learned.key))
    checkpoint.save(manager, 1, saved)
    manager.wait_until_finished()
    found = checkpoint.restore(manager, start)
    manager.close()
    assert found and same(data(found[0]), learned)
