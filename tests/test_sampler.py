"""The sampler: what it records is what the policy does, stop tokens count, and noise belongs to a row."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import sampler, transformer
from rljax.errors import UserError
from rljax.sampler import sampling
from rljax.structs import Problems

P, T, G = 6, 20, 4  # 20 response columns: the cache grows once, from 16
STOPS = (2, 5, 11)
CONFIG = transformer.Config(
    vocab_size=23, layers=1, width=16, heads=2, kv_heads=1, head_width=8, ff_width=24, max_length=P + T
)
FAST = {"xla_backend_optimization_level": 0}  # each of these runs once or twice: compiling is what takes the time
STATIC = ("group_size", "max_new_tokens", "top_k", "top_p", "stop_ids", "greedy")
compiled = jax.jit(sampler.sample, static_argnums=1, static_argnames=STATIC, compiler_options=FAST)
forward = jax.jit(transformer.forward, static_argnums=1, compiler_options=FAST)
token_logprobs = jax.jit(transformer.token_logprobs, static_argnums=(1, 5), compiler_options=FAST)


@functools.cache
def params():
    """Random parameters with a head large enough that some tokens are ten times likelier than others."""
    rng = np.random.default_rng(0)
    leaves, tree = jax.tree.flatten(
        transformer.weight_specs(CONFIG), is_leaf=lambda x: isinstance(x, transformer.WeightSpec)
    )
    made = jax.tree.unflatten(
        tree, [jnp.asarray(rng.normal(size=w.shape) * (w.init_std or 1), jnp.float32) for w in leaves]
    )
    return made | {"head": made["head"] * 1.5}


def prompts(left=True):
    """Three prompts of 6, 4 and 1 tokens; other ids than 0 stand in the padding."""
    rng, lengths = np.random.default_rng(1), np.array([6, 4, 1])
    mask = np.arange(P) >= P - lengths[:, None]
    tokens = rng.integers(CONFIG.vocab_size, size=(3, P))
    if left:
        return tokens, mask
    roll = lambda x: np.stack([np.roll(row, n) for row, n in zip(x, lengths, strict=True)])
    return roll(tokens), roll(mask)


def sample(tokens, mask, seed=0, temperature=1.0, group=G, **more):
    options = {"max_new_tokens": T, "stop_ids": STOPS} | more
    key = jax.random.key(seed)
    return jax.device_get(
        compiled(params(), CONFIG, tokens, mask, key, group_size=group, temperature=temperature, **options)
    )


@pytest.fixture(scope="module")
def rollout():
    return sample(*prompts())


def table_model(logits):
    """(params, config) of a model whose next-token logits are logits [V, V] of the last token, whatever came before."""
    size = len(logits)
    config = transformer.Config(vocab_size=size, layers=1, width=size, heads=1, kv_heads=1, head_width=2, ff_width=2)
    empty = jax.tree.map(
        lambda w: jnp.zeros(w.shape),
        transformer.weight_specs(config),
        is_leaf=lambda x: isinstance(x, transformer.WeightSpec),
    )
    one_hot_size = (1 / size + config.norm_eps) ** 0.5  # the last norm divides by it
    head = jnp.asarray(logits, jnp.float32)
    return empty | {"embedding": jnp.eye(size), "norm": jnp.full(size, one_hot_size), "head": head}, config


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def chi_square_is_plausible(counts, expected):
    """Is the statistic within 4.5 standard deviations of its mean, the degrees of freedom?"""
    free = counts.size - counts.shape[0] if counts.ndim > 1 else counts.size - 1
    statistic = ((counts - expected) ** 2 / expected).sum()
    return abs(statistic - free) < 4.5 * (2 * free) ** 0.5


# ---------------------------------------------------------------------------------------------------------------------
# What is recorded.


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_recorded_log_probabilities_are_those_of_the_policy_at_the_sampling_temperature(temperature):
    r = sample(*prompts(), temperature=temperature)
    tokens, mask = np.concatenate([r.prompt, r.response], 1), np.concatenate([r.prompt_mask, r.mask], 1)
    again, _ = token_logprobs(params(), CONFIG, tokens, mask, temperature, P)
    np.testing.assert_allclose(r.logprobs, again, rtol=0, atol=1e-4)
    assert r.logprobs[r.mask].std() > 0.1
    other, _ = token_logprobs(params(), CONFIG, tokens, mask, 0.8, P)
    assert np.abs(r.logprobs - other).max() > 0.1


def test_a_row_ends_with_its_first_stop_token_and_that_token_is_in_the_mask(rollout):
    assert 2 <= rollout.finished.sum() < len(rollout.finished)  # some stop, some are cut off
    for response, mask, finished in zip(rollout.response, rollout.mask, rollout.finished, strict=True):
        length, stops = mask.sum(), np.isin(response[mask], STOPS)
        assert mask[:length].all() and not mask[length:].any()
        assert stops[:-1].sum() == 0 and stops[-1] == finished
        assert finished or length == T


def test_nothing_is_written_where_the_mask_is_false(rollout):
    assert (~rollout.mask).any()
    assert (rollout.response[~rollout.mask] == 0).all() and (rollout.logprobs[~rollout.mask] == 0).all()
    assert (rollout.logprobs[rollout.mask] < 0).all()


def test_the_attempts_at_a_prompt_are_neighbours(rollout):
    tokens, mask = prompts()
    assert_same(rollout.prompt_mask, np.repeat(mask, G, 0))
    assert (rollout.prompt == np.repeat(tokens, G, 0))[rollout.prompt_mask].all()


def test_stop_tokens_by_hand():
    """The likeliest way from 5 is 6, 7, 0 (a stop, and the pad); from 4 it is 3 (a stop); 1 goes on for ever."""
    following = {5: 6, 6: 7, 7: 0, 4: 3, 1: 1}
    logits = np.zeros((8, 8))
    for last, token in following.items():
        logits[last, token] = 100
    prompt = np.array([[2, 7], [2, 4], [2, 5], [2, 1]])
    r = compiled(
        *table_model(logits),
        prompt,
        prompt > 0,
        jax.random.key(0),
        group_size=1,
        max_new_tokens=5,
        stop_ids=(3, 0),
    )
    assert r.response.tolist() == [[0, 0, 0, 0, 0], [3, 0, 0, 0, 0], [6, 7, 0, 0, 0], [1, 1, 1, 1, 1]]
    assert r.lengths.tolist() == [1, 1, 3, 5]
    assert r.mask.tolist() == [[c < n for c in range(5)] for n in (1, 1, 3, 5)]
    assert r.finished.tolist() == [True, True, True, False]


# ---------------------------------------------------------------------------------------------------------------------
# Noise.


def test_the_noise_of_a_row_depends_on_the_key_and_its_number_only(rollout):
    """The first prompt alone gives the first rows of the batch; four copies of it, tried once, give them too."""
    tokens, mask = prompts()
    first = jax.tree.map(lambda x: x[:G], rollout)
    alone = sample(tokens[:1], mask[:1])
    copies = sample(np.repeat(tokens[:1], G, 0), np.repeat(mask[:1], G, 0), group=1)
    for other in (alone, copies):
        assert_same([other.response, other.mask, other.finished], [first.response, first.mask, first.finished])
        np.testing.assert_allclose(other.logprobs, first.logprobs, rtol=0, atol=1e-5)


def test_attempts_at_one_prompt_differ(rollout):
    for response, lengths in zip(rollout.response.reshape(-1, G, T), rollout.lengths.reshape(-1, G), strict=True):
        long = [row.tobytes() for row in response[lengths > 2]]  # two may well stop at once
        assert len(set(long)) == len(long) >= 2


def test_the_key_decides(rollout):
    assert_same(rollout, sample(*prompts(), seed=0))
    assert (rollout.response != sample(*prompts(), seed=1).response).any(
        -1
    ).mean() > 0.8  # a few may stop at once twice


def test_prompts_padded_left_and_right_give_the_same_samples(rollout):
    tokens, mask = prompts(left=False)
    assert not mask[1:, -1].any() and mask[:, 0].all()
    other = sample(tokens, mask)
    assert_same([other.response, other.mask, other.prompt_mask], [rollout.response, rollout.mask, rollout.prompt_mask])
    assert (other.prompt == rollout.prompt)[rollout.prompt_mask].all()
    np.testing.assert_allclose(other.logprobs, rollout.logprobs, rtol=0, atol=1e-5)


def test_tokens_follow_the_tempered_distribution_step_after_step():
    """First tokens and transitions of 3,000 attempts against the softmax of a table at temperature 0.6."""
    table, attempts, temperature = np.random.default_rng(0).normal(size=(4, 4)), 3000, 0.6
    r = compiled(
        *table_model(table),
        np.array([[1, 3]]),
        np.ones((1, 2), bool),
        jax.random.key(0),
        group_size=attempts,
        max_new_tokens=4,
        temperature=temperature,
    )
    chance, tokens = softmax(table / temperature), np.asarray(r.response)
    assert r.mask.all()  # no stop token
    for step in range(3):
        pairs = np.zeros((4, 4))
        np.add.at(pairs, (tokens[:, step], tokens[:, step + 1]), 1)
        assert chi_square_is_plausible(pairs, pairs.sum(1, keepdims=True) * chance)
    assert chi_square_is_plausible(np.bincount(tokens[:, 0], minlength=4), attempts * chance[3])
    np.testing.assert_allclose(r.logprobs[:, 0], np.log(chance[3, tokens[:, 0]]), rtol=0, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Greedy, top-k, top-p.


def test_greedy_takes_the_likeliest_token_and_top_1_does_the_same():
    options = {"group": 1, "max_new_tokens": 8, "stop_ids": (), "temperature": 5.0}
    greedy = sample(*prompts(), greedy=True, **options)
    best = np.asarray(forward(params(), CONFIG, *whole(greedy))).argmax(-1)[:, P - 1 : -1]
    assert (greedy.response == best).all() and greedy.mask.all() and len(np.unique(best)) > 4
    top_1 = sample(*prompts(), top_k=1, **options)
    assert_same([top_1.response, top_1.mask, top_1.finished], [greedy.response, greedy.mask, greedy.finished])
    assert (top_1.logprobs == 0).all() and (greedy.logprobs == 0).all()  # the only choice is certain


def whole(r):
    return np.concatenate([r.prompt, r.response], 1), np.concatenate([r.prompt_mask, r.mask], 1)


def kept_by(logits, top_k, top_p):
    """The allowed tokens of one row by definition: of the top_k likeliest, the fewest that hold mass top_p."""
    order = np.argsort(-logits)[:top_k]
    mass = np.cumsum(softmax(logits[order]))
    return order[: np.argmax(mass >= top_p) + 1]


def test_top_k_and_top_p_sample_allowed_tokens_only_and_record_renormalised_log_probabilities():
    size, temperature, top_k, top_p = 12, 1.5, 5, 0.8
    table = 2 * np.random.default_rng(2).normal(size=(size, size))
    r = compiled(
        *table_model(table),
        np.array([[1, 3]]),
        np.ones((1, 2), bool),
        jax.random.key(0),
        group_size=64,
        max_new_tokens=16,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
    )
    tempered = table / temperature  # the temperature comes first: the allowed sets depend on it
    allowed = [kept_by(row, top_k, top_p) for row in tempered]
    assert len({len(a) for a in allowed}) >= 3
    seen = set()
    for tokens, logprobs in zip(np.asarray(r.response), np.asarray(r.logprobs), strict=True):
        for last, token, logprob in zip([3, *tokens[:-1]], tokens, logprobs, strict=True):
            assert token in allowed[last]
            expected = tempered[last, token] - np.log(np.exp(tempered[last, allowed[last]]).sum())
            assert logprob == pytest.approx(expected, abs=1e-5)
            seen.add((last, token))
    reached = {last for last, _ in seen}
    assert len(seen) > 0.8 * sum(len(allowed[last]) for last in reached)  # and nearly all that is allowed turns up


def kept(probabilities, top_k=0, top_p=1.0):
    return np.isfinite(np.asarray(sampler.truncate(jnp.log(jnp.asarray([probabilities])), top_k, top_p)))[0].tolist()


def test_top_p_keeps_the_fewest_tokens_with_that_mass():
    chances = [0.1, 0.4, 0.2, 0.3]
    assert kept(chances, top_p=0.39) == [False, True, False, False]
    assert kept(chances, top_p=0.41) == [False, True, False, True]
    assert kept(chances, top_p=0.71) == [False, True, True, True]
    assert kept(chances, top_p=0.91) == [True] * 4


def test_top_k_comes_before_top_p():
    chances = [0.1, 0.4, 0.2, 0.3]
    assert kept(chances, top_k=2) == [False, True, False, True]
    assert kept(chances, top_k=2, top_p=0.55) == [False, True, False, False]  # 0.4 is 57 % of what top-2 leaves
    assert kept(chances, top_p=0.55) == [False, True, False, True]


def test_the_likeliest_token_always_stays_and_wide_limits_change_nothing():
    chances = [0.1, 0.4, 0.2, 0.3]
    assert kept(chances, top_p=0.0) == [False, True, False, False]
    for wide in (0, 4, 9):
        assert kept(chances, top_k=wide) == [True] * 4


def test_golden_top_p_log_probabilities():
    cases = json.loads(Path(__file__).with_name("golden_losses.json").read_text())["cases"]
    case = next(c for c in cases if c["id"] == "logprob_shift_temperature")
    logits, tokens = jnp.asarray(case["inputs"]["logits"][0]), case["inputs"]["tokens"][0]
    logp = np.asarray(jax.nn.log_softmax(sampler.truncate(logits, 0, 0.9)))
    start = case["inputs"]["prompt_len"]
    ours = [logp[s - 1, tokens[s]] for s in range(start, len(tokens))]
    np.testing.assert_allclose(ours, [float(x) for x in case["expected"]["logp_top_p0.9_renormalised"]], atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# The draw.

V, N = 300, 20_000  # more than two blocks of the draw's 128, the last one incomplete
draw = jax.jit(sampler.inverse_cdf)


def test_the_draw_follows_the_softmax():
    logits = np.random.default_rng(0).normal(size=V)
    uniform = jax.random.uniform(jax.random.key(0), (N,))
    token, logprob = draw(np.broadcast_to(logits, (N, V)).astype(np.float32), uniform)
    counts = np.bincount(token, minlength=V)
    assert chi_square_is_plausible(counts, N * softmax(logits))
    np.testing.assert_allclose(logprob, np.log(softmax(logits))[token], rtol=0, atol=1e-4)


def test_evenly_spaced_uniforms_draw_each_token_its_share():
    logits = np.random.default_rng(1).normal(size=V)
    uniform = (np.arange(N) + 0.5) / N
    token, _ = draw(np.broadcast_to(logits, (N, V)).astype(np.float32), uniform.astype(np.float32))
    counts = np.bincount(token, minlength=V)
    np.testing.assert_allclose(counts, N * softmax(logits), atol=1.1)
    assert (np.diff(token) >= 0).all()  # the inverse of a cumulative distribution


def test_a_token_of_probability_zero_is_never_drawn():
    """Random holes, whole blocks of holes, holes at both ends; uniforms 0, just below 1, and everything between."""
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(N, V)) * 4
    logits[rng.random((N, V)) < 0.5] = -np.inf
    logits[0::4, :128] = -np.inf
    logits[1::4, 128:256] = -np.inf
    logits[2::4, 256:] = -np.inf
    logits[:, [0, V - 1]] = -np.inf
    uniform = rng.random(N).astype(np.float32)
    uniform[uniform == 1] = 0
    uniform[: N // 3], uniform[N // 3 : N // 2] = 0, np.float32(1 - 2**-24)
    token, logprob = (np.asarray(x) for x in draw(logits.astype(np.float32), uniform))
    assert ((token >= 0) & (token < V)).all()
    assert np.isfinite(logits[np.arange(N), token]).all() and np.isfinite(logprob).all()


def test_the_extremes_of_the_uniform_draw_the_first_and_the_last_possible_token():
    logits = np.full((4, V), -np.inf, np.float32)
    logits[:, [3, 130, 290]] = 0
    token, _ = draw(logits, np.array([0, 0.34, 0.65, 1 - 2**-24], np.float32))
    assert token.tolist() == [3, 130, 130, 290]


def test_a_uniform_on_the_edge_of_a_block_draws_the_token_after_it():
    token, logprob = draw(np.zeros((2, 256), np.float32), np.array([0.5, 0.5 - 2**-24], np.float32))
    assert token.tolist() == [128, 127]
    np.testing.assert_allclose(logprob, -np.log(256), rtol=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# The window and the cache.


def test_a_window_that_just_fits_is_used_and_one_too_short_is_refused(rollout):
    assert rollout.response.shape == (12, T) and CONFIG.max_length == P + T
    with pytest.raises(UserError, match="window is 26"):
        sample(*prompts(), max_new_tokens=T + 1)


def test_cache_stages_rise_to_the_exact_size():
    for columns in range(1, 400):
        stages = sampler.stage_sizes(columns)
        assert stages[-1] == columns and len(stages) <= sampling.STAGES
        assert all(a < b for a, b in zip([0, *stages], stages, strict=False))
        assert all(size % 8 == 0 for size in stages[:-1])
    assert sampler.stage_sizes(100) == [40, 80, 100]
    assert sampler.stage_sizes(T) == [16, 20]


@pytest.mark.parametrize(
    "size, draws",
    [
        pytest.param(100, 1_000_000, marks=pytest.mark.exhaustive),
        pytest.param(4_000, 50_000, marks=pytest.mark.exhaustive),
        (100, 20_000),
        (152_000, 500),
        (262_144, 300),
    ],
)
def test_top_p_never_draws_a_token_that_it_left_out(size, draws):
    """Top-p .5, with uniform numbers at the places where rounding could tip a sum over, and random ones."""
    logits = sampler.truncate(3 * jax.random.normal(jax.random.key(size), (1, size)), 0, 0.5)
    kept = np.isfinite(np.asarray(logits[0]))
    assert 0 < kept.sum() < size / 2
    step = max(1, 2**20 // size)  # rows at a time
    drawn = []
    for n in range(0, draws, step):
        uniform = jax.random.uniform(jax.random.key(n), (step,))
        edges = jnp.asarray([0.0, 1 - 2.0**-24, 2.0**-24, 0.5])[: min(step, 4)]
        uniform = uniform.at[: len(edges)].set(edges)
        token, logprob = draw(jnp.broadcast_to(logits, (step, size)), uniform)
        assert np.isfinite(np.asarray(logprob)).all()
        drawn.append(np.asarray(token))
    assert kept[np.concatenate(drawn)].all()


def test_the_draw_finds_a_token_of_positive_weight_where_sums_rise_beside_it():
    sums = jnp.asarray([[0.1, 0.2, 0.2000001, 0.4, 0.4000001]])  # the third and the fifth rose by rounding alone
    weight = jnp.asarray([[0.1, 0.1, 0.0, 0.2, 0.0]])
    found = lambda goal: int(sampling.first_above(sums, jnp.asarray([goal]), weight)[0])
    assert [found(goal) for goal in (0.0, 0.15, 0.20000005, 0.4000000, 0.5)] == [0, 1, 3, 3, 3]


def test_temperature_zero_takes_the_likeliest_token_and_a_negative_one_is_refused():
    model = transformer.Config(vocab_size=32, layers=1, width=16, heads=2, kv_heads=2, head_width=8, ff_width=16)
    params = transformer.init(model, jax.random.key(0))
    problems = Problems(jnp.ones((2, 3), jnp.int32), jnp.ones((2, 3), bool), ())
    settings = dict(group_size=3, max_new_tokens=5)
    cold = sampler.make_sampler(sampler.Sampling(**settings, temperature=0.0), model)
    rollout = cold(params, problems, jax.random.key(1))
    greedy = sampler.make_sampler(sampler.Sampling(**settings), model, greedy=True)
    expected = greedy(params, problems, jax.random.key(2)).response
    assert rollout.response.shape == (6, 5) and np.isfinite(np.asarray(rollout.logprobs)).all()
    np.testing.assert_array_equal(rollout.response, np.repeat(expected, 3, 0))
    for wrong in (-0.5, float("nan"), float("inf")):
        with pytest.raises(UserError, match="temperature="):
            sampler.make_sampler(sampler.Sampling(**settings, temperature=wrong), model)
