"""Truncated sampling: top-k and top-p without sorting the vocabulary."""

import jax
import jax.numpy as jnp

Array = jax.Array
BLOCK = 128  # vocabulary entries that are summed side by side


def truncate(logits: Array, top_k: int, top_p: Array | float) -> Array:
    """Keep the ``top_k`` likeliest tokens and of those the likeliest with total probability ``top_p``; the others become -inf.

    logits [N, V] float32. ``top_k`` comes first and ``top_p`` works on what it left, as everywhere in the field. The
    likeliest token always stays. Tokens that are exactly as likely as the last one that is kept are all kept, by both: the
    result does not depend on the order of the vocabulary, and the set can be larger than k (as in transformers and vLLM,
    whose top-k keeps ties as well). ``top_p`` may be an array [], so that one program serves all its values.
    """
    if top_k and top_k < logits.shape[-1]:
        kth = jax.lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits < kth, -jnp.inf, logits)
    if isinstance(top_p, jax.Array) or top_p < 1.0:
        logits = jnp.where(distance_bits(logits) <= nucleus_edge(logits, top_p)[:, None], logits, -jnp.inf)
    return logits


def distance_bits(logits: Array) -> Array:
    """How far each logit [N, V] lies below the largest of its row, as the bits of that float32: [N, V] int32.

    Bits of floats that are not negative rise with the float, so that they can be searched bit by bit.
    """
    return jax.lax.bitcast_convert_type(jnp.max(logits, -1, keepdims=True) - logits, jnp.int32)


def nucleus_edge(logits: Array, top_p: Array | float) -> Array:
    """The distance [N] int32, as bits, of the least likely token of the smallest set with probability ``top_p``.

    The edge is the largest number below which the tokens' probabilities do not reach ``top_p``. It is found bit by bit, from
    the highest: 31 sums over the vocabulary, where sorting it would take ten times as long.
    """
    rows, size = logits.shape
    missing = -size % BLOCK
    bits = jnp.pad(distance_bits(logits), [(0, 0), (0, missing)], constant_values=jnp.iinfo(jnp.int32).max)
    bits = bits.reshape(rows, -1, BLOCK)
    weight = jnp.pad(jnp.exp(logits - jnp.max(logits, -1, keepdims=True)), [(0, 0), (0, missing)]).reshape(bits.shape)
    goal = top_p * weight.sum(1).sum(-1)

    def add_bit(place: Array, edge: Array) -> Array:
        tried = edge + (jnp.int32(1) << (30 - place))
        mass = jnp.where(bits < tried[:, None, None], weight, 0.0).sum(1).sum(-1)
        return jnp.where(mass < goal, tried, edge)

    return jax.lax.fori_loop(0, 31, add_bit, jnp.zeros(rows, jnp.int32))
