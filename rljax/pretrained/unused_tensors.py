"""Tensors of a folder that the model does not need. Each is looked at before it is left out.

lm_head of a tied model      left out only where it equals the embedding; else the model is not tied (``has_own_head``)
inverse frequencies          computed here; a warning where the file has other ones than its config says
layers beyond the last       left out only where they predict a second token: they have a matrix ``eh_proj``
the part that reads images   known by the prefixes of its names
"""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from rljax.pretrained.safetensors_files import DTYPES, StoredTensor
from rljax.pretrained.tensor_files import open_file
from rljax.transformer import Config
from rljax.transformer.blocks import rope_frequencies

LOG = logging.getLogger(__name__)
IMAGE_PREFIXES = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")
COMPARED_BYTES = 1 << 26  # how much of a tensor is in memory while two are compared
FREQUENCY_TOLERANCE = 0.01  # relative: bfloat16 keeps 8 bits


def head_name(prefix: str) -> str:
    """The name of the head, which is beside the model and not inside."""
    return "language_model.lm_head.weight" if prefix == "language_model.model." else "lm_head.weight"


def has_own_head(found: dict[str, StoredTensor], prefix: str) -> bool:
    """Whether a folder has a head that differs from its embedding. Then the two are not tied, whatever the config says."""
    head, embedding = found.get(head_name(prefix)), found[f"{prefix}embed_tokens.weight"]
    if head is None:
        return False
    return not equal_tensors(head, head_name(prefix), embedding, f"{prefix}embed_tokens.weight")


def equal_tensors(a: StoredTensor, a_name: str, b: StoredTensor, b_name: str) -> bool:
    """Whether two stored matrices have the same shape and values. Only a part of each is in memory at a time."""
    if a.shape != b.shape or len(a.shape) != 2:
        return False
    rows = max(1, COMPARED_BYTES // max(1, a.shape[1] * max(a.dtype.itemsize, b.dtype.itemsize)))
    with open_file(a.file) as first, open_file(b.file) as second:
        ours, theirs = first.get_slice(a_name), second.get_slice(b_name)
        slices = [slice(n, min(n + rows, a.shape[0])) for n in range(0, a.shape[0], rows)]
        parts = ((ours[s], theirs[s]) for s in slices)
        return all(same_bits(x, y) or np.array_equal(x.astype(np.float32), y.astype(np.float32)) for x, y in parts)


def same_bits(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether two arrays have the same dtype and bits: faster than their values, and true of most copies."""
    return x.dtype == y.dtype and np.array_equal(x.view(np.uint8), y.view(np.uint8))


def unknown_tensors(
    found: dict[str, StoredTensor], wanted: dict[str, Any], config: Config, about: dict[str, Any], prefix: str
) -> Iterator[str]:
    """Names of tensors that are neither read nor known to be unnecessary."""
    spare = about.get("num_nextn_predict_layers", about.get("num_mtp_layers", 0)) or 0
    number_of = lambda name: name.removeprefix(f"{prefix}layers.").partition(".")[0]
    second_token = {number_of(name) for name in found if ".eh_proj." in name}
    for name in sorted(set(found) - set(wanted)):
        layer = number_of(name)
        beyond = layer.isdigit() and config.layers <= int(layer) < config.layers + spare
        if name.endswith("rotary_emb.inv_freq"):
            check_frequencies(found[name], name, config, int(layer) if layer.isdigit() else 0)
        elif config.tied_head and name == head_name(prefix):
            if has_own_head(found, prefix):
                yield name
        elif not (beyond and layer in second_token) and not (prefix != "model." and name.startswith(IMAGE_PREFIXES)):
            yield name


def check_frequencies(stored: StoredTensor, name: str, config: Config, layer: int) -> None:
    """Warn where a file's inverse frequencies are other ones than its config says. Old files hold them without scaling."""
    if stored.code not in DTYPES or layer >= config.layers:
        return
    with open_file(stored.file) as opened:
        theirs = np.asarray(opened.get_slice(name)[:], np.float32)
    width = config.rope_width or config.head_width
    unscaled = 1.0 / config.rope_base ** (np.arange(0, width, 2) / width)
    known = (unscaled, np.asarray(rope_frequencies(config, layer)))
    if not any(theirs.shape == x.shape and np.allclose(theirs, x, FREQUENCY_TOLERANCE, 0) for x in known):
        LOG.warning(
            f"{stored.file}: {name} holds other rotary frequencies than config.json says: those of config.json are used"
        )
