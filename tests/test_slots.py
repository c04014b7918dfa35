"""Continuous batching: the same tokens, whichever slot draws them, and however many slots there are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import sampler, transformer
from rljax.sampler import choose_slots, rows_at_once
from rljax.sampler import slots as slots_module
from tests import exhaustive

B, G, P, T, V, STOP = 6, 4, 5, 40, 11, 2
MODEL = transformer.Config(vocab_size=V, width=16, heads=2, kv_heads=2, head_width=8, ff_width=24, layers=1)
PROMPT = jax.random.randint(jax.random.key(1), (B, P), 3, V)
MASK = jnp.arange(P) >= jnp.array([0, 1, 2, 3, 0, 1])[:, None]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """The cache has three chunks."""
    monkeypatch.setattr(slots_module, "CHUNK", 16)


def draw(model, slots, prompt=PROMPT, mask=MASK, **changes):
    settings = dict(group_size=G, max_new_tokens=T, stop_ids=(STOP,)) | changes
    params = init(model)
    return jax.device_get(sampler.sample(params, model, prompt, mask, jax.random.key(2), slots=slots, **settings))


init = jax.jit(transformer.init, static_argnums=0)
init = lambda model, init=init: init(model, jax.random.key(0))


def assert_same(a, b):
    for name in ("prompt", "prompt_mask", "response", "mask", "finished"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-5)
    if b.sampling_mask is not None:
        np.testing.assert_array_equal(a.sampling_mask, b.sampling_mask)


SETTINGS = {
    "a truncated distribution": dict(top_k=8, keep_sampling_mask=True, temperature=0.9),
    "greedy, and a limit": dict(greedy=True, limit=9, group_size=1),
}


@pytest.mark.parametrize("name", exhaustive.cases(SETTINGS, lambda name: "greedy" in name))
def test_the_rollout_is_the_same_with_all_rows_at_once_and_with_few_slots(name):
    together = draw(MODEL, 0, **SETTINGS[name])
    for slots in (len(together.mask) // 2, 1):
        assert_same(draw(MODEL, slots, **SETTINGS[name]), together)


def test_the_lengths_of_these_tests_vary_from_two_tokens_to_the_last_column():
    lengths = draw(MODEL, 5).lengths
    assert lengths.min() == 2 and lengths.max() == T and len(set(lengths)) > 10


MODELS = {
    "stacked layers and sliding windows": dict(layers=2, scan_layers=True, window=5, sliding=(True, False)),
    "latent attention": dict(latent=6, query_latent=6, rope_width=4, value_width=6),
}


@pytest.mark.parametrize("name", exhaustive.cases(MODELS, lambda name: "latent" in name))
def test_every_kind_of_cache_gives_the_same_rollout_in_slots(name):
    model = dataclasses.replace(MODEL, **MODELS[name])
    assert_same(draw(model, 5), draw(model, 0))


def test_the_order_of_the_queue_decides_nothing():
    """Prompts in another order, each row with its own number: each row has its own tokens."""
    order = np.random.default_rng(0).permutation(B)
    rows = (order[:, None] * G + np.arange(G)).ravel()
    shuffled = draw(MODEL, 5, PROMPT[order], MASK[order], row_numbers=jnp.asarray(rows))
    assert_same(shuffled, jax.tree.map(lambda x: x[rows], draw(MODEL, 5)))


@pytest.mark.exhaustive
def test_thousands_of_attempts_at_one_prompt_need_the_memory_of_the_slots():
    model = dataclasses.replace(MODEL, width=64, heads=4, kv_heads=4, head_width=16)
    settings = dict(group_size=4096, max_new_tokens=200, stop_ids=(STOP,))
    params = jax.eval_shape(lambda: transformer.init(model, jax.random.key(0)))

    def temporary(slots):
        lowered = sampler.sample.lower(params, model, PROMPT[:1], MASK[:1], jax.random.key(2), slots=slots, **settings)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    cache = 2 * 4 * 4096 * 64 * 200  # bytes
    few, all_rows = temporary(32), temporary(0)
    assert all_rows > cache and few < cache / 8


def test_slots_are_rounded_to_the_shards_and_there_are_never_more_than_rows():
    one = transformer.Layout()
    assert rows_at_once(0, 24, 6, one) == 24 and rows_at_once(5, 24, 6, one) == 5 and rows_at_once(99, 24, 6, one) == 24
    assert choose_slots(64, one, "cpu") == 0 and choose_slots(256, one, "cpu") == 32
    assert choose_slots(64, one, "gpu") == choose_slots(4096, one, "tpu") == 256
