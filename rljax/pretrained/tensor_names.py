"""Names of tensors: where each of our weights lies in a Hugging Face folder, and in which form.

A family's map goes from the path of a weight within a layer to a ``Key``. Matrices lie there as [outputs, inputs], heads
flattened; here as [inputs, ..., outputs].
"""

from typing import NamedTuple

import numpy as np

from rljax.transformer import Config, Weight

Path = tuple[str, ...]
LAYER, EXPERT = "layers.{layer}.", "mlp.experts.{expert}."


class Key(NamedTuple):
    """``name`` after the model's root, with places for a layer's and an expert's number."""

    name: str
    order: np.ndarray | None = None  # which of their outputs, on the last axis, stands where here

    def ours(self, theirs: np.ndarray, w: Weight) -> np.ndarray:
        """A tensor as the file has it -> as the weight ``w`` (one matrix of it) has it: a view, unless reordered."""
        shape = single(w)
        if is_matrix(w):
            inward, outward = shape[: w.inputs], shape[w.inputs :]
            x = theirs.reshape(*outward, *inward)
            x = x.transpose(*range(len(outward), x.ndim), *range(len(outward)))
        else:
            x = theirs.reshape(shape)
        return x if self.order is None else x[..., self.order]

    def theirs(self, ours: np.ndarray, w: Weight) -> np.ndarray:
        """The inverse of ``ours``."""
        x = ours if self.order is None else ours[..., np.argsort(self.order)]
        if not is_matrix(w):
            return x.reshape(self.shape(w))
        x = x.transpose(*range(w.inputs, x.ndim), *range(w.inputs))
        return x.reshape(self.shape(w))

    def shape(self, w: Weight) -> tuple[int, ...]:
        """The tensor's shape in the file."""
        shape = single(w)
        if is_matrix(w):
            size = lambda axes: int(np.prod(axes, dtype=np.int64))
            return size(shape[w.inputs :]), size(shape[: w.inputs])
        return shape if "vocab" in w.axes else (int(np.prod(shape, dtype=np.int64)),)


def single(w: Weight) -> tuple[int, ...]:
    return w.shape[w.held :]


def is_matrix(w: Weight) -> bool:
    """Whether it lies transposed in the file: all that multiplies, but the embedding, which is looked up."""
    return w.spread > 0 and w.axes[0] != "vocab"


TOP: dict[Path, Key] = {
    ("embedding",): Key("embed_tokens.weight"),
    ("norm",): Key("norm.weight"),
}


def dense(c: Config) -> dict[Path, Key]:
    """The keys of an ordinary layer, as Llama, Qwen and (with other norms) Gemma have them."""
    attention = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "o_proj"}
    out = {(ours, "kernel"): Key(f"self_attn.{theirs}.weight") for ours, theirs in attention.items()}
    out |= {(ours, "bias"): Key(f"self_attn.{theirs}.bias") for ours, theirs in attention.items()}
    out |= {("query_norm",): Key("self_attn.q_norm.weight"), ("key_norm",): Key("self_attn.k_norm.weight")}
    out |= {("attention_norm",): Key("input_layernorm.weight"), ("mlp_norm",): Key("post_attention_layernorm.weight")}
    return out | feed_forward("mlp.")


def feed_forward(inside: str, at: Path = ()) -> dict[Path, Key]:
    """The keys of a gated block, its biases included."""
    out = {}
    for name in ("gate", "up", "down"):
        out |= {
            (*at, name): Key(f"{inside}{name}_proj.weight"),
            (*at, f"{name}_bias"): Key(f"{inside}{name}_proj.bias"),
        }
    return out


def experts() -> dict[Path, Key]:
    """The keys of a router and its experts."""
    return {("router", "kernel"): Key("mlp.gate.weight")} | feed_forward(EXPERT, ("experts",))
