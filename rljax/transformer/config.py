"""The architecture as data: the configuration, and beside each weight its shape, logical axes and initial spread."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.errors import UserError
from rljax.options import declared, option
from rljax.transformer.layout import Layout

Array = jax.Array
Params = dict[str, Any]
DTYPES = ("float32", "bfloat16", "float16", "float64")
SPLASH = ("splash", "splash_interpreted")
KERNELS = ("cudnn", "xla", *SPLASH)
SCALINGS = ("linear", "llama3", "yarn")


@dataclasses.dataclass(frozen=True)
class Config:
    """The architecture. Frozen and hashable: it is a static argument of the jitted functions."""

    vocab_size: int
    layers: int = option(2, "number of layers", low=1)
    width: int = option(64, "D: width of the residual stream", low=1)
    heads: int = option(2, "H: query heads", low=1)
    kv_heads: int = option(2, "K: key/value heads, a divisor of heads", low=1)
    head_width: int = option(32, "E: width of a head, even", low=2)
    ff_width: int = option(256, "F: width of the feed-forward block", low=1)
    max_length: int = option(4096, "the window, in tokens: prompt and response together", low=1)
    activation: str = option(
        "silu", "of the gate: silu (SwiGLU), gelu_tanh or gelu (GeGLU)", choices=("silu", "gelu_tanh", "gelu")
    )
    norm_eps: float = option(1e-6, "added to the mean square in RMSNorm", above=0.0)
    norm_plus_one: bool = option(False, "RMSNorm multiplies by 1 + w (Gemma)")
    post_norms: bool = option(False, "also normalise what a block adds (Gemma 2 and 3)")
    qk_norm: bool = option(False, "RMSNorm on queries and keys, per head (Qwen 3, Gemma 3)")
    qkv_bias: bool = option(False, "biases on queries, keys and values (Qwen 2)")
    out_bias: bool = option(False, "a bias on the attention's output")
    mlp_bias: bool = option(False, "biases in the feed-forward block")
    rope_base: float = option(10_000.0, "base of the rotary positions", above=0.0)
    rope_base_sliding: float | None = option(
        None, "base of the sliding layers where it differs (Gemma 3)", kind=float, above=0.0
    )
    # () | ("linear", factor) | ("llama3", factor, low, high, original_length)
    # | ("yarn", factor, fast, slow, original_length, stretch of sin and cos, whole: round the range to whole pairs)
    rope_scaling: tuple = option((), "scaling of the rotary positions: (), linear, llama3 or yarn with its numbers")
    window: int | None = option(None, "columns that a sliding layer sees, its own included", kind=int, low=1)
    sliding: tuple[bool, ...] = option((), "which layers slide, repeated as a pattern; (): none")
    attention_scale: float | None = option(None, "multiplies q.k; None: head_width ** -0.5", kind=float, above=0.0)
    attention_softcap: float | None = option(None, "soft cap of attention scores", kind=float, above=0.0)
    logit_softcap: float | None = option(None, "soft cap of logits", kind=float, above=0.0)
    tied_head: bool = option(False, "the head is the embedding, transposed")
    scale_embedding: bool = option(False, "multiply embeddings by sqrt(width) (Gemma)")
    # multi-head latent attention (DeepSeek V2 and V3); head_width is that of queries and keys, rotated part included
    latent: int = option(0, "width of the latent that keys and values are read from; 0: ordinary attention", low=0)
    query_latent: int = option(0, "width of the latent that queries are read from; 0: the layer's input", low=0)
    rope_width: int = option(0, "the part of a head that is rotated, one for all key heads", low=0)
    value_width: int = option(0, "width of a value head of latent attention", low=0)
    # mixture of experts (Qwen 3 MoE, DeepSeek V3)
    experts: int = option(0, "number of experts; 0: every feed-forward block is dense", low=0)
    experts_per_token: int = option(2, "experts that each token is sent to", low=1)
    expert_width: int = option(0, "feed-forward width of one expert", low=0)
    shared_width: int = option(0, "feed-forward width of the experts that see every token; 0: none", low=0)
    routed: tuple[bool, ...] = option((), "which layers have experts, repeated as a pattern; (): all")
    router: str = option(
        "softmax",
        "of the scores: softmax, or sigmoid with a bias that only chooses (DeepSeek V3)",
        choices=("softmax", "sigmoid"),
    )
    router_normalise: bool = option(True, "weights of the chosen experts sum to 1 before router_scale")
    router_scale: float = option(1.0, "multiplies the weights of the chosen experts", above=0.0)
    router_groups: int = option(1, "groups that experts come in", low=1)
    router_top_groups: int = option(1, "groups that a token may use", low=1)
    weight_dtype: str = option("float32", "dtype of the weights", choices=DTYPES)
    dtype: str = option("float32", "dtype of activations, and of weights as they enter a product", choices=DTYPES)
    cache_dtype: str = option("float32", "dtype of the sampler's cache; bfloat16 halves its memory", choices=DTYPES)
    remat: str = option(
        "none",
        "what the backward pass computes again: none, dots (all but matrix products), layer (everything)",
        choices=("none", "dots", "layer"),
    )
    attention: str = option(
        "own", "attention over whole sequences: own, or a kernel: cudnn (GPU), splash (TPU)", choices=("own", *KERNELS)
    )
    attention_chunk: int = option(0, "queries whose scores exist at once, over whole sequences; 0: all", low=0)
    expert_chunk: int = option(0, "tokens that a device sends through its experts at once; 0: all", low=0)
    scan_layers: bool = option(False, "layers of one kind as one stacked array and one compiled loop")
    logprob_chunk: int = option(0, "columns of logits alive at once in token_logprobs; 0: all", low=0)
    layout: Layout = Layout()  # the devices, and where arrays lie on them

    def __post_init__(self):
        if self.heads % self.kv_heads:
            raise UserError(f"model: heads={self.heads} is not a multiple of kv_heads={self.kv_heads}")
        if self.head_width % 2 or self.rope_width % 2:
            what = "rope_width" if self.rope_width % 2 else "head_width"
            raise UserError(f"model: {what}={getattr(self, what)} must be even, RoPE turns pairs")
        for name, known in declared(type(self)).items():
            if known.choices and getattr(self, name) not in known.choices:
                raise UserError(
                    f"model: {name}={getattr(self, name)!r} is unknown, choose from {sorted(known.choices)}"
                )
        if any(self.sliding) and not self.window:
            raise UserError("model: some layers slide, but window is not set")
        if self.rope_scaling and self.rope_scaling[0] not in SCALINGS:
            raise UserError(f"model: rope_scaling={self.rope_scaling[0]!r} is unknown, choose from {SCALINGS}")
        if self.latent and not 0 < self.rope_width <= self.head_width:
            raise UserError(f"model: rope_width={self.rope_width} must be part of head_width={self.head_width}")
        if self.latent and self.value_width < 1:
            raise UserError(f"model: latent={self.latent} needs a value_width")
        for name in ("query_latent", "rope_width", "value_width"):
            if getattr(self, name) and not self.latent:
                raise UserError(f"model: {name}={getattr(self, name)} is of latent attention, but latent is 0")
        if self.experts:
            self.check_experts()
        if self.attention in KERNELS:
            self.check_kernel()

    def check_kernel(self) -> None:
        asked = {"columns that are split": self.layout.ways("columns") > 1}
        if self.attention not in SPLASH:
            asked = {"a soft-cap": self.attention_softcap, "latent attention": self.latent} | asked
        for what in filter(asked.get, asked):
            raise UserError(f"model: attention={self.attention!r} does not know {what}: use own, with attention_chunk")

    def check_experts(self) -> None:
        groups, chosen = self.router_groups, self.router_top_groups
        if self.expert_width < 1:
            raise UserError(f"model: {self.experts} experts need an expert_width")
        if self.experts % groups or not 1 <= chosen <= groups:
            raise UserError(
                f"model: {self.experts} experts do not come in router_groups={groups} of which router_top_groups={chosen}"
            )
        if groups > 1 and self.experts // groups < 2:
            raise UserError(
                f"model: router_groups={groups} of {self.experts} experts: a group is ranked by its best two"
            )
        if not 1 <= self.experts_per_token <= chosen * (self.experts // groups):
            raise UserError(
                f"model: experts_per_token={self.experts_per_token} of {chosen * (self.experts // groups)} that may be chosen"
            )

    @property
    def key_copies(self) -> int:
        """Copies of each key head: heads may be split further than there are key heads, each part then has its own."""
        return math.lcm(self.kv_heads, self.layout.ways("heads")) // self.kv_heads

    def slides(self, layer: int) -> bool:
        return bool(self.sliding) and self.sliding[layer % len(self.sliding)]

    def routes(self, layer: int) -> bool:
        """Whether this layer's feed-forward block is a mixture of experts."""
        return bool(self.experts) and (not self.routed or self.routed[layer % len(self.routed)])

    def stacks(self) -> list[tuple[int, int, int]]:
        """(first layer, period, repeats) of each run of layers that ``scan_layers`` keeps stacked, in order.

        A run repeats a pattern of ``period`` layers that differ in kind: Gemma's sliding and global ones, say.
        """
        kinds, out, first = [(self.slides(i), self.routes(i)) for i in range(self.layers)], [], 0
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


# Kernels that attention over whole sequences may be computed by: those of jax.nn.dot_product_attention and the TPU's. "xla"
# and Pallas' interpreter run anywhere, slowly: they are there to compare with.
DEVICES = {"cudnn": "gpu", "splash": "tpu"}  # that a kernel needs
STACKED = ("layer", "expert")  # axes of a weight that hold several matrices


class Weight(NamedTuple):
    shape: tuple[int, ...]
    axes: tuple[str | None, ...]  # logical axes; rljax.distributed.sharding maps them to a mesh
    spread: float  # standard deviation at the start; 0 means the constant ``fill``
    fill: float = 0.0
    inputs: int = 1  # axes that a product with it sums over: the first ones that are not STACKED
    dtype: str = ""  # where it is not the model's

    @property
    def held(self) -> int:
        """Leading axes that hold several matrices."""
        return sum(axis in STACKED for axis in self.axes)


def weights(config: Config) -> Params:
    """The pytree of ``Weight`` that describes the parameters of ``config``.

    ``layers`` is a list of them; with ``scan_layers`` a list of the runs of ``Config.stacks``, each a list of the layers of
    its pattern, stacked along a first axis.
    """
    c = config
    # A tied table is read twice: small rows keep the first logits small, scaled embeddings undo that on the way in.
    table = Weight((c.vocab_size, c.width), ("vocab", "embed"), c.width**-0.5 if c.tied_head else 1.0)
    layers: list[Any] = [layer_weights(c, i) for i in range(c.layers)]
    if c.scan_layers:
        stack = lambda n: lambda w: w._replace(shape=(n, *w.shape), axes=("layer", *w.axes))
        layers = [
            [jax.tree.map(stack(repeats), layers[first + i], is_leaf=is_weight) for i in range(period)]
            for first, period, repeats in c.stacks()
        ]
    tree: Params = {"embedding": table, "layers": layers, "norm": norm_weight(c, c.width, "norm")}
    if not c.tied_head:
        tree["head"] = Weight((c.width, c.vocab_size), ("embed", "vocab"), c.width**-0.5)
    return tree


def norm_weight(c: Config, size: int, axis: str | None) -> Weight:
    return Weight((size,), (axis,), 0.0, 0.0 if c.norm_plus_one else 1.0)


def residual(c: Config) -> float:
    """What keeps the residual stream's scale independent of depth: the factor of all that is added to it."""
    return 1 / math.sqrt(2 * c.layers)


def layer_weights(c: Config, index: int) -> Params:
    """The weights of one layer."""
    out: Params = {"attention_norm": norm_weight(c, c.width, "norm"), "mlp_norm": norm_weight(c, c.width, "norm")}
    out |= latent_weights(c) if c.latent else attention_weights(c)
    size = c.value_width if c.latent else c.head_width
    spread = residual(c) * (c.heads * size) ** -0.5
    out["out"] = {"kernel": Weight((c.heads, size, c.width), ("heads", "head", "embed"), spread, inputs=2)}
    if c.out_bias:
        out["out"]["bias"] = Weight((c.width,), ("norm",), 0.0)
    if c.post_norms:
        out |= {name: norm_weight(c, c.width, "norm") for name in ("attention_post_norm", "mlp_post_norm")}
    return out | (expert_weights(c) if c.routes(index) else mlp_weights(c, c.ff_width))


def attention_weights(c: Config) -> Params:
    def projection(heads: int, axis: str) -> Params:
        out = {"kernel": Weight((c.width, heads, c.head_width), ("embed", axis, "head"), c.width**-0.5)}
        return out | ({"bias": Weight((heads, c.head_width), (axis, "head"), 0.0)} if c.qkv_bias else {})

    out = {"query": projection(c.heads, "heads")}
    out |= {name: projection(c.kv_heads, "kv_heads") for name in ("key", "value")}
    if c.qk_norm:
        out |= {name: norm_weight(c, c.head_width, None) for name in ("query_norm", "key_norm")}
    return out


def latent_weights(c: Config) -> Params:
    """Multi-head latent attention: down to a narrow latent, a norm, and up to the heads."""

    def down(size: int) -> Params:
        out = {"kernel": Weight((c.width, size), ("embed", None), c.width**-0.5)}
        return out | ({"bias": Weight((size,), (None,), 0.0)} if c.qkv_bias else {})

    def up(inward: int, axis: str | None, size: int) -> Params:
        return {"kernel": Weight((inward, c.heads, size), (axis, "heads", "head"), inward**-0.5)}

    out: Params = {"kv_down": down(c.latent + c.rope_width), "kv_latent_norm": norm_weight(c, c.latent, None)}
    out["kv_up"] = up(c.latent, None, c.head_width - c.rope_width + c.value_width)
    if not c.query_latent:
        return out | {"query": up(c.width, "embed", c.head_width)}
    out |= {"query_down": down(c.query_latent), "query_latent_norm": norm_weight(c, c.query_latent, None)}
    return out | {"query_up": up(c.query_latent, None, c.head_width)}


def mlp_weights(c: Config, width: int) -> Params:
    out = {name: Weight((c.width, width), ("embed", "ff"), c.width**-0.5) for name in ("gate", "up")}
    out["down"] = Weight((width, c.width), ("ff", "embed"), residual(c) * width**-0.5)
    if c.mlp_bias:
        out |= {name: Weight((width,), ("ff",), 0.0) for name in ("gate_bias", "up_bias")}
        out["down_bias"] = Weight((c.width,), ("norm",), 0.0)
    return out


def expert_weights(c: Config) -> Params:
    """A router, its experts side by side, and the one that sees every token."""
    many = lambda w: w._replace(shape=(c.experts, *w.shape), axes=("expert", *w.axes))
    plain = dataclasses.replace(c, mlp_bias=False)
    one = mlp_weights(plain, c.expert_width)
    out: Params = {"router": {"kernel": Weight((c.width, c.experts), ("embed", None), c.width**-0.5)}}
    out["experts"] = {name: many(w) for name, w in one.items()}
    if c.router == "sigmoid":  # not half as precise: it decides between close scores
        out["router"]["bias"] = Weight((c.experts,), (None,), 0.0, dtype="float32")
    if c.shared_width:
        out["shared"] = mlp_weights(plain, c.shared_width)
    return out


def is_weight(x: Any) -> bool:
    return isinstance(x, Weight)


def init(config: Config, key: Array) -> Params:
    """Random parameters, normal with the spread stated beside each weight; the same ones however they are stacked."""
    leaves, tree = jax.tree.flatten(weights(dataclasses.replace(config, scan_layers=False)), is_leaf=is_weight)

    def one(index: int, w: Weight) -> Array:
        dtype = jnp.dtype(w.dtype or config.weight_dtype)
        if not w.spread:
            return jnp.full(w.shape, w.fill, dtype)
        return (w.spread * jax.random.normal(jax.random.fold_in(key, index), w.shape)).astype(dtype)

    params = jax.tree.unflatten(tree, [one(i, w) for i, w in enumerate(leaves)])
    return stack(params, config) if config.scan_layers else params


def stack(params: Params, config: Config) -> Params:
    """A dict a layer -> runs of stacked layers, as ``scan_layers`` keeps them."""
    together = lambda *xs: jnp.stack(xs)
    layers = [
        [
            jax.tree.map(together, *params["layers"][first + i : first + period * repeats : period])
            for i in range(period)
        ]
        for first, period, repeats in config.stacks()
    ]
    return params | {"layers": layers}


def unstack(params: Params, config: Config) -> tuple[Params, Config]:
    """The inverse of ``stack``, where it was used: a dict a layer, and the config that says so."""
    if not config.scan_layers:
        return params, config
    layers = []
    for run, (_, _, repeats) in zip(params["layers"], config.stacks(), strict=True):
        for n in range(repeats):
            layers += jax.tree.map(lambda x, n=n: x[n], run)
    return params | {"layers": layers}, dataclasses.replace(config, scan_layers=False)


def logical_axes(config: Config) -> Params:
    """The same pytree with each weight's tuple of logical axis names."""
    return jax.tree.map(lambda w: w.axes, weights(config), is_leaf=is_weight)


def count(params: Params) -> int:
    """Number of parameters."""
    return sum(x.size for x in jax.tree.leaves(params))
