"""One id a byte: every text can be read, and nothing need be learned first.

``encode(decode(ids), specials=True) == ids`` for every sequence of ids that is UTF-8 between the specials.
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from rljax.text.word_tokenizer import SPECIALS


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

    @property
    def begin(self) -> tuple[int, ...]:
        return (self.bos,)

    @property
    def marks(self) -> tuple[str, ...]:
        return SPECIALS

    def encode(self, text: str, specials: bool = False) -> list[int]:
        if not specials:
            return list(text.encode())
        parts = re.split("(" + "|".join(SPECIALS) + ")", text)
        return [i for p in parts for i in ([256 + SPECIALS.index(p)] if p in SPECIALS else p.encode())]

    def join(self, parts: Sequence[tuple[str, bool]]) -> list[int]:
        """Bytes of the parts (text, trusted), one after the other; specials are plain bytes in trusted ones too."""
        return self.encode("".join(text for text, _ in parts))

    def decode(self, ids: "Sequence[int] | np.ndarray") -> str:
        """The text; bytes that are not UTF-8 become U+FFFD, specials appear by name, ids beyond them are left out."""
        out, run = [], bytearray()
        for i in map(int, ids):
            if 0 <= i < 256:
                run.append(i)
                continue
            if 256 <= i < self.size:
                out.append(run.decode(errors="replace") + SPECIALS[i - 256])
                run = bytearray()
        return "".join(out) + run.decode(errors="replace")
