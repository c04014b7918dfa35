"""The architecture as data: the configuration, and beside each weight its shape, logical axes and initial spread."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.errors import UserError

Array = jax.Array
Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Config:
    """The architecture. Frozen and hashable: it is a static argument of the jitted functions."""

    vocab_size: int
    layers: int = 2
    width: int = 64
    heads: int = 2
    kv_heads: int = 2
    head_width: int = 32
    ff_width: int = 256
    max_length: int = 4096  # the window: prompt and response together
    activation: str = "silu"  # of the gate: silu (SwiGLU), gelu_tanh or gelu (GeGLU)
    norm_eps: float = 1e-6
    norm_plus_one: bool = False  # RMSNorm multiplies by 1 + w (Gemma)
    post_norms: bool = False  # also normalise what a block adds (Gemma 2 and 3)
    qk_norm: bool = False  # RMSNorm on queries and keys, per head (Qwen 3, Gemma 3)
    qkv_bias: bool = False  # (Qwen 2)
    out_bias: bool = False
    rope_base: float = 10_000.0
    rope_base_sliding: float | None = None  # base of the sliding layers where it differs (Gemma 3)
    rope_scaling: tuple = ()  # () | ("linear", factor) | ("llama3", factor, low, high, original_length)
    window: int | None = None  # columns that a sliding layer sees, its own included
    sliding: tuple[bool, ...] = ()  # by layer, repeated as a pattern; () means no layer slides
    attention_scale: float | None = None  # multiplies q.k; None means head_width ** -0.5
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    tied_head: bool = False
    scale_embedding: bool = False  # multiply embeddings by sqrt(width) (Gemma)
    weight_dtype: str = "float32"
    dtype: str = "float32"  # of the activations and of the weights as they enter a dot
    cache_dtype: str = "float32"  # a bfloat16 cache halves memory; on a CPU it is slower
    remat: bool = False  # recompute each layer in the backward pass
    logprob_chunk: int = 0  # columns of logits alive at once in token_logprobs; 0 means all

    def __post_init__(self):
        if self.heads % self.kv_heads:
            raise UserError(f"model: heads={self.heads} is not a multiple of kv_heads={self.kv_heads}")
        if self.head_width % 2:
            raise UserError(f"model: head_width={self.head_width} must be even, RoPE turns pairs")
        if self.activation not in ACTIVATIONS:
            raise UserError(f"model: activation={self.activation!r} is unknown, choose from {sorted(ACTIVATIONS)}")
        if any(self.sliding) and not self.window:
            raise UserError("model: some layers slide, but window is not set")
        if self.rope_scaling and self.rope_scaling[0] not in ("linear", "llama3"):
            raise UserError(f"model: rope_scaling={self.rope_scaling[0]!r} is unknown, choose linear or llama3")

    def slides(self, layer: int) -> bool:
        return bool(self.sliding) and self.sliding[layer % len(self.sliding)]


ACTIVATIONS = {
    "silu": jax.nn.silu,
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
}


class Weight(NamedTuple):
    shape: tuple[int, ...]
    axes: tuple[str | None, ...]  # logical axes; rljax.sharding maps them to a mesh
    spread: float  # standard deviation at the start; 0 means the constant ``fill``
    fill: float = 0.0


def weights(config: Config) -> Params:
    """The pytree of ``Weight`` that describes the parameters of ``config``."""
    c = config
    unit = 0.0 if c.norm_plus_one else 1.0
    residual = 1 / math.sqrt(2 * c.layers)  # keeps the residual stream's scale independent of depth

    def norm(size: int, axis: str | None) -> Weight:
        return Weight((size,), (axis,), 0.0, unit)

    def projection(heads: int, axis: str) -> Params:
        out = {"kernel": Weight((c.width, heads, c.head_width), ("embed", axis, "head"), c.width**-0.5)}
        return out | ({"bias": Weight((heads, c.head_width), (axis, "head"), 0.0)} if c.qkv_bias else {})

    def layer() -> Params:
        inner = c.heads * c.head_width
        out: Params = {
            "attention_norm": norm(c.width, "norm"),
            "query": projection(c.heads, "heads"),
            "key": projection(c.kv_heads, "kv_heads"),
            "value": projection(c.kv_heads, "kv_heads"),
            "out": {
                "kernel": Weight((c.heads, c.head_width, c.width), ("heads", "head", "embed"), residual * inner**-0.5)
            },
            "mlp_norm": norm(c.width, "norm"),
            "gate": Weight((c.width, c.ff_width), ("embed", "ff"), c.width**-0.5),
            "up": Weight((c.width, c.ff_width), ("embed", "ff"), c.width**-0.5),
            "down": Weight((c.ff_width, c.width), ("ff", "embed"), residual * c.ff_width**-0.5),
        }
        if c.out_bias:
            out["out"]["bias"] = Weight((c.width,), ("norm",), 0.0)
        if c.qk_norm:
            out |= {"query_norm": norm(c.head_width, None), "key_norm": norm(c.head_width, None)}
        if c.post_norms:
            out |= {"attention_post_norm": norm(c.width, "norm"), "mlp_post_norm": norm(c.width, "norm")}
        return out

    # A tied table is read twice: small rows keep the first logits small, scaled embeddings undo that on the way in.
    table = Weight((c.vocab_size, c.width), ("vocab", "embed"), c.width**-0.5 if c.tied_head else 1.0)
    tree: Params = {"embedding": table, "layers": [layer() for _ in range(c.layers)], "norm": norm(c.width, "norm")}
    if not c.tied_head:
        tree["head"] = Weight((c.width, c.vocab_size), ("embed", "vocab"), c.width**-0.5)
    return tree


def is_weight(x: Any) -> bool:
    return isinstance(x, Weight)


def init(config: Config, key: Array) -> Params:
    """Random parameters, normal with the spread stated beside each weight."""
    leaves, tree = jax.tree.flatten(weights(config), is_leaf=is_weight)
    dtype = jnp.dtype(config.weight_dtype)

    def one(index: int, w: Weight) -> Array:
        if not w.spread:
            return jnp.full(w.shape, w.fill, dtype)
        return (w.spread * jax.random.normal(jax.random.fold_in(key, index), w.shape)).astype(dtype)

    return jax.tree.unflatten(tree, [one(i, w) for i, w in enumerate(leaves)])


def logical_axes(config: Config) -> Params:
    """The same pytree with each weight's tuple of logical axis names."""
    return jax.tree.map(lambda w: w.axes, weights(config), is_leaf=is_weight)


def count(params: Params) -> int:
    """Number of parameters."""
    return sum(x.size for x in jax.tree.leaves(params))
