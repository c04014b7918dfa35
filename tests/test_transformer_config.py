"""Every field of the transformer's config changes the logits; precision and memory settings change only what they should."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import DEEPSEEK, EVERYTHING, SMALL, forward, jit, near, params_of, tokens_of

from rljax import transformer
from rljax.errors import UserError

token_logprobs = jax.jit(
    transformer.token_logprobs, static_argnums=(1, 5), compiler_options={"xla_backend_optimization_level": 0}
)


TWO = dataclasses.replace(EVERYTHING, layers=2)  # a sliding layer and another
OTHER = {  # another value of each of its fields
    "vocab_size": 29,
    "layers": 1,
    "width": 20,
    "heads": 2,
    "kv_heads": 4,
    "head_width": 12,
    "ff_width": 32,
    "activation": "gelu",
    "norm_eps": 0.1,
    "norm_plus_one": False,
    "post_norms": False,
    "qk_norm": False,
    "qkv_bias": False,
    "out_bias": False,
    "mlp_bias": False,
    "rope_base": 600.0,
    "rope_base_sliding": None,
    "rope_scaling": ("linear", 8.0),
    "window": 3,
    "sliding": (False, True),
    "attention_scale": None,
    "attention_softcap": None,
    "logit_softcap": None,
    "tied_head": False,
    "scale_embedding": False,
}
BFLOAT16 = ("dtype", "weight_dtype", "cache_dtype")  # the same function, less precisely
ROUTED = {  # the same for DEEPSEEK's own fields
    "mlp_bias": True,
    "latent": 8,
    "query_latent": 0,
    "rope_width": 6,
    "value_width": 8,
    "experts": 9,
    "experts_per_token": 3,
    "expert_width": 20,
    "shared_width": 0,
    "routed": (True,),
    "router": "softmax",
    "router_normalise": False,
    "router_scale": 1.0,
    "router_groups": 2,
    "router_top_groups": 1,
    "rope_scaling": ("yarn", 4.0, 2.0, 1.0, 16, 1.0, True),
}
SAME_VALUES = {
    "max_length",
    "remat",
    "scan_layers",
    "logprob_chunk",
    "layout",
    "attention",
    "attention_chunk",
    "expert_chunk",
}  # these have tests of their own


@pytest.fixture(scope="module")
def usual_logits():
    return forward(params_of(TWO), TWO, tokens_of(2, 8))


def test_no_field_of_the_config_is_forgotten_here():
    assert {f.name for f in dataclasses.fields(transformer.Config)} == {*OTHER, *ROUTED, *BFLOAT16, *SAME_VALUES}


@pytest.mark.parametrize("field", OTHER)
def test_a_field_of_the_config_changes_the_logits(field, usual_logits):
    config = dataclasses.replace(TWO, **{field: OTHER[field]})
    logits = forward(params_of(config), config, tokens_of(2, 8))
    if field == "vocab_size":
        assert logits.shape[-1] == OTHER[field]
    else:
        least = 1e-5 if field == "activation" else 1e-3  # gelu and its tanh form differ by 1e-3 at most
        assert np.abs(np.asarray(logits - usual_logits)).max() > least


@pytest.fixture(scope="module")
def routed_logits():
    return forward(params_of(DEEPSEEK), DEEPSEEK, tokens_of(2, 8))


@pytest.mark.exhaustive  # test_parity compares with torch what has them all
@pytest.mark.parametrize("field", ROUTED)
def test_a_field_of_latents_and_experts_changes_the_logits(field, routed_logits):
    config = dataclasses.replace(DEEPSEEK, **{field: ROUTED[field]})
    assert np.abs(forward(params_of(config), config, tokens_of(2, 8)) - routed_logits).max() > 1e-3


def test_the_three_activations_are_the_published_ones():
    x = np.array([-1.0, 0.5, 2.0])
    erf = np.array([-0.8427007929, 0.5204998778, 0.9953222650])  # of -1, 0.5 and 2
    named = transformer.config.ACTIVATIONS
    near(named["silu"](x), x / (1 + np.exp(-x)), 1e-6)
    near(named["gelu_tanh"](x), 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))), 1e-6)
    near(named["gelu"](x * 2**0.5), x * 2**0.5 * 0.5 * (1 + erf), 1e-6)


@pytest.mark.parametrize("field", ["dtype", "weight_dtype"])
def test_bfloat16_changes_the_logits_slightly(field):
    config = dataclasses.replace(SMALL, **{field: "bfloat16"})
    params, other = (transformer.init(c, jax.random.key(0)) for c in (SMALL, config))
    wanted = "bfloat16" if field == "weight_dtype" else "float32"
    assert {str(x.dtype) for x in jax.tree.leaves(other)} == {wanted}
    logits = forward(other, config, tokens_of(2, 8))
    assert logits.dtype == jnp.float32
    difference = np.abs(logits - forward(params, SMALL, tokens_of(2, 8))).max()
    assert 1e-4 < difference < 0.2


def test_a_bfloat16_cache_changes_decoded_logits_slightly():
    def decoded(params, config):
        _, cache = transformer.prefill(params, config, tokens_of(2, 6), jnp.ones((2, 6), bool), 1)
        cache = transformer.grow_cache(cache, 2, config)
        assert {str(x.dtype) for x in jax.tree.leaves((cache.prompt, cache.response))} == {config.cache_dtype}
        return transformer.decode(params, config, jnp.array([1, 2]), cache)[0]

    configs = [dataclasses.replace(SMALL, cache_dtype=dtype) for dtype in ("bfloat16", "float32")]
    low, full = (np.asarray(jit(decoded)(params_of(SMALL), config)) for config in configs)
    assert 1e-5 < np.abs(low - full).max() < 0.1


@pytest.mark.parametrize(
    "change", [{"remat": "layer"}, {"remat": "dots"}, {"logprob_chunk": 4}, {"logprob_chunk": 3}], ids=str
)
def test_saving_memory_changes_neither_values_nor_gradients(change):
    """11 columns, scored in chunks of 4 (the last one padded), and 9 from column 2 in chunks of 3 (none is)."""
    config, start = dataclasses.replace(SMALL, **change), 2 if change.get("logprob_chunk") == 3 else 1
    tokens, mask = tokens_of(2, 11), np.arange(11) < np.array([[11], [8]])
    weight = np.random.default_rng(0).normal(size=(2, 2, 11 - start))

    def total(params, config):
        out = jnp.stack(transformer.token_logprobs(params, config, tokens, mask, 0.7, start))
        return jnp.sum(weight * out), out

    value_and_grad = jit(jax.value_and_grad(total, has_aux=True))
    ours, plain = (value_and_grad(params_of(SMALL), c) for c in (config, SMALL))
    jax.tree.map(lambda a, b: near(a, b, 1e-5), ours, plain)
    assert max(np.abs(g).max() for g in jax.tree.leaves(ours[1])) > 0.1


def test_memory_is_saved_where_asked():
    """Layers are made again in the backward pass; in chunks, no array holds the logits of all columns."""
    scored = lambda config: str(
        jax.make_jaxpr(lambda p: transformer.token_logprobs(p, config, tokens_of(2, 11), jnp.ones((2, 11), bool))[0])(
            params_of(SMALL)
        )
    )
    chunked = dataclasses.replace(SMALL, logprob_chunk=4)
    assert "[2,10,23]" in scored(SMALL) and "[2,10,23]" not in scored(chunked)
    made_again = dataclasses.replace(SMALL, remat="layer")
    assert scored(made_again).count("remat2[") == SMALL.layers and "remat2[" not in scored(SMALL)


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"heads": 3, "kv_heads": 2}, "heads=3"),
        ({"head_width": 7}, "head_width=7"),
        ({"activation": "relu"}, "relu"),
        ({"sliding": (True,)}, "window"),
        ({"rope_scaling": ("dynamic", 2.0)}, "dynamic.*yarn"),
        ({"latent": 8, "rope_width": 3}, "rope_width=3"),
        ({"latent": 8, "rope_width": 34}, "rope_width=34 to be part of head_width=32"),
        ({"experts": 4}, "expert_width"),
        ({"experts": 4, "expert_width": 8, "router_groups": 3}, "router_groups=3"),
        ({"experts": 4, "expert_width": 8, "router_groups": 4}, "best two"),
        ({"experts": 4, "expert_width": 8, "experts_per_token": 5}, "experts_per_token=5"),
        ({"experts": 4, "expert_width": 8, "router": "tanh"}, "tanh"),
        ({"remat": "all"}, "remat='all'"),
    ],
)
def test_an_impossible_config_is_refused(bad, message):
    with pytest.raises(UserError, match=message):
        transformer.Config(vocab_size=5, **bad)
