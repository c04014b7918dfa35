"""Stop strings: texts that end a response where they are completed, also across the borders of tokens.

All stop strings of a tokenizer are one automaton over letters (Aho and Corasick, 1975). A letter is a byte; for a tokenizer
of words it is a whole word, so that "so" is not found in "some". A state is what was read of stop strings so far: 0 nothing,
the last one a whole stop string, wherever inside a token it ends, and that state is never left. The automaton is compiled
to a table of states by tokens, so that the sampler looks up one number a token.

A stop string must be in the response alone: one that begins in the prompt is not found. Control tokens are read by their
names, as ``decode`` shows them.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from rljax.errors import UserError
from rljax.options import format_value
from rljax.text.byte_tokenizer import ByteTokenizer
from rljax.text.hf_tokenizer import FolderTokenizer
from rljax.text.word_tokenizer import SymbolTokenizer

MAX_LETTERS = 255  # of all stop strings together: a state is a uint8


def find_stop_strings(
    tokenizer: SymbolTokenizer | ByteTokenizer | FolderTokenizer, strings: Sequence[str]
) -> "StopStrings | None":
    """The stop strings of a tokenizer, compiled once; None where there are none. Raises UserError for what is no stop string."""
    check_stop_strings(strings)
    return compile_stop_strings(tokenizer, tuple(strings)) if strings else None


def check_stop_strings(strings: Sequence[str]) -> None:
    """Raise UserError for what is no tuple of texts, or has no bytes."""
    if not isinstance(strings, tuple | list) or not all(isinstance(text, str) and text for text in strings):
        raise UserError(
            f"stop_strings={format_value(strings)}: must be a tuple of texts, such as ('\\n\\n',), none of them empty"
        )
    for text in strings:
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UserError(
                f"stop_strings={format_value(strings)}: {format_value(text)} has half a character, which no response can hold"
            )


@functools.lru_cache(maxsize=16)
def compile_stop_strings(
    tokenizer: SymbolTokenizer | ByteTokenizer | FolderTokenizer, strings: tuple[str, ...]
) -> "StopStrings":
    """The stop strings with their table."""
    found = StopStrings(tokenizer, strings)
    if not all(found.patterns):
        raise UserError(
            f"stop_strings={format_value(strings)}: {strings[found.patterns.index('')]!r} has no word of this vocabulary"
        )
    if (letters := sum(map(len, found.patterns))) > MAX_LETTERS:
        raise UserError(f"stop_strings={format_value(strings)}: {letters} letters, at most {MAX_LETTERS} in all")
    _ = found.table
    return found


@dataclasses.dataclass(frozen=True)
class StopStrings:
    """Stop strings of one tokenizer; ``find_stop_strings`` makes them. The rest is made at first use."""

    tokenizer: SymbolTokenizer | ByteTokenizer | FolderTokenizer
    strings: tuple[str, ...]

    @functools.cached_property
    def patterns(self) -> tuple[str, ...]:
        """Each stop string in letters: characters whose numbers are bytes, or ids of words."""
        if not isinstance(self.tokenizer, SymbolTokenizer):
            return tuple(text.encode().decode("latin-1") for text in self.strings)
        try:
            return tuple("".join(map(chr, self.tokenizer.encode(text, specials=True))) for text in self.strings)
        except UserError as e:
            raise UserError(f"stop_strings={format_value(self.strings)}: {e}") from None

    @functools.cached_property
    def spelled(self) -> tuple[str, ...]:
        """Each token of the vocabulary in letters."""
        if isinstance(self.tokenizer, SymbolTokenizer):
            return tuple(map(chr, range(self.tokenizer.size)))
        return tuple(token.decode("latin-1") for token in self.tokenizer.token_bytes)

    @functools.cached_property
    def table(self) -> np.ndarray:
        """[S, V] uint8: the state after a token, for each state before it. State 0 is the start, state S - 1 has stopped."""
        used = sorted(set("".join(self.patterns)))
        moves = automaton_moves(automaton_states(self.patterns), self.patterns, used)
        return read_tokens(moves, used, self.spelled)

    def find_end(self, ids: Sequence[int] | np.ndarray) -> int | None:
        """The number of ids up to the one that completes a stop string; None where none does."""
        state, (stopped, size) = 0, (len(self.table) - 1, self.table.shape[1])
        for n, i in enumerate(map(int, ids)):
            state = self.table[state, i] if i < size else state
            if state == stopped:
                return n + 1
        return None

    def spell(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """Each of the ids in letters."""
        return [self.spelled[i] if i < len(self.spelled) else "" for i in map(int, ids)]

    def locate(self, letters: Sequence[str]) -> tuple[int, int, int] | None:
        """(place of the stop string in ``strings``, its first letter, the letter behind it); the letters of all tokens count as one text.

        It is the first one that the last token completes, and of several that end there the longest; None where there is none.
        """
        text = "".join(letters)
        for stop in range(len(text) - len(letters[-1]) + 1 if letters else 1, len(text) + 1):
            found = [n for n, p in enumerate(self.patterns) if text.endswith(p, 0, stop)]
            if found:
                longest = max(found, key=lambda n: len(self.patterns[n]))
                return longest, stop - len(self.patterns[longest]), stop
        return None

    def count_overhang(self, ids: Sequence[int] | np.ndarray) -> int | None:
        """Characters of the last id's text behind the stop string that it completes; None where it completes none."""
        letters = self.spell(ids)
        found = self.locate(letters)
        if found is None:
            return None
        tail = "".join(letters)[found[2] :]
        return len(tail.encode("latin-1").decode(errors="replace"))  # of words there is no tail

    def count_before(self, ids: Sequence[int] | np.ndarray) -> tuple[int, str] | None:
        """(number of ids before the stop string that the last id completes, the beginning of its first token if that is none of it).

        None where the last id completes none.
        """
        letters = self.spell(ids)
        found = self.locate(letters)
        if found is None:
            return None
        ends = np.cumsum([len(token) for token in letters])
        count = int(np.searchsorted(ends, found[1], "right"))
        rest = "".join(letters)[int(ends[count - 1]) if count else 0 : found[1]]
        return count, rest.encode("latin-1").decode(errors="replace") if rest else ""


def automaton_states(patterns: Sequence[str]) -> list[str]:
    """What may have been read of the patterns without one being complete: their beginnings, "" first."""
    beginnings = {pattern[:count] for pattern in patterns for count in range(len(pattern))}
    return sorted((b for b in beginnings if not any(p in b for p in patterns)), key=lambda b: (len(b), b))


def automaton_moves(states: Sequence[str], patterns: Sequence[str], used: Sequence[str]) -> np.ndarray:
    """[S, L + 1] uint8: the state after each of the L letters ``used``, and after any other one; state S - 1 has stopped."""
    number, stopped = {text: n for n, text in enumerate(states)}, len(states)
    moves = np.zeros((stopped + 1, len(used) + 1), np.uint8)
    moves[stopped] = stopped
    for n, before in enumerate(states):
        for k, letter in enumerate(used):
            text = before + letter
            ended = any(text.endswith(p) for p in patterns)
            ends = (
                number[text[cut:]] for cut in range(len(text) + 1) if text[cut:] in number
            )  # the longest comes first
            moves[n, k] = stopped if ended else next(ends)
    return moves


def read_tokens(moves: np.ndarray, used: Sequence[str], spelled: tuple[str, ...]) -> np.ndarray:
    """[S, V] uint8: the state after all letters of each token. A token without letters changes nothing."""
    count = len(moves)
    order = np.asarray(sorted(range(len(spelled)), key=lambda i: -len(spelled[i])), np.int64)
    lengths = np.asarray([len(spelled[i]) for i in order], np.int64)
    letters = np.frombuffer("".join(spelled[i] for i in order).encode("utf-32-le", "surrogatepass"), "<u4")
    class_of = np.full(max(int(letters.max(initial=0)), *map(ord, used)) + 1, len(used), np.uint8)
    class_of[[ord(letter) for letter in used]] = np.arange(len(used))
    classes, starts = class_of[letters], np.cumsum(lengths) - lengths
    states = np.repeat(np.arange(count, dtype=np.uint8)[:, None], len(order), 1)
    for column in range(int(lengths.max(initial=0))):
        longer = int(np.searchsorted(-lengths, -column))  # tokens that have this letter: the first ones
        states[:, :longer] = moves[states[:, :longer], classes[starts[:longer] + column]]
    table = np.empty_like(states)
    table[:, order] = states
    return table
