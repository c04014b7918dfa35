"""Against transformers, by fixtures: logits, gradients and greedy responses of three and more models a family; folders.

What torch computed lies in parity/fixtures (`python -m tests.parity.write_fixtures`); the weights are made here from the
tensors' names. `make parity` compares live instead, also what is written back; test_parity_fields.py has the fields.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import cases, expected, folders, noise
from parity.expected import COLUMNS, ROWS, SHARDED
from parity.quickly import jit

from rljax import pretrained, sampler, transformer
from rljax.sampler import sampling
from tests import exhaustive

each_main_case = pytest.mark.parametrize("name", exhaustive.cases(cases.MAIN, lambda name: name[-1] in "cd"))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """(config, params) of a main case, read once for all tests that need it."""
    folder = tmp_path_factory.mktemp("parity")
    return functools.cache(lambda name: pretrained.load(expected.folder(name, folder / name), dtype="float32")[:2])


def near(a, b, atol):
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)


@jit
def logits_and_gradient(params, config, tokens):
    """Logits, and the gradient of the mean log-probability of the tokens after the first."""

    def mean(params):
        logits = transformer.forward(params, config, tokens)
        logprobs = jnp.take_along_axis(jax.nn.log_softmax(logits[:, :-1]), tokens[:, 1:, None], -1)
        return logprobs.mean(), logits

    gradient, logits = jax.grad(mean, has_aux=True)(params)
    return logits, gradient


@each_main_case
def test_logits_and_gradients_are_those_of_torch(name, loaded, tmp_path):
    """Gradients go through the writer to be compared by the names of the checkpoint's tensors."""
    config, params = loaded(name)
    logits, gradient = logits_and_gradient(params, config, noise.tokens(ROWS, COLUMNS, config.vocab_size))
    near(logits, expected.logits(name), 1e-4)

    pretrained.save(tmp_path / "gradient", config, gradient, None, family=cases.CASES[name]["family"])
    ours, _ = folders.read(tmp_path / "gradient")
    shapes = expected.shapes(name)
    assert {tensor: list(x.shape) for tensor, x in ours.items()} == shapes
    for tensor, wanted in zip(shapes, expected.unpacked(expected.fixture(name)["gradient"], -1, 3), strict=True):
        found = expected.halves(tensor, ours[tensor], cases.CASES[name]["config"])
        near(expected.probed(tensor, found), wanted, 1e-3 * wanted[0] + 1e-6)


@jit
def greedy(params, config, prompt, mask):
    """64 tokens after each prompt, with the cache; and what the full forward of all of it would have said."""
    out = sampler.sample(
        params, config, prompt, mask, jax.random.key(0), group_size=1, max_new_tokens=64, greedy=True, stop_ids=()
    )
    whole, whole_mask = jnp.concatenate([prompt, out.response], 1), jnp.concatenate([mask, out.mask], 1)
    logits = transformer.forward(params, config, whole, whole_mask)[:, prompt.shape[1] - 1 : -1]
    return out.response, jnp.argmax(logits, -1)


@pytest.mark.parametrize(  # of the other models of a family the test above compares every logit and gradient
    "name", exhaustive.cases(cases.MAIN, lambda name: name[-1] != "a")
)
def test_64_greedy_tokens_after_two_prompts_of_different_length_are_those_of_torch(name, loaded, monkeypatch):
    """Past every sliding window, with the cache; the full forward of prompt and response names the same tokens."""
    monkeypatch.setattr(sampling, "STAGES", 1)  # test_sampler.py grows caches; a third of the compiling here
    (config, params), case = loaded(name), expected.fixture(name)
    longest = max(len(p) for p in case["prompts"])
    prompt = np.array([[0] * (longest - len(p)) + p for p in case["prompts"]])
    mask = np.arange(longest) >= np.array([[longest - len(p)] for p in case["prompts"]])
    for found in greedy(params, config, prompt, mask):
        assert found.tolist() == case["greedy"]


# ---------------------------------------------------------------------------------------------------------------------
# Whole folders.


def test_a_folder_in_bfloat16_and_several_files_is_read():
    """Its logits are compared in float32, in which the same weights have but one answer."""
    config, params, tokenizer = pretrained.load(SHARDED)
    assert len(list(SHARDED.glob("*.safetensors"))) > 1 and tokenizer is None
    assert {str(x.dtype) for x in jax.tree.leaves(params)} == {config.dtype} == {"bfloat16"}
    config, params, _ = pretrained.load(SHARDED, dtype="float32")
    known = json.loads(SHARDED.with_suffix(".json").read_text())
    logits = jit(transformer.forward)(params, config, noise.tokens(ROWS, COLUMNS, config.vocab_size))
    near(logits, expected.unpacked(known["logits"], *known["shape"]), 1e-4)


def test_the_text_part_of_a_multimodal_gemma_3_is_read(loaded, tmp_path):
    """As the hub has it: its config within another, a prefix before its tensors, and an eye beside it."""
    name = "gemma3_text/a"
    weights = {f"language_model.{tensor}": x for tensor, x in expected.weights(name).items()}
    weights["vision_tower.vision_model.post_layernorm.weight"] = np.ones(4, np.float32)
    weights["multi_modal_projector.mm_input_projection_weight"] = np.ones((4, 16), np.float32)
    text = cases.legacy(cases.CASES[name]["config"])
    whole = {"model_type": "gemma3", "text_config": text, "vision_config": {"model_type": "siglip_vision_model"}}
    config, params, _ = pretrained.load(folders.write(tmp_path, whole, weights), dtype="float32")
    assert config == loaded(name)[0]
    jax.tree.map(np.testing.assert_array_equal, params, loaded(name)[1])
