"""Safetensors files: tensors as views of a mapped file, and files written tensor by tensor.

A file is eight bytes with the length of a JSON header, the header (name -> dtype, shape, place), and the bytes. Nothing is
copied by reading: a view costs memory only where it is looked at.
"""

import json
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from rljax.errors import UserError

DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}
CODES = {dtype: code for code, dtype in DTYPES.items()}
LONGEST_HEADER = 100_000_000  # bytes, the format's own limit


class Place(NamedTuple):
    """Where a tensor lies."""

    file: Path
    dtype: str  # the format's code
    shape: tuple[int, ...]
    start: int  # byte of the file

    def view(self) -> np.ndarray:
        """The tensor, read-only, as a view of the file. Raises UserError for a dtype that is not a float of 16 or 32 bits."""
        if self.dtype not in DTYPES:
            raise UserError(
                f"{self.file}: a tensor of type {self.dtype}; only F32, F16 and BF16 can be read. Quantised weights must be "
                "converted to one of these first"
            )
        if 0 in self.shape or self.shape == ():
            return np.fromfile(self.file, DTYPES[self.dtype], 1 if self.shape == () else 0, offset=self.start).reshape(
                self.shape
            )
        return np.memmap(self.file, DTYPES[self.dtype], "r", self.start, self.shape)


def places(file: Path) -> dict[str, Place]:
    """The tensors of a file, from its header. Raises UserError for a file that is cut off, damaged or of another kind."""
    try:
        size = file.stat().st_size
        with file.open("rb") as f:
            first = f.read(8)
            length = struct.unpack("<Q", first)[0] if len(first) == 8 else LONGEST_HEADER + 1
            if length > min(LONGEST_HEADER, size - 8):
                raise UserError(f"{file} is cut off, or no safetensors file: fetch it again")
            header: dict[str, Any] = json.loads(f.read(length))
    except OSError as e:
        raise UserError(f"cannot read {file}: {e.strerror}") from None
    except ValueError:
        raise UserError(f"{file}: its header is damaged, or it is no safetensors file: fetch it again") from None
    out = {}
    for name, about in header.items():
        if name == "__metadata__":
            continue
        try:
            begin, end = about["data_offsets"]
            place = Place(file, about["dtype"], tuple(about["shape"]), 8 + length + begin)
            held = end - begin
            wanted = (
                int(np.prod(place.shape, dtype=np.int64)) * DTYPES[place.dtype].itemsize
                if place.dtype in DTYPES
                else held
            )
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{file}: the header's entry of {name} is damaged: fetch it again") from None
        if 8 + length + end > size:
            raise UserError(f"{file} is cut off within {name}: it has {size:,} bytes, of at least {8 + length + end:,}")
        if begin < 0 or held != wanted:
            raise UserError(f"{file}: {name} of shape {list(place.shape)} cannot lie in {held:,} bytes: fetch it again")
        out[name] = place
    return out


def write(file: Path, tensors: Mapping[str, tuple[np.dtype, tuple[int, ...]]], of: Callable[[str], np.ndarray]) -> None:
    """Write tensors, described by dtype and shape, asking ``of`` for one at a time.

    Wide types come first, so that each tensor is aligned, as other writers do it.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name][0].itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        dtype, shape = tensors[name]
        begin, end = end, end + nbytes([tensors[name]])
        header[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            x = of(name)
            assert (x.dtype, x.shape) == tensors[name], f"{name}: {x.dtype} {x.shape}, announced as {tensors[name]}"
            f.write(np.ascontiguousarray(x).tobytes())


def nbytes(described: Iterable[tuple[np.dtype, tuple[int, ...]]]) -> int:
    return sum(dtype.itemsize * int(np.prod(shape, dtype=np.int64)) for dtype, shape in described)
