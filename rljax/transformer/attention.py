"""Attention of an ordinary layer: queries, keys and values; scores, softmax and mixing.

A layer caches a pair of arrays. Queries and keys are compared in parts, one product for each part. So the same code serves
heads that cache keys and values, and heads that cache a latent (``latent_attention.py``).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from rljax.errors import UserError
from rljax.transformer.blocks import (
    apply_rope,
    dot,
    rms_norm,
    rope_attention_factor,
    rope_frequencies,
)
from rljax.transformer.config import ATTENTION_KERNELS, KERNEL_PLATFORM, SPLASH_KERNELS, Array, Config, Params
from rljax.transformer.packed_sequences import Segments, may_attend
from rljax.transformer.products import accumulation_dtype, add_bias, product

MASKED_SCORE = -1e30  # large and finite: a row that may attend to nothing stays finite


def project_qkv(layer: Params, x: Array, positions: Array, index: int, config: Config) -> tuple[Array, Array, Array]:
    """Queries [B, K, R, S, E] (scaled), keys and values [B, K, S, E] of x [B, S, D]; queries and keys are rotated."""

    def project(name: str) -> Array:
        y = dot("bsd,dhe->bshe", x, layer[name]["kernel"], config).swapaxes(1, 2)
        return add_bias(y, layer[name]["bias"][:, None]) if "bias" in layer[name] else y

    q, k, v = project("query"), project("key"), project("value")
    if config.qk_norm:
        q, k = rms_norm(q, layer["query_norm"], config), rms_norm(k, layer["key_norm"], config)
    frequencies, factor = rope_frequencies(config, index), rope_attention_factor(config, index)
    q, k = (apply_rope(y, positions[:, None], frequencies, factor) for y in (q, k))
    if config.kv_head_copies > 1:
        k, v = (jnp.repeat(y, config.kv_head_copies, 1) for y in (k, v))
    q = (q * score_scale(config)).reshape(q.shape[0], k.shape[1], -1, *q.shape[2:])
    return q, k, v


def score_scale(config: Config) -> float:
    """The factor that q.k is multiplied by."""
    return config.head_width**-0.5 if config.attention_scale is None else config.attention_scale


def attention_scores(q: tuple[Array, ...], k: tuple[Array, ...], mask: Array, config: Config) -> Array:
    """float32 scores: the sum over parts of q times k. Soft-capped where the config says so, MASKED_SCORE where ``mask`` is
    False.

    q [B, K, R, M, E] and k [B, K, S, E] give [B, K, R, M, S]; q [B, K, M, E] gives [B, K, M, S].
    """
    spec = "bkrme,bkse->bkrms" if q[0].ndim == 5 else "bkme,bkse->bkms"
    s = sum(product(spec, a, b) for a, b in zip(q, k, strict=True))
    if config.attention_softcap:
        s = config.attention_softcap * jnp.tanh(s / config.attention_softcap)
    return jnp.where(mask, s, MASKED_SCORE)


def mix_values(p: Array, v: Array, config: Config) -> Array:
    """Weighted sums of the values, float32: p [B, K, R, M, S] and v [B, K, S, E] give [B, K, R, M, E], p [B, K, M, S]
    gives [B, K, M, E]."""
    spec = "bkrms,bkse->bkrme" if p.ndim == 5 else "bkms,bkse->bkme"
    return product(spec, p.astype(jnp.dtype(config.dtype)), v)


def within_window(query: Array, key: Array, index: int, config: Config) -> Array | bool:
    """Whether the key position is inside this layer's sliding window of the query position. Positions broadcast."""
    return (query - key) < config.window if config.window and config.is_sliding(index) else True


def attend_sequence(
    q: Array,
    k: Array,
    v: Array,
    mask: Array,
    positions: Array,
    index: int,
    config: Config,
    segments: Segments | None = None,
) -> Array:
    """Causal attention over whole sequences: q [B, K, R, S, E], k and v [B, K, S, .] -> [B, K * R, S, E'] float32.

    ``mask`` [B, S] is True on real tokens, ``positions`` [B, S] counts them. ``segments`` are those of packed sequences, which
    only ``config.attention`` "own" and "splash" know. With ``config.attention_chunk`` only the scores of that many queries
    exist at once, and the backward pass computes them again: memory grows with S, not with S squared.
    """
    if config.attention in ATTENTION_KERNELS:
        window = config.window if config.is_sliding(index) else None
        if config.attention in SPLASH_KERNELS:
            from rljax.transformer import splash

            return splash.attend(q, k, v, window, config, positions, segments)
        assert segments is None, "checked where a config is read"
        return attend_by_jax_kernel(q, k, v, mask, window, config)
    layout, columns = config.layout, jnp.arange(q.shape[3])
    chunk = -(-config.attention_chunk // layout.num_shards("columns"))  # each device takes its share of every chunk
    if segments is None:
        attend, arrays = functools.partial(attend_in_chunks, chunk=chunk), (mask, positions, columns)
    else:
        attend, arrays = attend_packed, (mask, positions, *segments)
    attend = functools.partial(attend, index=index, config=config)
    if layout.is_sharded:
        # Each device takes its rows, heads and query columns against all keys. So the gradient of the keys is summed over
        # devices once, and not once for each chunk.
        of_q, of_kv = layout.spec(("rows", "heads", None, "columns"), q.shape), layout.spec(("rows", "heads"), k.shape)
        of_arrays = tuple(layout.spec(("columns",) if x.ndim == 1 else ("rows",), x.shape) for x in arrays)
        specs = of_q, of_kv, of_kv, *of_arrays
        attend = jax.shard_map(attend, mesh=layout.mesh, in_specs=specs, out_specs=of_q, check_vma=False)
    return flatten_heads(attend(q, k, v, *arrays))


def attend_in_chunks(
    q: Array, k: Array, v: Array, mask: Array, positions: Array, at: Array, chunk: int, index: int, config: Config
) -> Array:
    """Causal attention of the queries q [B, K, R, M, E] of the columns ``at`` [M] -> [B, K, R, M, E'] float32.

    ``chunk`` queries at a time; 0 means all at once.
    """
    columns = jnp.arange(k.shape[2])

    def attend_chunk(q: Array, at: Array) -> Array:
        near = within_window(positions[:, at][:, :, None], positions[:, None, :], index, config)
        visible = (at[:, None] >= columns) & mask[:, None, :] & near
        return attend_visible(q, k, v, visible, config)

    return map_queries(attend_chunk, q, at, chunk)


def attend_packed(
    q: Array,
    k: Array,
    v: Array,
    mask: Array,
    positions: Array,
    prompt: Array,
    response: Array,
    index: int,
    config: Config,
) -> Array:
    """Attention within packed sequences: q [B, K, R, S, E] -> [B, K, R, S, E'] float32; the other arrays are [B, S].

    Up to eight blocks of queries, each against the columns up to its end: packed sequences are long, and what lies behind a
    query need not be multiplied. ``config.attention_chunk`` queries of a block at a time.
    """
    columns, step = q.shape[3], max(128, -(-q.shape[3] // 8))

    def attend_block(start: int, end: int) -> Array:
        keys, values, at = k[:, :, :end], v[:, :, :end], jnp.arange(end)

        def attend_queries(q: Array, columns: Array) -> Array:
            near = within_window(positions[:, columns, None], positions[:, None, :end], index, config)
            of_query, of_key = (
                (prompt[:, columns, None], response[:, columns, None]),
                (prompt[:, None, :end], response[:, None, :end]),
            )
            visible = (columns[:, None] >= at) & mask[:, None, :end] & near & may_attend(of_query, of_key)
            return attend_visible(q, keys, values, visible, config)

        return map_queries(attend_queries, q[:, :, :, start:end], jnp.arange(start, end), config.attention_chunk)

    blocks = [(start, min(start + step, columns)) for start in range(0, columns, step)]
    return jnp.concatenate([attend_block(*block) for block in blocks], 3)


def map_queries(attend: Callable[[Array, Array], Array], q: Array, at: Array, chunk: int) -> Array:
    """``attend(q, at)`` of the queries q [B, K, R, M, E] at the columns ``at`` [M], ``chunk`` of them at a time; 0: all.

    In chunks, the backward pass computes the scores again.
    """
    count = at.shape[0]

    def split_chunks(x: Array, axis: int) -> Array:
        x = jnp.pad(x, [(0, -count % chunk if a == axis else 0) for a in range(x.ndim)])
        return jnp.moveaxis(x.reshape(*x.shape[:axis], -1, chunk, *x.shape[axis + 1 :]), axis, 0)

    if not 0 < chunk < count:
        return attend(q, at)
    out = jax.lax.map(lambda xs: jax.checkpoint(attend)(*xs), (split_chunks(q, 3), split_chunks(at, 0)))
    out = jnp.moveaxis(out, 0, 3)  # [B, K, R, chunks, chunk, E']
    return out.reshape(*out.shape[:3], -1, out.shape[-1])[:, :, :, :count]


def attend_visible(q: Array, k: Array, v: Array, visible: Array, config: Config) -> Array:
    """Attention of q [B, K, R, M, E] to those of the columns of k and v [B, K, S, .] that are ``visible`` [B, M, S]."""
    p = jax.nn.softmax(attention_scores((q,), (k,), visible[:, None, None], config))
    return mix_values(p, v, config)


def flatten_heads(x: Array) -> Array:
    """[B, K, R, S, E] -> [B, K * R, S, E]."""
    return x.reshape(x.shape[0], -1, *x.shape[3:])


def attend_by_jax_kernel(q: Array, k: Array, v: Array, mask: Array, window: int | None, config: Config) -> Array:
    """Like ``attend_sequence``, by ``jax.nn.dot_product_attention``. The real tokens of every row must come first."""
    dtype, lengths = jnp.dtype(config.dtype), mask.sum(-1).astype(jnp.int32)
    heads_last = lambda x: flatten_heads(x[:, :, None] if x.ndim == 4 else x).swapaxes(1, 2).astype(dtype)
    local = (window - 1, 0) if window else None
    options = dict(scale=1.0, is_causal=True, local_window_size=local, implementation=config.attention)
    out = jax.nn.dot_product_attention(
        *map(heads_last, (q, k, v)), query_seq_lengths=lengths, key_value_seq_lengths=lengths, **options
    )
    return out.swapaxes(1, 2).astype(accumulation_dtype(out))


def check_attention_kernel(config: Config) -> None:
    """Raise UserError where the kernel ``config.attention`` needs devices of another kind than the layout's."""
    wanted, mesh = KERNEL_PLATFORM.get(config.attention), config.layout.mesh
    if wanted is None:
        return
    here = mesh.devices.flat[0].platform if mesh else jax.default_backend()
    if here != wanted:
        raise UserError(
            f"model.attention={config.attention} is a kernel of the {wanted.upper()}, and the devices here are of kind "
            f"{here}: use own, with model.attention_chunk"
        )
