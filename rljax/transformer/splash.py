"""Attention over whole sequences by the TPU's own kernel, Pallas' splash attention.

A block of scores is made, used and forgotten in the chip's fast memory, in the backward pass too, and a block of which
nothing may be seen is not made at all. One key head serves its group of query heads without being copied.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from rljax.transformer.blocks import full
from rljax.transformer.config import Array, Config

LANES = 128  # a block is a multiple of what a TPU's vector unit holds side by side
LARGEST = 512  # columns of a block ...
ROOM = LARGEST * 256 * 4  # ... of heads of 256 in float32; of wider ones less, or fast memory does not suffice


def blocks(columns: int, wide: int = 0) -> tuple[int, int]:
    """(columns of a block, columns of all): the fewest equal blocks that hold these, of heads that take ``wide`` bytes."""
    most = min(LARGEST, max(ROOM // max(wide, 1) // LANES, 1) * LANES)
    count = -(-columns // most)
    size = -(-columns // (count * LANES)) * LANES
    return size, count * size


def attend(q: Array, k: Array, v: Array, window: int | None, config: Config) -> Array:
    """Causal attention: q [B, K, R, S, E], k and v [B, K, S, .] -> [B, K * R, S, E'] float32.

    A column counts as a position, so the real tokens of a row must stand first and together, as ``sequence.run`` lays them;
    then no real token sees a pad, and a pad sees at least itself, which keeps it finite. Every device computes its own rows
    and heads.
    """
    columns, dtype = q.shape[3], jnp.dtype(config.dtype)
    size, padded = blocks(columns, max(q.shape[-1], v.shape[-1]) * dtype.itemsize)
    ready = lambda x: jnp.pad(x.astype(dtype), [(0, 0)] * (x.ndim - 2) + [(0, padded - columns), (0, 0)])
    shape, sizes = (padded, padded), kernel.BlockSizes(size, size, size, size, size, size, size, size)
    seen = masks.LocalMask(shape, (window - 1, 0), 0) if window else masks.CausalMask(shape)
    how: Any = dict(block_sizes=sizes, head_shards=1, q_seq_shards=1, attn_logits_soft_cap=config.attention_softcap)

    def part(q: Array, k: Array, v: Array) -> Array:
        q = q.reshape(q.shape[0], -1, *q.shape[3:])
        every = masks.MultiHeadMask([seen] * q.shape[1])
        one: Any = kernel.make_splash_mha(every, interpret=config.attention == "splash_interpreted", **how)
        return jax.vmap(one)(q, k, v)

    if config.layout.split:  # the partitioner does not see into a kernel: it would collect everything everywhere
        at = config.layout.spec(("rows", "heads"), k.shape[:2])
        part = jax.shard_map(part, mesh=config.layout.mesh, in_specs=(at, at, at), out_specs=at, check_vma=False)
    out = part(*map(ready, (q, k, v)))[:, :, :columns]
    return out.astype(full(out))
