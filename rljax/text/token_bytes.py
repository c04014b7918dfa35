"""The bytes of every token of a Hugging Face vocabulary, as the decoder of tokenizer.json writes them.

The bytes of a response are those of its tokens, one after the other. ``decode`` shows the same text, with two exceptions. Some
tokenizers (Llama 2) leave out the space that begins a text; a response stands behind a prompt, so here the space counts. And
where the vocabulary has a token for each byte, a run of such tokens that is not UTF-8 is shown as U+FFFD throughout; here a
character in it counts.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer

from rljax.errors import UserError

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # a token of a vocabulary with byte fallback


def token_bytes(library: Tokenizer, size: int) -> list[bytes]:
    """The bytes of the ids below ``size``; b"" for an id that is no token. Control tokens are their names.

    Raises UserError for a decoder that writes a token in different ways, depending on its neighbours.
    """
    replaced, kind = read_decoder(library)
    letters = {letter: i for i, letter in enumerate(byte_letters())}
    out = [b""] * size
    for token, i in library.get_vocab(with_added_tokens=True).items():
        for old, new in replaced:
            token = token.replace(old, new)
        if i < size:
            out[i] = from_letters(token, letters) if kind == "ByteLevel" else from_text(token, kind == "ByteFallback")
    return out


def read_decoder(library: Tokenizer) -> tuple[list[tuple[str, str]], str]:
    """What is replaced in every token, [(old, new)], and whether a vocabulary is "ByteLevel" or has "ByteFallback"."""
    replaced, kind = [], ""
    for part in decoder_parts(library):
        match part:
            case {"type": "ByteLevel" | "ByteFallback"} if not kind:
                kind = part["type"]
            case {"type": "Replace", "pattern": {"String": old}, "content": new} if not kind:
                replaced.append((old, new))
            case {"type": "Metaspace", "replacement": old} if not kind:
                replaced.append((old, " "))
            case {"type": "Fuse"} | {"type": "Strip", "stop": 0}:
                pass  # of the whole text, not of a token
            case _:
                raise UserError(
                    f"stop strings: the decoder {part['type']} of this tokenizer writes a token in different ways, depending on its "
                    "neighbours: leave stop strings out, or use a byte-level or SentencePiece tokenizer"
                )
    return replaced, kind


def decoder_parts(library: Tokenizer) -> Iterator[dict[str, Any]]:
    """The steps of the decoder, as tokenizer.json has them."""
    about: Any = json.loads(library.decoder.__getstate__()) if library.decoder else {"type": "null"}
    yield from about["decoders"] if about["type"] == "Sequence" else [about]


def from_letters(token: str, letters: dict[str, int]) -> bytes:
    """The bytes of a token of a byte-level vocabulary. One with any other character, an added token, is its own text."""
    try:
        return bytes([letters[letter] for letter in token])
    except KeyError:
        return token.encode()


def from_text(token: str, fallback: bool) -> bytes:
    """The bytes of a token that is text; with ``fallback``, "<0x0A>" is the byte 10."""
    found = BYTE.fullmatch(token) if fallback else None
    return bytes([int(found[1], 16)]) if found else token.encode()


def byte_letters() -> list[str]:
    """The 256 characters that stand for the bytes in a byte-level vocabulary: printable ones for themselves (GPT-2)."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = [i for i in range(256) if i not in printable]
    return [chr(i) if i in printable else chr(256 + others.index(i)) for i in range(256)]
