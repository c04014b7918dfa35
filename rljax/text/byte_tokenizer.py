"""A tokenizer with one id for each byte: it encodes every text, and needs no training.

``encode(decode(ids), specials=True) == ids`` for every sequence of ids that is valid UTF-8 between the special ids.
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from rljax.text.word_tokenizer import SPECIALS


@dataclasses.dataclass(frozen=True)
class ByteTokenizer:
    """One id for each UTF-8 byte; ids above 255 are special."""

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
    def begin_ids(self) -> tuple[int, ...]:
        return (self.bos,)

    @property
    def control_tokens(self) -> tuple[str, ...]:
        return SPECIALS

    @property
    def token_bytes(self) -> list[bytes]:
        """The bytes of each id; those of a special are its name."""
        return [*(bytes([i]) for i in range(256)), *(name.encode() for name in SPECIALS)]

    def encode(self, text: str, specials: bool = False) -> list[int]:
        if not specials:
            return list(text.encode())
        parts = re.split("(" + "|".join(SPECIALS) + ")", text)
        return [i for p in parts for i in ([256 + SPECIALS.index(p)] if p in SPECIALS else p.encode())]

    def encode_parts(self, parts: Sequence[tuple[str, bool]]) -> list[int]:
        """Bytes of the parts (text, trusted), one after the other. Specials are plain bytes in trusted parts too."""
        return self.encode("".join(text for text, _ in parts))

    def decode(self, ids: "Sequence[int] | np.ndarray") -> str:
        """The text. Bytes that are not UTF-8 become U+FFFD, specials appear by name, unknown ids are left out."""
        out, run = [], bytearray()
        for i in map(int, ids):
            if 0 <= i < 256:
                run.append(i)
                continue
            if 256 <= i < self.size:
                out.append(run.decode(errors="replace") + SPECIALS[i - 256])
                run = bytearray()
        return "".join(out) + run.decode(errors="replace")
