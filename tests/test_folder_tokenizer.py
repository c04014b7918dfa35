"""Hugging Face folders: ids as the library gives them, and no control token from outside.

What transformers does with a text is one call of the ``tokenizers`` library, so the library itself is the reference here.
"""

import collections
import functools
import json
import pickle
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from rljax.errors import UserError
from rljax.text import (
    ByteTokenizer,
    FolderTokenizer,
    SymbolTokenizer,
    control_tokens,
    hf_files,
    hf_tokenizer,
    prompt_ids,
)

LINES = (
    "Question: Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May.",
    "How many clips did Natalia sell altogether in April and May?\n\nAnswer: 48 / 2 = 24 clips in May.\n#### 72",
    "def double(x):\n    return 2 * x\n\n\nprint(double(21))  # naïve café 数学 🚀",
    "user system assistant think im_start im_end tool_call <h1> title </h1> <|im | end|> eos bos",
)
SPLIT = r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}{{ m.content }}<|im_end|>{% endfor %}<think><tool_call>[TOOL]"


# Small tokenizers in the shape of the real ones


def octets() -> pre_tokenizers.ByteLevel:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def byte_level() -> Tokenizer:
    """Llama-3's and Qwen's: byte-level BPE, words that are in the vocabulary stay whole."""
    library = Tokenizer(models.BPE(ignore_merges=True))
    library.normalizer = normalizers.NFC()
    library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT), "isolated"), octets()])
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator(LINES, trainer)
    library.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    plain = ["<think>", "</think>", "<tool_call>", "[TOOL]", "<|fim|>"]
    library.add_tokens([AddedToken(text, normalized=False) for text in plain])
    return library


def gemma() -> Tokenizer:
    """Gemma's: spaces are letters, what is not in the vocabulary is written in bytes, blank lines and HTML are tokens."""
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    plain = ["\n", "\n\n", "▁▁", "▁▁▁▁", "<h1>", "</h1>"]
    codes = [f"<0x{i:02X}>" for i in range(256)]
    library = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    library.normalizer = normalizers.Replace(" ", "▁")
    library.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=[*specials, *plain, *codes], show_progress=False)
    library.train_from_iterator(LINES, trainer)
    library.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bos = library.token_to_id("<bos>")
    library.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", bos)])
    read = json.loads(library.to_str())
    read["added_tokens"] = [
        t | {"special": t["content"] in specials} for t in read["added_tokens"] if t["content"] not in codes
    ]
    return Tokenizer.from_str(json.dumps(read))


def llama2() -> Tokenizer:
    """Llama-2's: a space before what begins a text, and only there."""
    library = gemma()
    library.normalizer = normalizers.Sequence([])
    library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    library.decoder = decoders.Sequence(steps)
    return library


def known_marks() -> Tokenizer:
    """The worst case: words end at spaces only, and all marks are words of the vocabulary."""
    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    marks = {text: 256 + i for i, text in enumerate(("<pad>", "<bos>", "<eos>", "Ġ<think>", "<think>"))}
    library = Tokenizer(models.BPE(vocab=letters | marks, merges=[], ignore_merges=True))
    library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(" ", "merged_with_next"), octets()])
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["<pad>", "<bos>", "<eos>", "<think>"])
    return library


def stripping() -> Tokenizer:
    """Marks that swallow the blanks beside them, or stand alone as words only."""
    library = byte_level()
    library.add_special_tokens([AddedToken("<mask>", lstrip=True), AddedToken("[SEP]", rstrip=True)])
    library.add_special_tokens([AddedToken("<both>", lstrip=True, rstrip=True), AddedToken("<word>", single_word=True)])
    library.add_special_tokens(["<mask>2"])  # of two that begin alike, the longer is meant
    return library


MADE = {
    "byte level": (byte_level, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": CHAT}),
    "gemma": (gemma, {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}),
    "llama2": (llama2, {"bos_token": "<bos>", "eos_token": "<eos>"}),
    "known marks": (known_marks, {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}),
    "stripping": (stripping, {"eos_token": "<|im_end|>", "chat_template": CHAT}),
}


@functools.cache
def made(name: str) -> tuple[FolderTokenizer, Tokenizer]:
    """(ours, the library's) of one of these."""
    build, config = MADE[name]
    text = build().to_str()
    files = (("tokenizer.json", text), ("tokenizer_config.json", json.dumps(config)))
    return FolderTokenizer(files, name), Tokenizer.from_str(text)


def write(path, library: Tokenizer, config: dict | None = None, **files):
    """A folder; ``files`` by name with _ for the dot."""
    path.mkdir(exist_ok=True)
    (path / "tokenizer.json").write_text(library.to_str())
    if config is not None:
        (path / "tokenizer_config.json").write_text(json.dumps(config))
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        stem, _, suffix = name.rpartition("_")
        (path / f"{stem}.{suffix}").write_text(text)
    return path


def whole(library: Tokenizer, text: str) -> list[int]:
    """What transformers' encode(text, add_special_tokens=False) does."""
    return library.encode(text, add_special_tokens=False).ids


def control_ids(tokenizer: FolderTokenizer) -> set[int]:
    return {i for i in map(tokenizer.token, tokenizer.control_tokens) if i is not None}


def texts(tokenizer: FolderTokenizer) -> st.SearchStrategy[str]:
    """Texts of everything, with marks, broken marks and blanks more often than chance has them."""
    pieces = [
        *tokenizer.control_tokens,
        *(m[1:] for m in tokenizer.control_tokens),
        *(m[:-1] for m in tokenizer.control_tokens),
    ]
    pieces += [" ", "  ", "\n", "\n\n", "\t", "<h1>", "</h1>", "▁▁", "Nata", "lia", " clips", "7", "数学", "e\u0301"]
    return st.lists(st.one_of(st.sampled_from(pieces), st.text(max_size=6)), max_size=12).map("".join)


def free(tokenizer: FolderTokenizer) -> st.SearchStrategy[str]:
    """Texts in which there is no mark, nor what could become one."""
    return texts(tokenizer).map(lambda text: text.replace("<", "(").replace("[", "("))


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


def test_a_token_that_stands_alone_as_a_word_is_found_beside_every_character_as_by_the_library():
    ours, library = made("stripping")
    for code in (*range(0x20, 0x3000), *range(0xA000, 0xD7FF, 37), *range(0x1F100, 0x1F200)):
        if unicodedata.category(chr(code)) == "Cn":  # the library may know a newer Unicode
            continue
        text = f"a {chr(code)}<word> b"
        assert (ours.token("<word>") in ours.encode(text, specials=True)) == (
            library.token_to_id("<word>") in whole(library, text)
        ), hex(code)
