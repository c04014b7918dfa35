"""Layers stacked or not, matrices whole, in int8, or with a low-rank change: the same function."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import DEEPSEEK, EACH, EVERYTHING, SMALL, forward, jit, near, params_of, tokens_of

from rljax import sampler, transformer
from rljax.transformer import weight_formats

DEEP = dataclasses.replace(EVERYTHING, layers=5)  # sliding, global, sliding, global, sliding


def test_layers_of_one_kind_are_stacked_pattern_by_pattern():
    pattern = lambda **kw: transformer.Config(vocab_size=5, window=4, **kw).layer_stacks()
    assert pattern(layers=4) == [(0, 1, 4)]
    assert pattern(layers=1) == [(0, 1, 1)]
    assert pattern(layers=26, sliding=(True,) * 5 + (False,)) == [(0, 6, 4), (24, 1, 2)]
    experts = dict(experts=4, expert_width=8, routed=(False,) * 3 + (True,) * 4)
    assert pattern(layers=7, **experts) == [(0, 1, 3), (3, 1, 4)]
    assert DEEP.layer_stacks() == [(0, 2, 2), (4, 1, 1)]


@pytest.mark.parametrize(
    "config",
    [SMALL, *(pytest.param(config, marks=pytest.mark.exhaustive) for config in (DEEP, DEEPSEEK))],
    ids=["small", "deep", "deepseek"],
)
def test_stacked_layers_are_the_same_function_with_the_same_gradient(config):
    scanned, params = dataclasses.replace(config, scan_layers=True, remat="layer"), params_of(config)
    tokens, mask = tokens_of(2, 9), np.arange(9) < np.array([[9], [7]])
    stacked = transformer.stack_layers(params, scanned)
    assert jax.tree.structure(stacked) == jax.tree.structure(transformer.init(scanned, jax.random.key(0)))
    again, plain = transformer.unstack_layers(stacked, scanned)
    assert plain == dataclasses.replace(config, remat="layer")
    jax.tree.map(np.testing.assert_array_equal, again, params)

    def total(params, config):
        logp, entropy = transformer.token_logprobs(params, config, tokens, mask)
        return logp.sum() + entropy.sum(), logp

    (_, ours), grads = jit(jax.value_and_grad(total, has_aux=True))(stacked, scanned)
    (_, expected), expected_grads = jit(jax.value_and_grad(total, has_aux=True))(params, config)
    near(ours, expected, 1e-5)
    jax.tree.map(lambda a, b: near(a, b, 1e-4), transformer.unstack_layers(grads, scanned)[0], expected_grads)


@pytest.mark.parametrize(
    "config", [DEEP, pytest.param(DEEPSEEK, marks=pytest.mark.exhaustive)], ids=["deep", "deepseek"]
)
@pytest.mark.parametrize("weights", ["", pytest.param("int8", marks=pytest.mark.exhaustive)])
def test_stacked_layers_sample_the_same_tokens(config, weights):
    scanned, params = dataclasses.replace(config, scan_layers=True), params_of(config)
    prompt, mask = tokens_of(2, 5), np.arange(5) >= np.array([[0], [2]])
    draw = lambda params, config: sampler.sample(
        params, config, prompt, mask, jax.random.key(3), group_size=2, max_new_tokens=6, weights=weights
    )
    ours, expected = draw(transformer.stack_layers(params, scanned), scanned), draw(params, config)
    np.testing.assert_array_equal(ours.response, expected.response)
    near(ours.logprobs, expected.logprobs, 1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sampling_from_stacked_layers_copies_none_of_them(dtype):
    config = transformer.Config(
        vocab_size=64, layers=6, width=256, heads=4, ff_width=512, max_length=32, scan_layers=True, dtype=dtype
    )
    config = dataclasses.replace(config, weight_dtype=dtype, cache_dtype=dtype)
    params = jax.eval_shape(lambda: transformer.init(config, jax.random.key(0)))
    prompt, mask, key = jnp.ones((2, 8), jnp.int32), jnp.ones((2, 8), bool), jax.random.key(0)
    lowered = sampler.sample.lower(params, config, prompt, mask, key, group_size=1, max_new_tokens=24)
    layer_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(params["layers"])) / config.layers
    assert lowered.compile().memory_analysis().temp_size_in_bytes < 2.5 * layer_bytes  # this layer, and its products


def test_the_cache_of_stacked_layers_grows_without_being_copied():
    config = transformer.Config(
        vocab_size=32, layers=4, width=16, heads=4, head_width=32, ff_width=16, max_length=128, scan_layers=True
    )
    params = jax.eval_shape(lambda: transformer.init(config, jax.random.key(0)))
    rows, columns, key = 64, 96, jax.random.key(0)
    prompt, mask = jnp.ones((rows, 8), jnp.int32), jnp.ones((rows, 8), bool)
    lowered = sampler.sample.lower(params, config, prompt, mask, key, group_size=1, max_new_tokens=columns)
    cache_bytes = 2 * 4 * config.layers * rows * config.kv_heads * config.head_width * columns
    assert lowered.compile().memory_analysis().temp_size_in_bytes < 1.4 * cache_bytes


@EACH
def test_random_parameters_are_the_same_however_they_are_stacked(config):
    scanned = dataclasses.replace(config, scan_layers=True)
    expected = transformer.init(config, jax.random.key(1))
    ours, _ = transformer.unstack_layers(transformer.init(scanned, jax.random.key(1)), scanned)
    jax.tree.map(np.testing.assert_array_equal, ours, expected)
    described = transformer.weight_specs(scanned)
    shapes = jax.tree.map(lambda w: w.shape, described, is_leaf=lambda x: isinstance(x, transformer.WeightSpec))
    assert shapes == jax.tree.map(jnp.shape, transformer.stack_layers(expected, scanned))


# ---------------------------------------------------------------------------------------------------------------------
# One product, three ways to keep its matrix.

SPECS = {  # of the products there are: shape of x, shape of w, axes of w that are summed over
    "bsd,dhe->bhse": ((2, 3, 8), (8, 4, 5), (0,)),
    "bhse,hed->bsd": ((2, 4, 3, 5), (4, 5, 8), (0, 1)),
    "bsd,df->bsf": ((2, 3, 8), (8, 6), (0,)),
    "bsl,lhe->bhse": ((2, 3, 8), (8, 4, 5), (0,)),
}


def noise(*shape, seed=0):
    return jnp.asarray(np.random.default_rng((seed, *shape)).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("spec", SPECS)
def test_int8_is_within_half_a_step_of_the_matrix_and_multiplies_like_it(spec):
    of_x, of_w, axes = SPECS[spec]
    w = noise(*of_w).at[(slice(None),) * len(axes) + (0,) * (len(of_w) - len(axes))].set(0.0)  # a column of zeros
    small = weight_formats.quantize_matrix(w, axes)
    assert small.values.dtype == jnp.int8 and int(jnp.abs(small.values).max()) == 127
    error = jnp.abs(weight_formats.to_dense(small) - w)
    assert (error <= small.scale / 2 + 1e-6).all() and error.max() > 1e-4
    x = noise(*of_x)
    near(weight_formats.einsum(spec, x, small), weight_formats.einsum(spec, x, weight_formats.to_dense(small)), 1e-4)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("base_of", [lambda w, axes: w, weight_formats.quantize_matrix], ids=["whole", "int8"])
def test_a_low_rank_change_multiplies_like_the_sum(spec, base_of):
    of_x, of_w, axes = SPECS[spec]
    base = base_of(noise(*of_w), axes)
    w = weight_formats.LoraMatrix(base, noise(*of_w[: len(axes)], 3), noise(3, *of_w[len(axes) :], seed=1))
    added = weight_formats.low_rank_product(w.down, w.up, of_w)
    assert jnp.abs(added).max() > 1
    x = noise(*of_x)
    near(weight_formats.einsum(spec, x, w), weight_formats.einsum(spec, x, weight_formats.to_dense(base) + added), 1e-3)
    near(weight_formats.to_dense(w), weight_formats.to_dense(base) + added, 1e-5)


def test_grouped_rows_meet_their_own_matrix_however_it_is_kept():
    x, w, sizes = noise(7, 8), noise(3, 8, 6), jnp.array([4, 0, 3])
    rows = np.repeat(np.arange(3), sizes)
    by_hand = lambda w: np.einsum("md,mdf->mf", x, np.asarray(w)[rows])
    small = weight_formats.quantize_matrix(w, (1,))
    adapted = weight_formats.LoraMatrix(w, noise(3, 8, 2), noise(3, 2, 6))
    for kept in (w, small, adapted):
        near(weight_formats.grouped_matmul(x, kept, sizes), by_hand(weight_formats.to_dense(kept)), 1e-4)
    assert jnp.abs(weight_formats.to_dense(adapted) - w).max() > 1


def test_a_token_passes_the_same_experts_whoever_else_is_in_the_batch():
    tokens = tokens_of(4, 9)
    together = forward(params_of(DEEPSEEK), DEEPSEEK, tokens)
    alone = forward(params_of(DEEPSEEK), DEEPSEEK, tokens[1:2])
    near(together[1], alone[0], 1e-5)
