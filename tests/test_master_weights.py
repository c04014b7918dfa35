"""Master weights: steps too small for bfloat16 and float16 add up in float32, and the model has the rounded copies."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_train_step import tiny_config

from experiments import rl
from rljax import learner, planning, transformer
from rljax.learner.master_weights import MasterWeightsState
from rljax.learner.optimizer import OptimizerOptions, make_optimizer
from rljax.planning.lowering import abstract_state
from rljax.planning.memory import compute_state_memory
from rljax.structs import KeyTag, TrainState
from rljax.training import initial_state
from rljax.training.run import resolve

SMALL = dict(vocab_size=64, layers=1, width=32, heads=4, kv_heads=2, head_width=8, ff_width=64)
OPTIONS = OptimizerOptions(learning_rate=1e-6, schedule="constant", warmup=0)
LOW = pytest.mark.parametrize("dtype", ["bfloat16", "float16"])


initial_params = jax.jit(transformer.init, static_argnums=0)


def start(optimizer, dtype):
    """A state whose weights have this dtype; the values are the same in every dtype, those of bfloat16."""
    model = transformer.Config(**SMALL, weight_dtype=dtype)
    exact = initial_params(transformer.Config(**SMALL), jax.random.key(0))
    zero, tx = jnp.zeros((), jnp.int32), make_optimizer(optimizer, model, 100)

    @jax.jit
    def prepare(exact):
        params = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(dtype), exact)
        return params, tx.init(params)

    return TrainState(zero, *prepare(exact), jax.random.key(1), zero), tx


@functools.cache
def learned(name, dtype, steps=100):
    """(weights at the start, state) after steps on gradients that depend on the number of the step alone."""
    options = OptimizerOptions(name, learning_rate=1e-6 if name == "adamw" else 1e-5, schedule="constant", warmup=0)
    state, tx = start(options, dtype)
    begin = state.params

    leaves, tree = jax.tree.flatten(begin)
    noise = [np.random.default_rng(n).normal(size=(steps // 10, *p.shape)) for n, p in enumerate(leaves)]
    noise = jax.tree.unflatten(tree, [jnp.asarray(x, jnp.float32) for x in noise])

    @jax.jit
    def train(state, noise):
        def step(state, number):
            grads = jax.tree.map(lambda x: x[number // 10], noise)
            return learner.apply_gradients(state, grads, tx)[0], None

        return jax.lax.scan(step, state, jnp.arange(steps))[0]

    return begin, train(state, noise)


def flat(tree):
    return np.concatenate([np.asarray(x, np.float32).ravel() for x in jax.tree.leaves(tree)])


@LOW
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_after_100_small_steps_masters_are_the_weights_of_a_float32_run_and_weights_are_masters_rounded(name, dtype):
    (begin, low), (_, exact) = learned(name, dtype), learned(name, "float32")
    masters, expected = low.opt_state.weights, exact.params
    np.testing.assert_allclose(flat(masters), flat(expected), rtol=2e-7, atol=0)
    jax.tree.map(lambda m, p: np.testing.assert_array_equal(m.astype(p.dtype), p), masters, low.params)
    should = flat(jax.tree.map(lambda w: w.astype(dtype), expected)) != flat(begin)
    moved = flat(low.params) != flat(begin)
    assert moved.mean() > 0.04 and np.array_equal(moved, should)


def test_moments_are_those_of_float32_weights_and_their_dtype_can_be_chosen():
    inner = lambda **changes: start(OptimizerOptions(**changes), "bfloat16")[0].opt_state.inner
    dtypes = lambda state: {str(x.dtype) for x in jax.tree.leaves(state) if x.ndim}
    assert dtypes(inner()) == dtypes(inner(name="muon")) == {"float32"}
    assert dtypes(inner(moment_dtype="bfloat16")) == {"bfloat16", "float32"}


def test_weights_of_float32_have_no_masters_beside_weights_of_bfloat16_and_on_their_own():
    tx = make_optimizer(OPTIONS, transformer.Config(**SMALL), 100)
    mixed = {"low": jnp.ones((4, 4), jnp.bfloat16), "high": jnp.ones((4, 4))}
    state = tx.init(mixed)
    assert state.weights["high"] is None and state.weights["low"].dtype == jnp.float32
    grads = {name: jnp.ones((4, 4)) for name in mixed}
    params, after = learner.update.apply_optimizer(mixed, grads, state, tx, jnp.bool_(True))
    assert float(params["high"][0, 0]) == float(after.weights["low"][0, 0]) < 1 == float(params["low"][0, 0])
    alone, _ = start(OPTIONS, "float32")
    assert not isinstance(alone.opt_state, MasterWeightsState)


def test_an_update_that_is_skipped_changes_neither_masters_nor_weights():
    state, tx = start(OPTIONS, "bfloat16")
    broken = jax.tree.map(lambda p: jnp.full(p.shape, jnp.nan), state.params)
    after, _ = jax.jit(lambda state, grads: learner.apply_gradients(state, grads, tx))(state, broken)
    np.testing.assert_array_equal(flat((after.params, after.opt_state)), flat((state.params, state.opt_state)))


# Whole runs


LOW_RUN = {"model.weight_dtype": "bfloat16", "model.dtype": "bfloat16"}


def test_adapters_on_a_bfloat16_base_have_no_masters_and_a_critic_of_bfloat16_has():
    state = lambda **more: abstract_state(resolve(tiny_config(**LOW_RUN, **more)))
    adapters = state(**{"rl.lora.rank": 2})
    assert not isinstance(adapters.opt_state, MasterWeightsState)
    critic = state(**{"rl.algorithm": "orz_ppo"})
    assert isinstance(critic.opt_state, MasterWeightsState) and isinstance(critic.critic_opt_state, MasterWeightsState)
    assert critic.critic_opt_state.weights["head"] is None


def short(**changes):
    sizes = {"rl.start": "", "rl.steps": 4, "rl.eval_every": 2, "rl.prompts": 2, "rl.group_size": 4}
    evaluation = {"eval.problems": 2, "eval.attempts": 2, "eval.greedy": False}
    return tiny_config(**LOW_RUN | sizes | evaluation | {"rl.reward": "correct + overlong(share=0.9)"} | changes)


def sums(folder):
    return json.loads((folder / "checkpoints" / "rl" / "4" / "sums" / "metadata").read_text())


@pytest.mark.exhaustive
def test_a_run_on_bfloat16_weights_goes_on_with_its_masters_and_its_weights_are_read_as_they_were_rounded(tmp_path):
    rl.run(short(), tmp_path / "once")
    rl.run(short(), tmp_path / "twice", stop=2)
    rl.run(short(), tmp_path / "twice")
    assert sums(tmp_path / "once") == sums(tmp_path / "twice")
    assert any("weights" in path and "embedding" in path for path in sums(tmp_path / "once")["rest"])
    run = resolve(short())
    params = initial_state.start_params(run, "rl", tmp_path / "once")
    assert {str(x.dtype) for x in jax.tree.leaves(params)} == {"bfloat16"}
    begin = initial_params(run.model, jax.random.fold_in(jax.random.key(run.seed), KeyTag.INIT_PARAMS))
    assert not np.array_equal(flat(params), flat(begin))


def test_a_plan_counts_master_weights_as_part_of_the_optimizer():
    memory = lambda **changes: compute_state_memory(planning.resolve_abstract(tiny_config(**changes)))
    exact, low, adapters = memory(), memory(**LOW_RUN), memory(**LOW_RUN, **{"rl.lora.rank": 2})
    assert low["weights"] == exact["weights"] / 2
    assert low["optimizer"] == pytest.approx(exact["optimizer"] + exact["weights"], abs=64)
    assert adapters["optimizer"] == pytest.approx(2 * adapters["adapters"], abs=64)
