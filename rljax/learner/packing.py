"""Rows of a batch -> packed sequences, inside the jit: the update then computes real tokens, and each shared prompt once.

Rows are placed one after the other, those of one prompt together and the longest of them first. A row goes to the first
sequence that has room for it, with preference for one that holds its prompt already; where none has, a new sequence is begun.
So the number of sequences depends on the lengths. Rows without a token in the loss are left out.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.transformer import Layout, PackedSequences, token_positions

Array = jax.Array
Batch = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Packing:
    """How rows are packed: sequences of ``columns`` columns, computed a few at a time."""

    columns: int
    prompt_slots: int  # first columns of a row, which rows of the same batch["group"] share; 0: nothing is shared

    def rows_in_sequence(self, rows: int) -> int:
        """The most rows that one sequence may hold, of a batch of this many rows."""
        return min(rows, max(16, self.columns // 8))

    def sequences_at_once(self, rows: int, columns: int, shards: int) -> int:
        """The number of sequences of a micro-batch with the columns of this many rows: a multiple of ``shards``."""
        return -(-max(1, rows * columns // self.columns) // shards) * shards

    def max_sequences(self, rows: int, columns: int) -> int:
        """The most sequences that rows of this many columns can need.

        The first row of a sequence did not fit into those before it. So any two of them are together more than full, or one of
        them holds as many rows as it may.
        """
        by_tokens = 2 * rows * columns // self.columns + 2
        return min(rows, by_tokens + rows // self.rows_in_sequence(rows))


class Places(NamedTuple):
    """Where each row goes; [N] int32 each."""

    sequence: Array  # the number of sequences where the row is left out
    slot: Array  # its place among the rows of the sequence
    start: Array  # the first column of its response
    prompt_start: Array  # the first column of its prompt
    brings_prompt: Array  # bool: whether the prompt was not in the sequence before


class PackedBatch(NamedTuple):
    """A batch as packed sequences: ``rows[k, r]`` is the row at place r of sequence k, N where there is none."""

    used: Array  # [] int32: sequences that hold something, the first ones
    rows: Array  # [K, R] int32
    sequences: PackedSequences

    def micro_batch(self, batch: Batch, first: Array, count: int, layout: Layout) -> tuple[dict[str, Any], Array]:
        """(the rows of ``count`` sequences from ``first`` on, with the sequences as "packed"; the numbers of these rows)."""
        cut = lambda x: layout.constrain(jax.lax.dynamic_slice_in_dim(x, first, count), "rows")
        rows = cut(self.rows).reshape(-1)
        take = lambda x: layout.constrain(x.at[rows].get(mode="fill", fill_value=0), "rows")
        return jax.tree.map(take, batch) | {"packed": jax.tree.map(cut, self.sequences)}, rows


def pack_batch(batch: Batch, packing: Packing, multiple: int) -> PackedBatch:
    """The batch as packed sequences, a multiple of ``multiple`` of them.

    ``batch`` holds tokens, mask and loss_mask, [N, S] each, and "group" [N] int32 where rows share prompts: the same number for
    rows with the same prompt.
    """
    rows, columns = batch["mask"].shape
    learned = jnp.any(batch["loss_mask"] & batch["mask"], -1)
    count = -(-packing.max_sequences(rows, columns) // multiple) * multiple
    lengths = jnp.where(learned, batch["mask"][:, packing.prompt_slots :].sum(-1), 0)
    prompts = batch["mask"][:, : packing.prompt_slots].sum(-1)
    groups = batch["group"] if packing.prompt_slots else jnp.arange(rows, dtype=jnp.int32)
    size = packing.columns, packing.rows_in_sequence(rows), count
    places, used = place_rows(lengths.astype(jnp.int32), prompts.astype(jnp.int32), groups, *size)
    at_places = jnp.full(size[:0:-1], rows, jnp.int32)
    at_places = at_places.at[places.sequence, places.slot].set(jnp.arange(rows, dtype=jnp.int32), mode="drop")
    return PackedBatch(used, at_places, fill_sequences(batch, places, groups, prompts, packing, size))


def place_rows(
    lengths: Array, prompts: Array, groups: Array, columns: int, slots: int, sequences: int
) -> tuple[Places, Array]:
    """(the places of N rows, the number of sequences in use []).

    ``lengths`` are those of the responses (0: the row is left out), ``prompts`` those of the prompts, ``groups`` the numbers of the
    prompts; [N] int32 each. A sequence has ``columns`` columns and holds up to ``slots`` rows.
    """
    order = jnp.lexsort((-lengths, groups))
    numbers = jnp.arange(sequences, dtype=jnp.int32)

    def place(carry: Any, row: Array) -> tuple[Any, Places]:
        used, filled, held, group, prompt_at = carry
        length, prompt = lengths[row], prompts[row]
        prompt_at = jnp.where(groups[row] == group, prompt_at, -1)  # where this row's prompt lies in each sequence
        has_prompt = prompt_at >= 0
        cost = length + jnp.where(has_prompt, 0, prompt)
        fits = (filled + cost <= columns) & (held < slots) & (numbers < used)
        chosen = jnp.where(jnp.any(fits), jax.lax.argmax(fits * (1 + has_prompt), 0, jnp.int32), used)
        brings, here = ~has_prompt[chosen], numbers == chosen
        prompt_start = jnp.where(brings, filled[chosen], prompt_at[chosen])
        start = filled[chosen] + jnp.where(brings, prompt, 0)
        left_out = length == 0
        places = Places(jnp.where(left_out, sequences, chosen), held[chosen], start, prompt_start, brings)
        here &= ~left_out
        filled = jnp.where(here, filled + cost, filled)
        prompt_at = jnp.where(here, prompt_start, prompt_at)
        used = jnp.where(left_out, used, jnp.maximum(used, chosen + 1))
        return (used, filled, held + here, groups[row], prompt_at), places

    zeros = jnp.zeros(sequences, jnp.int32)
    start = jnp.int32(0), zeros, zeros, jnp.int32(-1), zeros - 1
    (used, *_), placed = jax.lax.scan(place, start, order)
    return jax.tree.map(lambda x: jnp.zeros_like(x).at[order].set(x), placed), used


def fill_sequences(
    batch: Batch, places: Places, groups: Array, prompts: Array, packing: Packing, size: tuple[int, int, int]
) -> PackedSequences:
    """The sequences that hold the batch's rows at these places. ``size``: columns, rows in a sequence, sequences."""
    (width, slots, count), (rows, columns), slot = size, batch["mask"].shape, packing.prompt_slots
    mask, flat = batch["mask"], lambda x: x.reshape(-1)

    # The token at each column: its row, and its column in that row
    rank = lambda m: jnp.cumsum(m, -1) - 1
    in_prompt = places.prompt_start[:, None] + rank(mask[:, :slot])
    in_response = places.start[:, None] + rank(mask[:, slot:])
    real = jnp.concatenate([mask[:, :slot] & places.brings_prompt[:, None], mask[:, slot:]], 1)
    target = places.sequence[:, None] * width + jnp.concatenate([in_prompt, in_response], 1)
    target = jnp.where(real & (places.sequence < count)[:, None], target, count * width)
    origin = jnp.full(count * width, rows * columns, jnp.int32)
    origin = origin.at[flat(target)].set(jnp.arange(rows * columns, dtype=jnp.int32), mode="drop").reshape(count, width)
    row, column, empty = origin // columns, origin % columns, origin == rows * columns
    of_token = lambda x, fill=0: flat(x).at[origin].get(mode="fill", fill_value=fill)
    of_row = lambda x, fill=0: x.at[row].get(mode="fill", fill_value=fill)

    # The tokens that are predicted: all of a response, its first one by the last of its prompt if it has one
    is_response = ~empty & (column >= slot)
    at = jnp.arange(width)
    is_first = at == of_row(places.start)
    predicted = is_response & ~(is_first & (of_row(prompts) == 0))
    source = jnp.where(is_first, of_row(places.prompt_start) + of_row(prompts), at) - 1
    order = jnp.argsort(~predicted, -1, stable=True)
    in_order = lambda x: jnp.take_along_axis(x, order, -1)
    tokens = of_token(batch["tokens"])
    return PackedSequences(
        tokens=tokens,
        positions=of_token(token_positions(mask)),
        prompt=jnp.where(empty, -1, of_row(groups)),
        response=jnp.where(is_response, of_row(places.slot), -1),
        count=predicted.sum(-1),
        source=in_order(jnp.maximum(source, 0)),
        target=in_order(tokens),
        row=in_order(jnp.where(predicted, of_row(places.slot), slots)),
        place=in_order(column - max(slot, 1)),
    )
