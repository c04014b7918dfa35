"""Checkpoint folders by hand, so that what reads them is not tested with its own writer (numpy only)."""

import json
from pathlib import Path
from typing import Any

import numpy as np

Tensors = dict[str, np.ndarray]


def write(folder: Path, config: dict[str, Any], tensors: Tensors) -> Path:
    """A folder with config.json and the float32 ``tensors`` in model.safetensors: 8 bytes, a JSON header, the data."""
    header, end = {}, 0
    for name, x in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": [end, end + 4 * x.size]}
        end += 4 * x.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join(x.astype("<f4").tobytes() for x in tensors.values())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder


def read(folder: Path) -> tuple[Tensors, dict[str, str]]:
    """Every tensor of every .safetensors file in ``folder``, as float32, and the type it is stored in."""
    tensors, dtypes = {}, {}
    for path in sorted(folder.glob("*.safetensors")):
        raw = path.read_bytes()
        start = 8 + int.from_bytes(raw[:8], "little")
        for name, entry in json.loads(raw[8:start]).items():
            if name == "__metadata__":
                continue
            assert name not in tensors, f"{name} is in two files"
            data = raw[start:][slice(*entry["data_offsets"])]
            if entry["dtype"] == "BF16":  # the upper half of a float32
                x = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
            else:
                x = np.frombuffer(data, {"F32": "<f4", "F16": "<f2"}[entry["dtype"]]).astype(np.float32)
            tensors[name], dtypes[name] = x.reshape(entry["shape"]), entry["dtype"]
    return tensors, dtypes
