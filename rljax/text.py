"""Text to token ids and back: one symbol a word or number, or one a byte.

Both tokenizers share the fields that the rest of the code reads: ``size``, ``pad``, ``bos``, ``eos``, ``stop_ids``,
``encode`` and ``decode``. For symbols ``encode(decode(ids), specials=True) == ids`` for every sequence of ids; for bytes,
for every sequence that is UTF-8. Text from outside never turns into a special unless ``specials=True`` is said.
"""

import dataclasses
import difflib
import functools
import re

import numpy as np

from rljax.errors import UserError

SPECIALS = ("<pad>", "<bos>", "<eos>")
SYMBOL = re.compile(r"<\w+>|\w+|[^\w\s]")
TIGHT = re.compile(r" (?=[.,;?])|(?<=\$) ")  # no space before a stop, none after a dollar sign


@dataclasses.dataclass(frozen=True)
class SymbolTokenizer:
    """One id for each word, number and punctuation mark of a closed vocabulary; numbers 0..``numbers`` come first."""

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
    def zero(self) -> int:
        """Id of the number 0; the number n has id ``zero + n``."""
        return len(SPECIALS)

    def encode(self, text: str, specials: bool = False) -> list[int]:
        """Ids of a text made of known symbols. Raises UserError naming the first unknown one."""
        out = []
        for symbol in SYMBOL.findall(text):
            known = symbol in self.ids and (specials or symbol not in SPECIALS)
            if not known:
                near = [] if symbol.isdigit() else difflib.get_close_matches(symbol, self.words, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f": numbers go up to {self.numbers}"
                raise UserError(f"text: {symbol!r} is not in this task's vocabulary of {self.size} symbols{hint}")
            out.append(self.ids[symbol])
        return out

    def decode(self, ids: "list[int] | np.ndarray") -> str:
        return TIGHT.sub("", " ".join(self.table[i] for i in ids))


@dataclasses.dataclass(frozen=True)
class ByteTokenizer:
    """One id a UTF-8 byte; ids past 255 are specials."""

    pad: int = 256
    bos: int = 257
    eos: int = 258

    @property
    def size(self) -> int:
        return 256 + len(SPECIALS)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return (self.eos,)

    def encode(self, text: str, specials: bool = False) -> list[int]:
        if not specials:
            return list(text.encode())
        parts = re.split("(" + "|".join(SPECIALS) + ")", text)
        return [i for p in parts for i in ([256 + SPECIALS.index(p)] if p in SPECIALS else p.encode())]

    def decode(self, ids: "list[int] | np.ndarray") -> str:
        """The text; bytes that are not UTF-8 become U+FFFD, specials appear by name."""
        out, run = [], bytearray()
        for i in map(int, ids):
            if i < 256:
                run.append(i)
                continue
            out.append(run.decode(errors="replace") + SPECIALS[i - 256])
            run = bytearray()
        return "".join(out) + run.decode(errors="replace")


Tokenizer = SymbolTokenizer | ByteTokenizer


def pad_batch(rows: list[list[int]], width: int, pad: int, left: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ids as one array: (tokens [len(rows), width] int32, mask bool, True on real tokens).

    Raises UserError where a row is longer than ``width``: nothing is ever cut silently.
    """
    tokens = np.full((len(rows), width), pad, np.int32)
    mask = np.zeros((len(rows), width), bool)
    for n, row in enumerate(rows):
        if len(row) > width:
            raise UserError(f"text: row {n} has {len(row)} tokens, more than the {width} there is room for")
        where = slice(width - len(row), width) if left else slice(0, len(row))
        tokens[n, where], mask[n, where] = row, True
    return tokens, mask
