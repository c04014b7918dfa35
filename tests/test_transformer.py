"""The transformer: cache against full forward, padding, causality, every field of the config, log-probabilities."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import DEEPSEEK, EACH, EVERYTHING, SMALL, forward, jit, near, params_of, tokens_of

from rljax import transformer
from rljax.errors import UserError
from rljax.transformer import blocks

token_logprobs = jax.jit(
    transformer.token_logprobs, static_argnums=(1, 5), compiler_options={"xla_backend_optimization_level": 0}
)


# ---------------------------------------------------------------------------------------------------------------------
# One token at a time.


@EACH
def test_decoding_with_the_cache_equals_the_full_forward(config):
    """Two prompts of 5 and 7 tokens, padded left to 7; two different continuations of each; the cache grows midway."""
    params, group, slots, steps = params_of(config), 2, 7, 9
    prompt, response = tokens_of(2, slots), tokens_of(4, steps, seed=1)
    mask = np.arange(slots) >= np.array([[2], [0]])
    whole = np.concatenate([np.repeat(prompt, group, 0), response], 1)
    whole_mask = np.concatenate([np.repeat(mask, group, 0), np.ones((4, steps), bool)], 1)
    expected = forward(params, config, whole, whole_mask)[:, slots - 1 :]

    prefill = lambda params, config, *xs: [
        transformer.grow_cache(x, 4) if n else x for n, x in enumerate(transformer.prefill(params, config, *xs, group))
    ]
    decode = jit(transformer.decode)
    logits, cache = jit(prefill)(params, config, prompt, mask)
    out = [np.repeat(logits, group, 0)]
    for step in range(steps):
        if step == 4:
            cache = transformer.grow_cache(cache, steps)
        logits, cache = decode(params, config, response[:, step], cache)
        out.append(logits)
    near(np.stack(out, 1), expected, 1e-4)
    assert np.abs(expected[0] - expected[1]).max() > 0.1  # the continuations do differ


# ---------------------------------------------------------------------------------------------------------------------
# Who sees whom.


@EACH
def test_sixteen_pads_on_either_side_change_no_real_column(config):
    length, pads = 6, 16
    row, noise = tokens_of(1, length)[0], tokens_of(2 * (pads + 1), length + pads, seed=2)
    starts = np.concatenate([np.arange(pads + 1), np.zeros(pads + 1, int)])  # k pads left, or all right
    columns = np.arange(length + pads)
    mask = (columns >= starts[:, None]) & (columns < starts[:, None] + length)
    tokens = np.where(mask, row[np.clip(columns - starts[:, None], 0, length - 1)], noise)  # any id can stand in a pad
    tokens[-1], mask[-1] = 0, False  # and a row of nothing but pads
    logits = forward(params_of(config), config, tokens, mask)
    alone = forward(params_of(config), config, row[None])[0]
    for k in range(2 * pads + 1):
        near(logits[k, starts[k] : starts[k] + length], alone, 1e-5)
    assert np.isfinite(logits).all()


def test_a_row_of_pads_has_finite_gradients_and_log_probability_zero():
    tokens, mask = tokens_of(2, 5), np.array([[True] * 5, [False] * 5])

    def total(params, config):
        logp, entropy = transformer.token_logprobs(params, config, tokens, mask)
        return logp.sum() + entropy.sum(), (logp, entropy)

    grads, (logp, entropy) = jit(jax.grad(total, has_aux=True))(params_of(SMALL), SMALL)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert (logp[1] == 0).all() and (entropy[1] == 0).all() and (logp[0] < 0).all()


@EACH
def test_a_token_changes_no_logit_before_it_and_those_at_it(config):
    tokens = tokens_of(1, 8)
    changed = (tokens + np.eye(8, dtype=int)) % config.vocab_size  # row t: another token t
    logits = np.asarray(forward(params_of(config), config, np.concatenate([tokens, changed])))
    base, logits = logits[0], logits[1:]
    for t in range(8):
        near(logits[t, :t], base[:t], 1e-5)
        assert np.abs(logits[t, t] - base[t]).max() > 1e-2


def test_other_rows_of_the_batch_change_nothing():
    tokens, other = tokens_of(2, 8), tokens_of(2, 8, seed=1)
    other[0] = tokens[0]
    logits = [forward(params_of(EVERYTHING), EVERYTHING, x) for x in (tokens, other)]
    near(logits[0][0], logits[1][0], 1e-5)


def test_a_sliding_layer_sees_window_columns_its_own_included():
    config = dataclasses.replace(SMALL, layers=1, window=3, sliding=(True,))
    tokens = np.repeat(tokens_of(1, 9), 2, 0)
    tokens[1, 2] = (tokens[1, 2] + 1) % config.vocab_size
    logits = np.asarray(forward(params_of(config), config, tokens))
    reached = np.abs(logits[1] - logits[0]).max(-1) > 1e-6
    assert reached.tolist() == [False, False, True, True, True, False, False, False, False]


def test_the_pattern_of_sliding_layers_repeats():
    assert [EVERYTHING.is_sliding(layer) for layer in range(5)] == [True, False, True, False, True]
    assert not any(SMALL.is_sliding(layer) for layer in range(5))


# ---------------------------------------------------------------------------------------------------------------------
# Every field of the config.

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
        cache = transformer.grow_cache(cache, 2)
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
        ({"latent": 8, "rope_width": 34}, "rope_width=34 must be part of head_width=32"),
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


# ---------------------------------------------------------------------------------------------------------------------
# Pieces by hand.


def test_llama3_frequencies_follow_the_published_formula():
    factor, low, high, original = 8.0, 1.0, 4.0, 64
    config = dataclasses.replace(
        SMALL, head_width=16, rope_base=100.0, rope_scaling=("llama3", factor, low, high, original)
    )
    expected, kinds = [], set()
    for i in range(8):
        frequency = 100.0 ** (-2 * i / 16)
        wavelength = 2 * np.pi / frequency
        if wavelength < original / high:
            kinds, scaled = kinds | {"kept"}, frequency
        elif wavelength > original / low:
            kinds, scaled = kinds | {"stretched"}, frequency / factor
        else:
            smooth = (original / wavelength - low) / (high - low)
            kinds, scaled = kinds | {"between"}, (1 - smooth) * frequency / factor + smooth * frequency
        expected.append(scaled)
    assert kinds == {"kept", "stretched", "between"}
    np.testing.assert_allclose(blocks.rope_frequencies(config, 0), expected, rtol=1e-6)


def test_yarn_frequencies_follow_the_published_formula():
    """Pair i turns original * frequency / 2 pi times: more than ``fast`` keeps it, fewer than ``slow`` divides it."""
    factor, fast, slow, original, width, base = 8.0, 8.0, 2.0, 64, 16, 100.0
    place = lambda turns: width * np.log(original / (turns * 2 * np.pi)) / (2 * np.log(base))
    for whole in (True, False):
        scaling = ("yarn", factor, fast, slow, original, 1.3, whole)
        config = dataclasses.replace(SMALL, head_width=width, rope_base=base, rope_scaling=scaling)
        first, last = (np.floor(place(fast)), np.ceil(place(slow))) if whole else (place(fast), place(slow))
        expected = []
        for i in range(8):
            frequency, divided = base ** (-2 * i / width), np.clip((i - max(first, 0)) / (last - max(first, 0)), 0, 1)
            expected.append(frequency * (1 - divided) + frequency / factor * divided)
        assert expected[0] == 1 and expected[-1] == pytest.approx(base ** (-14 / 16) / factor)
        np.testing.assert_allclose(blocks.rope_frequencies(config, 0), expected, rtol=1e-6)
        assert blocks.rope_attention_factor(config, 0) == 1.3


def test_sliding_layers_have_their_own_unscaled_base():
    scaled = dataclasses.replace(EVERYTHING, rope_scaling=("linear", 4.0))
    powers = np.array([0, -0.25, -0.5, -0.75])
    np.testing.assert_allclose(blocks.rope_frequencies(scaled, 0), 50.0**powers, rtol=1e-6)
    np.testing.assert_allclose(blocks.rope_frequencies(scaled, 1), 500.0**powers / 4, rtol=1e-6)


def test_rope_turns_the_pair_of_halves_by_position_times_frequency():
    x, angle = jnp.array([[1.0, 0.0, 0.0, 2.0]]), 3 * 0.5
    turned = blocks.apply_rope(
        x, jnp.array([3]), jnp.array([0.5, 0.0])
    )  # pairs (0, 2) and (1, 3); the second stands still
    near(turned, [[np.cos(angle), 0, np.sin(angle), 2]], 1e-6)


def numpy_forward(p, c, tokens):
    """One row through the architecture of config c, head by head and column by column: [S] -> [S, V]."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), p)
    unit = 1.0 if c.norm_plus_one else 0.0
    norm = lambda x, w, eps=c.norm_eps: x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * (unit + w)
    cap = lambda x, limit: limit * np.tanh(x / limit) if limit else x
    act = lambda x: np.asarray(transformer.config.ACTIVATIONS[c.activation](x))
    turned = c.rope_width or c.head_width

    def gated(h, w):
        gate, up = (h @ w[name] + w.get(f"{name}_bias", 0) for name in ("gate", "up"))
        return (act(gate) * up) @ w["down"] + w.get("down_bias", 0)

    def turn(x, position, freq):
        """The last ``turned`` places of a head, rotated."""
        x, a, b = np.split(x, [len(x) - turned, len(x) - turned // 2])
        stretch = c.rope_scaling[5] if c.latent else 1
        cos, sin = np.cos(position * freq) * stretch, np.sin(position * freq) * stretch
        return np.concatenate([x, a * cos - b * sin, a * sin + b * cos])

    def heads_of(h, w):
        """Queries, keys and values [S, heads, width], not rotated yet."""
        if not c.latent:
            return [
                np.einsum("sd,dhe->she", h, w[n]["kernel"]) + w[n].get("bias", 0) for n in ("query", "key", "value")
            ]
        down = lambda name: h @ w[name]["kernel"] + w[name]["bias"]
        q = np.einsum("sl,lhe->she", norm(down("query_down"), w["query_latent_norm"], 1e-6), w["query_up"]["kernel"])
        latent, shared = np.split(down("kv_down"), [c.latent], -1)
        both = np.einsum("sl,lhe->she", norm(latent, w["kv_latent_norm"], 1e-6), w["kv_up"]["kernel"])
        plain, v = np.split(both, [c.head_width - turned], -1)
        return q, np.concatenate([plain, np.repeat(shared[:, None], c.heads, 1)], -1), v

    def routed(h, w):
        """Token by token: the two groups of three whose best two scores add up highest, and of these the best two."""
        out = gated(h, w["shared"])
        for s, row in enumerate(h):
            score = 1 / (1 + np.exp(-(row @ w["router"]["kernel"])))
            choice = (score + w["router"]["bias"]).reshape(c.router_groups, -1)
            best = np.argsort(-np.sort(choice, -1)[:, -2:].sum(-1))[: c.router_top_groups]
            allowed = np.full_like(choice, -np.inf)
            allowed[best] = choice[best]
            chosen = np.argsort(-allowed.reshape(-1))[: c.experts_per_token]
            for e in chosen:
                share = score[e] / score[chosen].sum() * c.router_scale
                out[s] += share * gated(row, {name: x[e] for name, x in w["experts"].items()})
        return out

    x = p["embedding"][tokens] * (c.width**0.5 if c.scale_embedding else 1)
    for index, w in enumerate(p["layers"]):
        h, freq = norm(x, w["attention_norm"]), np.asarray(blocks.rope_frequencies(c, index), np.float64)
        q, k, v = heads_of(h, w)
        if c.qk_norm:
            q, k = norm(q, w["query_norm"]), norm(k, w["key_norm"])
        added = np.zeros_like(x)
        for head in range(c.heads):
            shared = head // (c.heads // c.kv_heads)
            for s in range(len(tokens)):
                first = max(0, s - c.window + 1) if c.is_sliding(index) else 0
                query = turn(q[s, head], s, freq) * (c.attention_scale or c.head_width**-0.5)
                score = np.array(
                    [cap(query @ turn(k[t, shared], t, freq), c.attention_softcap) for t in range(first, s + 1)]
                )
                share = np.exp(score) / np.exp(score).sum()
                added[s] += share @ v[first : s + 1, shared] @ w["out"]["kernel"][head]
        added = added + w["out"].get("bias", 0)
        x = x + (norm(added, w["attention_post_norm"]) if c.post_norms else added)
        h = norm(x, w["mlp_norm"])
        added = routed(h, w) if "router" in w else gated(h, w)
        x = x + (norm(added, w["mlp_post_norm"]) if c.post_norms else added)
    return cap(norm(x, p["norm"]) @ (p["embedding"].T if c.tied_head else p["head"]), c.logit_softcap)


@EACH
def test_the_forward_equals_a_plain_loop_over_heads_and_columns(config):
    tokens = tokens_of(1, 9)
    expected = numpy_forward(params_of(config), config, np.asarray(tokens[0]))
    near(forward(params_of(config), config, tokens)[0], expected, 1e-4)


@EACH
def test_init_axes_and_weights_describe_the_same_tree(config):
    is_weight = lambda x: isinstance(x, transformer.WeightSpec)
    described = jax.tree.leaves_with_path(transformer.weight_specs(config), is_leaf=is_weight)
    made = jax.tree.leaves_with_path(transformer.init(config, jax.random.key(0)))
    axes = jax.tree.leaves_with_path(transformer.logical_axes(config), is_leaf=lambda x: isinstance(x, tuple))
    assert len(made) == len(described) == len(axes)
    for (path, w), (made_path, x), (axes_path, names) in zip(described, made, axes, strict=True):
        assert path == made_path == axes_path
        assert w.shape == x.shape and w.axes == names and len(names) == x.ndim, path
        assert jnp.std(x) == pytest.approx(w.init_std, rel=0.4), path
        if not w.init_std:
            assert (x == w.init_value).all(), path


def test_parameters_are_counted():
    # embedding and head 23 * 16 each; a layer: 4 projections of 16 * 16, 3 of 16 * 24, 2 norms; 1 last norm
    assert transformer.count(params_of(SMALL)) == 2 * 23 * 16 + 2 * (4 * 256 + 3 * 384 + 2 * 16) + 16


def test_norms_that_add_one_start_as_the_same_function():
    configs = SMALL, dataclasses.replace(SMALL, norm_plus_one=True)
    logits = [forward(transformer.init(c, jax.random.key(0)), c, tokens_of(2, 8)) for c in configs]
    near(*logits, 1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# Log-probabilities of tokens.

GOLDEN = next(
    c
    for c in json.loads(Path(__file__).with_name("golden_losses.json").read_text())["cases"]
    if c["id"] == "logprob_shift_temperature"
)


def table_model(logits):
    """(params, config) of a model whose next-token logits are logits [V, V] of the last token, whatever came before."""
    size = len(logits)
    config = transformer.Config(vocab_size=size, layers=1, width=size, heads=1, kv_heads=1, head_width=2, ff_width=2)
    params = jax.tree.map(jnp.zeros_like, params_of(config))
    one_hot_size = (1 / size + config.norm_eps) ** 0.5  # the last norm divides by it
    params |= {
        "embedding": jnp.eye(size),
        "norm": jnp.full(size, one_hot_size),
        "head": jnp.asarray(logits, jnp.float32),
    }
    return params, config


def golden_scores(temperature):
    """Our scores of the golden row; token 1 stands first and last, but nothing is asked after the last token."""
    tokens, logits = GOLDEN["inputs"]["tokens"], np.asarray(GOLDEN["inputs"]["logits"][0])
    table = np.zeros((5, 5))
    table[tokens[0][:-1]] = logits[:-1]
    tokens = np.asarray(tokens)
    return token_logprobs(*table_model(table), tokens, tokens >= 0, temperature, GOLDEN["inputs"]["prompt_len"])


def test_golden_log_probabilities_come_from_the_column_before():
    logp, _ = golden_scores(1.0)
    near(logp[0], GOLDEN["expected"]["logp_T1.0"], 1e-5)
    assert np.abs(np.asarray(logp[0]) - GOLDEN["expected"]["WRONG_off_by_one"]).min() > 0.1


def test_golden_log_probabilities_divide_by_the_temperature():
    near(golden_scores(0.6)[0][0], GOLDEN["expected"]["logp_T0.6"], 1e-5)


def test_golden_entropy():
    near(golden_scores(1.0)[1][0], GOLDEN["expected"]["entropy_T1"], 1e-5)


def test_entropy_is_that_of_the_tempered_distribution():
    odds = np.log([[0.9, 0.1], [0.9, 0.1]])
    half = np.sqrt([0.9, 0.1]) / np.sqrt([0.9, 0.1]).sum()  # temperature 2
    _, entropy = token_logprobs(*table_model(odds), np.array([[0, 1]]), np.ones((1, 2), bool), 2.0)
    near(entropy, [[-(half * np.log(half)).sum()]], 1e-5)


def test_scores_start_where_asked():
    tokens, mask = tokens_of(2, 8), np.ones((2, 8), bool)
    logp, entropy = token_logprobs(params_of(SMALL), SMALL, tokens, mask)
    logits = np.asarray(forward(params_of(SMALL), SMALL, tokens), np.float64)
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    near(logp, np.take_along_axis(expected[:, :-1], tokens[:, 1:, None], -1)[..., 0], 1e-5)
    late = token_logprobs(params_of(SMALL), SMALL, tokens, mask, 1.0, 3)
    near(late[0], logp[:, 2:], 1e-6)
    near(late[1], entropy[:, 2:], 1e-6)


LONG = dataclasses.replace(TWO, window=5, attention_softcap=None)


def scored_and_pushed(config, mask):
    """Log-probabilities, and the gradient of their sum, of rows padded on both sides."""
    tokens = tokens_of(*mask.shape)
    score = lambda p: transformer.token_logprobs(p, config, tokens, mask, start=9)[0]
    return jax.jit(score)(params_of(config)), jax.jit(jax.grad(lambda p: score(p).sum()))(params_of(config))


@pytest.mark.parametrize("how", [{"attention_chunk": 4}, {"attention_chunk": 7}, {"attention": "xla"}])
def test_attention_in_chunks_or_by_a_kernel_is_the_same_attention(how):
    columns = np.arange(23)
    mask = (columns >= np.array([[0], [4], [7]])) & (columns < np.array([[23], [20], [22]]))
    logp, grads = scored_and_pushed(LONG, mask)
    other_logp, other_grads = scored_and_pushed(dataclasses.replace(LONG, **how), mask)
    near(other_logp, logp, 2e-6)
    assert max(jax.tree.leaves(jax.tree.map(lambda x: float(np.abs(x).max()), grads))) > 1
    jax.tree.map(lambda a, b: near(a, b, 2e-5), other_grads, grads)


@pytest.mark.parametrize("chunk", [5, 16, 1000])
def test_experts_of_so_many_tokens_at_a_time_are_the_same_experts(chunk):
    mask = np.arange(12) < np.array([[12], [9], [11]])
    logp, grads = scored_and_pushed(DEEPSEEK, mask)
    other_logp, other_grads = scored_and_pushed(dataclasses.replace(DEEPSEEK, expert_chunk=chunk), mask)
    near(other_logp, logp, 2e-6)
    jax.tree.map(lambda a, b: near(a, b, 2e-5), other_grads, grads)


def test_scores_in_chunks_take_less_memory():
    def needed(chunk):
        config = dataclasses.replace(LONG, attention_chunk=chunk, remat="layer")
        tokens = jax.ShapeDtypeStruct((1, 2048), np.int32)
        mask = np.ones((1, 2048), bool)
        loss = lambda p, t: transformer.token_logprobs(p, config, t, mask)[0].sum()
        return jax.jit(jax.grad(loss)).lower(params_of(config), tokens).compile().memory_analysis().temp_size_in_bytes

    assert needed(128) < needed(0) / 3


@pytest.mark.parametrize(
    "other, said",
    [({"attention_softcap": 5.0}, "a soft-cap"), ({"latent": 8, "rope_width": 4, "value_width": 8}, "latent")],
)
def test_a_kernel_that_cannot_compute_the_model_is_refused(other, said):
    with pytest.raises(UserError, match=f"attention='cudnn' does not support {said}"):
        dataclasses.replace(LONG, attention="cudnn", **other)
