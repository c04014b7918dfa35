"""Hugging Face folders: ids as the library gives them, and no control token from outside.

What transformers does with a text is one call of the ``tokenizers`` library, so the library itself is the reference here.
"""

import collections
import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import MADE, byte_level, control_ids, free, known_marks, made, texts, whole, write
from tokenizers import Tokenizer, models

from rljax.text import (
    FolderTokenizer,
    control_tokens,
    hf_tokenizer,
)

# Ids as transformers has them


@pytest.mark.parametrize("name", MADE)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_text_without_marks_has_the_ids_of_the_library(name, data):
    ours, library = made(name)
    text = data.draw(free(ours))
    assert ours.encode(text) == ours.encode(text, specials=True) == whole(library, text)


@pytest.mark.parametrize("name", MADE)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_text_with_marks_has_the_ids_of_the_library_where_specials_are_asked_for(name, data):
    ours, library = made(name)
    text = data.draw(texts(ours))
    assert ours.encode(text, specials=True) == whole(library, text)


@pytest.mark.parametrize("name", MADE)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_parts_without_foreign_marks_have_the_ids_of_the_whole_string(name, data):
    ours, library = made(name)
    part = st.one_of(st.tuples(texts(ours), st.just(True)), st.tuples(free(ours), st.just(False)))
    parts = data.draw(st.lists(part, max_size=6))
    parts = [(text + "." if trusted else text, trusted) for text, trusted in parts]  # no mark is left open at a border
    assert ours.encode_parts(parts) == whole(library, "".join(text for text, _ in parts))


def test_words_and_blanks_that_two_parts_share_become_one_token():
    ours, library = made("byte level")
    for before, question, after in (("Nata", "lia", ""), ("sold", " cl", "ips"), ("<|im_start|>user\n", "\nHow", "\n")):
        joined = ours.encode_parts([(before, True), (question, False), (after, True)])
        assert joined == whole(library, before + question + after)
        assert joined != [i for part in (before, question, after) for i in ours.encode(part, specials=True)]
    ours, library = made("gemma")
    assert ours.token("\n\n") is None
    assert library.token_to_id("\n\n") in ours.encode_parts([("<start_of_turn>user\n", True), ("\nHow", False)])


def test_ordinary_added_tokens_are_text():
    ours, library = made("gemma")
    for text in ("<h1>title</h1>", "a\n\nb", "    x"):
        assert ours.encode(text) == whole(library, text) != []
    assert library.token_to_id("<h1>") in ours.encode("say <h1>")
    assert not {"<h1>", "\n\n", "▁▁"} & set(ours.control_tokens)


def test_a_run_after_a_mark_does_not_begin_the_text():
    ours, library = made("llama2")
    assert ours.encode("clips") == whole(library, "clips") == whole(library, " clips")
    chat = [("<bos>", True), ("clips", False), ("<eos>", True), ("clips", True)]
    assert ours.encode_parts(chat) == whole(library, "<bos>clips<eos>clips")
    assert ours.decode(ours.encode_parts(chat)) == "<bos>clips<eos>clips"


def test_marks_swallow_the_blanks_that_they_ask_for_also_those_of_a_question():
    ours, library = made("stripping")
    for mark in ("<mask>", "[SEP]", "<both>"):
        joined = ours.encode_parts([("a ", True), ("b \n", False), (mark, True), (" \t c", False)])
        assert joined == whole(library, f"a b \n{mark} \t c")
    assert ours.encode("<mask>2", specials=True) == [ours.token("<mask>2")] == whole(library, "<mask>2")
    assert ours.token("<word>") in ours.encode("a <word> b", specials=True)
    for parts in ([("a<word>", True)], [("<word>", True), ("b", False)], [("a", False), ("<word>", True)]):
        assert ours.encode_parts(parts) == whole(library, "".join(text for text, _ in parts))
        assert ours.token("<word>") not in ours.encode_parts(parts)


# No control token from outside


@pytest.mark.parametrize("name", MADE)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_no_text_from_outside_becomes_a_control_token(name, data):
    ours, _ = made(name)
    ids = ours.encode(data.draw(texts(ours)))
    assert not control_ids(ours) & set(ids) and max(ids, default=0) < ours.size


@pytest.mark.parametrize("name", MADE)
def test_no_mark_from_outside_becomes_a_control_token(name):
    ours, _ = made(name)
    for text in (
        *ours.control_tokens,
        "".join(ours.control_tokens),
        " ".join(ours.control_tokens),
        "\n".join(ours.control_tokens),
    ):
        ids = ours.encode(text)
        assert ids and not control_ids(ours) & set(ids)


@pytest.mark.parametrize("name", MADE)
def test_the_fence_is_no_way_in(name):
    ours, _ = made(name)
    fence = control_tokens.FENCE
    for text in (fence, f"{fence}a", f"a{fence}{fence}<eos>{fence[:2]}"):
        for parts in ([(text, False)], [("<eos>", True), (text, False)], [(text, True)]):
            assert max(ours.encode_parts(parts)) < ours.size


@pytest.mark.parametrize("name", MADE)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_question_adds_no_control_token_to_those_of_its_template(name, data):
    ours, _ = made(name)
    before, question, after = (data.draw(texts(ours)) for _ in range(3))
    joined = ours.encode_parts([(before, True), (question, False), (after, True)])
    count = lambda ids: collections.Counter(i for i in ids if i in control_ids(ours))
    # a mark that must stand alone as a word may go, none may come
    assert count(joined) <= count([*ours.encode(before, specials=True), *ours.encode(after, specials=True)])


@pytest.mark.parametrize("name", MADE)
def test_no_mark_arises_where_a_template_and_a_question_meet(name):
    ours, _ = made(name)
    for mark in ours.control_tokens:
        for cut in range(1, len(mark)):
            for parts in (
                [(mark[:cut], True), (mark[cut:], False)],
                [(mark[:cut], False), (mark[cut:], True)],
                [("x", True), (mark[:cut], False), (mark[cut:], False), ("x", True)],
                [(mark[:1], True), (mark[1:cut], False), (mark[cut:], True)],
            ):
                assert ours.token(mark) not in ours.encode_parts(parts)
        assert ours.encode_parts([(mark[:1], True), (mark[1:], True)]) == [
            ours.token(mark)
        ]  # trusted neighbours are one


def test_a_mark_that_is_a_word_of_the_vocabulary_is_broken_up():
    ours, library = made("known marks")[0], known_marks()
    for text in ("<eos>", "a <eos> b", "<eos>" * 3, "<think>", " <think>"):
        assert not control_ids(ours) & set(ours.encode(text)) and ours.decode(ours.encode(text)) == text
    library.encode_special_tokens = True
    assert library.encode("<eos>").tokens == ["<eos>"]  # so the library alone would let it in
    hostile = "<eos> <think>" * 3000
    assert ours.decode(ours.encode(hostile)) == hostile and not control_ids(ours) & set(ours.encode(hostile))


def test_a_mark_of_one_character_that_is_in_the_vocabulary_is_left_out_of_foreign_text(tmp_path):
    library = known_marks()
    library.add_special_tokens(["~"])
    ours = hf_tokenizer.load_tokenizer(write(tmp_path / "f", library, {"eos_token": "<eos>"}))
    assert ours.decode(ours.encode("a~b")) == "ab"
    assert ours.decode(ours.encode("a~b", specials=True)) == "a~b"


def test_control_tokens_are_the_special_ones_and_those_that_the_chat_template_speaks_of(tmp_path):
    ours, _ = made("byte level")
    assert ours.control_tokens == ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "<tool_call>", "[TOOL]")
    assert ours.token("<think>") == ours.encode("<think>", specials=True)[0]
    assert ours.token("</think>") is None and ours.token("clips") is None
    bare = hf_tokenizer.load_tokenizer(write(tmp_path / "f", byte_level(), {"eos_token": "<|fim|>"}))
    assert bare.control_tokens == (
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|fim|>",
    )  # what has a name is special


def test_what_the_vocabulary_does_not_have_may_be_the_unknown_token():
    letters = {letter: i for i, letter in enumerate(("<unk>", "<eos>", "a", "b"))}
    library = Tokenizer(models.BPE(vocab=letters, merges=[], unk_token="<unk>"))
    library.add_special_tokens(["<unk>", "<eos>"])
    config = json.dumps({"eos_token": "<eos>", "unk_token": "<unk>"})
    ours = FolderTokenizer((("tokenizer.json", library.to_str()), ("tokenizer_config.json", config)))
    assert ours.encode("a数b") == [2, 0, 3]
    assert ours.encode("a<eos>") == [2, *[0] * 5]


def test_a_token_that_stands_alone_as_a_word_is_found_beside_every_character_as_by_the_library():
    ours, library = made("stripping")
    for code in (*range(0x20, 0x3000), *range(0xA000, 0xD7FF, 37), *range(0x1F100, 0x1F200)):
        if unicodedata.category(chr(code)) == "Cn":  # the library may know a newer Unicode
            continue
        text = f"a {chr(code)}<word> b"
        assert (ours.token("<word>") in ours.encode(text, specials=True)) == (
            library.token_to_id("<word>") in whole(library, text)
        ), hex(code)
