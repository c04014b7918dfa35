"""Hugging Face folders in and out: bits, dtypes, layouts, and the tokenizer to the letter."""

import dataclasses
import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_folder
from models import DEEPSEEK, EVERYTHING, SMALL, forward, params_of, tokens_of
from safetensors.numpy import load_file, save_file

from rljax import pretrained, transformer
from rljax.distributed import sharding
from rljax.errors import UserError
from rljax.pretrained.safetensors_files import DTYPES, list_tensors, open_file

R = dataclasses.replace


FAMILIES = {
    "llama": R(SMALL, rope_scaling=("llama3", 8.0, 1.0, 4.0, 64), mlp_bias=True),
    "qwen2": R(SMALL, qkv_bias=True, window=4, sliding=(False, True)),
    "qwen3": R(SMALL, qk_norm=True, rope_scaling=("yarn", 4.0, 32.0, 1.0, 16, 1.1, False)),
    "qwen3_moe": R(SMALL, qk_norm=True, experts=4, expert_width=6, routed=(False, True)),
    "gemma2": R(EVERYTHING, qk_norm=False, rope_base_sliding=None, rope_scaling=(), mlp_bias=False),
    "gemma3_text": R(EVERYTHING, rope_scaling=("linear", 8.0), mlp_bias=False),
    "deepseek_v3": R(DEEPSEEK, sliding=(), window=None, shared_width=28, attention_scale=10**-0.5 * 1.2),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder.make(tmp_path_factory.mktemp("good") / "model")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scan", [False, True], ids=["plain", "stacked"])
def test_what_is_saved_is_loaded_bit_for_bit(family, scan, tmp_path):
    config = R(FAMILIES[family], scan_layers=scan)
    params = params_of(FAMILIES[family])
    params = transformer.stack_layers(params, config) if scan else params
    written = pretrained.save(tmp_path / "out", config, params, shard_bytes=5000 if scan else 10**9)
    again, loaded, tokenizer = pretrained.load(tmp_path / "out", scan_layers=scan)
    assert written == family and tokenizer is None
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 1 if not scan else 3
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    if not scan:
        np.testing.assert_array_equal(forward(loaded, again, tokens_of(1, 9)), forward(params, config, tokens_of(1, 9)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_dtype_is_kept_unless_another_is_asked_for(dtype, tmp_path):
    params = jax.tree.map(lambda x: x.astype(dtype), params_of(FAMILIES["deepseek_v3"]))
    pretrained.save(tmp_path / "out", FAMILIES["deepseek_v3"], params)
    config, loaded, _ = pretrained.load(tmp_path / "out")
    assert config.weight_dtype == config.dtype == dtype
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    assert {str(x.dtype) for x in jax.tree.leaves(loaded)} == {dtype}
    config, wide, _ = pretrained.load(tmp_path / "out", "float32")
    assert config.weight_dtype == config.dtype == "float32"
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b.astype(jnp.float32)), wide, params)
    half = pretrained.load(tmp_path / "out", weight_dtype="bfloat16")[1]
    assert half["layers"][1]["router"]["bias"].dtype == jnp.float32  # it decides between close scores
    assert half["layers"][1]["router"]["kernel"].dtype == jnp.bfloat16


def test_each_device_gets_its_part_and_nothing_else_is_read(tmp_path, monkeypatch):
    """On a mesh of one the layout is the mesh's; parts are asked for by slice, as on many (tests/test_sharding.py)."""
    pretrained.save(tmp_path / "out", FAMILIES["qwen3_moe"], params_of(FAMILIES["qwen3_moe"]))
    layout = sharding.make_layout(sharding.make_mesh(), {"embed": "fsdp"})
    config, loaded, _ = pretrained.load(tmp_path / "out", layout=layout)
    wanted = sharding.weight_shardings(config)
    assert all(jax.tree.leaves(jax.tree.map(lambda x, where: x.sharding == where, loaded, wanted)))
    found = pretrained.folder.find_tensors(tmp_path / "out")
    keys = pretrained.FAMILIES["qwen3_moe"].tensor_keys(config)
    planned = pretrained.folder.tensors_of_weights(config, keys)
    experts = next(w for w in planned if w.weight.axes == ("expert", "embed", "ff"))
    asked = []
    monkeypatch.setattr(jax, "make_array_from_callback", lambda shape, where, part: asked.append(part))
    where = layout.sharding(experts.weight.axes, experts.weight.shape)
    pretrained.folder.read_weight(found, experts, where, None)
    part = asked[0]((slice(1, 3), slice(0, 8), slice(None)))
    np.testing.assert_array_equal(part, np.asarray(loaded["layers"][1]["experts"]["gate"])[1:3, :8])


def test_only_the_part_that_reads_text_is_loaded_from_a_model_that_sees_images(tmp_path):
    config = FAMILIES["gemma3_text"]
    pretrained.save(tmp_path / "text", config, params_of(config))
    about = json.loads((tmp_path / "text/config.json").read_text())
    arrays = {f"language_model.{name}": x for name, x in load_file(tmp_path / "text/model.safetensors").items()}
    arrays["vision_tower.patch.weight"] = np.zeros((3, 3), np.float32)
    (tmp_path / "both").mkdir()
    save_file(arrays, tmp_path / "both/model.safetensors")
    (tmp_path / "both/config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": about}))
    again, loaded, _ = pretrained.load(tmp_path / "both")
    assert again == pretrained.read_config(tmp_path / "text")
    jax.tree.map(np.testing.assert_array_equal, loaded, params_of(config))
    save_file(arrays | {"language_model.adapter.weight": np.zeros(3, np.float32)}, tmp_path / "both/model.safetensors")
    with pytest.raises(UserError, match="language_model.adapter.weight is not part of the model"):
        pretrained.load(tmp_path / "both")


def test_a_model_of_ours_is_written_as_the_nearest_architecture():
    assert pretrained.choose_model_type(SMALL) == "llama"
    assert pretrained.choose_model_type(R(SMALL, qk_norm=True)) == "qwen3"
    with pytest.raises(
        UserError, match="no Hugging Face architecture has this model's mlp_bias.*nearest is gemma3_text"
    ):
        pretrained.choose_model_type(EVERYTHING)
    with pytest.raises(UserError, match="family='bert' is not known"):
        pretrained.choose_model_type(SMALL, "bert")


def test_nothing_is_written_over(folder):
    config, params, tokenizer = pretrained.load(folder)
    before = (folder / "config.json").read_text()
    with pytest.raises(UserError, match="is there already, and not empty"):
        pretrained.save(folder, config, params, tokenizer)
    assert (folder / "config.json").read_text() == before


def test_a_save_that_fails_leaves_nothing(tmp_path, monkeypatch):
    config = tiny_folder.config()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pretrained.export, "write_tensors", full)
    with pytest.raises(OSError, match="No space"):
        pretrained.save(tmp_path / "out", config, transformer.init(config, jax.random.key(0)))
    assert not list(tmp_path.iterdir())


def test_the_tokenizer_goes_with_the_model_to_the_letter(folder, tmp_path):
    config, params, tokenizer = pretrained.load(folder)
    pretrained.save(tmp_path / "out", config, params, tokenizer)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()
    about = json.loads((tmp_path / "out/config.json").read_text())
    assert about["eos_token_id"] == list(tokenizer.stop_ids) and about["pad_token_id"] == tokenizer.pad
    again = pretrained.load(tmp_path / "out")
    assert again[0] == config and again[2] == tokenizer


def test_only_the_slice_that_is_asked_for_is_read(folder):
    """Of a sparse file of 64 GB, which no memory here holds."""
    rows, header = 2**33 // 2, {}
    header["x"] = {"dtype": "BF16", "shape": [rows, 8], "data_offsets": [0, 16 * rows]}
    text = json.dumps(header).encode()
    with (folder / "large.safetensors").open("wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + 16 * rows)
    (found,) = list_tensors(folder / "large.safetensors").values()
    assert (found.dtype, found.shape) == (DTYPES["BF16"], (rows, 8))
    with open_file(found.file) as opened:
        np.testing.assert_array_equal(opened.get_slice("x")[rows - 3 : rows], np.zeros((3, 8)))


@pytest.mark.parametrize("family", FAMILIES)
def test_any_part_of_any_weight_is_read_like_the_same_part_of_the_whole(family, tmp_path):
    """Reordered outputs (DeepSeek), flattened heads, vectors, embeddings: by slices of one, two and all axes."""
    config = FAMILIES[family]
    pretrained.save(tmp_path / "out", config, params_of(config))
    found = pretrained.folder.find_tensors(tmp_path / "out")
    keys = pretrained.FAMILIES[family].tensor_keys(config)
    half = lambda n, at: slice(None) if n == 1 else slice(0, n // 2) if at == 0 else slice(n // 2, n)
    checked = 0
    for planned in pretrained.folder.tensors_of_weights(config, keys):
        name, w = next(iter(planned.names.values())), planned.weight
        shape = w.shape[w.stacked_axes :]
        whole = planned.key.from_hf(load_file(found[name].file)[name], w)
        for cut in np.ndindex(*(3,) * len(shape)):  # of each axis the first half, the second, or all
            index = tuple(slice(None) if at == 2 else half(n, at) for n, at in zip(shape, cut, strict=True))
            with open_file(found[name].file) as opened:
                part = planned.key.from_hf(opened.get_slice(name), w, index)
            np.testing.assert_array_equal(part, whole[index])
            checked += 1
    assert checked > 50
