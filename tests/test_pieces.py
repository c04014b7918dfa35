"""Text that comes token by token adds up to the text of all tokens."""

import pytest

from rljax.serving.pieces import TextStream, held_back, split_pieces
from rljax.text import ByteTokenizer, SymbolTokenizer
from tests import tiny_folder

WORDS = SymbolTokenizer(("costs", "$", ",", ".", "and"), numbers=20)


@pytest.mark.parametrize(
    ("tokenizer", "text"),
    [
        (ByteTokenizer(), "naïve 試 🙂 end"),
        (WORDS, "costs $ 5, and 6."),
        (tiny_folder.tokenizer(), "Ann has 12 clips 試 🙂 and gets 25"),
    ],
    ids=["bytes", "words", "folder"],
)
def test_the_pieces_of_a_text_add_up_to_it(tokenizer, text):
    ids = tokenizer.encode(text)
    pieces = split_pieces(tokenizer, ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == tokenizer.decode(ids)


def test_no_piece_ends_within_a_character():
    stream = TextStream(ByteTokenizer())
    pieces = [stream.add(byte) for byte in "a試b".encode()]
    assert pieces == ["a", "", "", "試", "b"]


def test_bytes_that_are_no_text_do_not_hold_back_what_follows():
    pieces = split_pieces(ByteTokenizer(), [*b"\xff" * 12, *b"after"])
    assert "".join(pieces) == "\ufffd" * 12 + "after"


@pytest.mark.parametrize(("text", "count"), [("a\n", 1), ("a\n\n"[:2], 1), ("Quest", 5), ("Question", 8), ("none", 0)])
def test_what_may_become_a_stop_string_is_held_back(text, count):
    assert held_back(text, ["\n\n", "Question:"]) == count
