"""Packed sequences: prompts and their responses one behind the other in rows of one width, so that no padding is computed.

A sequence may hold the prompts of several groups, and behind each prompt all responses to it, or some of them. A prompt is
computed once for all responses that share it: its gradient is the sum over them.

    column     0  1  2  3  4  5  6  7  8  9
    prompt     4  4  4  4  4  4  7  7  7 -1
    response  -1 -1  0  0  1  1 -1 -1  2 -1    two responses of two tokens behind one prompt, one of one token behind another
    position   0  1  2  3  2  3  0  1  2  0
"""

from typing import NamedTuple

from rljax.transformer.config import Array

Segments = tuple[Array, Array]  # prompt and response of each column, [K, W] int32 each


class PackedSequences(NamedTuple):
    """K sequences of W columns, and the tokens that are predicted in each, in the order of their columns."""

    tokens: Array  # [K, W] int32
    positions: Array  # [K, W] int32: a response counts on from its prompt
    prompt: Array  # [K, W] int32: the number of the prompt that the column belongs to; -1 where the column is empty
    response: Array  # [K, W] int32: the number of the response that the column belongs to; -1 in a prompt
    count: Array  # [K] int32: tokens that are predicted
    source: (
        Array  # [K, W] int32: the column whose output predicts token j of them; the last of a prompt predicts several
    )
    target: Array  # [K, W] int32: the token
    row: Array  # [K, W] int32: the place of its row among those of the sequence; beyond all of them where j >= count
    place: Array  # [K, W] int32: its column in that row

    @property
    def segments(self) -> Segments:
        """What decides which columns a column may attend to."""
        return self.prompt, self.response


def may_attend(query: Segments, key: Segments) -> Array:
    """Whether a query's column may attend to a key's, if that is not behind it: its own prompt or its own response."""
    return (query[0] == key[0]) & ((key[1] < 0) | (key[1] == query[1]))
