"""``Config``: the architecture of a model, and how it is computed."""

import dataclasses
import math
from typing import Any

import jax

from rljax.errors import UserError
from rljax.options import Declared, declared, format_value, option
from rljax.transformer.layout import Layout

Array = jax.Array
Params = dict[str, Any]
DTYPES = ("float32", "bfloat16", "float16", "float64")
SPLASH_KERNELS = ("splash", "splash_interpreted")
ATTENTION_KERNELS = ("cudnn", "xla", *SPLASH_KERNELS)
PACKED_ATTENTION = ("own", *SPLASH_KERNELS)  # those that know packed sequences
SCALINGS = {  # what follows the name
    "linear": ("factor",),
    "llama3": ("factor", "low frequency", "high frequency", "original length"),
    "yarn": ("factor", "fast rotations", "slow rotations", "original length", "stretch", "whether to round"),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """The architecture, and how it is computed. Frozen and hashable: a static argument of the jitted functions."""

    vocab_size: int
    layers: int = option(2, "number of layers", low=1, high=4096)
    width: int = option(64, "D: width of the residual stream", low=1, high=1 << 20)
    heads: int = option(2, "H: query heads", low=1, high=65_536)
    kv_heads: int = option(2, "K: key/value heads, a divisor of heads", low=1, high=65_536)
    head_width: int = option(32, "E: width of a head, even", low=2, high=65_536)
    ff_width: int = option(256, "F: width of the feed-forward block", low=1, high=1 << 24)
    max_length: int = option(4096, "the window, in tokens: prompt and response together", low=1)
    activation: str = option(
        "silu", "of the gate: silu (SwiGLU), gelu_tanh or gelu (GeGLU)", choices=("silu", "gelu_tanh", "gelu")
    )
    norm_eps: float = option(1e-6, "added to the mean square in RMSNorm", above=0.0)
    norm_plus_one: bool = option(False, "RMSNorm multiplies by 1 + w (Gemma)")
    post_norms: bool = option(False, "also normalise the output of each block (Gemma 2 and 3)")
    qk_norm: bool = option(False, "RMSNorm on queries and keys, per head (Qwen 3, Gemma 3)")
    qkv_bias: bool = option(False, "biases on queries, keys and values (Qwen 2)")
    out_bias: bool = option(False, "a bias on the attention's output")
    mlp_bias: bool = option(False, "biases in the feed-forward block")
    rope_base: float = option(10_000.0, "base of the rotary positions", above=0.0)
    rope_base_sliding: float | None = option(
        None, "base of the sliding layers where it differs (Gemma 3)", kind=float, above=0.0
    )
    # () | ("linear", factor) | ("llama3", factor, low, high, original_length)
    # | ("yarn", factor, fast, slow, original_length, factor of sin and cos, whether to round the range to whole pairs)
    rope_scaling: tuple = option((), "scaling of the rotary positions: (), linear, llama3 or yarn with its numbers")
    window: int | None = option(None, "tokens that a sliding layer sees, the query itself included", kind=int, low=1)
    sliding: tuple[bool, ...] = option((), "which layers slide, repeated as a pattern; (): none", items=bool)
    attention_scale: float | None = option(None, "multiplies q.k; None: head_width ** -0.5", kind=float, above=0.0)
    attention_softcap: float | None = option(None, "soft cap of attention scores", kind=float, above=0.0)
    logit_softcap: float | None = option(None, "soft cap of logits", kind=float, above=0.0)
    tied_head: bool = option(False, "the head is the embedding, transposed")
    scale_embedding: bool = option(False, "multiply embeddings by sqrt(width) (Gemma)")
    # multi-head latent attention (DeepSeek V2 and V3); head_width is that of queries and keys, with the rotated part
    latent: int = option(0, "width of the latent that keys and values are read from; 0: ordinary attention", low=0)
    query_latent: int = option(0, "width of the latent that queries are read from; 0: the layer's input", low=0)
    rope_width: int = option(0, "the part of a head that is rotated, one for all key heads", low=0)
    value_width: int = option(0, "width of a value head of latent attention", low=0)
    # mixture of experts (Qwen 3 MoE, DeepSeek V3)
    experts: int = option(0, "number of experts; 0: every feed-forward block is dense", low=0, high=65_536)
    experts_per_token: int = option(2, "experts that each token is sent to", low=1)
    expert_width: int = option(0, "feed-forward width of one expert", low=0)
    shared_width: int = option(0, "feed-forward width of the experts that see every token; 0: none", low=0)
    routed: tuple[bool, ...] = option((), "which layers have experts, repeated as a pattern; (): all", items=bool)
    router: str = option(
        "softmax",
        "of the scores: softmax, or sigmoid with a bias that affects only the choice (DeepSeek V3)",
        choices=("softmax", "sigmoid"),
    )
    router_normalise: bool = option(True, "weights of the chosen experts sum to 1 before router_scale")
    router_scale: float = option(1.0, "multiplies the weights of the chosen experts", above=0.0)
    router_groups: int = option(1, "number of groups of experts", low=1)
    router_top_groups: int = option(1, "number of groups that a token may use", low=1)
    weight_dtype: str = option("float32", "dtype of the weights", choices=DTYPES)
    dtype: str = option("float32", "dtype of activations, and of weights in a product", choices=DTYPES)
    cache_dtype: str = option("float32", "dtype of the sampler's cache; bfloat16 halves its memory", choices=DTYPES)
    remat: str = option(
        "none",
        "what the backward pass computes again: none, dots (all but matrix products), layer (everything)",
        choices=("none", "dots", "layer"),
    )
    attention: str = option(
        "own",
        "attention over whole sequences: own, or a kernel: cudnn (GPU; without packing), splash (TPU)",
        choices=("own", *ATTENTION_KERNELS),
    )
    attention_chunk: int = option(0, "queries whose scores exist at once, over whole sequences; 0: all", low=0)
    expert_chunk: int = option(0, "tokens that a device sends through its experts at once; 0: all", low=0)
    scan_layers: bool = option(
        False, "store layers of one kind as one array and compute them in a loop: faster to start"
    )
    logprob_chunk: int = option(0, "columns whose logits exist at once in token_logprobs; 0: all", low=0)
    layout: Layout = Layout()  # the devices, and how arrays are sharded over them

    def __post_init__(self):
        if self.heads % self.kv_heads:
            raise UserError(f"model: heads={self.heads} is not a multiple of kv_heads={self.kv_heads}")
        if self.head_width % 2 or self.rope_width % 2:
            what = "rope_width" if self.rope_width % 2 else "head_width"
            raise UserError(f"model: {what}={getattr(self, what)} must be even: RoPE rotates pairs")
        for name, known in declared(type(self)).items():
            if known.choices and getattr(self, name) not in known.choices:
                raise UserError(
                    f"model: {name}={getattr(self, name)!r} is unknown, choose from {sorted(known.choices)}"
                )
        if any(self.sliding) and not self.window:
            raise UserError("model: some layers slide, but window is not set")
        if self.rope_scaling and self.rope_scaling[0] not in tuple(SCALINGS):
            kind = format_value(self.rope_scaling[0])
            raise UserError(f"model: rope_scaling={kind} is unknown, choose from {tuple(SCALINGS)}")
        if problem := problem_of_scaling(self.rope_scaling):
            raise UserError(f"model: rope_scaling={format_value(self.rope_scaling)}: {problem}")
        if self.latent and not 0 < self.rope_width <= self.head_width:
            raise UserError(
                f"model: latent={self.latent} needs rope_width={self.rope_width} to be part of head_width={self.head_width}"
            )
        if self.latent and self.value_width < 1:
            raise UserError(f"model: latent={self.latent} needs a value_width")
        for name in ("query_latent", "rope_width", "value_width"):
            if getattr(self, name) and not self.latent:
                raise UserError(f"model: {name}={getattr(self, name)} is for latent attention, but latent is 0")
        if self.experts:
            self.check_experts()
        if self.attention in ATTENTION_KERNELS:
            self.check_kernel()

    def check_kernel(self) -> None:
        """Raise UserError for what the attention kernel does not compute."""
        asked = {"sharded columns": self.layout.num_shards("columns") > 1}
        if self.attention not in SPLASH_KERNELS:
            asked = {"a soft-cap": self.attention_softcap, "latent attention": self.latent} | asked
        for what in filter(asked.get, asked):
            raise UserError(
                f"model: attention={self.attention!r} does not support {what}: use own, with attention_chunk"
            )

    def check_experts(self) -> None:
        """Raise UserError for numbers of experts that do not fit together."""
        groups, chosen = self.router_groups, self.router_top_groups
        if self.expert_width < 1:
            raise UserError(f"model: {self.experts} experts need expert_width")
        if self.experts % groups or not 1 <= chosen <= groups:
            raise UserError(
                f"model: {self.experts} experts cannot be divided into router_groups={groups} of which router_top_groups={chosen} are used"
            )
        if groups > 1 and self.experts // groups < 2:
            raise UserError(
                f"model: router_groups={groups} of {self.experts} experts: a group needs two experts, it is ranked by its best two"
            )
        if not 1 <= self.experts_per_token <= chosen * (self.experts // groups):
            raise UserError(
                f"model: experts_per_token={self.experts_per_token} of {chosen * (self.experts // groups)} that may be chosen"
            )

    @property
    def kv_head_copies(self) -> int:
        """Copies of each key head. Heads may have more shards than there are key heads: each shard then has a copy."""
        return math.lcm(self.kv_heads, self.layout.num_shards("heads")) // self.kv_heads

    def is_sliding(self, layer: int) -> bool:
        """Whether this layer sees only a window of tokens."""
        return bool(self.sliding) and self.sliding[layer % len(self.sliding)]

    def has_experts(self, layer: int) -> bool:
        """Whether this layer's feed-forward block is a mixture of experts."""
        return bool(self.experts) and (not self.routed or self.routed[layer % len(self.routed)])

    def layer_stacks(self) -> list[tuple[int, int, int]]:
        """(first layer, period, repeats) of each stack of layers that ``scan_layers`` makes, in order.

        A stack repeats a pattern of ``period`` layers of different kinds, for example Gemma's sliding and global layers.
        """
        kinds, out, first = [(self.is_sliding(i), self.has_experts(i)) for i in range(self.layers)], [], 0
        while first < self.layers:
            best = 1, 1
            for period in range(1, (self.layers - first) // 2 + 1):
                repeats = 1
                pattern = kinds[first : first + period]
                while kinds[first + repeats * period : first + (repeats + 1) * period] == pattern:
                    repeats += 1
                if repeats > 1 and period * repeats > best[0] * best[1]:
                    best = period, repeats
            out.append((first, *best))
            first += best[0] * best[1]
        return out


ACTIVATIONS = {
    "silu": jax.nn.silu,
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
}


# Kernels for attention over whole sequences: those of jax.nn.dot_product_attention, and the TPU's. "xla" and
# "splash_interpreted" run on any device, slowly: tests compare with them.
KERNEL_PLATFORM = {"cudnn": "gpu", "splash": "tpu"}  # that a kernel needs


def problem_of_scaling(scaling: tuple) -> str:
    """What is wrong with the numbers of a scaling of the rotary positions; "" where nothing is."""
    if not scaling:
        return ""
    kind, *numbers = scaling
    names = SCALINGS[kind]
    if len(numbers) != len(names):
        return f"after {kind!r} come {len(names)} values: {', '.join(names)}"
    for name, number in zip(names, numbers, strict=True):
        known = Declared("", bool) if name == "whether to round" else Declared("", float, above=0)
        if problem := known.problem(number):
            return f"{name} {problem}"
    if kind == "llama3" and numbers[1] >= numbers[2]:
        return "the low frequency must be below the high one"
    return ""
