"""The log-probability of each token under the policy, and the entropy of the distribution it was drawn from."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rljax.transformer.blocks import head_weights, unembed
from rljax.transformer.column_chunks import map_columns
from rljax.transformer.config import Array, Config, Params
from rljax.transformer.packed_sequences import PackedSequences
from rljax.transformer.sequence import run_layers

LANES = 128  # logits that are reduced side by side
LONG_VOCABULARY = 4096  # logits; fewer are reduced in one stage


def token_logprobs(
    params: Params,
    config: Config,
    tokens: Array,
    mask: Array,
    temperature: Array | float = 1.0,
    start: int = 1,
    sampling_mask: Array | None = None,
) -> tuple[Array, Array]:
    """The log-probability of each token given those before it, and the entropy of the distribution it was drawn from.

    tokens, mask [B, S] -> (logprobs, entropy), both [B, S - start] float32 in nats. Column j describes the token at column
    ``start + j`` (start >= 1). Logits are divided by ``temperature`` first: score at the temperature of sampling. Columns
    whose mask is False are 0. With ``config.logprob_chunk`` only the logits of that many columns exist at once, and the
    backward pass computes them again: [B, S, V] never exists.

    ``sampling_mask`` [B, S - start, ceil(V / 8)] uint8 has a bit for each token that the sampler kept, as ``jnp.packbits``
    orders them. Both results are then of the distribution over these tokens ("keep sampling mask", arXiv 2512.02556, 3.1). A
    column without any bit keeps the whole vocabulary.
    """
    x, _ = run_layers(params, config, tokens, mask)
    x, targets, is_real = x[:, start - 1 : -1], tokens[:, start:], mask[:, start:]
    logp, entropy = score_targets(params, config, x, targets, temperature, sampling_mask)
    return jnp.where(is_real, logp, 0.0), jnp.where(is_real, entropy, 0.0)


def packed_token_logprobs(
    params: Params,
    config: Config,
    packed: PackedSequences,
    rows: int,
    columns: int,
    temperature: Array | float = 1.0,
    sampling_mask: Array | None = None,
) -> tuple[Array, Array]:
    """``token_logprobs`` of rows that are packed: (logprobs, entropy), both [K * rows, columns] float32 in nats.

    K sequences with up to ``rows`` rows each. A row's token at ``place`` is described at that column; columns without a token
    are 0. The head is computed only where a token is predicted: with ``config.logprob_chunk``, chunks behind the last of them
    are left out. ``sampling_mask`` is [K * rows, columns, ceil(V / 8)] uint8.
    """
    x, _ = run_layers(params, config, packed.tokens, packed.prompt >= 0, packed=packed)
    x = jnp.take_along_axis(x, packed.source[..., None], 1)
    bits, sequence = None, jnp.arange(packed.tokens.shape[0])[:, None]
    if sampling_mask is not None:
        by_sequence = sampling_mask.reshape(-1, rows, *sampling_mask.shape[1:])
        bits = by_sequence.at[sequence, packed.row, packed.place].get(mode="fill", fill_value=0)
    scored = score_targets(
        params, config, x, packed.target, temperature, bits, config.layout.max_over_runs(packed.count.max())
    )

    def by_row(y: Array) -> Array:
        out = jnp.zeros((packed.tokens.shape[0], rows, columns), y.dtype)
        return out.at[sequence, packed.row, packed.place].set(y, mode="drop").reshape(-1, columns)

    logp, entropy = map(by_row, scored)
    return logp, entropy


def score_targets(
    params: Params,
    config: Config,
    x: Array,
    targets: Array,
    temperature: Array | float,
    sampling_mask: Array | None,
    count: Array | None = None,
) -> tuple[Array, Array]:
    """(log-probability of the targets [B, S], entropy [B, S]) under the head's distribution at x [B, S, D].

    Columns from ``count`` on matter to nobody.
    """

    def score(
        weights: tuple[Params, Array | float], x: Array, others: tuple[Array, Array | None]
    ) -> tuple[Array, Array]:
        (head, temperature), (targets, bits) = weights, others
        logits, kept = unembed(head, config, x) / temperature, None
        if bits is not None:
            kept = unpack_sampling_mask(bits, config)
            logits = jnp.where(kept, logits, -jnp.inf)
        shifted = logits - jax.lax.stop_gradient(reduce_vocabulary(jnp.max, logits, config))[..., None]
        weight = jnp.exp(shifted)
        total = reduce_vocabulary(jnp.sum, weight, config)
        if config.layout.axes("vocab"):  # a sum over each device's shard; an index would gather all logits
            chosen = jnp.sum(jnp.where(jnp.arange(shifted.shape[-1]) == targets[..., None], shifted, 0.0), -1)
        else:
            chosen = jnp.take_along_axis(shifted, targets[..., None], -1)[..., 0]
        shifted = shifted if kept is None else jnp.where(kept, shifted, 0.0)  # 0 * -inf would be NaN
        mean = reduce_vocabulary(jnp.sum, weight * shifted, config) / total
        return chosen - jnp.log(total), jnp.log(total) - mean

    weights, others, chunk = (head_weights(params, config), temperature), (targets, sampling_mask), config.logprob_chunk
    if chunk and chunk < x.shape[1]:
        return map_columns(score, weights, x, others, chunk, config.layout, count)
    return score(weights, x, others)


def reduce_vocabulary(reduce: Callable[[Array, int], Array], x: Array, config: Config) -> Array:
    """``reduce(x, -1)`` (``jnp.sum`` or ``jnp.max``) of x [..., V], where V is large: in two stages.

    First each of LANES lanes is reduced, then the lanes. A CPU takes one number at a time along a long row, and LANES at a time
    across it: the log-probabilities of 256 tokens under 49,152 logits, head included, took 124 instead of 297 ms on two cores.
    The compiler would merge the stages, if nothing stood between them.
    """
    size = x.shape[-1]
    if size < LONG_VOCABULARY or size % LANES or config.layout.axes("vocab"):
        return reduce(x, -1)
    lanes = reduce(x.reshape(*x.shape[:-1], -1, LANES), -2)
    return reduce(jax.lax.optimization_barrier(lanes), -1)


def unpack_sampling_mask(bits: Array, config: Config) -> Array:
    """[..., V] bool of the packed bits [..., ceil(V / 8)] uint8: the tokens that were kept. All where no bit is set."""
    kept = jnp.unpackbits(bits, axis=-1, count=config.vocab_size).astype(bool) | ~jnp.any(bits, -1, keepdims=True)
    between = (None,) * (kept.ndim - 3)
    return config.layout.constrain(kept, "rows", "columns", *between, "vocab")
