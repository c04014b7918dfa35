"""What can be wrong with a Hugging Face folder: one line each, and a warning for what is not read."""

import dataclasses
import json
import math
import shutil
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_folder
from models import EVERYTHING, params_of
from safetensors.numpy import load_file, save_file

from rljax import pretrained, transformer
from rljax.errors import UserError
from rljax.pretrained import unused_tensors

R = dataclasses.replace


GEMMA = R(EVERYTHING, rope_scaling=("linear", 8.0), mlp_bias=False)


# ---------------------------------------------------------------------------------------------------------------------
# What can be wrong with a folder.


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return tiny_folder.make(tmp_path_factory.mktemp("good") / "model")


@pytest.fixture
def folder(good, tmp_path):
    shutil.copytree(good, tmp_path / "model")
    return tmp_path / "model"


def change(file, **fields):
    about = json.loads(file.read_text()) | fields
    file.write_text(json.dumps({k: v for k, v in about.items() if v != "gone"}))


def rewrite(folder, edit):
    """The folder's tensors, changed."""
    file = folder / "model.safetensors"
    save_file(edit(load_file(file)), file)


def test_a_good_folder_loads_with_its_tokenizer(folder):
    config, params, tokenizer = pretrained.load(folder)
    assert config.vocab_size == 320 and tokenizer.size <= 320 and transformer.count(params) > 0
    assert tokenizer.decode(tokenizer.encode("Ann has 12 clips")) == "Ann has 12 clips"


def without(name):
    return lambda arrays: {k: v for k, v in arrays.items() if k != name}


NAME = "model.layers.1.mlp.up_proj.weight"


TENSORS = {
    "missing": (without(NAME), f"the tensor {NAME} is missing"),
    "extra": (lambda a: a | {"model.layers.7.x": np.zeros(3, np.float32)}, "model.layers.7.x is not part of the model"),
    "misshapen": (lambda a: a | {NAME: np.zeros((48, 30), np.float32)}, r"has the shape \[48, 30\], the config says"),
    "transposed": (lambda a: a | {NAME: a[NAME].T.copy()}, r"has the shape \[32, 48\]"),
    "nothing": (without("model.embed_tokens.weight"), "0 tensors are called embed_tokens.weight"),
}


@pytest.mark.parametrize("what", TENSORS)
def test_tensors_that_do_not_fit_are_named_in_one_line(what, folder):
    edit, message = TENSORS[what]
    rewrite(folder, edit)
    with pytest.raises(UserError, match=message) as e:
        pretrained.load(folder)
    assert "\n" not in str(e.value)


def test_tensors_of_no_use_are_passed_over(folder, caplog):
    """The tied head once more, positions that are computed here, layers that predict a second token."""
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    frequencies = (10_000.0 ** -(np.arange(4) / 4)).astype(np.float32)
    rewrite(folder, lambda a: a | {"lm_head.weight": a["model.embed_tokens.weight"].copy(), name: frequencies})
    config, params, _ = pretrained.load(folder)
    assert config.tied_head and "head" not in params and not caplog.text
    rewrite(folder, lambda a: a | {"model.layers.2.eh_proj.weight": np.zeros(3, np.float32)})
    with pytest.raises(UserError, match=r"layers.2.eh_proj.weight is not part of the model"):
        pretrained.load(folder)
    change(folder / "config.json", num_nextn_predict_layers=1)
    pretrained.load(folder)
    rewrite(folder, lambda a: a | {"model.layers.2.embed_tokens.weight": np.zeros((4, 4), np.float32)})
    pretrained.load(folder)


@pytest.mark.parametrize("rows", [1, 7, 320])
def test_a_head_that_differs_from_the_embedding_is_kept_though_the_config_says_tied(rows, folder, caplog, monkeypatch):
    """One value of the last row differs, whatever number of rows is compared at a time. transformers 5 keeps it too."""
    monkeypatch.setattr(unused_tensors, "COMPARED_BYTES", rows * 32 * 4)
    tied_config, tied, _ = pretrained.load(folder)
    head = np.array(tied["embedding"])
    head[-1, -1] += 1.0
    rewrite(folder, lambda a: a | {"lm_head.weight": head})
    config, params, _ = pretrained.load(folder)
    assert not config.tied_head and tied_config == dataclasses.replace(config, tied_head=True)
    assert "lm_head.weight differs from the embedding: it is kept" in caplog.text
    np.testing.assert_array_equal(np.asarray(params["head"]).reshape(head.T.shape), head.T)
    change(folder / "config.json", tie_word_embeddings=False)
    again, untied, _ = pretrained.load(folder)
    assert again == config
    jax.tree.map(np.testing.assert_array_equal, untied, params)
    with pytest.raises(UserError, match="lm_head.weight is not part of the model that the config describes"):
        pretrained.read_params(folder, tied_config)


def test_a_copy_of_the_embedding_in_another_precision_is_tied(folder, caplog):
    def edit(arrays):
        half = arrays["model.embed_tokens.weight"].astype(jnp.bfloat16)
        return arrays | {"model.embed_tokens.weight": half.astype(np.float32), "lm_head.weight": half}

    rewrite(folder, edit)
    assert pretrained.read_config(folder).tied_head and not caplog.text


@pytest.mark.parametrize("scaling", [{}, {"rope_scaling": {"type": "linear", "factor": 2.0}}], ids=["plain", "linear"])
def test_other_rotary_frequencies_than_those_of_the_config_are_told(scaling, folder, caplog):
    change(folder / "config.json", rope_parameters="gone", rope_theta=10_000.0, **scaling)
    name = "model.layers.1.self_attn.rotary_emb.inv_freq"
    for base, told in ((10_000.0, False), (500_000.0, True)):
        frequencies = base ** -(np.arange(4) / 4)
        rewrite(folder, lambda a, x=frequencies: a | {name: x.astype(jnp.bfloat16)})
        pretrained.load(folder)
        assert (f"{name} holds other rotary frequencies than config.json says" in caplog.text) == told


def test_an_ordinary_layer_beyond_the_last_is_not_left_out_as_one_that_predicts_a_second_token(folder):
    """A number of layers that is one too small would drop the last layer."""
    change(folder / "config.json", num_hidden_layers=1, num_nextn_predict_layers=1, layer_types="gone")
    with pytest.raises(UserError, match=r"the tensor model.layers.1.* is not part of the model"):
        pretrained.load(folder)


def test_where_two_files_hold_a_tensor_the_index_says_which_one_counts(tmp_path, caplog):
    config = tiny_folder.config()
    pretrained.save(tmp_path / "m", config, transformer.init(config, jax.random.key(0)), shard_bytes=20_000)
    index = json.loads((tmp_path / "m/model.safetensors.index.json").read_text())["weight_map"]
    name, file = next(iter(index.items()))
    other = sorted(set(index.values()) - {file})[-1]
    right = load_file(tmp_path / "m" / file)[name]
    wrong = load_file(tmp_path / "m" / other) | {name: right + 1}
    save_file(wrong, tmp_path / "m" / other)
    found = pretrained.folder.find_tensors(tmp_path / "m")
    assert found[name].file.name == file
    whole = {k: v for part in sorted(set(index.values())) for k, v in load_file(tmp_path / "m" / part).items()}
    save_file(whole | {name: right}, tmp_path / "m/model.safetensors")
    assert {x.file.name for x in pretrained.folder.find_tensors(tmp_path / "m").values()} == {"model.safetensors"}
    assert "model.safetensors is read; the files model-*-of-*.safetensors beside it are not" in caplog.text


def cut(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def cut_header(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:50])


def garbage(folder):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 20) + b"not json at all, no." + b"0" * 100)


def lying(folder):
    """A header whose tensor does not fit in the bytes that it names."""
    header = json.dumps({NAME: {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 32]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"0" * 64)


def eight_bits(folder):
    header = json.dumps(
        {"model.embed_tokens.weight": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}
    ).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"0" * 4)


BROKEN = {
    "cut": (cut, "is cut off, damaged"),
    "cut header": (cut_header, "is cut off, damaged or no safetensors file"),
    "garbage": (garbage, "damaged or no safetensors file .*: download it again"),
    "lying": (lying, "is cut off, damaged or no safetensors file"),
    "eight bits": (eight_bits, "missing|type F8_E4M3"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "it has neither model.safetensors nor"),
    "pickled": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        "only pickled weights: save them with safe_serialization",
    ),
    "no config": (lambda f: (f / "config.json").unlink(), "there is no config.json"),
    "config": (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
    "unknown": (
        lambda f: change(f / "config.json", model_type="mamba"),
        "model_type 'mamba' is not known here, only .*qwen2",
    ),
    "quantised": (
        lambda f: change(f / "config.json", quantization_config={"quant_method": "fp8"}),
        "its weights are fp8: convert",
    ),
    "field": (lambda f: change(f / "config.json", hidden_size="gone"), "the field 'hidden_size' is missing"),
    "word": (lambda f: change(f / "config.json", hidden_size="many"), "hidden_size must be a whole number"),
    "activation": (lambda f: change(f / "config.json", hidden_act="relu"), "hidden_act='relu' is unknown"),
    "heads": (lambda f: change(f / "config.json", num_attention_heads=0), "num_attention_heads must be a whole number"),
    "dtype": (
        lambda f: change(f / "config.json", dtype="float8"),
        "weight_dtype='float8' is unknown, choose from float32",
    ),
    "rope list": (lambda f: change(f / "config.json", rope_parameters=[1]), "a field cannot be read"),
    "together": (
        lambda f: change(f / "generation_config.json", eos_token_id=5000),
        "begins or ends texts with token 5000, but the model has a vocabulary of 320",
    ),
    "rope": (
        lambda f: change(f / "config.json", rope_scaling={"type": "dynamic", "factor": 2.0}),
        "rope_type='dynamic' .*is not supported",
    ),
    "partial": (
        lambda f: change(f / "config.json", rope_parameters={"partial_rotary_factor": 0.5}),
        "partial_rotary_factor=0.5 is not supported",
    ),
    "tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json"),
    "broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json is damaged"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_folder_is_told_in_one_line(what, folder):
    edit, message = BROKEN[what]
    edit(folder)
    with pytest.raises(UserError, match=message) as e:
        pretrained.load(folder)
    assert "\n" not in str(e.value)


def safetensors_header(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


NO_OBJECTS = ["[]", "5", "null", '"x"', "true", "", "{", "[" * 100_000]


DAMAGED_FIELDS = {
    "num_hidden_layers": [10**9, 10**30, 0, -1, 1.5, "2", [2], {}, True],
    "vocab_size": [10**30, 0, -1, [1]],
    "hidden_size": [10**9, 0, -1, 32.0],
    "intermediate_size": ["x", 0, -1],
    "num_key_value_heads": [0, "x", []],
    "head_dim": [0, "x", {}],
    "max_position_embeddings": [0, -1, "x"],
    "rms_norm_eps": [0, -1.0, "x", math.nan, math.inf],
    "tie_word_embeddings": [5, "yes", []],
    "rope_parameters": [{"rope_theta": -1}, {"rope_theta": "x"}, {"rope_theta": math.nan}],
    "model_type": [[], {}, 5],
}


DAMAGED = {
    f"{name}: {value}": ("config.json", {name: value}) for name in DAMAGED_FIELDS for value in DAMAGED_FIELDS[name]
}


FILES = (
    "config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
)


DAMAGED |= {f"{file}: {text[:9]}": (file, text.encode()) for file in FILES for text in NO_OBJECTS}


DAMAGED |= {
    f"header: {text[:30]}": ("model.safetensors", safetensors_header(text))
    for text in (*NO_OBJECTS, '{"a": 5}', '{"a": []}', '{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}')
}


DAMAGED |= {
    f"index: {found}": ("model.safetensors.index.json", json.dumps({"weight_map": found}).encode())
    for found in ([], 5, {"a": 5}, {"a": []}, {"a": "../x"}, {"a": ""}, {"a": "x", "b": 5})
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_of_a_folder_is_one_line_and_asks_for_no_memory(what, folder):
    file, value = DAMAGED[what]
    if isinstance(value, dict):
        change(folder / file, **value)
    else:
        (folder / file).write_bytes(value)
    if "index" in file:
        (folder / "model.safetensors").rename(folder / "model-1-of-1.safetensors")
        (folder / "model-2-of-2.safetensors").write_bytes(b"")
    with pytest.raises(UserError) as e:
        pretrained.load(folder)
    assert "\n" not in str(e.value) and str(folder) in str(e.value)


def test_a_shard_that_is_not_there_is_named(tmp_path):
    config = tiny_folder.config()
    params = transformer.init(config, jax.random.key(0))
    pretrained.save(tmp_path / "m", config, params, shard_bytes=20_000)
    shard = sorted((tmp_path / "m").glob("model-*.safetensors"))[1]
    moved = shard.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"{shard.name} is missing, 1 of the"):
        pretrained.load(tmp_path / "m")
    other = sorted((tmp_path / "m").glob("model-*.safetensors"))[0]
    shutil.copy(other, shard)
    with pytest.raises(UserError, match=f"the index says {shard.name} holds .*, but it does not"):
        pretrained.load(tmp_path / "m")
    moved.rename(shard)
    pretrained.load(tmp_path / "m")


def test_an_adapter_alone_is_no_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="only a LoRA adapter: merge it"):
        pretrained.load(tmp_path)


def test_an_adapter_beside_a_model_is_not_ignored(folder):
    (folder / "adapter_config.json").write_text("{}")
    pretrained.read_config(folder)
    save_file({"x": np.zeros(3, np.float32)}, folder / "adapter_model.safetensors")
    with pytest.raises(
        UserError, match="holds a LoRA adapter beside the model, which would be ignored: merge it first"
    ):
        pretrained.read_config(folder)


def test_fields_that_nobody_knows_are_named_in_a_warning(folder, caplog):
    change(folder / "config.json", sparkle_layers=3)
    pretrained.read_config(folder)
    assert "unknown fields are ignored: sparkle_layers" in caplog.text


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}


NESTED = {
    "a typo": ({"rope_scaling": YARN | {"beta_fst": 3}}, "rope_scaling.beta_fst"),
    "positions of images": ({"rope_scaling": {"rope_type": "default", "mrope_section": [1, 3]}}, "rope_scaling.mrope_section"),
    "mscale alone": ({"rope_scaling": YARN | {"mscale": 0.7}}, "rope_scaling.mscale"),
    "mscale_all_dim alone": ({"rope_parameters": YARN | {"mscale_all_dim": 0.7}}, "rope_parameters.mscale_all_dim"),
    "a factor of nothing": ({"rope_parameters": {"rope_type": "default", "factor": 4.0}}, "rope_parameters.factor"),
    "a kind nobody asks for": (
        {"rope_parameters": {"other_attention": {"rope_theta": 1.0}}}, "rope_parameters.other_attention"
    ),
    "two kinds": ({"rope_scaling": YARN | {"type": "linear"}}, "rope_scaling.type"),
    "two bases": (
        {"rope_theta": 1e4, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, "rope_theta"
    ),
    "two scalings": ({"rope_scaling": YARN, "rope_parameters": YARN | {"factor": 2.0}}, "rope_parameters.factor"),
    "two stretches": (
        {"rope_scaling": YARN | {"attention_factor": 1.5, "attn_factor": 0.5}}, "rope_scaling.attn_factor"
    ),
    "dropout": ({"attention_dropout": 0.1}, "attention_dropout"),
    "an object": ({"sparkle": {"layers": 3}}, "sparkle"),
}  # fmt: skip


@pytest.mark.parametrize("what", NESTED)
def test_a_field_that_is_not_read_is_named_at_whatever_depth(what, folder, caplog):
    fields, name = NESTED[what]
    change(
        folder / "config.json", rope_parameters="gone", **{k: v for k, v in fields.items() if k != "rope_parameters"}
    )
    if "rope_parameters" in fields:
        change(folder / "config.json", rope_parameters=fields["rope_parameters"])
    pretrained.read_config(folder)
    assert caplog.text.rstrip().endswith(f"unknown fields are ignored: {name}")


def test_fields_outside_the_language_model_of_a_model_of_images_are_named_too(tmp_path, caplog):
    config = GEMMA
    pretrained.save(tmp_path / "text", config, params_of(config))
    about = json.loads((tmp_path / "text/config.json").read_text())
    (tmp_path / "both").mkdir()
    whole = {"model_type": "gemma3", "text_config": about, "vision_config": {"a": 1}, "boi_token_index": 5}
    whole |= {"initializer_range": 0.02, "sparkle_layers": 3}
    (tmp_path / "both/config.json").write_text(json.dumps(whole))
    assert pretrained.read_config(tmp_path / "both").is_sliding(2)
    assert caplog.text.rstrip().endswith("unknown fields are ignored: sparkle_layers")
    (tmp_path / "both/config.json").write_text(json.dumps(whole | {"quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(UserError, match="its weights are fp8"):
        pretrained.read_config(tmp_path / "both")


def test_attn_factor_multiplies_yarns_own_factor_as_in_vllm(folder, caplog, tmp_path):
    """The scaling of DeepSeek-R1-0528-Qwen3-8B: sine and cosine are not stretched."""
    scaling = YARN | {"original_max_position_embeddings": 32768, "attn_factor": 0.8782488562869419}
    change(folder / "config.json", model_type="qwen3", rope_parameters="gone", rope_theta=1e6, rope_scaling=scaling)
    config = pretrained.read_config(folder)
    assert config.rope_scaling == ("yarn", 4.0, 32.0, 1.0, 32768, pytest.approx(1.0, abs=1e-12), True)
    config = R(config, vocab_size=23)
    pretrained.save(tmp_path / "out", config, transformer.init(config, jax.random.key(0)))
    written = json.loads((tmp_path / "out/config.json").read_text())
    for scaled in (written["rope_parameters"], written["rope_scaling"]):  # transformers reads the one, vLLM the other
        assert scaled["attention_factor"] == pytest.approx(1.0)
        assert scaled["attn_factor"] == pytest.approx(0.8782488562869419)
    assert pretrained.read_config(tmp_path / "out").rope_scaling == config.rope_scaling and not caplog.text
