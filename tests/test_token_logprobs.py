"""Log-probabilities of tokens: golden values, temperature, and the settings that save memory."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import DEEPSEEK, EVERYTHING, SMALL, forward, near, params_of, tokens_of

from rljax import transformer
from rljax.errors import UserError
from tests import exhaustive

token_logprobs = jax.jit(
    transformer.token_logprobs, static_argnums=(1, 5), compiler_options={"xla_backend_optimization_level": 0}
)

TWO = dataclasses.replace(EVERYTHING, layers=2)  # a sliding layer and another

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


@pytest.mark.parametrize(
    "how",
    exhaustive.cases(
        [{"attention_chunk": 4}, {"attention_chunk": 7}, {"attention": "xla"}],
        lambda how: how == {"attention_chunk": 4},
    ),
)
def test_attention_in_chunks_or_by_a_kernel_is_the_same_attention(how):
    columns = np.arange(23)
    mask = (columns >= np.array([[0], [4], [7]])) & (columns < np.array([[23], [20], [22]]))
    logp, grads = scored_and_pushed(LONG, mask)
    other_logp, other_grads = scored_and_pushed(dataclasses.replace(LONG, **how), mask)
    near(other_logp, logp, 2e-6)
    assert max(jax.tree.leaves(jax.tree.map(lambda x: float(np.abs(x).max()), grads))) > 1
    jax.tree.map(lambda a, b: near(a, b, 2e-5), other_grads, grads)


@pytest.mark.parametrize("chunk", [5, 16, 1000])
@pytest.mark.exhaustive
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
