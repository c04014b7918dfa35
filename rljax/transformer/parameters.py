"""The parameters as a pytree: for every weight its shape, logical axes and initial values; ``init``, and stacked layers."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.transformer.config import Array, Config, Params

STACKED = ("layer", "expert")  # axes of a weight along which it holds several matrices


class WeightSpec(NamedTuple):
    """What a weight is: its shape, its axes and how it is initialised."""

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]  # logical axes; rljax.distributed.sharding maps them to a mesh
    init_std: float  # standard deviation of the normal initial values; 0: the constant ``init_value``
    init_value: float = 0.0
    input_axes: int = 1  # number of axes that a product sums over: the first ones that are not STACKED
    dtype: str = ""  # where it is not the model's

    @property
    def stacked_axes(self) -> int:
        """Number of leading axes along which it holds several matrices."""
        return sum(axis in STACKED for axis in self.axes)


def weight_specs(config: Config) -> Params:
    """The ``WeightSpec`` of every parameter of ``config``: a pytree like the parameters.

    ``layers`` is a list of dicts. With ``scan_layers`` it is a list of the stacks of ``Config.layer_stacks``. Each stack is a
    list of the layers of its pattern, with the repeats stacked along the first axis.
    """
    c = config
    # A tied table is used twice. Small rows keep the initial logits small; scaled embeddings undo this at the input.
    table = WeightSpec((c.vocab_size, c.width), ("vocab", "embed"), c.width**-0.5 if c.tied_head else 1.0)
    layers: list[Any] = [layer_weights(c, i) for i in range(c.layers)]
    if c.scan_layers:
        stack_spec = lambda n: lambda w: w._replace(shape=(n, *w.shape), axes=("layer", *w.axes))
        layers = [
            [jax.tree.map(stack_spec(repeats), layers[first + i], is_leaf=is_weight_spec) for i in range(period)]
            for first, period, repeats in c.layer_stacks()
        ]
    tree: Params = {"embedding": table, "layers": layers, "norm": norm_weight(c, c.width, "norm")}
    if not c.tied_head:
        tree["head"] = WeightSpec((c.width, c.vocab_size), ("embed", "vocab"), c.width**-0.5)
    return tree


def norm_weight(c: Config, size: int, axis: str | None) -> WeightSpec:
    return WeightSpec((size,), (axis,), 0.0, 0.0 if c.norm_plus_one else 1.0)


def residual_scale(c: Config) -> float:
    """The factor of everything that is added to the residual stream: it keeps the stream's scale independent of depth."""
    return 1 / math.sqrt(2 * c.layers)


def layer_weights(c: Config, index: int) -> Params:
    """The weights of layer ``index``."""
    out: Params = {"attention_norm": norm_weight(c, c.width, "norm"), "mlp_norm": norm_weight(c, c.width, "norm")}
    out |= latent_weights(c) if c.latent else attention_weights(c)
    size = c.value_width if c.latent else c.head_width
    std = residual_scale(c) * (c.heads * size) ** -0.5
    out["out"] = {"kernel": WeightSpec((c.heads, size, c.width), ("heads", "head", "embed"), std, input_axes=2)}
    if c.out_bias:
        out["out"]["bias"] = WeightSpec((c.width,), ("norm",), 0.0)
    if c.post_norms:
        out |= {name: norm_weight(c, c.width, "norm") for name in ("attention_post_norm", "mlp_post_norm")}
    return out | (expert_weights(c) if c.has_experts(index) else mlp_weights(c, c.ff_width))


def attention_weights(c: Config) -> Params:
    """The projections of queries, keys and values, and the norms of queries and keys."""

    def projection(heads: int, axis: str) -> Params:
        out = {"kernel": WeightSpec((c.width, heads, c.head_width), ("embed", axis, "head"), c.width**-0.5)}
        return out | ({"bias": WeightSpec((heads, c.head_width), (axis, "head"), 0.0)} if c.qkv_bias else {})

    out = {"query": projection(c.heads, "heads")}
    out |= {name: projection(c.kv_heads, "kv_heads") for name in ("key", "value")}
    if c.qk_norm:
        out |= {name: norm_weight(c, c.head_width, None) for name in ("query_norm", "key_norm")}
    return out


def latent_weights(c: Config) -> Params:
    """The projections of multi-head latent attention: down to a narrow latent, a norm, and up to the heads."""

    def down(size: int) -> Params:
        out = {"kernel": WeightSpec((c.width, size), ("embed", None), c.width**-0.5)}
        return out | ({"bias": WeightSpec((size,), (None,), 0.0)} if c.qkv_bias else {})

    def up(inward: int, axis: str | None, size: int) -> Params:
        return {"kernel": WeightSpec((inward, c.heads, size), (axis, "heads", "head"), inward**-0.5)}

    out: Params = {"kv_down": down(c.latent + c.rope_width), "kv_latent_norm": norm_weight(c, c.latent, None)}
    out["kv_up"] = up(c.latent, None, c.head_width - c.rope_width + c.value_width)
    if not c.query_latent:
        return out | {"query": up(c.width, "embed", c.head_width)}
    out |= {"query_down": down(c.query_latent), "query_latent_norm": norm_weight(c, c.query_latent, None)}
    return out | {"query_up": up(c.query_latent, None, c.head_width)}


def mlp_weights(c: Config, width: int) -> Params:
    """A gated feed-forward block of this width."""
    out = {name: WeightSpec((c.width, width), ("embed", "ff"), c.width**-0.5) for name in ("gate", "up")}
    out["down"] = WeightSpec((width, c.width), ("ff", "embed"), residual_scale(c) * width**-0.5)
    if c.mlp_bias:
        out |= {name: WeightSpec((width,), ("ff",), 0.0) for name in ("gate_bias", "up_bias")}
        out["down_bias"] = WeightSpec((c.width,), ("norm",), 0.0)
    return out


def expert_weights(c: Config) -> Params:
    """A router, its experts along a first axis, and the shared expert."""
    stack_experts = lambda w: w._replace(shape=(c.experts, *w.shape), axes=("expert", *w.axes))
    plain = dataclasses.replace(c, mlp_bias=False)
    expert = mlp_weights(plain, c.expert_width)
    out: Params = {"router": {"kernel": WeightSpec((c.width, c.experts), ("embed", None), c.width**-0.5)}}
    out["experts"] = {name: stack_experts(w) for name, w in expert.items()}
    if c.router == "sigmoid":  # always float32: it decides between close scores
        out["router"]["bias"] = WeightSpec((c.experts,), (None,), 0.0, dtype="float32")
    if c.shared_width:
        out["shared"] = mlp_weights(plain, c.shared_width)
    return out


def is_weight_spec(x: Any) -> bool:
    return isinstance(x, WeightSpec)


def init(config: Config, key: Array) -> Params:
    """Random parameters, as each ``WeightSpec`` says. They do not depend on ``scan_layers``."""
    leaves, tree = jax.tree.flatten(
        weight_specs(dataclasses.replace(config, scan_layers=False)), is_leaf=is_weight_spec
    )

    def init_weight(index: int, w: WeightSpec) -> Array:
        dtype = jnp.dtype(w.dtype or config.weight_dtype)
        if not w.init_std:
            return jnp.full(w.shape, w.init_value, dtype)
        return (w.init_std * jax.random.normal(jax.random.fold_in(key, index), w.shape)).astype(dtype)

    params = jax.tree.unflatten(tree, [init_weight(i, w) for i, w in enumerate(leaves)])
    return stack_layers(params, config) if config.scan_layers else params


def stack_layers(params: Params, config: Config) -> Params:
    """Parameters with one dict for each layer -> parameters with stacked layers, as ``scan_layers`` needs them."""
    stack = lambda *xs: jnp.stack(xs)
    layers = [
        [jax.tree.map(stack, *params["layers"][first + i : first + period * repeats : period]) for i in range(period)]
        for first, period, repeats in config.layer_stacks()
    ]
    return params | {"layers": layers}


def unstack_layers(params: Params, config: Config) -> tuple[Params, Config]:
    """The inverse of ``stack_layers``: parameters with one dict for each layer, and the config without ``scan_layers``."""
    if not config.scan_layers:
        return params, config
    layers = []
    for run, (_, _, repeats) in zip(params["layers"], config.layer_stacks(), strict=True):
        for n in range(repeats):
            layers += jax.tree.map(lambda x, n=n: x[n], run)
    return params | {"layers": layers}, dataclasses.replace(config, scan_layers=False)


def logical_axes(config: Config) -> Params:
    """The logical axes of every weight: a pytree like the parameters."""
    return jax.tree.map(lambda w: w.axes, weight_specs(config), is_leaf=is_weight_spec)


def count(params: Params) -> int:
    """Number of parameters."""
    return sum(x.size for x in jax.tree.leaves(params))
