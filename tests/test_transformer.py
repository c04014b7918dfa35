"""The transformer: cache against full forward, padding, causality, and its pieces computed by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import EACH, EVERYTHING, SMALL, forward, jit, near, params_of, tokens_of

from rljax import transformer
from rljax.transformer import blocks, scoring

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
        transformer.grow_cache(x, 4, config) if n else x
        for n, x in enumerate(transformer.prefill(params, config, *xs, group))
    ]
    decode = jit(transformer.decode)
    logits, cache = jit(prefill)(params, config, prompt, mask)
    out = [np.repeat(logits, group, 0)]
    for step in range(steps):
        if step == 4:
            cache = transformer.grow_cache(cache, steps, config)
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


@pytest.mark.parametrize("chunk", [0, 8])
def test_a_large_vocabulary_that_is_summed_in_two_stages_gives_the_same_logprobs_and_gradients(chunk, monkeypatch):
    config = transformer.Config(
        layers=1, width=16, heads=2, kv_heads=2, head_width=8, ff_width=32, vocab_size=8192, logprob_chunk=chunk
    )
    params = transformer.init(config, jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (2, 20), 0, config.vocab_size)
    weights = jnp.sin(jnp.arange(2 * 19.0)).reshape(2, 19)

    def loss(params):
        logp, entropy = transformer.token_logprobs(params, config, tokens, jnp.ones(tokens.shape, bool))
        return (weights * logp).sum() + 0.3 * entropy.sum(), (logp, entropy)

    results, barriers = [], []
    for long_vocabulary in (scoring.LONG_VOCABULARY, 10**9):
        monkeypatch.setattr(scoring, "LONG_VOCABULARY", long_vocabulary)
        lowered = jax.jit(lambda params: jax.value_and_grad(loss, has_aux=True)(params)).lower(params)
        barriers.append(lowered.as_text().count("optimization_barrier"))
        (_, found), gradient = lowered.compile()(params)
        results.append((found, gradient))
    assert barriers[0] > barriers[1]  # the two forms are not one
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6), *results)
