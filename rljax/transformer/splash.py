"""Attention over whole sequences by the TPU's Pallas kernel, splash attention.

A block of scores is computed, used and dropped in the chip's fast memory, in the backward pass too. A block that is masked
completely is not computed. One key head serves its group of query heads without a copy.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from rljax.transformer.config import Array, Config
from rljax.transformer.products import accumulation_dtype

LANES = 128  # width of a TPU's vector unit: a block is a multiple of it
MAX_BLOCK = 512  # columns of a block ...
MAX_BLOCK_BYTES = (
    MAX_BLOCK * 256 * 4
)  # ... of heads of width 256 in float32. Wider heads get fewer: fast memory is small


def block_size(columns: int, head_bytes: int = 0) -> tuple[int, int]:
    """(columns of one block, columns of all blocks): the fewest equal blocks that hold ``columns``.

    ``head_bytes``: the bytes of one column of one head.
    """
    largest = min(MAX_BLOCK, max(MAX_BLOCK_BYTES // max(head_bytes, 1) // LANES, 1) * LANES)
    count = -(-columns // largest)
    size = -(-columns // (count * LANES)) * LANES
    return size, count * size


def attend(q: Array, k: Array, v: Array, window: int | None, config: Config) -> Array:
    """Causal attention: q [B, K, R, S, E], k and v [B, K, S, .] -> [B, K * R, S, E'] float32.

    The kernel takes a column for a position. So the real tokens of a row must come first and together, as
    ``sequence.run_layers`` puts them. Then no real token sees padding, and padding sees at least itself, which keeps it
    finite. Every device computes its own rows and heads.
    """
    columns, dtype = q.shape[3], jnp.dtype(config.dtype)
    size, padded = block_size(columns, max(q.shape[-1], v.shape[-1]) * dtype.itemsize)
    pad = lambda x: jnp.pad(x.astype(dtype), [(0, 0)] * (x.ndim - 2) + [(0, padded - columns), (0, 0)])
    shape, sizes = (padded, padded), kernel.BlockSizes(size, size, size, size, size, size, size, size)
    mask = masks.LocalMask(shape, (window - 1, 0), 0) if window else masks.CausalMask(shape)
    options: Any = dict(block_sizes=sizes, head_shards=1, q_seq_shards=1, attn_logits_soft_cap=config.attention_softcap)

    def attend_on_device(q: Array, k: Array, v: Array) -> Array:
        q = q.reshape(q.shape[0], -1, *q.shape[3:])
        head_masks = masks.MultiHeadMask([mask] * q.shape[1])
        interpret = config.attention == "splash_interpreted"
        attend_row: Any = kernel.make_splash_mha(head_masks, interpret=interpret, **options)
        return jax.vmap(attend_row)(q, k, v)

    attend = attend_on_device
    if config.layout.is_sharded:  # the partitioner does not look into a kernel: without shard_map it gathers everything
        spec = config.layout.spec(("rows", "heads"), k.shape[:2])
        mesh = config.layout.mesh
        attend = jax.shard_map(attend, mesh=mesh, in_specs=(spec, spec, spec), out_specs=spec, check_vma=False)
    out = attend(*map(pad, (q, k, v)))[:, :, :columns]
    return out.astype(accumulation_dtype(out))
