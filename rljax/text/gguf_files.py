"""GGUF files, the models of llama.cpp: their fields and tensors, by the package ``gguf``.

One file holds a whole model: its architecture, its tensors, which may be quantised, and its tokenizer. The package is optional.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rljax.errors import UserError

INSTALL = "pip install 'rljax[gguf]'"


class StoredMatrix(NamedTuple):
    """A tensor as the file holds it."""

    kind: str  # the format's name of how its numbers are stored: F32, Q8_0, ...
    shape: tuple[int, ...]  # rows first
    data: np.ndarray  # a view of the mapped file: [rows, bytes of a row] where the numbers are in blocks, else numbers


class GGUF(NamedTuple):
    """What a file holds."""

    path: Path
    fields: dict[str, Any]  # by the format's names
    tensors: dict[str, StoredMatrix]

    def __call__(self, name: str, *default: Any) -> Any:
        """The field, or the default. Raises UserError for a missing field without a default."""
        if name not in self.fields and not default:
            raise UserError(f"{self.path}: the field {name} is missing")
        return self.fields.get(name, *default)


def is_gguf(path: str | Path) -> bool:
    """Whether a path names a GGUF file, by its ending."""
    return Path(path).suffix.lower() == ".gguf"


def open_gguf(path: str | Path) -> GGUF:
    """The contents of a file; its tensors stay in the file. The last one that was opened is kept.

    Raises UserError where the package is missing, and for a damaged file or one part of several.
    """
    path = Path(path).expanduser()
    try:
        found = path.stat()
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror}") from None
    return _open(path, found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=1)  # the library reads every token of the vocabulary by itself: seconds for a large one
def _open(path: Path, modified: int, size: int) -> GGUF:
    try:
        from gguf import GGUFReader
    except ImportError:
        raise UserError(f"{path}: reading a GGUF file needs the package gguf: {INSTALL}") from None
    try:
        reader = GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {
            t.name: StoredMatrix(t.tensor_type.name, tuple(int(n) for n in reversed(t.shape)), t.data)
            for t in reader.tensors
        }
    except Exception as e:  # the library trusts the numbers in the file: it raises many kinds
        raise UserError(
            f"{path} is cut off, damaged or no GGUF file ({type(e).__name__}: {' '.join(str(e).split())}): download it again"
        ) from None
    if fields.get("split.count", 0) > 1:
        raise UserError(
            f"{path} is one of {fields['split.count']} parts of a model: put them together with llama.cpp's "
            "llama-gguf-split --merge"
        )
    return GGUF(path, fields, tensors)


def widen(matrix: StoredMatrix, rows: slice | np.ndarray) -> np.ndarray:
    """Some rows of a tensor as float32 numbers. Raises NotImplementedError for a kind that the package cannot widen."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType[matrix.kind]
    if len(matrix.shape) < 2:  # in a vector the rows are the numbers, and a block holds several
        return dequantize(np.asarray(matrix.data), kind)[rows]
    return dequantize(np.ascontiguousarray(matrix.data[rows]), kind)
