"""Open whichever kind of file a tensor is in."""

import contextlib
from pathlib import Path
from typing import Any

from rljax.pretrained import gguf_models, safetensors_files
from rljax.text.gguf_files import is_gguf


def open_file(file: Path) -> contextlib.AbstractContextManager[Any]:
    """The open file; ``get_slice(name)[slices]`` reads a part of a tensor. Raises UserError for a damaged file."""
    return gguf_models.open_file(file) if is_gguf(file) else safetensors_files.open_file(file)
