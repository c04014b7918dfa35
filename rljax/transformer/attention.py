"""The one attention: scores, softmax and mixing; and how an ordinary layer makes its queries, keys and values.

What is cached of a layer is a pair of arrays ``kept``. Queries and keys are compared in parts, each a product of its own,
so that the same code serves heads that keep keys and values and heads that keep a latent (``latent.py``).
"""

import functools

import jax
import jax.numpy as jnp

from rljax.errors import UserError
from rljax.transformer.blocks import dot, full, rms_norm, rope, rope_frequencies, rope_stretch
from rljax.transformer.config import DEVICES, KERNELS, SPLASH, Array, Config, Params

MASKED = -1e30  # large and finite: a row that may attend to nothing stays finite


def qkv(layer: Params, x: Array, positions: Array, index: int, config: Config) -> tuple[Array, Array, Array]:
    """x [B, S, D] -> queries [B, K, R, S, E] (scaled), keys and values [B, K, S, E], rotated."""

    def project(name: str) -> Array:
        y = dot("bsd,dhe->bhse", x, layer[name]["kernel"], config)
        return y + layer[name]["bias"].astype(y.dtype)[:, None] if "bias" in layer[name] else y

    q, k, v = project("query"), project("key"), project("value")
    if config.qk_norm:
        q, k = rms_norm(q, layer["query_norm"], config), rms_norm(k, layer["key_norm"], config)
    freq, stretch = rope_frequencies(config, index), rope_stretch(config, index)
    q, k = (rope(y, positions[:, None], freq, stretch) for y in (q, k))
    if config.key_copies > 1:
        k, v = (jnp.repeat(y, config.key_copies, 1) for y in (k, v))
    q = (q * score_scale(config)).reshape(q.shape[0], k.shape[1], -1, *q.shape[2:])
    return q, k, v


def score_scale(config: Config) -> float:
    return config.head_width**-0.5 if config.attention_scale is None else config.attention_scale


def scores(q: tuple[Array, ...], k: tuple[Array, ...], mask: Array, config: Config) -> Array:
    """Attention scores in float32: parts q [..., M, E] against k [..., S, E], added up; MASKED where mask is False."""
    s = sum(
        jnp.einsum("...me,...se->...ms", a, b.astype(a.dtype), preferred_element_type=full(a))
        for a, b in zip(q, k, strict=True)
    )
    if config.attention_softcap:
        s = config.attention_softcap * jnp.tanh(s / config.attention_softcap)
    return jnp.where(mask, s, MASKED)


def mix(p: Array, v: Array, config: Config) -> Array:
    """Weighted values: p [..., M, S] float32 and v [..., S, E] -> [..., M, E] float32."""
    dtype = jnp.dtype(config.dtype)
    p = p.astype(dtype)
    return jnp.einsum("...ms,...se->...me", p, v.astype(dtype), preferred_element_type=full(p))


def within_window(query: Array, key: Array, index: int, config: Config) -> Array | bool:
    """True where a key position is near enough for this layer; positions broadcast."""
    return (query - key) < config.window if config.window and config.slides(index) else True


def attend(q: Array, k: Array, v: Array, mask: Array, positions: Array, index: int, config: Config) -> Array:
    """Causal attention over whole sequences: q [B, K, R, S, E], k and v [B, K, S, .] -> [B, K * R, S, E'] float32.

    mask [B, S] is True on real tokens, positions [B, S] counts them. With ``config.attention_chunk`` the scores of so many
    queries at a time exist, and are made again in the backward pass: memory grows with S, not with its square.
    """
    if config.attention in KERNELS:
        window = config.window if config.slides(index) else None
        if config.attention in SPLASH:
            from rljax.transformer import splash

            return splash.attend(q, k, v, window, config)
        return by_kernel(q, k, v, mask, window, config)
    layout, columns = config.layout, jnp.arange(q.shape[3])
    chunk = -(-config.attention_chunk // layout.ways("columns"))  # each device takes its share of every chunk
    part = functools.partial(causal, chunk=chunk, index=index, config=config)
    if layout.split:
        # Each device its rows, heads and columns, against the keys of all, whose gradient is so summed once and not by chunk.
        of_q, of_kv = layout.spec(("rows", "heads", None, "columns"), q.shape), layout.spec(("rows", "heads"), k.shape)
        of_rows, of_columns = layout.spec(("rows",), mask.shape), layout.spec(("columns",), columns.shape)
        specs = of_q, of_kv, of_kv, of_rows, of_rows, of_columns
        part = jax.shard_map(part, mesh=layout.mesh, in_specs=specs, out_specs=of_q, check_vma=False)
    return flat_heads(part(q, k, v, mask, positions, columns))


def causal(
    q: Array, k: Array, v: Array, mask: Array, positions: Array, at: Array, chunk: int, index: int, config: Config
) -> Array:
    """The queries q [B, K, R, M, E] of the columns ``at`` [M], so many at a time: [B, K, R, M, E'] float32."""
    columns, count = jnp.arange(k.shape[2]), at.shape[0]

    def some(q: Array, at: Array) -> Array:
        near = within_window(positions[:, at][:, :, None], positions[:, None, :], index, config)
        seen = (at[:, None] >= columns) & mask[:, None, :] & near
        p = jax.nn.softmax(scores((q,), (k[:, :, None],), seen[:, None, None], config))
        return mix(p, v[:, :, None], config)

    def cut(x: Array, axis: int) -> Array:
        x = jnp.pad(x, [(0, -count % chunk if a == axis else 0) for a in range(x.ndim)])
        return jnp.moveaxis(x.reshape(*x.shape[:axis], -1, chunk, *x.shape[axis + 1 :]), axis, 0)

    if not 0 < chunk < count:
        return some(q, at)
    out = jax.lax.map(lambda xs: jax.checkpoint(some)(*xs), (cut(q, 3), cut(at, 0)))
    out = jnp.moveaxis(out, 0, 3)  # [B, K, R, chunks, chunk, E']
    return out.reshape(*out.shape[:3], -1, out.shape[-1])[:, :, :, :count]


def flat_heads(x: Array) -> Array:
    """[B, K, R, S, E] -> [B, K * R, S, E]."""
    return x.reshape(x.shape[0], -1, *x.shape[3:])


def by_kernel(q: Array, k: Array, v: Array, mask: Array, window: int | None, config: Config) -> Array:
    """The same by ``jax.nn.dot_product_attention``, for rows whose real tokens stand first."""
    dtype, lengths = jnp.dtype(config.dtype), mask.sum(-1).astype(jnp.int32)
    heads_last = lambda x: flat_heads(x[:, :, None] if x.ndim == 4 else x).swapaxes(1, 2).astype(dtype)
    near = (window - 1, 0) if window else None
    how = dict(scale=1.0, is_causal=True, local_window_size=near, implementation=config.attention)
    out = jax.nn.dot_product_attention(
        *map(heads_last, (q, k, v)), query_seq_lengths=lengths, key_value_seq_lengths=lengths, **how
    )
    return out.swapaxes(1, 2).astype(full(out))


def check_devices(config: Config) -> None:
    """Raise UserError where ``config.attention`` is a kernel of devices that are not those of the layout."""
    wanted, mesh = DEVICES.get(config.attention), config.layout.mesh
    if wanted is None:
        return
    here = mesh.devices.flat[0].platform if mesh else jax.default_backend()
    if here != wanted:
        raise UserError(
            f"model.attention={config.attention} is a kernel of the {wanted.upper()}, and the devices here are of kind "
            f"{here}: use own, with model.attention_chunk"
        )
