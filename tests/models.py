"""Tiny transformers that tests share: one plain, one with everything, one with latents and experts."""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import transformer

SMALL = transformer.Config(vocab_size=23, width=16, heads=2, kv_heads=2, head_width=8, ff_width=24, max_length=64)
EVERYTHING = transformer.Config(
    vocab_size=23,
    layers=3,
    width=16,
    heads=4,
    kv_heads=2,
    head_width=8,
    ff_width=24,
    max_length=64,
    activation="gelu_tanh",
    norm_plus_one=True,
    post_norms=True,
    qk_norm=True,
    qkv_bias=True,
    out_bias=True,
    mlp_bias=True,
    rope_base=500.0,
    rope_base_sliding=50.0,
    rope_scaling=("llama3", 8.0, 1.0, 4.0, 64),
    window=4,
    sliding=(True, False),  # repeated: layer 2 slides again
    attention_scale=0.5,
    attention_softcap=2.0,
    logit_softcap=5.0,
    tied_head=True,
    scale_embedding=True,
)
DEEPSEEK = transformer.Config(
    vocab_size=23,
    layers=3,
    width=16,
    heads=4,
    kv_heads=4,
    head_width=10,
    ff_width=24,
    max_length=64,
    rope_base=500.0,
    rope_scaling=("yarn", 4.0, 2.0, 1.0, 16, 1.1, True),
    qkv_bias=True,
    out_bias=True,
    window=5,
    sliding=(False, False, True),
    latent=6,
    query_latent=12,
    rope_width=4,
    value_width=12,
    experts=6,
    experts_per_token=2,
    expert_width=14,
    shared_width=18,
    routed=(False, True, True),
    router="sigmoid",
    router_scale=1.7,
    router_groups=3,
    router_top_groups=2,
)
EACH = pytest.mark.parametrize(
    "config",
    [pytest.param(SMALL, marks=pytest.mark.exhaustive), EVERYTHING, DEEPSEEK],  # the second has all that the first has
    ids=["small", "everything", "deepseek"],
)


@functools.cache
def params_of(config):
    """Random parameters that depend on their names only; biases and norms too are away from where they start."""

    def one(path, w):
        seed = zlib.crc32(jax.tree_util.keystr(path).encode())
        noise = np.random.default_rng(seed).normal(size=w.shape)
        return jnp.asarray(w.init_std * noise if w.init_std else 0.7 + 0.3 * noise, jnp.float32)

    return jax.tree_util.tree_map_with_path(
        one, transformer.weight_specs(config), is_leaf=lambda x: isinstance(x, transformer.WeightSpec)
    )


def tokens_of(rows, columns, seed=0):
    return np.random.default_rng(seed).integers(SMALL.vocab_size, size=(rows, columns))


# Compiled without optimization: these run once, and compiling is what takes the time.
jit = functools.partial(jax.jit, static_argnums=1, compiler_options={"xla_backend_optimization_level": 0})
forward = jit(transformer.forward)


def near(a, b, atol):
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)
