"""A function of columns, a chunk at a time: values and gradients are those of all columns at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.transformer.column_chunks import map_columns
from rljax.transformer.layout import Layout

ROWS, COLUMNS, WIDTH, VOCAB = 3, 11, 5, 7


def score(weights, x, targets):
    head, temperature = weights
    logits = jnp.tanh(x @ head["w"]) / temperature
    return jnp.take_along_axis(logits, targets[..., None], -1)[..., 0], jnp.sum(logits**2, -1)


def make_arrays(dtype):
    w, x = (
        jax.random.normal(jax.random.key(i), shape, dtype)
        for i, shape in enumerate([(WIDTH, VOCAB), (ROWS, COLUMNS, WIDTH)])
    )
    return ({"w": w}, jnp.asarray(0.7, dtype)), x, jax.random.randint(jax.random.key(2), (ROWS, COLUMNS), 0, VOCAB)


def loss_of(weights, x, targets, chunk, count):
    of_columns = jnp.where(jnp.arange(COLUMNS) < (COLUMNS if count is None else count), jnp.cos(jnp.arange(COLUMNS)), 0)
    if chunk:
        first, second = map_columns(score, weights, x, targets, chunk, Layout(), count)
    else:
        first, second = score(weights, x, targets)
    return jnp.sum((first + first * second) * of_columns)


@pytest.mark.parametrize("chunk", [1, 4, 11])
@pytest.mark.parametrize("count", [None, 0, 3, 8, 11])
def test_values_and_gradients_are_those_of_all_columns_at_once(chunk, count):
    with jax.enable_x64():
        weights, x, targets = make_arrays("float64")
        gradient = jax.jit(jax.value_and_grad(loss_of, (0, 1)), static_argnums=3)
        expected = gradient(weights, x, targets, 0, count)
        found = gradient(weights, x, targets, chunk, None if count is None else jnp.int32(count))
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), found, expected)
        assert float(jnp.abs(found[1][1]).sum()) > 0 or count == 0


def test_chunks_behind_the_last_column_that_counts_are_left_out():
    weights, x, targets = make_arrays("float32")
    x = x.at[:, 4:].set(jnp.nan)  # any chunk that is computed shows it
    first, second = map_columns(score, weights, x, targets, 2, Layout(), jnp.int32(3))
    assert np.isfinite(first).all() and np.isfinite(second).all()
    assert np.asarray(second)[:, :4].all() and not np.asarray(second)[:, 4:].any()
    of_weights = jax.grad(lambda w: map_columns(score, w, x, targets, 2, Layout(), jnp.int32(3))[1].sum())(weights)
    assert np.isfinite(of_weights[0]["w"]).all()


def test_the_gradient_of_weights_in_few_bits_is_summed_over_chunks_in_more():
    """Of 512 equal terms, a sum in bfloat16 would stop growing at 256."""
    weights, x = jnp.zeros((1, 1), jnp.bfloat16), jnp.ones((1, 512, 1), jnp.bfloat16)
    function = lambda w, x, _: (x.astype(jnp.float32) @ w.astype(jnp.float32))[..., 0]
    gradient = jax.grad(lambda w: map_columns(function, w, x, None, 1, Layout()).sum())(weights)
    assert gradient.dtype == jnp.bfloat16 and float(gradient[0, 0]) == 512


def test_no_chunk_keeps_a_copy_of_the_weights():
    weights, x, targets = make_arrays("float32")
    count = jnp.int32(8)
    text = str(jax.make_jaxpr(jax.grad(lambda w: loss_of(w, x, targets, 2, count)))(weights))
    assert f"f32[{WIDTH},{VOCAB}]" in text and f",{WIDTH},{VOCAB}]" not in text
