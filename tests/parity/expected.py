"""What the fixtures hold, unpacked (numpy only): what torch computed for a case, and the case's folder made again."""

import base64
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from . import cases, folders, noise

FIXTURES = Path(__file__).parent / "fixtures"
SHARDED = FIXTURES / "sharded_folder"
ROWS, COLUMNS = 2, 24  # of tokens
FEW, LAST = 12, 6  # a variant has one row of FEW, and of its logits the LAST columns
LEAST = 1e-3  # what a field has to change


def packed(x: np.ndarray) -> str:
    return base64.b64encode(x.astype("<f4").tobytes()).decode()


def unpacked(text: str, *shape: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(shape)


def probed(name: str, gradient: np.ndarray) -> list[float]:
    """Three numbers that stand for a gradient: its norm and its products with two random tensors."""
    probes = [noise.normal(f"probe{n}:{name}", gradient.shape) for n in range(2)]
    return [float(np.linalg.norm(gradient)), *(float(np.vdot(p, gradient)) for p in probes)]


def neighbours(tensor: str, x: Any, config: dict[str, Any]) -> Any:
    """A tensor as `pretrained.save` writes it: the two of a rotated pair side by side, as DeepSeek's own folders have them.

    A folder that says ``rope_interleave: false`` has them half a head apart; every other tensor is as it was.
    """
    kinds = {"q_proj": config.get("qk_nope_head_dim"), "kv_a_proj_with_mqa": config.get("kv_lora_rank")}
    before = next((size for kind, size in kinds.items() if f".{kind}." in tensor), None)
    if config.get("rope_interleave", True) or before is None:
        return x
    turned = config["qk_rope_head_dim"]
    heads = x.reshape(-1, before + turned, *x.shape[1:])
    pairs = heads[:, before:].reshape(len(heads), 2, turned // 2, *x.shape[1:]).swapaxes(1, 2)
    heads = heads.copy() if isinstance(heads, np.ndarray) else heads.clone()
    heads[:, before:] = pairs.reshape(len(heads), turned, *x.shape[1:])
    return heads.reshape(x.shape)


def halves(tensor: str, x: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """The inverse of ``neighbours``."""
    at = neighbours(tensor, np.arange(len(x)), config)
    return x[np.argsort(at)]


@functools.cache
def family_fixtures(family: str) -> dict[str, Any]:
    return json.loads((FIXTURES / f"{family}.json").read_text())["cases"]


def fixture(name: str) -> dict[str, Any]:
    return family_fixtures(cases.CASES[name]["family"])[name]


def shapes(name: str) -> dict[str, list[int]]:
    """Of the tensors on disk; a variant's fixture names those that its main case has not, or otherwise."""
    base = cases.CASES[name]["base"]
    every = (shapes(base) if base else {}) | fixture(name)["shapes"]
    return {tensor: shape for tensor, shape in every.items() if shape is not None}


def weights(name: str) -> folders.Tensors:
    family = cases.CASES[name]["family"]
    return {tensor: noise.noise(tensor, shape, family) for tensor, shape in shapes(name).items()}


def folder(name: str, path: Path, config: dict[str, Any] | None = None) -> Path:
    """The case's folder at ``path``, with another config.json where one is given."""
    return folders.write(path, config or cases.CASES[name]["config"], weights(name))


def logits(name: str) -> np.ndarray:
    shape = (ROWS, COLUMNS) if name in cases.MAIN else (1, LAST)
    return unpacked(fixture(name)["logits"], *shape, cases.CASES[name]["config"]["vocab_size"])
