"""Hugging Face tokenizers: the fields of a folder, text from ids, damaged files, and exporting a tokenizer as a folder."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import MADE, control_ids, gemma, known_marks, made, texts, whole, write
from tokenizers import Tokenizer, models

from rljax.errors import UserError
from rljax.text import (
    ByteTokenizer,
    FolderTokenizer,
    SymbolTokenizer,
    hf_files,
    hf_tokenizer,
    prompt_ids,
)

# Fields


def test_fields_of_a_tokenizer_without_a_beginning():
    ours, library = made("byte level")
    assert ours.size == library.get_vocab_size() == max(library.get_vocab().values()) + 1
    assert (ours.bos, ours.bos_token, ours.begin_ids) == (None, "", ())
    assert ours.decode([ours.eos]) == ours.eos_token == "<|im_end|>" and ours.decode([ours.pad]) == "<|endoftext|>"
    assert ours.stop_ids == (ours.eos,)


def test_fields_of_a_tokenizer_with_a_beginning_and_without_padding():
    ours, _ = made("llama2")
    assert ours.begin_ids == (ours.bos,) == (ours.token("<bos>"),) and ours.bos_token == "<bos>"
    assert ours.pad == ours.eos == ours.token("<eos>")


def test_ids_that_end_a_response_are_those_of_the_generation_config_then_the_config_then_eos(tmp_path):
    library, config = gemma(), {"eos_token": "<eos>"}
    eos, turn = (library.token_to_id(t) for t in ("<eos>", "<end_of_turn>"))
    stops = lambda name, **files: hf_tokenizer.load_tokenizer(write(tmp_path / name, library, config, **files)).stop_ids
    assert stops("a") == (eos,)
    assert stops("b", config_json={"eos_token_id": [turn]}) == (turn, eos)
    assert stops("c", generation_config_json={"eos_token_id": turn}) == (turn, eos)
    both = {"config_json": {"eos_token_id": 7}, "generation_config_json": {"eos_token_id": [eos, turn]}}
    assert stops("d", **both) == (eos, turn)


def test_a_tokenizer_without_an_eos_takes_that_of_the_generation_config_or_says_what_is_missing(tmp_path):
    given = hf_tokenizer.load_tokenizer(
        write(tmp_path / "a", gemma(), {}, generation_config_json={"eos_token_id": [5, 1]})
    )
    assert given.eos == 5 and given.eos_token == "<end_of_turn>" and given.stop_ids == (5, 1)
    with pytest.raises(UserError, match="eos_token"):
        hf_tokenizer.load_tokenizer(write(tmp_path / "b", gemma(), {}))


def test_a_beginning_can_come_from_the_config_alone(tmp_path):
    library = known_marks()
    names = {"bos_token": {"content": "<bos>", "__type": "AddedToken"}, "eos_token": "<eos>"}
    with_bos = hf_tokenizer.load_tokenizer(write(tmp_path / "a", library, names | {"add_bos_token": True}))
    without = hf_tokenizer.load_tokenizer(write(tmp_path / "b", library, names | {"add_bos_token": False}))
    assert with_bos.begin_ids == (with_bos.bos,) and without.begin_ids == () and without.bos == with_bos.bos


def test_a_prompt_has_exactly_one_beginning():
    ours, _ = made("gemma")
    hello = ours.encode("hello")
    assert prompt_ids(ours, [("hello", True)]) == prompt_ids(ours, [("hello", False)]) == [ours.bos, *hello]
    assert prompt_ids(ours, [("<bos>", True), ("hello", False)]) == [ours.bos, *hello]
    assert prompt_ids(ours, [("<bos>hello", False)]).count(ours.bos) == 1
    assert prompt_ids(made("byte level")[0], [("clips", False)]) == made("byte level")[0].encode("clips")


def test_names_may_stand_in_the_special_tokens_map_and_new_ones_are_added(tmp_path):
    library = gemma()
    names = {"eos_token": {"content": "<eos>"}, "bos_token": "<bos>", "additional_special_tokens": ["<new>"]}
    config = {"bos_token": None, "added_tokens_decoder": {"9": {"content": "▁▁▁▁", "lstrip": False, "special": False}}}
    ours = hf_tokenizer.load_tokenizer(write(tmp_path / "f", library, config, special_tokens_map_json=names))
    assert ours.eos_token == "<eos>" and ours.bos is None  # tokenizer_config.json has the last word
    assert ours.token("<new>") == library.get_vocab_size() == ours.size - 1
    assert not control_ids(ours) & set(ours.encode("<new>"))


def test_a_length_limit_in_the_file_cuts_nothing(tmp_path):
    library = gemma()
    library.enable_truncation(3)
    library.enable_padding(length=50)
    ours = hf_tokenizer.load_tokenizer(write(tmp_path / "f", library, {"eos_token": "<eos>"}))
    assert ours.encode("Natalia sold clips") == whole(gemma(), "Natalia sold clips")


def test_ids_with_gaps_are_read_to_the_largest():
    for letters in ({"a": 0, "b": 5, "<eos>": 9}, {"a": 0, "<eos>": 1, "b": 3, "c": 9}):
        library = Tokenizer(models.BPE(vocab=letters, merges=[]))
        library.add_special_tokens(["<eos>"])
        ours = FolderTokenizer(
            (("tokenizer.json", library.to_str()), ("tokenizer_config.json", '{"eos_token": "<eos>"}'))
        )
        assert ours.size == 10
        assert ours.encode_parts([("a<eos>b", True)]) == [letters["a"], letters["<eos>"], letters["b"]]
        assert ours.decode(range(12)).split() == list(letters)


# Back to text


@pytest.mark.parametrize("name", ["byte level", "gemma", "known marks"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_was_encoded_is_decoded(name, data):
    ours, _ = made(name)
    text = data.draw(texts(ours).filter(lambda t: "▁" not in t and "e\u0301" not in t and t.isprintable()))
    assert ours.decode(ours.encode(text)) == made(name)[1].decode(ours.encode(text), skip_special_tokens=False)
    if name != "byte level":  # which composes letters
        assert ours.decode(ours.encode(text)) == ours.decode(ours.encode(text, specials=True)) == text


def test_control_tokens_appear_by_name_and_ids_beyond_the_vocabulary_not_at_all():
    for name in MADE:
        ours, _ = made(name)
        for mark in ours.control_tokens:
            assert ours.decode([ours.token(mark), ours.size, 10**9, -1]) == mark
        assert ours.decode([]) == ours.decode([ours.size]) == ""
        assert ours.decode(np.asarray(ours.encode("clips"))) == "clips"


def test_broken_utf8_becomes_the_replacement_character():
    for name in ("byte level", "gemma", "known marks"):
        ours, library = made(name)
        half = ours.encode("a🛸")[:-1]
        assert ours.decode(half) == library.decode(half)
        assert ours.decode(half).startswith("a\ufffd") and "🛸" not in ours.decode(half)


# Files


def test_a_tokenizer_pickles_hashes_and_compares_by_its_files():
    ours, _ = made("byte level")
    ours.encode("clips")
    other = pickle.loads(pickle.dumps(ours))
    assert other == ours and hash(other) == hash(ours) and other.encode("clips") == ours.encode("clips")
    assert len(pickle.dumps(ours)) < 1.1 * sum(len(text.encode()) for _, text in ours.files)  # without what was built
    assert ours != made("gemma")[0] and len(repr(ours)) < 100
    with pytest.raises(AttributeError):
        ours.folder = "elsewhere"  # pyright: ignore


def test_the_chat_template_is_found_wherever_it_stands(tmp_path):
    library, eos = gemma(), {"eos_token": "<eos>"}

    def found(name, config, **files):
        return hf_tokenizer.load_tokenizer(write(tmp_path / name, library, eos | config, **files)).chat_template

    several = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    assert found("none", {}) is None
    assert found("config", {"chat_template": "C"}) == "C"
    assert found("several", {"chat_template": several}) == "D"
    assert found("no default", {"chat_template": several[:1]}) is None
    assert found("json", {}, chat_template_json={"chat_template": "J"}) == "J"
    assert found("jinja", {"chat_template": "C"}, chat_template_jinja="{{ 1 }}\n") == "{{ 1 }}\n"


def test_a_folder_without_a_tokenizer_is_an_error_of_one_line(tmp_path):
    with pytest.raises(UserError, match="has no tokenizer.json$"):
        hf_tokenizer.load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"\x00")
    with pytest.raises(UserError, match=r"only tokenizer\.model: convert it") as e:
        hf_tokenizer.load_tokenizer(str(tmp_path))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "file, content",
    [
        ("tokenizer.json", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        ("tokenizer.json", b'{"model": {"type": "BPE"}}'),
        ("tokenizer.json", b"\xff\xfe"),
        ("tokenizer_config.json", b"{"),
        ("tokenizer_config.json", b"[]"),
        ("tokenizer_config.json", b'{"eos_token": "<eos>", "added_tokens_decoder": {"1": {"contents": "x"}}}'),
        ("tokenizer_config.json", b'{"eos_token": {"text": "<eos>"}}'),
        ("generation_config.json", b"nope"),
        ("special_tokens_map.json", b"1"),
    ],
)
def test_a_damaged_file_is_an_error_of_one_line_that_names_it(tmp_path, file, content):
    write(tmp_path, gemma(), {"eos_token": "<eos>"})
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=f"{file}") as e:
        hf_tokenizer.load_tokenizer(tmp_path)
    assert "\n" not in str(e.value)


# Export


def test_a_folder_is_exported_to_the_letter(tmp_path):
    config = {"eos_token": "<eos>", "chat_template": "C"}
    path = write(tmp_path / "f", gemma(), config, config_json={"model_type": "x"}, special_tokens_map_json={})
    (path / "chat_template.jinja").write_bytes("{{ 'é' }}\r\n".encode())
    (path / "unread.txt").write_text("")
    exported = hf_files.tokenizer_files(hf_tokenizer.load_tokenizer(path))
    names = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"}
    assert set(exported) == names
    assert all((path / name).read_bytes() == text.encode() for name, text in exported.items())


def export(tokenizer, path) -> FolderTokenizer:
    for name, text in hf_files.tokenizer_files(tokenizer).items():
        (path / name).write_text(text)
    return hf_tokenizer.load_tokenizer(path)


SYMBOLS = SymbolTokenizer(("apple", "orange", "$", ".", ",", "?", ";", "#", "+", "-", "*", "/", "="), numbers=12)


@pytest.mark.parametrize("tokenizer", [SYMBOLS, ByteTokenizer()], ids=["symbols", "bytes"])
def test_our_own_tokenizers_are_exported_with_their_ids(tokenizer, tmp_path):
    read = export(tokenizer, tmp_path)
    for field in ("size", "pad", "bos", "eos", "stop_ids", "begin_ids", "control_tokens"):
        assert getattr(read, field) == getattr(tokenizer, field)
    specials, rng = (tokenizer.pad, tokenizer.bos, tokenizer.eos), np.random.default_rng(0)
    for _ in range(300):
        ids = rng.integers(tokenizer.size, size=rng.integers(12)).tolist()
        assert read.decode(ids) == tokenizer.decode(ids)
        text, plain = tokenizer.decode(ids), tokenizer.decode([i for i in ids if i not in specials])
        assert read.encode(plain) == tokenizer.encode(plain)
        assert read.encode(text, specials=True) == tokenizer.encode(text, specials=True)
    assert json.loads(hf_files.tokenizer_files(tokenizer)["generation_config.json"])["eos_token_id"] == tokenizer.eos


def test_exported_symbols_refuse_what_ours_refuse(tmp_path):
    read = export(SYMBOLS, tmp_path)
    for text in ("pear", "99", "apple <eos>"):
        with pytest.raises(UserError):
            SYMBOLS.encode(text)
        with pytest.raises(UserError, match="no ids for the text"):
            read.encode(text)


def test_exported_bytes_keep_every_text(tmp_path):
    read = export(ByteTokenizer(), tmp_path)
    for text in ("naïve café", "数学 👩‍🚀", "", " two  spaces\n\ttab ", "\x00", "a<eos>b"):
        assert read.encode(text) == list(text.encode()) and read.decode(read.encode(text)) == text


def test_the_room_imports_neither_jax_nor_transformers():
    code = "import sys, rljax.text, rljax.text.hf_files; print(sorted({'jax', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
