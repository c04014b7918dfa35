"""Tokenizers there and back, and padding that never cuts."""

import numpy as np
import pytest

from rljax import tasks
from rljax.errors import UserError
from rljax.text import SPECIALS, ByteTokenizer, SymbolTokenizer, pad_batch, prompt_ids

SYMBOLS = SymbolTokenizer(("apple", "orange", "$", ".", ",", "?", "+", "-", "*", "/", "="), numbers=12)
BYTES = ByteTokenizer()
TEXTS = ("plain", "naïve café", "数学 2 + 2", "👩‍🚀 lifts off 🚀", "", " two  spaces\n\ttab ", "\x00")


@pytest.mark.parametrize("name", [None, "shop", "fruit", "cups", "countdown"])
def test_random_symbols_survive_decoding_and_encoding(name):
    tokenizer = SYMBOLS if name is None else tasks.make_task(name).tokenizer
    rng = np.random.default_rng(0)
    for _ in range(300):
        ids = rng.integers(tokenizer.size, size=rng.integers(12)).tolist()
        assert tokenizer.encode(tokenizer.decode(ids), specials=True) == ids


def test_every_pair_of_symbols_survives_decoding_and_encoding():
    for a in range(SYMBOLS.size):
        for b in range(SYMBOLS.size):
            assert SYMBOLS.encode(SYMBOLS.decode([a, b]), specials=True) == [a, b]


def test_symbols_are_written_without_spaces_before_stops_and_after_dollars():
    text = "apple, 3 + 4 = 7. orange $5?"
    assert SYMBOLS.decode(SYMBOLS.encode(text)) == text


def test_the_number_n_has_id_zero_plus_n():
    assert [SYMBOLS.table[SYMBOLS.zero + n] for n in range(13)] == [str(n) for n in range(13)]
    assert SYMBOLS.encode("0 7 12") == [SYMBOLS.zero, SYMBOLS.zero + 7, SYMBOLS.zero + 12]


@pytest.mark.parametrize("tokenizer", [SYMBOLS, BYTES], ids=["symbols", "bytes"])
def test_ids_are_distinct_and_within_the_size(tokenizer):
    assert len({tokenizer.pad, tokenizer.bos, tokenizer.eos}) == 3
    assert max(tokenizer.pad, tokenizer.bos, tokenizer.eos) < tokenizer.size
    assert tokenizer.stop_ids == (tokenizer.eos,)
    for name, i in zip(SPECIALS, (tokenizer.pad, tokenizer.bos, tokenizer.eos), strict=True):
        assert tokenizer.decode([i]) == name


def test_specials_in_foreign_text_are_refused_by_the_symbol_tokenizer():
    for special in SPECIALS:
        with pytest.raises(UserError, match=special):
            SYMBOLS.encode(f"apple {special}")
        assert SYMBOLS.encode(f"apple {special}", specials=True)[-1] == SPECIALS.index(special)


def test_specials_in_foreign_text_are_plain_bytes_to_the_byte_tokenizer():
    for special in SPECIALS:
        assert max(BYTES.encode(f"a{special}b")) < 256
        assert BYTES.decode(BYTES.encode(f"a{special}b")) == f"a{special}b"


def test_an_unknown_symbol_is_named_with_its_nearest_neighbour():
    with pytest.raises(UserError, match=r"'oragne'.*did you mean 'orange'"):
        SYMBOLS.encode("apple oragne")


def test_a_number_too_large_is_named_with_the_limit():
    with pytest.raises(UserError, match=r"'99'.*numbers go up to 12"):
        SYMBOLS.encode("3 + 99")


def test_text_survives_bytes():
    for text in TEXTS:
        ids = BYTES.encode(text)
        assert BYTES.decode(ids) == text
        assert ids == list(text.encode())


def test_specials_between_bytes_survive_decoding_and_encoding():
    for text in TEXTS:
        ids = [BYTES.bos, *BYTES.encode(text), BYTES.eos, BYTES.pad, BYTES.pad]
        assert BYTES.encode(BYTES.decode(ids), specials=True) == ids


def test_a_special_never_joins_the_bytes_on_its_two_sides():
    rocket = BYTES.encode("🚀")
    assert BYTES.decode([*rocket[:2], BYTES.eos, *rocket[2:]]).count("🚀") == 0


def test_broken_utf8_becomes_the_replacement_character():
    assert BYTES.decode([65, 0xFF, 66]) == "A\ufffdB"


@pytest.mark.parametrize("tokenizer", [SYMBOLS, BYTES], ids=["symbols", "bytes"])
def test_a_prompt_is_bos_and_its_parts_one_after_the_other(tokenizer):
    assert tokenizer.begin_ids == (tokenizer.bos,) and tokenizer.control_tokens == SPECIALS
    parts = [("apple + ", True), ("3 ", False), ("= 12", True)]
    assert tokenizer.encode_parts(parts) == tokenizer.encode("apple + 3 = 12")
    assert prompt_ids(tokenizer, parts) == [tokenizer.bos, *tokenizer.encode("apple + 3 = 12")]
    assert prompt_ids(tokenizer, []) == [tokenizer.bos]


def test_specials_in_the_parts_of_a_prompt_are_bytes_or_refused_trusted_or_not():
    for trusted in (True, False):
        parts = [("a", False), ("<eos>", trusted)]
        assert BYTES.encode_parts(parts) == list(b"a<eos>")
        assert prompt_ids(BYTES, [("<bos>a", trusted)]) == [BYTES.bos, *b"<bos>a"]
        with pytest.raises(UserError, match="<eos>"):
            SYMBOLS.encode_parts([("apple", False), ("<eos>", trusted)])


@pytest.mark.parametrize("tokenizer", [SYMBOLS, BYTES], ids=["symbols", "bytes"])
def test_ids_beyond_the_vocabulary_are_left_out_of_the_text(tokenizer):
    ids = tokenizer.encode("apple 3")
    assert tokenizer.decode([tokenizer.size, *ids, -1, 10**6]) == "apple 3"
    assert tokenizer.decode(np.asarray([*ids, tokenizer.size])) == "apple 3"


def test_pad_batch_pads_on_the_right_unless_told_left():
    rows = [[5, 6], [7], [], [8, 9, 10]]
    tokens, mask = pad_batch(rows, 3, pad=1)
    assert tokens.tolist() == [[5, 6, 1], [7, 1, 1], [1, 1, 1], [8, 9, 10]]
    assert mask.tolist() == [[True, True, False], [True, False, False], [False] * 3, [True] * 3]
    tokens, mask = pad_batch(rows, 3, pad=1, left=True)
    assert tokens.tolist() == [[1, 5, 6], [1, 1, 7], [1, 1, 1], [8, 9, 10]]
    assert mask.tolist() == [[False, True, True], [False, False, True], [False] * 3, [True] * 3]
    assert tokens.dtype == np.int32 and mask.dtype == bool


def test_a_real_token_equal_to_the_pad_id_is_real():
    _, mask = pad_batch([[0, 0]], 3, pad=0)
    assert mask.tolist() == [[True, True, False]]


def test_pad_batch_names_the_row_that_is_too_long():
    with pytest.raises(UserError, match="row 1 has 4 tokens"):
        pad_batch([[1], [1, 2, 3, 4]], 3, pad=0)
