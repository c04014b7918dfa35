"""A tokenizer with one id for each word or number: the tokenizer of the small tasks.

``encode(decode(ids), specials=True) == ids`` for every sequence of ids below ``size``.
"""

import dataclasses
import difflib
import functools
import re
from collections.abc import Sequence

import numpy as np

from rljax.errors import UserError

SPECIALS = ("<pad>", "<bos>", "<eos>")
SYMBOL = re.compile(r"<\w+>|\w+|[^\w\s]")
TIGHT = re.compile(r" (?=[.,;?])|(?<=\$) ")  # no space before a full stop or comma, none after a dollar sign


@dataclasses.dataclass(frozen=True)
class SymbolTokenizer:
    """One id for each word, number and punctuation mark of a closed vocabulary; numbers 0 to ``numbers`` come first."""

    words: tuple[str, ...]
    numbers: int  # the largest number
    pad: int = 0
    bos: int = 1
    eos: int = 2

    @functools.cached_property
    def table(self) -> tuple[str, ...]:
        return (*SPECIALS, *map(str, range(self.numbers + 1)), *self.words)

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.table)}

    @property
    def size(self) -> int:
        return len(self.table)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return (self.eos,)

    @property
    def begin_ids(self) -> tuple[int, ...]:
        return (self.bos,)

    @property
    def control_tokens(self) -> tuple[str, ...]:
        return SPECIALS

    @property
    def zero(self) -> int:
        """Id of the number 0; the number n has id ``zero + n``."""
        return len(SPECIALS)

    def encode(self, text: str, specials: bool = False) -> list[int]:
        """Ids of a text made of known symbols. Raises UserError that names the first unknown symbol."""
        out = []
        for symbol in SYMBOL.findall(text):
            known = symbol in self.ids and (specials or symbol not in SPECIALS)
            if not known:
                near = [] if symbol.isdigit() else difflib.get_close_matches(symbol, self.words, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f": numbers go up to {self.numbers}"
                raise UserError(f"text: {symbol!r} is not in this task's vocabulary of {self.size} symbols{hint}")
            out.append(self.ids[symbol])
        return out

    def encode_parts(self, parts: Sequence[tuple[str, bool]]) -> list[int]:
        """Ids of the parts (text, trusted), one after the other. Specials are refused in trusted parts too."""
        return self.encode("".join(text for text, _ in parts))

    def decode(self, ids: "Sequence[int] | np.ndarray") -> str:
        """The symbols with spaces between them. Ids beyond the vocabulary are left out."""
        return TIGHT.sub("", " ".join(self.table[i] for i in ids if 0 <= i < self.size))
