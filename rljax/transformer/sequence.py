"""The transformer over whole sequences: hidden states and logits."""

from typing import Any

import jax
import jax.numpy as jnp

from rljax.transformer.attention import attend_sequence
from rljax.transformer.blocks import embed, rms_norm, unembed
from rljax.transformer.config import ATTENTION_KERNELS, Array, Config, Params
from rljax.transformer.layer import LayerCache, finish_layer, project_sequence
from rljax.transformer.packed_sequences import PackedSequences
from rljax.transformer.weight_formats import gather_layer

REMAT = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "layer": None}


def token_positions(mask: Array) -> Array:
    """Positions of the real tokens, counted from 0 whatever padding precedes them: cumsum(mask) - 1, at least 0."""
    return jnp.maximum(jnp.cumsum(mask, -1) - 1, 0)


def run_layers(
    params: Params,
    config: Config,
    tokens: Array,
    mask: Array,
    keep_stacked: bool = False,
    packed: PackedSequences | None = None,
) -> tuple[Array, list[Any]]:
    """All layers over tokens [B, S]: the residual stream [B, S, D], and what each layer caches, [B, K, S, .].

    With ``scan_layers`` the list for the cache is empty, unless ``keep_stacked`` asks for it: it is then stacked as the
    parameters are, and there is no gradient. Columns may be sharded over devices. Each device then compares its own queries
    with all keys. With ``packed`` the rows are packed sequences, which say what each column may attend to.
    """
    # Pad the columns so that they divide among devices, and move real tokens to the front where a kernel needs that.
    constrain, real = config.layout.constrain, tokens.shape[1]
    extra = -real % config.layout.num_shards("columns")
    tokens, mask = (jnp.pad(y, [(0, 0), (0, extra)]) for y in (tokens, mask))
    order = None
    if config.attention in ATTENTION_KERNELS and packed is None:  # kernels take columns for positions
        order = jnp.argsort(~mask, -1)
        tokens, mask = (permute_columns(y, order) for y in (tokens, mask))
    positions = token_positions(mask) if packed is None else packed.positions
    segments = None if packed is None else packed.segments

    def run_layer(layer: Params, x: Array, index: int) -> tuple[Array, LayerCache]:
        layer = gather_layer(layer, config, index)
        x = constrain(x, "rows", "columns")  # in a scan the compiler may choose another sharding between two layers
        h = rms_norm(x, layer["attention_norm"], config)
        q, k, v, pair = project_sequence(layer, h, positions, index, config)
        q, (k, v) = constrain(q, "rows", "heads", None, "columns"), constrain((k, v), "rows", "heads")
        mixed = attend_sequence(q, k, v, mask, positions, index, config, segments)
        x = finish_layer(layer, x, mixed, config)
        return constrain(x, "rows", "columns"), pair

    def restore_columns(x: Array, axis: int) -> Array:
        x = x if order is None else permute_columns(x, jnp.argsort(order, -1), axis)
        return jax.lax.slice_in_dim(x, 0, real, axis=axis)

    if config.remat != "none":
        policy, prevent_cse = REMAT[config.remat], not config.scan_layers
        run_layer = jax.checkpoint(run_layer, static_argnums=2, policy=policy, prevent_cse=prevent_cse)
    # One layer after the other, or one scan over each stack of layers.
    x, cache = embed(params, config, tokens), []
    if not config.scan_layers:
        for index, layer in enumerate(params["layers"]):
            x, pair = run_layer(layer, x, index)
            cache.append(tuple(restore_columns(y, 2) for y in pair))
        return restore_columns(x, 1), cache
    restore_stacked = jax.vmap(lambda y: restore_columns(y, 2))
    for (first, _, repeats), stacked in zip(config.layer_stacks(), params["layers"], strict=True):

        def run_pattern(x: Array, layers: list[Params], first: int = first) -> tuple[Array, list[LayerCache]]:
            pairs = []
            for place, layer in enumerate(layers):
                x, pair = run_layer(layer, x, first + place)
                pairs.append(pair)
            return x, pairs if keep_stacked else []

        if keep_stacked:
            run_repeat = lambda x, n, run=run_pattern, stacked=stacked: run(x, take_repeat(stacked, n))
            x, pairs = jax.lax.scan(run_repeat, x, jnp.arange(repeats))
            cache.append(jax.tree.map(restore_stacked, pairs))
        else:
            x, _ = jax.lax.scan(run_pattern, x, stacked)
    return restore_columns(x, 1), cache


def take_repeat(stacked: Any, repeat: Array) -> Any:
    """In the body of a loop over the repeats of a stack: the arrays of this one.

    The barrier keeps the compiler from converting the whole stack before the loop, which would be a copy of all weights.
    """
    stacked, repeat = jax.lax.optimization_barrier((stacked, repeat))
    return jax.tree.map(lambda y: jax.lax.dynamic_index_in_dim(y, repeat, keepdims=False), stacked)


def permute_columns(x: Array, order: Array, axis: int = 1) -> Array:
    """x [B, ...] with the entries along ``axis`` of each row in that row's order [B, S]."""
    shape = [y if a in (0, axis) else 1 for a, y in enumerate(x.shape)]
    return jnp.take_along_axis(x, order.reshape(shape), axis)


def hidden_states(params: Params, config: Config, tokens: Array, mask: Array) -> Array:
    """[B, S, D]: the residual stream after the last layer and the final norm, which the head reads."""
    return rms_norm(run_layers(params, config, tokens, mask)[0], params["norm"], config)


def forward(params: Params, config: Config, tokens: Array, mask: Array | None = None) -> Array:
    """Logits [B, S, V] float32 of tokens [B, S] int32; column s scores the token at column s + 1.

    ``mask`` [B, S] bool is True on real tokens (default: all). Padding, left or right, changes no real column.
    """
    x, _ = run_layers(params, config, tokens, jnp.ones(tokens.shape, bool) if mask is None else mask)
    return unembed(params, config, x)
