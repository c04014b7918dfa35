"""From token losses to a loss: the weight of each token, computed once from the whole optimizer batch.

Micro-batches and devices then only add: loss = sum(weight * token loss), the same number however the rows are split.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from rljax.errors import UserError
from rljax.policy_gradient.losses import where_counted

Array = jax.Array
EmptyRows = Literal["live", "all"]  # whether rows without a token count in a mean
AGGREGATIONS = (
    "token_mean",
    "seq_mean_token_mean",
    "seq_mean_token_sum",
    "seq_mean_token_sum_const",
    "token_sum",
    "prompt_mean",
)


def weights(
    mask: Array,
    mode: str,
    *,
    group_size: int = 1,
    const: float | None = None,
    n_tokens: Array | float | None = None,
    n_seqs: Array | float | None = None,
    empty_rows: EmptyRows = "live",
) -> Array:
    """Weights of the tokens of an optimizer batch, shaped like its mask, [N, T] or [B, G, T]; 0 where that is 0.

    mode (the tokens of row i number |o_i|):
      token_mean                1 / sum of all |o|                            (DAPO, arXiv 2503.14476)
      seq_mean_token_mean       1 / (rows |o_i|)                              (GRPO, arXiv 2402.03300)
      seq_mean_token_sum        1 / rows
      seq_mean_token_sum_const  1 / (all rows * const)                        (Dr. GRPO, arXiv 2503.20783)
      token_sum                 1
      prompt_mean               1 / (prompts * tokens of the prompt's group)  (ScaleRL, arXiv 2510.13786)
    ``empty_rows`` says whether rows (prompts) without a token count in a mean: "live" (no) or "all". ``n_tokens`` and
    ``n_seqs`` replace the counts of tokens and of rows (prompts), where ``mask`` is only a part of the batch.
    """
    if mask.ndim == 3:
        more: dict[str, Any] = dict(const=const, n_tokens=n_tokens, n_seqs=n_seqs, empty_rows=empty_rows)
        return weights(mask.reshape(-1, mask.shape[-1]), mode, group_size=mask.shape[1], **more).reshape(mask.shape)
    if mode not in AGGREGATIONS:
        raise UserError(f"aggregation {mode!r} is unknown, choose from {AGGREGATIONS}")
    if empty_rows not in ("live", "all"):
        raise UserError(f"aggregation {mode}: empty_rows={empty_rows!r} is unknown, choose live or all")
    mask = mask.astype(float)
    tokens = mask.sum(-1, keepdims=True)  # [N, 1]
    some = lambda x: jnp.maximum(x, 1.0)
    count = lambda live: n_seqs if n_seqs is not None else some(jnp.sum(live)) if empty_rows == "live" else live.size
    if mode == "token_mean":
        return mask / (n_tokens if n_tokens is not None else some(mask.sum()))
    if mode == "seq_mean_token_mean":
        return mask / some(tokens) / count(tokens > 0)
    if mode == "seq_mean_token_sum":
        return mask / count(tokens > 0)
    if mode == "seq_mean_token_sum_const":
        if not const:
            raise UserError("aggregation seq_mean_token_sum_const needs its constant, the maximum response length")
        return mask / ((n_seqs if n_seqs is not None else mask.shape[0]) * const)
    if mode == "prompt_mean":
        group = tokens.reshape(-1, group_size).sum(-1)  # [B]
        return mask / some(jnp.repeat(group, group_size))[:, None] / count(group > 0)
    return mask  # token_sum


def aggregate(
    loss: Array,
    mask: Array,
    mode: str,
    n_tokens: Array | float | None = None,
    n_seqs: Array | float | None = None,
    const: float | None = None,
    *,
    group_size: int = 1,
    empty_rows: EmptyRows = "live",
) -> Array:
    """Token losses [N, T] or [B, G, T] -> the loss []; for a part of a batch, the counts of the whole make it a share."""
    more: dict[str, Any] = dict(
        group_size=group_size, const=const, n_tokens=n_tokens, n_seqs=n_seqs, empty_rows=empty_rows
    )
    return jnp.sum(weights(mask, mode, **more) * where_counted(loss, mask))


def options_of(mode: str):
    """A function that stands for an aggregation in a table: its only option is ``empty_rows``."""

    def options(*, empty_rows: EmptyRows = "live") -> str:
        return mode

    return options


AGGREGATION = {mode: options_of(mode) for mode in AGGREGATIONS}
