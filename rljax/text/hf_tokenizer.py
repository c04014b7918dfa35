"""The tokenizer of a Hugging Face folder, with the fields that all tokenizers share."""

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken
from tokenizers import Tokenizer as Library

from rljax.errors import UserError
from rljax.text.control_tokens import ControlledTokenizer
from rljax.text.gguf_files import is_gguf
from rljax.text.gguf_tokenizer import gguf_tokenizer_files
from rljax.text.hub import resolve_folder
from rljax.text.token_bytes import token_bytes

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "config.json",
    "chat_template.jinja",
    "chat_template.json",
)
UNCONVERTED = ("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "merges.txt", "tekken.json")


def load_tokenizer(folder: str | Path) -> "FolderTokenizer":
    """The tokenizer of a folder, a hub name or a GGUF file. Raises UserError where tokenizer.json is missing, or a file is damaged."""
    path = resolve_folder(folder)
    if is_gguf(path):
        files = tuple(gguf_tokenizer_files(path).items())
    else:
        files = tuple((name, _read(path / name)) for name in FILES if (path / name).is_file())
    if "tokenizer.json" not in dict(files):
        old = next((name for name in UNCONVERTED if (path / name).is_file()), None)
        hint = f", only {old}: convert it, transformers' AutoTokenizer loads it and save_pretrained writes one"
        raise UserError(f"tokenizer: {path} has no tokenizer.json{hint if old else ''}")
    tokenizer = FolderTokenizer(files, str(path))
    for field in ("bos", "eos", "pad", "stop_ids", "begin_ids"):
        getattr(tokenizer, field)  # raises for damaged files now, not later
    return tokenizer


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()  # exact: newlines stay as they are
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"tokenizer: cannot read {path}: {e}") from None


@dataclasses.dataclass(frozen=True)
class FolderTokenizer:
    """A tokenizer that consists of the texts of a folder's files, so that it pickles, hashes and compares.

    ``load_tokenizer`` makes one. The rest is built at first use, and raises UserError where a file is damaged.
    """

    files: tuple[tuple[str, str], ...] = dataclasses.field(repr=False)  # (name, text), the exact texts
    folder: str = dataclasses.field(default="", compare=False)  # where the files were, for messages

    def __reduce__(self):
        return FolderTokenizer, (self.files, self.folder)  # without what was built from the files

    # Texts to ids and back

    def encode(self, text: str, specials: bool = False) -> list[int]:
        return self._core.encode_parts([(text, specials)])

    def encode_parts(self, parts: Sequence[tuple[str, bool]]) -> list[int]:
        """Ids of the parts (text, trusted), one after the other; control tokens come from trusted parts only."""
        return self._core.encode_parts(parts)

    def decode(self, ids: "Sequence[int] | np.ndarray") -> str:
        """The text; bytes that are not UTF-8 become U+FFFD, control tokens appear by name, ids beyond are left out."""
        return self._core.decode(ids)

    @property
    def token_bytes(self) -> list[bytes]:
        """The bytes of each id. Raises UserError where they depend on the neighbours of a token."""
        return token_bytes(self._core.library, self.size)

    # Tokens by their role

    @property
    def size(self) -> int:
        return self._core.size

    @functools.cached_property
    def bos(self) -> int | None:
        return self._id("bos_token")

    @functools.cached_property
    def eos(self) -> int:
        """Raises UserError where no file names one."""
        i = next(iter(self._ends), None) if self._id("eos_token") is None else self._id("eos_token")
        if i is None:
            raise UserError(
                f"tokenizer: {self.folder} names no token that ends a text: set eos_token in tokenizer_config.json"
            )
        return i

    @functools.cached_property
    def pad(self) -> int:
        i = self._id("pad_token")
        return self.eos if i is None else i

    @functools.cached_property
    def stop_ids(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys([*self._ends, self.eos]))

    @functools.cached_property
    def begin_ids(self) -> tuple[int, ...]:
        """Ids that begin every text, by tokenizer.json or by ``add_bos_token`` of tokenizer_config.json."""
        begin = self._core.begin_ids()
        return (self.bos,) if not begin and self.bos is not None and self._config.get("add_bos_token") else begin

    @property
    def bos_token(self) -> str:
        return self._text("bos_token")

    @property
    def eos_token(self) -> str:
        return self._text("eos_token") or self._core.library.id_to_token(self.eos) or ""

    @property
    def control_tokens(self) -> tuple[str, ...]:
        return tuple(self._core.controls)

    def token(self, text: str) -> int | None:
        """Id of a control token by its text."""
        return self._core.controls[text][0] if text in self._core.controls else None

    @functools.cached_property
    def chat_template(self) -> str | None:
        """The text of chat_template.jinja, or of tokenizer_config.json or chat_template.json; the default one of several."""
        if "chat_template.jinja" in dict(self.files):
            return dict(self.files)["chat_template.jinja"]
        found = self._config.get("chat_template") or self._json("chat_template.json").get("chat_template")
        if isinstance(found, list):
            found = next((t.get("template") for t in found if t.get("name") == "default"), None)
        return found or None

    # The contents of the files

    @functools.cached_property
    def _config(self) -> dict[str, Any]:
        return self._json("tokenizer_config.json")

    @functools.cached_property
    def _names(self) -> dict[str, Any]:
        """The named tokens of special_tokens_map.json and tokenizer_config.json: {"eos_token": ...} and so on."""
        return {**self._json("special_tokens_map.json"), **self._config}

    @functools.cached_property
    def _ends(self) -> tuple[int, ...]:
        """Ids that end a response: those of generation_config.json, or else of config.json."""
        for name in ("generation_config.json", "config.json"):
            found = self._json(name).get("eos_token_id")
            ends = found if isinstance(found, list) else [] if found is None else [found]
            if any(type(i) is not int for i in ends):
                raise UserError(f"tokenizer: {self.folder}/{name} is damaged: eos_token_id={found!r}")
            if ends:
                return tuple(ends)
        return ()

    def _json(self, name: str) -> dict[str, Any]:
        """The contents of a file of the folder; {} where it is missing. Raises UserError where it is no JSON object."""
        try:
            found = json.loads(dict(self.files).get(name, "{}"))
        except (ValueError, RecursionError) as e:
            raise UserError(f"tokenizer: {self.folder}/{name} is damaged: {e}") from None
        if not isinstance(found, dict):
            raise UserError(f"tokenizer: {self.folder}/{name} is damaged: it is no JSON object")
        return found

    def _text(self, key: str) -> str:
        """The text of a named token; "" where no file names it."""
        return self._added(self._names[key]).content if self._names.get(key) else ""

    def _id(self, key: str) -> int | None:
        return self._core.library.token_to_id(self._text(key)) if self._text(key) else None

    def _named(self) -> Iterator[AddedToken]:
        """Every token that a file makes special by naming it."""
        for key, value in self._names.items():
            if key.endswith("_token") and value and isinstance(value, str | dict):  # add_bos_token is a bool
                yield self._added(value)
        for key in ("additional_special_tokens", "extra_special_tokens"):
            more = self._names.get(key) or []
            yield from map(self._added, more.values() if isinstance(more, dict) else more)

    def _added(self, spec: Any) -> AddedToken:
        """The token of an entry in the files: its text, which makes it special, or a dict with its text as "content"."""
        if isinstance(spec, str):
            return AddedToken(spec, special=True, normalized=False)
        try:
            flags = {name: spec[name] for name in ("single_word", "lstrip", "rstrip", "normalized") if name in spec}
            return AddedToken(spec["content"], special=spec.get("special", True), **flags)
        except (AttributeError, KeyError, TypeError):
            where = "tokenizer_config.json or special_tokens_map.json"
            raise UserError(f"tokenizer: {self.folder}/{where} is damaged: {spec!r} is no token") from None

    @functools.cached_property
    def _core(self) -> ControlledTokenizer:
        try:
            library = Library.from_str(dict(self.files)["tokenizer.json"])
        except Exception as e:  # the library raises plain Exceptions
            raise UserError(f"tokenizer: {self.folder}/tokenizer.json is damaged: {' '.join(str(e).split())}") from None
        library.no_truncation()
        library.no_padding()
        # As in transformers: tokenizer_config.json overrides tokenizer.json on added tokens.
        slots = self._config.get("added_tokens_decoder") or {}
        library.add_tokens(
            [self._added(slots[i]) for i in sorted(slots, key=lambda i: (len(i), i))]
        )  # in numeric order
        # As in transformers: every named token is added, whether it was in the vocabulary or not.
        known = {t.content for t in library.get_added_tokens_decoder().values()}
        named = {t.content: t for t in self._named()}
        library.add_tokens([t for text, t in named.items() if text not in known])
        vital = map(self._text, ("bos_token", "eos_token", "pad_token"))
        return ControlledTokenizer(library, named, [*vital], self.chat_template or "")
