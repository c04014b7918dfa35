"""Attempts that are streamed have the tokens of attempts that are sampled at once."""

import dataclasses

import jax
import numpy as np
import pytest

from rljax import sampler
from rljax.errors import UserError
from rljax.serving import streaming
from rljax.serving.aside import Aside
from rljax.serving.programs import Programs
from rljax.serving.shapes import choose_shape, power_of_two
from rljax.text import ByteTokenizer, find_stop_strings, pad_batch
from tests.models import EVERYTHING, SMALL, params_of

BYTES = dataclasses.replace(SMALL, vocab_size=ByteTokenizer().size, max_length=96)


def stream_chunks(params, config, ask, programs=None):
    work = streaming.stream_attempts(programs or Programs(), params, config, ask)
    return [told for told in work if not isinstance(told, Aside)]


def stream(config, ask):
    """(tokens, mask, chunks) of all columns that were streamed."""
    chunks = stream_chunks(params_of(config), config, ask)
    join = lambda field: np.concatenate([getattr(c, field) for c in chunks], 1)
    return join("tokens"), join("live"), chunks


def sample_at_once(config, ask, **more):
    shape = choose_shape(ask.attempts, len(ask.prompt), ask.max_new_tokens, config.max_length)
    prompt, mask = pad_batch([list(ask.prompt)], shape.prompt, 0, left=True)
    settings = dict(group_size=shape.rows, max_new_tokens=shape.response, limit=ask.max_new_tokens)
    settings |= dict(temperature=ask.temperature or 1.0, greedy=not ask.temperature, top_p=ask.top_p)
    settings |= dict(stop_ids=ask.stop_ids, stop_table=ask.stops and ask.stops.table)
    out = sampler.sample(params_of(config), config, prompt, mask, jax.random.key(ask.seed), **settings, **more)
    cut = lambda x: np.asarray(x)[: ask.attempts, : ask.max_new_tokens]
    return cut(out.response), cut(out.mask), np.asarray(out.finished)[: ask.attempts], cut(out.logprobs)


ASK = streaming.Ask(prompt=(1, 5, 9), attempts=3, max_new_tokens=40, seed=7, stop_ids=(2,))
SCANNED = dataclasses.replace(EVERYTHING, scan_layers=True)


@pytest.mark.parametrize(
    ("config", "ask"),
    [
        (SMALL, ASK),
        pytest.param(SMALL, ASK._replace(temperature=0.0), marks=pytest.mark.exhaustive),
        pytest.param(SMALL, ASK._replace(temperature=0.7, top_p=0.8, seed=1), marks=pytest.mark.exhaustive),
        pytest.param(EVERYTHING, ASK._replace(attempts=4, max_new_tokens=33), marks=pytest.mark.exhaustive),
    ],
    ids=["plain", "greedy", "truncated", "everything"],
)
def test_streamed_tokens_are_those_of_a_rollout_with_the_same_key(config, ask):
    tokens, live, chunks = stream(config, ask)
    response, mask, finished, logprobs = sample_at_once(config, ask)
    width = tokens.shape[1]
    assert len(chunks) > 2 and not mask[:, width:].any()
    np.testing.assert_array_equal(live, mask[:, :width])
    np.testing.assert_array_equal(tokens, response[:, :width])
    np.testing.assert_array_equal(chunks[-1].finished, finished)
    sampled = np.concatenate([c.sampled for c in chunks], 1)
    np.testing.assert_allclose(sampled, logprobs[:, :width], atol=1e-5)


@pytest.mark.exhaustive
def test_stacked_layers_stream_the_same_tokens_across_the_growth_of_the_cache():
    from rljax.transformer import stack_layers

    params = stack_layers(params_of(EVERYTHING), SCANNED)
    ask = ASK._replace(max_new_tokens=40, stop_ids=())
    chunks = stream_chunks(params, SCANNED, ask)
    tokens = np.concatenate([c.tokens for c in chunks], 1)
    assert tokens.shape == (3, 40)
    np.testing.assert_array_equal(tokens, sample_at_once(EVERYTHING, ask)[0])


def test_a_stop_string_ends_a_streamed_attempt_as_it_ends_a_sampled_one():
    stops = find_stop_strings(ByteTokenizer(), ["e", "ab", "\n"])
    ask = streaming.Ask((72, 105), 8, 60, seed=3, stop_ids=(258,), stops=stops)
    tokens, live, _ = stream(BYTES, ask)
    response, mask, finished, _ = sample_at_once(BYTES, ask)
    np.testing.assert_array_equal(tokens, response[:, : tokens.shape[1]])
    np.testing.assert_array_equal(live, mask[:, : tokens.shape[1]])
    assert finished.any()


def test_the_alternatives_are_the_likeliest_tokens_and_hold_the_probability_of_the_chosen_one():
    _, live, chunks = stream(SMALL, ASK)
    for c in chunks:
        assert (np.diff(c.top_logprobs, axis=-1) <= 0).all()
        for g, j in zip(*np.nonzero(c.live), strict=True):
            ids, logprobs = c.top_ids[g, j].tolist(), c.top_logprobs[g, j]
            if c.tokens[g, j] in ids:
                assert c.logprobs[g, j] == pytest.approx(logprobs[ids.index(c.tokens[g, j])], abs=1e-6)
            else:
                assert c.logprobs[g, j] <= logprobs[-1] + 1e-6
    assert live.any()


def test_requests_of_many_sizes_share_few_shapes():
    shapes = {choose_shape(rows, prompt, 100, 512) for rows in range(9, 17) for prompt in range(17, 33)}
    assert shapes == {(16, 32, 128)}
    near_the_end = {choose_shape(8, prompt, response, 512) for prompt in range(33, 49) for response in range(400, 464)}
    assert len(near_the_end) <= 2
    assert [power_of_two(n) for n in (1, 2, 3, 64, 65)] == [1, 2, 4, 64, 128]


def test_a_shape_never_leaves_the_window_and_what_does_not_fit_is_refused():
    for prompt in range(1, 90):
        for response in range(1, 97 - prompt):
            shape = choose_shape(1, prompt, response, 96)
            assert shape.prompt >= prompt and shape.response >= response and shape.prompt + shape.response <= 96
    with pytest.raises(UserError, match="window has 96"):
        choose_shape(1, 50, 47, 96)
