"""Attention over whole sequences by the TPU's Pallas kernel, splash attention.

A block of scores is computed, used and dropped in the chip's fast memory, in the backward pass too. A block that is masked
completely is not computed. One key head serves its group of query heads without a copy.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from rljax.transformer.config import Array, Config
from rljax.transformer.packed_sequences import Segments, may_attend
from rljax.transformer.products import accumulation_dtype

LANES = 128  # width of a TPU's vector unit: a block is a multiple of it
MAX_BLOCK = 512  # columns of a block ...
MAX_BLOCK_BYTES = (
    MAX_BLOCK * 256 * 4
)  # ... of heads of width 256 in float32. Wider heads get fewer: fast memory is small

KEPT = "splash"  # the name of what the backward pass needs of the forward pass


def block_size(columns: int, head_bytes: int = 0) -> tuple[int, int]:
    """(columns of one block, columns of all blocks): the fewest equal blocks that hold ``columns``.

    ``head_bytes``: the bytes of one column of one head.
    """
    largest = min(MAX_BLOCK, max(MAX_BLOCK_BYTES // max(head_bytes, 1) // LANES, 1) * LANES)
    count = -(-columns // largest)
    size = -(-columns // (count * LANES)) * LANES
    return size, count * size


def attend(
    q: Array,
    k: Array,
    v: Array,
    window: int | None,
    config: Config,
    positions: Array | None = None,
    segments: Segments | None = None,
) -> Array:
    """Causal attention: q [B, K, R, S, E], k and v [B, K, S, .] -> [B, K * R, S, E'] float32.

    The kernel takes a column for a position. So the real tokens of a row must come first and together, as
    ``sequence.run_layers`` puts them. Then no real token sees padding, and padding sees at least itself, which keeps it
    finite. Every device computes its own rows and heads.

    ``segments`` are those of packed sequences, with the ``positions`` [B, S] of their tokens.
    """
    columns, dtype = q.shape[3], jnp.dtype(config.dtype)
    size, padded = block_size(columns, max(q.shape[-1], v.shape[-1]) * dtype.itemsize)
    pad = lambda x: jnp.pad(x.astype(dtype), [(0, 0)] * (x.ndim - 2) + [(0, padded - columns), (0, 0)])
    shape, sizes = (padded, padded), kernel.BlockSizes(size, size, size, size, size, size, size, size)
    options: Any = dict(
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=config.attention_softcap,
        interpret=config.attention == "splash_interpreted",
    )

    def attend_rows(q: Array, k: Array, v: Array) -> Array:
        mask = masks.LocalMask(shape, (window - 1, 0), 0) if window else masks.CausalMask(shape)
        q = q.reshape(q.shape[0], -1, *q.shape[3:])
        attend_row: Any = kernel.make_splash_mha(masks.MultiHeadMask([mask] * q.shape[1]), **options)
        return jax.vmap(attend_row)(q, k, v)

    def attend_packed(q: Array, k: Array, v: Array, *packed: Array) -> Array:
        q = q.reshape(q.shape[0], -1, *q.shape[3:])
        attend_one = functools.partial(attend_packed_sequence, window=window, options=options)
        return jax.lax.map(lambda xs: attend_one(*xs), (q, k, v, *packed))

    attend, packed = attend_rows, ()
    if segments is not None and positions is not None:
        empty = lambda x, value: jnp.pad(x, [(0, 0), (0, padded - columns)], constant_values=value)
        attend, packed = attend_packed, (empty(positions, 0), *(empty(x, -1) for x in segments))
    if config.layout.is_sharded:  # the partitioner does not look into a kernel: without shard_map it gathers everything
        spec = config.layout.spec(("rows", "heads"), k.shape[:2])
        specs = (spec,) * 3 + tuple(config.layout.spec(("rows",), x.shape) for x in packed)
        attend = jax.shard_map(attend, mesh=config.layout.mesh, in_specs=specs, out_specs=spec, check_vma=False)
    out = attend(*map(pad, (q, k, v)), *packed)[:, :, :columns]
    return out.astype(accumulation_dtype(out))


def attend_packed_sequence(
    q: Array, k: Array, v: Array, positions: Array, prompt: Array, response: Array, window: int | None, options: Any
) -> Array:
    """Attention within one packed sequence: q [H, S, E], k and v [K, S, .], the other arrays [S] -> [H, S, E'].

    Responses share their prompts, which equal segment numbers cannot say. So the kernel is given a mask [S, S] for all heads. It
    leaves out the blocks of it in which nothing is seen. The backward pass makes the mask again: it is not stored.
    """

    def attend(q: Array, k: Array, v: Array, positions: Array, prompt: Array, response: Array) -> Array:
        at = jnp.arange(positions.shape[0])
        visible = (at[:, None] >= at) & may_attend((prompt[:, None], response[:, None]), (prompt, response))
        if window:
            visible &= positions[:, None] - positions < window
        attend_masked: Any = kernel.make_splash_mha(visible[None], residual_checkpoint_name=KEPT, **options)
        made = attend_masked.fwd_mask_info  # with all that it says as arrays, also what must be known while tracing
        attend_masked.fwd_mask_info = made._replace(is_dynamic_mask=True)
        return attend_masked(q, k, v)

    keep_results = jax.checkpoint_policies.save_only_these_names(KEPT)
    return jax.checkpoint(attend, policy=keep_results)(q, k, v, positions, prompt, response)
