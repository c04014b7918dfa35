"""Safetensors files: what is in them, and one clear line for a file that is damaged.

The ``safetensors`` package maps a file into memory and copies only the slice that is asked for.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from rljax.errors import UserError

DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}


class StoredTensor(NamedTuple):
    """A tensor in a file."""

    file: Path
    code: str  # the format's name of its dtype
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        """Its dtype. Raises UserError for anything but a float of 16 or 32 bits."""
        if self.code not in DTYPES:
            raise UserError(
                f"{self.file}: a tensor of type {self.code}; only F32, F16 and BF16 can be read. Convert quantised weights to "
                "one of these first"
            )
        return DTYPES[self.code]


@contextlib.contextmanager
def open_file(file: Path) -> Iterator[Any]:
    """The open file; ``get_slice(name)[slices]`` reads a part of a tensor. Raises UserError for a damaged file."""
    try:
        with safe_open(file, "numpy") as opened:
            yield opened
    except SafetensorError as e:
        raise UserError(f"{file} is cut off, damaged or no safetensors file ({e}): download it again") from None
    except OSError as e:
        raise UserError(f"cannot read {file}: {e.strerror or e}") from None


def list_tensors(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a file by name. Raises UserError for a file that is cut off, damaged or of another kind."""
    with open_file(file) as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}
        return {name: StoredTensor(file, s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()}
