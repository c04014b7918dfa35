"""The names of tensors: where each weight of ours is in a Hugging Face folder, and how it is stored there.

A family maps the path of a weight within a layer to a ``TensorKey``. Matrices are stored as [outputs, inputs] with flattened
heads; here they are [inputs, ..., outputs].
"""

import math
from typing import Any, NamedTuple

import numpy as np

from rljax.transformer import Config, WeightSpec

Path = tuple[str, ...]
LAYER, EXPERT = "layers.{layer}.", "mlp.experts.{expert}."


class TensorKey(NamedTuple):
    """The tensor's name after the model's prefix, with places for the numbers of the layer and the expert."""

    name: str
    output_order: np.ndarray | None = None  # ours[..., i] is theirs[..., output_order[i]]

    def from_hf(self, stored: Any, w: WeightSpec, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """The part ``index`` (default: all) of one matrix of the weight ``w``, read from the tensor ``stored``.

        ``stored`` is an array or a slice of an open file. Only the rows and columns that hold the part are read.
        """
        shape = matrix_shape(w)
        index = index or (slice(None),) * len(shape)
        # Our axes, grouped by the stored axis that they are flattened into, in the order of the stored axes.
        groups = stored_axes(w)
        read, rest, sizes = [], list(index), []
        for group in groups:
            first, *inner = group
            inner_size = math.prod(shape[axis] for axis in inner)
            reordered = self.output_order is not None and first == len(shape) - 1  # slice it after it is reordered
            start, stop, _ = (slice(None) if reordered else index[first]).indices(shape[first])
            rest[first] = index[first] if reordered else slice(None)
            read.append(slice(start * inner_size, stop * inner_size))
            sizes += [stop - start, *(shape[axis] for axis in inner)]
        x = stored[tuple(read)].reshape(sizes)
        x = x.transpose(np.argsort([axis for group in groups for axis in group]))
        if self.output_order is not None:
            x = x[..., self.output_order]
        return x[tuple(rest)]

    def to_hf(self, ours: np.ndarray, w: WeightSpec) -> np.ndarray:
        """One matrix of the weight ``w`` as the file stores it: the inverse of ``from_hf``."""
        x = ours if self.output_order is None else ours[..., np.argsort(self.output_order)]
        return x.transpose([axis for group in stored_axes(w) for axis in group]).reshape(self.hf_shape(w))

    def hf_shape(self, w: WeightSpec) -> tuple[int, ...]:
        """The tensor's shape in the file."""
        shape = matrix_shape(w)
        return tuple(math.prod(shape[axis] for axis in group) for group in stored_axes(w))


def matrix_shape(w: WeightSpec) -> tuple[int, ...]:
    """The shape of one matrix of a weight that holds several."""
    return w.shape[w.stacked_axes :]


def stored_axes(w: WeightSpec) -> list[list[int]]:
    """For each axis of the tensor in the file, the axes of ours that it holds, flattened.

    Whatever multiplies is stored as [outputs, inputs]. The embedding is looked up, and stored as it is. The rest are vectors.
    """
    axes = list(range(len(matrix_shape(w))))
    if w.init_std > 0 and w.axes[0] != "vocab":
        return [axes[w.input_axes :], axes[: w.input_axes]]
    return [[axis] for axis in axes] if "vocab" in w.axes else [axes]


TOP: dict[Path, TensorKey] = {
    ("embedding",): TensorKey("embed_tokens.weight"),
    ("norm",): TensorKey("norm.weight"),
}


def dense_keys(c: Config) -> dict[Path, TensorKey]:
    """The keys of an ordinary layer: Llama, Qwen and, with other norms, Gemma."""
    attention = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "o_proj"}
    out = {(ours, "kernel"): TensorKey(f"self_attn.{theirs}.weight") for ours, theirs in attention.items()}
    out |= {(ours, "bias"): TensorKey(f"self_attn.{theirs}.bias") for ours, theirs in attention.items()}
    out |= {
        ("query_norm",): TensorKey("self_attn.q_norm.weight"),
        ("key_norm",): TensorKey("self_attn.k_norm.weight"),
        ("attention_norm",): TensorKey("input_layernorm.weight"),
        ("mlp_norm",): TensorKey("post_attention_layernorm.weight"),
    }
    return out | feed_forward_keys("mlp.")


def feed_forward_keys(prefix: str, path: Path = ()) -> dict[Path, TensorKey]:
    """The keys of a gated block with its biases. ``path``: where the block is within a layer of ours."""
    out = {}
    for name in ("gate", "up", "down"):
        out[(*path, name)] = TensorKey(f"{prefix}{name}_proj.weight")
        out[(*path, f"{name}_bias")] = TensorKey(f"{prefix}{name}_proj.bias")
    return out


def expert_keys() -> dict[Path, TensorKey]:
    """The keys of a router and its experts."""
    return {("router", "kernel"): TensorKey("mlp.gate.weight")} | feed_forward_keys(EXPERT, ("experts",))
