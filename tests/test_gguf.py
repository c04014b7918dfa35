"""GGUF files: the same model and tokenizer as the Hugging Face folder, and one line for whatever is wrong with a file."""

import itertools
import json
import sys

import gguf
import jax
import numpy as np
import pytest
import small_tokenizers
import tiny_folder
from gguf import GGMLQuantizationType as Kind
from safetensors.numpy import load_file

from configs import smollm2
from rljax import pretrained, transformer
from rljax.errors import UserError
from rljax.text import gguf_files, gguf_tokenizer
from rljax.text.hf_tokenizer import load_tokenizer
from rljax.training import initial_state, run
from rljax.transformer.blocks import rope_frequencies

SIZES = dict(vocab_size=320, layers=2, width=64, heads=4, kv_heads=2, head_width=16, ff_width=96, max_length=512)
GEMMA = dict(norm_plus_one=True, post_norms=True, scale_embedding=True, qk_norm=True, activation="gelu_tanh")
GEMMA |= dict(attention_scale=0.25, sliding=(True, True), window=8, rope_base=1e6, rope_base_sliding=1e4)
MODELS = {
    "llama": dict(tied_head=False, rope_base=1e5),
    "qwen2": dict(qkv_bias=True, tied_head=True, rope_base=1e6),
    "qwen3": dict(qk_norm=True, tied_head=True, rope_scaling=("yarn", 4.0, 32.0, 1.0, 128, 1.1386294361119891, True)),
    "gemma3": dict(tied_head=True, **GEMMA),
}
NAMES = {  # llama.cpp's converter: Hugging Face's name -> the file's
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.o_proj": "attn_output",
    **{f"self_attn.{x}_proj": f"attn_{x}" for x in "qkv"},
    **{f"self_attn.{x}_norm": f"attn_{x}_norm" for x in "qk"},
    **{f"mlp.{x}_proj": f"ffn_{x}" for x in ("gate", "up", "down")},
}
GEMMA_NAMES = NAMES | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def permute(x, heads):
    """What llama.cpp's converter does to the rows of Llama's query and key."""
    return x.reshape(heads, 2, x.shape[0] // heads // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def stored(name, x, arch, config):
    """The name and the numbers of a tensor as llama.cpp's converter writes them."""
    if arch == "llama" and ("q_proj" in name or "k_proj" in name):
        x = permute(x, config.heads if "q_proj" in name else config.kv_heads)
    if arch == "gemma3" and name.endswith("norm.weight"):
        x = x + 1
    if not name.startswith("model.layers."):
        top = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
        return f"{top[name.removesuffix('.weight')]}.weight", x
    _, _, number, *middle, kind = name.split(".")
    return f"blk.{number}.{(GEMMA_NAMES if arch == 'gemma3' else NAMES)['.'.join(middle)]}.{kind}", x


def fields_of(arch, c):
    out = dict(block_count=c.layers, context_length=c.max_length, embedding_length=c.width)
    out |= {"feed_forward_length": c.ff_width, "attention.head_count": c.heads}
    out |= {"attention.head_count_kv": c.kv_heads, "attention.layer_norm_rms_epsilon": c.norm_eps}
    out |= {"rope.freq_base": c.rope_base, "attention.key_length": c.head_width}
    if c.rope_scaling:
        out |= {"rope.scaling.type": "yarn", "rope.scaling.factor": c.rope_scaling[1]}
        out |= {"rope.scaling.original_context_length": c.rope_scaling[4]}
    return out | ({"attention.sliding_window": c.window} if arch == "gemma3" else {})


def write(path, arch="llama", kind=Kind.F32, tokenizer=None, fields=None, tensors=None):
    """A GGUF file of a tiny random model, as llama.cpp's converter writes it. -> (config, params) of the model."""
    config = transformer.Config(**SIZES, **MODELS[arch])
    params = transformer.init(config, jax.random.key(0))
    # vectors are all 0 or 1 in a new model
    noise = lambda x, key: x + 0.1 * jax.random.normal(key, x.shape)
    leaves, tree = jax.tree.flatten(params)
    params = jax.tree.unflatten(tree, map(noise, leaves, jax.random.split(jax.random.key(1), len(leaves))))
    family = {"gemma3": "gemma3_text"}.get(arch, arch)
    pretrained.save(path.with_suffix(".folder"), config, params, family=family)
    writer = gguf.GGUFWriter(path, arch)
    for name, value in (fields_of(arch, config) | (fields or {})).items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, list: writer.add_array}
        if value is not None:
            add[type(value)](f"{arch}.{name}", value)
    (tokenizer or (lambda writer: None))(writer)
    for name, x in load_file(path.with_suffix(".folder") / "model.safetensors").items():
        name, x = stored(name, x, arch, config)
        if x.ndim == 1 or kind == Kind.F32:
            writer.add_tensor(name, np.ascontiguousarray(x))
        elif kind == Kind.F16:
            writer.add_tensor(name, x.astype(np.float16))
        else:
            writer.add_tensor(name, gguf.quants.quantize(x, kind), raw_dtype=kind)
    for name, x in (tensors or {}).items():
        writer.add_tensor(name, x)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return config, params


def byte_level(pre="smollm", chat=tiny_folder.CHAT, **changes):
    """A function that adds the tokenizer of ``tiny_folder`` to a file."""
    library = json.loads(tiny_folder.tokenizer_files()["tokenizer.json"])
    special = {t["content"]: t["id"] for t in library["added_tokens"]}
    vocab = library["model"]["vocab"] | special

    def add(writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(sorted(vocab, key=vocab.__getitem__))
        writer.add_token_types([3 if t in special else 1 for t in sorted(vocab, key=vocab.__getitem__)])
        writer.add_token_merges([" ".join(pair) for pair in library["model"]["merges"]])
        writer.add_eos_token_id(special["<|im_end|>"])
        writer.add_pad_token_id(special["<|endoftext|>"])
        writer.add_chat_template(chat)
        for name, value in changes.items():
            getattr(writer, name)(value)

    return add


# Models


@pytest.mark.parametrize("arch", MODELS)
def test_a_file_is_the_model_of_the_folder_that_it_was_made_from(arch, tmp_path):
    write(tmp_path / "a.gguf", arch)
    config, loaded, tokenizer = pretrained.load(tmp_path / "a.gguf")
    expected, params, _ = pretrained.load(tmp_path / "a.folder")
    assert tokenizer is None
    assert config == transformer.Config(**vars(expected) | dict(norm_eps=config.norm_eps))
    assert np.isclose(config.norm_eps, expected.norm_eps, rtol=1e-6)  # the file holds it in 32 bits
    close = lambda x, y: np.testing.assert_allclose(x, y, atol=2e-7 if arch == "gemma3" else 0)
    jax.tree.map(close, loaded, params)  # 1 was added to Gemma's norms, and taken off
    tokens = np.arange(12)[None] * 7
    np.testing.assert_allclose(
        transformer.forward(loaded, config, tokens), transformer.forward(params, expected, tokens), atol=1e-5
    )


@pytest.mark.parametrize(
    "kind", [Kind.F16, Kind.BF16, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q8_0], ids=lambda k: k.name
)
def test_quantised_numbers_are_widened_as_the_library_widens_them(kind, tmp_path):
    config, params = write(tmp_path / "a.gguf", "qwen2", kind)
    read, loaded, _ = pretrained.load(tmp_path / "a.gguf", "float32")
    matrix = np.asarray(params["layers"][1]["up"]).T
    wanted = (
        matrix.astype(np.float16)
        if kind == Kind.F16
        else gguf.quants.dequantize(gguf.quants.quantize(matrix, kind), kind)
    )
    np.testing.assert_array_equal(np.asarray(loaded["layers"][1]["up"]).T, wanted)
    assert 0 < np.abs(wanted - matrix).max() < 0.2 * matrix.std() * (4 if "4" in kind.name else 1)
    # without a dtype asked for: as stored, or bfloat16
    read, loaded, _ = pretrained.load(tmp_path / "a.gguf")
    dtype = "float16" if kind == Kind.F16 else "bfloat16"
    assert read.weight_dtype == read.dtype == dtype == str(loaded["layers"][1]["up"].dtype)


def test_a_k_quantisation_is_widened_in_rows_of_a_permuted_matrix(tmp_path):
    """The library cannot write Q4_K: any bytes are numbers."""
    config, _ = write(tmp_path / "a.gguf", "llama")
    row_bytes = gguf.quants.quant_shape_to_byte_shape((64, 256), Kind.Q4_K)[1]
    blocks = np.random.default_rng(0).integers(0, 60, (64, row_bytes), np.uint8)
    matrix = gguf_files.StoredMatrix("Q4_K", (64, 256), blocks)
    order = np.arange(64)[::-1]
    whole = gguf.quants.dequantize(blocks, Kind.Q4_K)
    np.testing.assert_array_equal(gguf_files.widen(matrix, order[3:9]), whole[::-1][3:9])
    assert whole.shape == (64, 256) and np.isfinite(whole).all() and whole.std() > 0


def test_the_scaling_of_llama_3_is_known_by_its_factors(tmp_path):
    rope = transformer.Config(**SIZES, rope_base=5e5, rope_scaling=("llama3", 32.0, 1.0, 4.0, 8192))
    plain = 5e5 ** (-np.arange(0, 16, 2) / 16)
    factors = (plain / np.asarray(rope_frequencies(rope, 0))).astype(np.float32)
    assert factors[0] == 1 and np.isclose(factors[-1], 32)
    write(tmp_path / "a.gguf", "llama", fields={"rope.freq_base": 5e5}, tensors={"rope_freqs.weight": factors})
    found = pretrained.read_config(tmp_path / "a.gguf").rope_scaling
    assert found[0] == "llama3" and np.allclose(found[1:], rope.rope_scaling[1:], rtol=1e-5)
    pretrained.load(tmp_path / "a.gguf")  # the tensor belongs to the model
    factors[-1] *= 1.5
    write(tmp_path / "b.gguf", "llama", fields={"rope.freq_base": 5e5}, tensors={"rope_freqs.weight": factors})
    with pytest.raises(UserError, match="rope_freqs.weight is not the scaling of Llama 3.1"):
        pretrained.load(tmp_path / "b.gguf")


@pytest.mark.parametrize(
    "about, said",
    [
        (dict(fields={"attention.head_count": None}), "the field llama.attention.head_count is missing"),
        (dict(fields={"expert_count": 8}), "it has experts"),
        (dict(fields={"feed_forward_length": [96, 48]}), "llama.feed_forward_length differs between layers"),
        (dict(fields={"rope.dimension_count": 8}), "llama.rope.dimension_count=8 in heads of 16"),
        (dict(fields={"rope.scaling.type": "longrope"}), "rotary positions are scaled by 'longrope'"),
        (dict(fields={"block_count": 3}), "the tensor model.layers.2.input_layernorm.weight is missing"),
        (dict(fields={"block_count": 1}), r"the tensor model.layers.1.\S* is not part of the model"),
        (dict(fields={"embedding_length": 32}), "has the shape"),
        (dict(tensors={"blk.0.ssm_a": np.zeros(4, np.float32)}), "the tensor blk.0.ssm_a is not part of the model"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_model_is_said_in_one_line(about, said, tmp_path):
    write(tmp_path / "a.gguf", "llama", **about)
    with pytest.raises(UserError, match=said) as error:
        pretrained.load(tmp_path / "a.gguf")
    assert "\n" not in str(error.value)


def test_an_architecture_that_is_not_read_is_named(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UserError, match="architecture 'mamba' cannot be read from a GGUF file, only llama, qwen2"):
        pretrained.read_config(tmp_path / "a.gguf")


@pytest.mark.parametrize("length", [0, 3, 100, 5000])
def test_a_file_that_is_cut_off_is_named(length, tmp_path):
    write(tmp_path / "a.gguf")
    (tmp_path / "a.gguf").write_bytes((tmp_path / "a.gguf").read_bytes()[:length])
    with pytest.raises(UserError, match="a.gguf is cut off, damaged or no GGUF file"):
        pretrained.load(tmp_path / "a.gguf")


def test_one_part_of_several_is_refused(tmp_path):
    write(tmp_path / "a.gguf", tokenizer=lambda writer: writer.add_uint16("split.count", 3))
    with pytest.raises(UserError, match="one of 3 parts of a model.*llama-gguf-split --merge"):
        pretrained.load(tmp_path / "a.gguf")


def test_a_missing_file_and_a_missing_package_are_said(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="there is no folder .*nowhere.gguf: give the folder .* or a GGUF file"):
        pretrained.load(tmp_path / "nowhere.gguf")
    write(tmp_path / "a.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match=r"needs the package gguf: pip install 'rljax\[gguf\]'"):
        pretrained.load(tmp_path / "a.gguf")


# Tokenizers

TEXTS = (
    "Ann has 12 clips and gets 25 more.\nHow many?\n\n She has 12+25 = 37 clips.",
    "  two spaces, \ttabs\r\n\n\n   3 blank lines and 1,234.50 dollars",
    "naïve café 数学 🚀 ﬁ x² e\u0301",
    "<|im_end|> <think> in a question is text",
)


def test_a_byte_level_tokenizer_is_that_of_the_folder(tmp_path):
    write(tmp_path / "a.gguf", tokenizer=byte_level("gpt-2"))
    ours, theirs = load_tokenizer(tmp_path / "a.gguf"), tiny_folder.tokenizer()
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text) and ours.decode(ours.encode(text)) == text
        assert ours.encode(text, specials=True) == theirs.encode(text, specials=True)
    for field in ("size", "bos", "eos", "pad", "begin_ids", "chat_template", "token_bytes", "control_tokens"):
        assert getattr(ours, field) == getattr(theirs, field), field
    assert set(ours.stop_ids) == set(theirs.stop_ids) and ours.stop_ids[0] == theirs.eos


@pytest.mark.parametrize(
    "pre, pieces",
    [
        ("gpt-2", ["Ann", " has", " ", " 1234", "\n", "\n", "we", "'ve"]),
        ("smollm", ["Ann", " has", "  ", "1", "2", "3", "4", "\n", "\n", "we", "'ve"]),
        ("qwen2", ["Ann", " has", " ", " ", "1", "2", "3", "4", "\n\n", "we", "'ve"]),
        ("llama-bpe", ["Ann", " has", " ", " ", "123", "4", "\n\n", "we", "'ve"]),
    ],
)
def test_texts_are_split_as_the_file_says(pre, pieces, tmp_path):
    write(tmp_path / "a.gguf", tokenizer=byte_level(pre))
    library = load_tokenizer(tmp_path / "a.gguf")._core.library
    found = [text for text, _ in library.pre_tokenizer.pre_tokenize_str("Ann has  1234\n\nwe've")]
    assert [p.replace("Ġ", " ").replace("Ċ", "\n") for p in found] == pieces


def test_llama_3_begins_texts_unless_the_file_says_otherwise(tmp_path):
    begin = dict(add_bos_token_id=tiny_folder.tokenizer().token("<|im_start|>"))
    for name, pre, more in (
        ("a", "llama-bpe", {}),
        ("b", "qwen2", {}),
        ("c", "llama-bpe", {"add_add_bos_token": False}),
    ):
        write(tmp_path / f"{name}.gguf", tokenizer=byte_level(pre, **begin, **more))
    read = {name: load_tokenizer(tmp_path / f"{name}.gguf") for name in "abc"}
    assert read["a"].begin_ids == (read["a"].bos,) and read["b"].begin_ids == read["c"].begin_ids == ()


def sentence_piece(text, scores):
    """SentencePiece's algorithm: of all neighbours whose union is a token, the best is merged, the leftmost of equal ones."""
    parts = list(text.replace(" ", "▁"))
    while True:
        unions = [(scores.get(a + b, -1e9), -i) for i, (a, b) in enumerate(itertools.pairwise(parts))]
        best, place = max(unions, default=(-1e9, 0))
        if best == -1e9:
            break
        parts[-place : -place + 2] = [parts[-place] + parts[-place + 1]]
    return [p for part in parts for p in ([part] if part in scores else [f"<0x{b:02X}>" for b in part.encode()])]


@pytest.mark.parametrize("prefix", [False, True])
def test_a_sentence_piece_tokenizer_merges_the_best_score_first(prefix, tmp_path):
    library = small_tokenizers.gemma()
    vocab = library.get_vocab()
    tokens = sorted(vocab, key=vocab.__getitem__)
    names = {"<pad>": 3, "<eos>": 3, "<bos>": 3, "<start_of_turn>": 3, "<end_of_turn>": 3, "<unk>": 2}
    names |= dict.fromkeys(["\n", "\n\n", "▁▁", "▁▁▁▁", "<h1>", "</h1>"], 4)
    kinds = [names.get(t, 6 if t.startswith("<0x") else 1) for t in tokens]
    scores = np.random.default_rng(0).permutation(len(tokens)).astype(float)

    def add(writer):
        writer.add_tokenizer_model("llama")
        writer.add_token_list([t.replace("▁", " ") if k == 4 else t for t, k in zip(tokens, kinds, strict=True)])
        writer.add_token_scores(scores.tolist())
        writer.add_token_types(kinds)
        for name in ("bos", "eos", "unk", "pad"):
            getattr(writer, f"add_{name}_token_id")(vocab[f"<{name}>"])
        writer.add_add_space_prefix(prefix)

    write(tmp_path / "a.gguf", tokenizer=add)
    ours = load_tokenizer(tmp_path / "a.gguf")
    rank = [1e6 - i if k == 4 else s for i, (s, k) in enumerate(zip(scores, kinds, strict=True))]
    ordinary = {t: s for t, s, k in zip(tokens, rank, kinds, strict=True) if k in (1, 4)}
    for text in (
        "Natalia sold clips to 48 of her friends",
        "naïve café 数学 🚀  and  two    spaces",
        "half as many clips in May.",
    ):
        expected = sentence_piece(f" {text}" if prefix else text, ordinary)
        assert [ours._core.library.id_to_token(i) for i in ours.encode(text)] == expected
        assert ours.decode(ours.encode(text)) == text
    assert ours.encode("a\n\nb")[-2] == vocab["\n\n"] and vocab["<h1>"] in ours.encode("an <h1>title")
    assert ours.begin_ids == (ours.bos,) == (vocab["<bos>"],) and ours.size == len(tokens)
    assert ours.stop_ids == (vocab["<eos>"], vocab["<end_of_turn>"])
    assert ours.token_bytes[vocab["▁▁"]] == b"  " and ours.token_bytes[vocab["<0x41>"]] == b"A"


def test_tokenizers_that_are_not_known_are_named(tmp_path):
    write(tmp_path / "a.gguf", tokenizer=byte_level("falcon"))
    with pytest.raises(UserError, match="splits texts as 'falcon' .* only command-r, deepseek-r1-qwen"):
        pretrained.load(tmp_path / "a.gguf")
    write(tmp_path / "b.gguf", tokenizer=byte_level(add_tokenizer_model="rwkv"))
    with pytest.raises(UserError, match="of the kind 'rwkv', only gpt2 and llama"):
        pretrained.load(tmp_path / "b.gguf")
    write(tmp_path / "c.gguf")
    with pytest.raises(UserError, match="c.gguf holds none"):
        load_tokenizer(tmp_path / "c.gguf")


def test_only_ordinary_tokens_are_merged():
    assert gguf_tokenizer.merges_of_scores(["a", "b", "ab", "ba"], [1, 1, 1, 5], [0, 0, -1, -2]) == [("a", "b")]


# Everything that takes a folder


def test_a_config_takes_a_file_and_a_folder_is_exported(tmp_path):
    write(tmp_path / "a.gguf", tokenizer=byte_level())
    resolved = run.resolve(smollm2.get_config(f"weights={tmp_path}/a.gguf,short"))
    assert resolved.model.width == 64 and resolved.model.weight_dtype == "float32"
    assert initial_state.start_params(resolved, "weights", tmp_path)["embedding"].shape == (320, 64)
    read, params, tokenizer = pretrained.load(tmp_path / "a.gguf")
    pretrained.save(tmp_path / "out", read, params, tokenizer)
    again = load_tokenizer(tmp_path / "out")
    assert again.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0]) and again.stop_ids == tokenizer.stop_ids
    assert pretrained.read_config(tmp_path / "out") == read
