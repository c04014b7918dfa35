"""Against transformers, live: `make parity`. Other weights and tokens than the fixtures', and what is written back.

Read: logits, greedy responses, every element of every gradient, every field. Written: transformers loads the folder of
`pretrained.save` as the very same model, bit for bit, in every dtype. Not collected by `make test`, which has no torch.
"""

import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

from parity import cases, expected, noise, reference
from parity.quickly import jit
from rljax import pretrained, sampler, transformer

SEED = 7
forward = jit(transformer.forward)
each_main_case = pytest.mark.parametrize("name", cases.MAIN)
each_family = pytest.mark.parametrize("family", cases.FAMILIES)


def write(name, folder, seed=SEED, **how):
    """The case's folder by transformers -> the torch model."""
    return reference.write(folder, cases.CASES[name]["config"], cases.CASES[name]["family"], seed, **how)


def near(a, b, atol):
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)


# ---------------------------------------------------------------------------------------------------------------------
# Reading.


@jit
def gradient_of(params, config, tokens):
    def mean(params):
        logits = transformer.forward(params, config, tokens)[:, :-1]
        return jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[:, 1:, None], -1).mean()

    return jax.grad(mean)(params)


@jit
def greedy(params, config, prompt, mask):
    return sampler.sample(
        params, config, prompt, mask, jax.random.key(0), group_size=1, max_new_tokens=64, greedy=True, stop_ids=()
    ).response


@each_main_case
def test_logits_greedy_responses_and_gradients_are_those_of_torch(name, tmp_path):
    model, family = write(name, tmp_path / "a"), cases.CASES[name]["family"]
    config, params, tokenizer = pretrained.load(tmp_path / "a", dtype="float32")
    assert tokenizer is None
    tokens = noise.tokens(2, 24, config.vocab_size, SEED)
    near(forward(params, config, tokens), reference.logits(model, tokens), 1e-4)

    prompts, responses = reference.clear_responses(model, config.vocab_size, SEED)
    longest = max(len(p) for p in prompts)
    prompt = np.array([[0] * (longest - len(p)) + p for p in prompts])
    mask = np.arange(longest) >= np.array([[longest - len(p)] for p in prompts])
    assert greedy(params, config, prompt, mask).tolist() == responses

    pretrained.save(tmp_path / "gradient", config, gradient_of(params, config, tokens), None, family=family)
    ours, theirs = reference.tensors(tmp_path / "gradient"), reference.gradient(model, tokens, tmp_path / "b")
    assert ours.keys() == theirs.keys()
    for tensor, wanted in theirs.items():
        found = expected.halves(tensor, ours[tensor].numpy(), cases.CASES[name]["config"])
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max() + 1e-7, err_msg=tensor)


@each_family
def test_every_field_changes_the_logits_as_in_torch(family, tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    wrong = []
    for name in [n for n, case in cases.CASES.items() if case["family"] == family and n not in cases.MAIN]:
        model = write(name, tmp_path / name)
        config, params, _ = pretrained.load(tmp_path / name, dtype="float32")
        tokens = noise.tokens(1, 12, config.vocab_size, SEED)
        run = forward if expected.fixture(name)["shapes"] else transformer.forward  # compiled where shapes are new
        if (worst := np.abs(run(params, config, tokens) - reference.logits(model, tokens)).max()) > 1e-4:
            wrong.append(f"{name}: {worst:.1e} away")
    assert not wrong, "\n".join(wrong)


@each_main_case
def test_transformers_too_reads_the_older_form_as_the_same_model(name):
    """So that the legacy() of cases.py does not test a form that never was."""
    own = cases.CASES[name]["config"]
    new, old = (reference.config_of(config).to_dict() for config in (own, cases.legacy(own)))
    old["rope_parameters"].pop("type", None)
    old["rope_parameters"].get("full_attention", {}).pop("type", None)
    assert {k: old[k] for k in new} == new


def other(value):
    """Another value of the same kind, or None where there is none to be had."""
    if isinstance(value, (bool, type(None), str, list)):
        return (not value) if isinstance(value, bool) else None
    return value + 1 if isinstance(value, int) else value + 0.5


@each_family
def test_the_ignored_fields_change_no_logit_of_torch_and_nothing_here(family, tmp_path):
    name = f"{family}/a"
    model = write(name, tmp_path)
    tokens, usual = noise.tokens(1, 24, 32, SEED), reference.written(tmp_path)
    logits, ours = reference.logits(model, tokens), pretrained.load(tmp_path)[0]
    fields = [key.removeprefix(f"{family}.") for key in cases.IGNORED]
    for field in fields:
        if other(usual.get(field)) is None or field in ("num_key_value_heads", "head_dim", "qk_head_dim"):
            continue  # DeepSeek's: torch itself takes no other value than the one it writes
        (tmp_path / "config.json").write_text(json.dumps(usual | {field: other(usual[field])}))
        assert np.array_equal(reference.logits(reference.read(tmp_path), tokens), logits), field
        if field != "max_position_embeddings":
            assert pretrained.load(tmp_path)[0] == ours, field


# ---------------------------------------------------------------------------------------------------------------------
# Models as the hub has them.

QWEN_DISTILL = """{"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
"hidden_act": "silu", "hidden_size": 24, "initializer_range": 0.02, "intermediate_size": 40,
"max_position_embeddings": 131072, "max_window_layers": 2, "model_type": "qwen2", "num_attention_heads": 6,
"num_hidden_layers": 3, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 10000, "sliding_window": 4,
"tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.44.0", "use_cache": true,
"use_mrope": false, "use_sliding_window": false, "vocab_size": 48}"""
LLAMA_DISTILL = """{"architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
"bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 32, "initializer_range": 0.02,
"intermediate_size": 56, "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
"num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
"rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
"original_max_position_embeddings": 8192, "rope_type": "llama3"}, "rope_theta": 500000.0, "tie_word_embeddings": false,
"torch_dtype": "bfloat16", "transformers_version": "4.43.0.dev0", "use_cache": true, "vocab_size": 48}"""


@pytest.mark.parametrize("text", [QWEN_DISTILL, LLAMA_DISTILL], ids=["qwen2", "llama"])
def test_distilled_r1_is_read_as_it_is_published_but_smaller(text, tmp_path):
    """bfloat16 on disk; compared in float32, on rows long enough for the low frequencies to turn."""
    fields = json.loads(text)
    reference.write(tmp_path, fields, fields["model_type"], SEED, dtype="bfloat16")
    (tmp_path / "config.json").write_text(text)
    config, params, _ = pretrained.load(tmp_path, dtype="float32")
    tokens = noise.tokens(1, 400, 48, SEED)
    near(forward(params, config, tokens), reference.logits(reference.read(tmp_path), tokens), 1e-4)
    assert pretrained.load(tmp_path)[0].weight_dtype == "bfloat16"


TEXT = {"hidden_size": 16, "intermediate_size": 24, "model_type": "gemma3_text", "num_hidden_layers": 7}
TEXT |= {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 6}  # no more than this is published
EYE = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8}
EYE |= {"patch_size": 4, "model_type": "siglip_vision_model", "vision_use_head": False}


@pytest.mark.parametrize("prefix", ["written", "language_model.model.", "model.language_model."])
@pytest.mark.parametrize("text", [TEXT | {"vocab_size": 40}, TEXT], ids=["small", "whole vocabulary"])
def test_the_text_part_of_a_multimodal_gemma_3_is_read(text, prefix, tmp_path):
    """With the names that transformers writes, those of the hub's files, and those of transformers' own modules."""
    whole = {"model_type": "gemma3", "text_config": text, "vision_config": EYE, "mm_tokens_per_image": 4}
    config = transformers.Gemma3Config(**{k: v for k, v in whole.items() if k != "model_type"})
    model = transformers.Gemma3ForConditionalGeneration._from_config(config, attn_implementation="eager")
    model.save_pretrained(tmp_path)
    weights = {n: torch.from_numpy(noise.noise(n, x.shape, "gemma")) for n, x in reference.tensors(tmp_path).items()}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model = transformers.Gemma3ForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="eager").eval()
    if prefix != "written":
        root = next(n for n in weights if n.endswith("embed_tokens.weight")).removesuffix("embed_tokens.weight")
        weights = {n.replace(root, prefix, 1) if n.startswith(root) else n: x for n, x in weights.items()}
        save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
        (tmp_path / "config.json").write_text(json.dumps(whole))
    tokens = noise.tokens(1, 24, 40, SEED)
    config, params, _ = pretrained.load(tmp_path, dtype="float32")
    near(forward(params, config, tokens), reference.logits(model, tokens), 1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# Writing.


def same_tensors(folder, other, config):
    """Every tensor of both folders has the same name, dtype, shape and bits; rotated pairs stand in DeepSeek's order."""
    a, b = reference.tensors(folder), reference.tensors(other)
    assert a.keys() == b.keys()
    for name, x in a.items():
        x = expected.neighbours(name, x, config)
        assert (x.dtype, x.shape) == (b[name].dtype, b[name].shape), name
        assert torch.equal(x.contiguous().view(torch.uint8), b[name].contiguous().view(torch.uint8)), name


SPELLED = {  # fields that say the same in more than one way; that they do, equal logits show
    *("rope_parameters", "layer_types", "sliding_window", "use_sliding_window", "max_window_layers"),
    *("sliding_window_pattern", "_sliding_window_pattern", "decoder_sparse_step", "mlp_only_layers", "rope_interleave"),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@each_main_case
def test_what_is_written_back_is_the_same_model_bit_for_bit(name, dtype, tmp_path):
    model, family = write(name, tmp_path / "a", dtype=dtype), cases.CASES[name]["family"]
    config, params, _ = pretrained.load(tmp_path / "a")
    pretrained.save(tmp_path / "b", config, params, None, family=family)
    again, tokens = reference.read(tmp_path / "b", dtype), noise.tokens(2, 24, config.vocab_size, SEED)
    assert np.array_equal(reference.logits(again, tokens), reference.logits(model, tokens))
    same_tensors(tmp_path / "a", tmp_path / "b", cases.CASES[name]["config"])
    old, new = model.config.to_dict(), again.config.to_dict()
    ignored = {key.removeprefix(f"{family}.") for key in cases.IGNORED} - {"dtype"}
    kept = old.keys() - SPELLED - ignored - {"_name_or_path"} | {"max_position_embeddings", "architectures"}
    assert {k: new.get(k) for k in kept} == {k: old[k] for k in kept}


@each_main_case
def test_the_family_is_found_again_and_what_is_read_back_is_the_same(name, tmp_path):
    """Unless told the family: what was read as one is written as one with the same function."""
    model = write(name, tmp_path / "a")
    config, params, _ = pretrained.load(tmp_path / "a")
    pretrained.save(tmp_path / "b", config, params, None)
    tokens = noise.tokens(2, 24, config.vocab_size, SEED)
    near(reference.logits(reference.read(tmp_path / "b"), tokens), reference.logits(model, tokens), 1e-5)
    again, same, _ = pretrained.load(tmp_path / "b")
    assert again == config
    jax.tree.map(np.testing.assert_array_equal, same, params)


@pytest.mark.parametrize("name", ["llama/b", "deepseek_v3/a"])
def test_shards_are_read_and_written(name, tmp_path):
    model = write(name, tmp_path / "a", max_shard_size="6KB")
    config, params, _ = pretrained.load(tmp_path / "a")
    pretrained.save(tmp_path / "b", config, params, None, shard_bytes=6000)
    for folder in (tmp_path / "a", tmp_path / "b"):
        assert len(list(folder.glob("*.safetensors"))) > 2
    same_tensors(tmp_path / "a", tmp_path / "b", cases.CASES[name]["config"])
    tokens = noise.tokens(2, 24, config.vocab_size, SEED)
    assert np.array_equal(reference.logits(reference.read(tmp_path / "b"), tokens), reference.logits(model, tokens))
