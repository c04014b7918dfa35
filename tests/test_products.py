"""Products of bfloat16 stay products of bfloat16 in the backward pass, for every kind of block, and cost no accuracy."""

import collections
import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rljax import transformer
from rljax.transformer import grouped_products, products
from rljax.transformer.weight_formats import LoraMatrix

SMALL = dict(vocab_size=64, layers=2, width=32, heads=4, kv_heads=2, head_width=8, ff_width=64)
MODELS = {
    "dense": {},
    "chunks": dict(attention_chunk=8, logprob_chunk=8, remat="layer"),
    "tied head, stacked layers": dict(tied_head=True, scan_layers=True),
    "latents": dict(kv_heads=4, latent=16, query_latent=16, rope_width=4, value_width=8),
    "experts": dict(experts=4, expert_width=16, experts_per_token=2, shared_width=16),
}
PRODUCT = re.compile(r"(?:dot_general|ragged_dot)\b.*: \(tensor<([^>]*)>, tensor<([^>]*)>")


def model_of(name: str, dtype: str) -> transformer.Config:
    return transformer.Config(**SMALL | MODELS[name], dtype=dtype)


def loss(params, model, tokens, mask):
    logprobs, entropy = transformer.token_logprobs(params, model, tokens, mask)
    return jnp.mean(logprobs * jnp.sin(jnp.arange(logprobs.size).reshape(logprobs.shape))) + 0.01 * entropy.mean()


def count_products(function, params, model, platform: str) -> collections.Counter:
    """{(dtype, dtype) of the operands: how many products} of the module that is compiled on this platform.

    A router's products, which are float32 on purpose, are counted as "router".
    """
    tokens, mask = jax.ShapeDtypeStruct((2, 16), jnp.int32), jax.ShapeDtypeStruct((2, 16), bool)
    lowered = jax.export.export(jax.jit(lambda p, t, m: function(p, model, t, m)), platforms=[platform])
    found: collections.Counter = collections.Counter()
    for line in lowered(params, tokens, mask).mlir_module().splitlines():
        if match := PRODUCT.search(line):
            shapes, dtypes = zip(*(operand.rsplit("x", 1) for operand in match.groups()), strict=True)
            to_experts = dtypes == ("f32", "f32") and "4" in "x".join(shapes).split("x")  # 4 experts
            found["router" if to_experts else dtypes] += 1
    return found


@pytest.mark.parametrize("platform", ["cuda", pytest.param("tpu", marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("name", MODELS)
def test_every_product_of_bfloat16_has_operands_of_bfloat16_forward_and_backward(name, platform):
    model = model_of(name, "bfloat16")
    params = jax.eval_shape(lambda: transformer.init(model, jax.random.key(0)))
    forward = count_products(loss, params, model, platform)
    backward = count_products(jax.grad(loss), params, model, platform)
    short = ("bf16", "bf16")
    assert set(forward) - {"router"} == set(backward) - {"router"} == {short}
    assert ("router" in forward) == (name == "experts")
    again = 2 if name == "chunks" else 1  # the backward pass computes chunks and layers a second time
    assert backward[short] >= (again + 1.9) * forward[short]


def test_adapters_learn_by_products_of_bfloat16_too():
    model = model_of("dense", "bfloat16")
    w = LoraMatrix(jnp.ones((32, 16)), jnp.ones((32, 4)), jnp.ones((4, 16)))
    function = lambda w, model, tokens, mask: transformer.weight_formats.einsum(
        "sd,df->sf", tokens.astype(jnp.bfloat16) @ jnp.ones((16, 32), jnp.bfloat16), w
    ).sum()
    assert set(count_products(jax.grad(function), w, model, "cuda")) == {("bf16", "bf16")}


def gradient_error(name: str, seeds: int) -> float:
    """The mean over seeds of ||g16 - g32|| / ||g32||: gradients with bfloat16 activations; the weights are float32 in both."""
    exact = dataclasses.replace(model_of(name, "float32"), vocab_size=256, width=128, ff_width=256)
    models = exact, dataclasses.replace(exact, dtype="bfloat16")
    functions = [jax.jit(lambda p, t, m=m: jax.grad(loss)(p, m, t, jnp.ones(t.shape, bool))) for m in models]
    init, norm, errors = jax.jit(transformer.init, static_argnums=0), optax.tree.norm, []
    for seed in range(seeds):
        params = init(exact, jax.random.key(seed))
        tokens = jax.random.randint(jax.random.key(seed + 1), (4, 48), 0, 256)
        expected, found = (function(params, tokens) for function in functions)
        errors.append(float(norm(jax.tree.map(jnp.subtract, expected, found)) / norm(expected)))
    return float(np.mean(errors))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["dense", "latents"])
def test_the_gradient_is_as_exact_as_with_cotangents_of_float32(name, monkeypatch):
    short = gradient_error(name, seeds=3)
    monkeypatch.setattr(products, "is_low_precision", lambda x: False)  # JAX's own rule: float32 cotangents
    whole = gradient_error(name, seeds=3)
    assert short != whole and 0.002 < short <= 1.05 * whole < 0.02


@pytest.mark.parametrize("spec, shapes", [("ab,bc->ac", ((5, 6), (6, 7))), ("...d,vd->...v", ((2, 3, 6), (7, 6))),
                                          ("bkrme,bkse->bkrms", ((2, 2, 3, 4, 5), (2, 2, 6, 5))),
                                          ("bhse,hed->bsd", ((2, 3, 4, 5), (3, 5, 6)))])  # fmt: skip
def test_the_gradients_of_a_product_are_those_of_einsum_on_the_rounded_operands(spec, shapes):
    x, w = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes))
    x, w = x.astype(jnp.bfloat16), w.astype(jnp.bfloat16).astype(jnp.float32)
    exact = lambda x, w: jnp.einsum(spec, x.astype(jnp.float32), w)
    g = jnp.sign(jax.random.normal(jax.random.key(3), exact(x, w).shape))  # exact in bfloat16
    value, pull = jax.vjp(lambda x, w: products.product(spec, x, w), x, w)
    wanted, pull_exact = jax.vjp(exact, x, w)
    (of_x, of_w), (exact_x, exact_w) = pull(g), pull_exact(g)
    assert value.dtype == of_w.dtype == jnp.float32 and of_x.dtype == jnp.bfloat16
    np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(of_w, exact_w, rtol=1e-5, atol=1e-5)  # accumulated and returned in float32
    np.testing.assert_allclose(of_x.astype(jnp.float32), exact_x.astype(jnp.float32), rtol=1e-2, atol=1e-2)


def test_the_gradients_of_grouped_products_are_those_of_each_group_by_itself():
    sizes = np.array([3, 0, 5])
    x = jax.random.normal(jax.random.key(0), (8, 6)).astype(jnp.bfloat16)
    w = jax.random.normal(jax.random.key(1), (3, 6, 4)).astype(jnp.bfloat16).astype(jnp.float32)
    g = jnp.sign(jax.random.normal(jax.random.key(2), (8, 4)))
    value, pull = jax.vjp(lambda x, w: grouped_products.grouped_product(x, w, jnp.asarray(sizes)), x, w)
    of_x, of_w = pull(g)
    first = 0
    for group, size in enumerate(sizes):
        rows = slice(first, first + size)
        first += size
        x32 = x[rows].astype(jnp.float32)
        np.testing.assert_allclose(value[rows], x32 @ w[group], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(of_w[group], x32.T @ g[rows], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(of_x[rows].astype(jnp.float32), g[rows] @ w[group].T, rtol=1e-2, atol=2e-2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_of_whole_precision_are_jax_s_own(dtype):
    with jax.enable_x64(dtype == "float64"):
        x, w = (jax.random.normal(jax.random.key(i), (4, 4), dtype) for i in range(2))
        text = str(jax.make_jaxpr(lambda x, w: products.product("ab,bc->ac", x, w))(x, w))
    assert "custom_vjp" not in text and "dot_general" in text


@pytest.mark.parametrize("weight_dtype", ["float32", "bfloat16"])
def test_gradients_that_are_sums_over_many_tokens_are_summed_in_float32(weight_dtype):
    """4096 tokens of 4 kinds: summed in bfloat16, the gradients of bias and embedding were wrong by 30 and 25 %."""
    exact = transformer.Config(**SMALL | dict(layers=1, qkv_bias=True, mlp_bias=True))
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), transformer.init(exact, jax.random.key(0)))
    tokens = jax.random.randint(jax.random.key(1), (64, 64), 0, 4)

    def gradient(model):
        cast = jax.tree.map(lambda x: x.astype(model.weight_dtype), params)
        loss = lambda p: transformer.token_logprobs(p, model, tokens, tokens >= 0)[0].mean()
        return jax.tree.map(lambda x: x.astype(jnp.float32), jax.jit(jax.grad(loss))(cast))

    expected, found = gradient(exact), gradient(dataclasses.replace(exact, dtype="bfloat16", weight_dtype=weight_dtype))
    error = jax.tree.map(lambda a, b: float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)), found, expected)
    layer = error["layers"][0]
    assert error["embedding"] < 0.01 and layer["value"]["bias"] < 0.01 and layer["down_bias"] < 0.01


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("sizes", [[3, 0, 5], [0, 0, 0], [8, 0, 0], [1, 1, 1], [0, 30, 1]])
def test_blocks_of_rows_are_the_grouped_product_of_jax(sizes, dtype):
    rows = max(8, sum(sizes))
    x, g = (jax.random.normal(jax.random.key(i), (rows, width)).astype(dtype) for i, width in enumerate((6, 4)))
    w, sizes = jax.random.normal(jax.random.key(2), (3, 6, 4)).astype(dtype), jnp.asarray(sizes)
    for ours, theirs, operand in (
        (grouped_products.multiply_in_blocks, grouped_products.multiply_groups, w),
        (grouped_products.sum_outer_in_blocks, grouped_products.sum_outer, g),
    ):
        np.testing.assert_allclose(ours(x, operand, sizes), theirs(x, operand, sizes), rtol=1e-5, atol=1e-5)


def test_on_the_cpu_an_expert_multiplies_its_own_rows_alone():
    experts, rows, width = 64, 512, 32
    x, sizes = jnp.ones((rows, width)), jnp.full(experts, rows // experts)
    w = jnp.ones((experts, width, width))

    def total(x, w):
        return grouped_products.grouped_product(x, w, sizes).sum()

    gradients = jax.jit(jax.grad(total, argnums=(0, 1))).lower(x, w).compile()
    of_all_rows = experts * rows * width * x.dtype.itemsize  # what ragged_dot writes on the CPU
    assert gradients.memory_analysis().temp_size_in_bytes < of_all_rows / 4
    assert f"f32[{experts},{rows}," not in gradients.as_text()
