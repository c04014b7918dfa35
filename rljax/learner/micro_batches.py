"""A batch, split into micro-batches inside the jit.

Rows are sorted by length first. Each micro-batch is then cut to the smallest of a few widths that holds its rows, so that
little padding is computed. Or rows are packed into sequences of one width, so that next to none is (``packing.py``). The weight
of each token in the loss comes from the whole batch, before the split. So the sum of the losses of the micro-batches is the
loss of the batch, for any number of micro-batches and any packing.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rljax.learner.packing import PackedBatch, Packing, pack_batch
from rljax.options import option
from rljax.transformer import Config, Layout, packed_token_logprobs, token_logprobs

Array = jax.Array
Batch = dict[str, Array]  # arrays [N, S] or [N, columns, ...] (by column) or [N] (by row); "mask" [N, S]: real tokens
Metrics = dict[str, Array]
Constrain = Callable[[Any], Any]  # a pytree of gradients -> the same, sharded over the devices


@dataclasses.dataclass(frozen=True)
class MicroBatchOptions:
    """The micro-batching of a stage, as the config states it."""

    micro_batch: int = option(16, "rows computed at a time, rounded up to whole rows a device; 0: all", low=0)
    widths: tuple[int, ...] = option(
        (), "response columns that a micro-batch of unpacked rows may be cut to, beside all of them", items=int, low=1
    )
    packing: int = option(
        0,
        "columns of sequences that rows are packed into, at least those of a row: no padding is computed, and the prompt that "
        "attempts share once in a sequence; 0: no packing; -1: those of a row, and no packing where the run cannot pack",
        low=-1,
    )


@dataclasses.dataclass(frozen=True)
class MicroBatching:
    """How a batch is split: ``rows`` in each micro-batch (0: all), each cut to one of ``widths`` columns.

    With ``packing``, a micro-batch is as many packed sequences as have the columns of that many rows.
    """

    rows: int = 0
    widths: tuple[int, ...] = ()
    layout: Layout = Layout()
    packing: Packing | None = None

    @classmethod
    def from_options(
        cls,
        options: MicroBatchOptions,
        prompt_slots: int,
        longest: int,
        layout: Layout,
        shared_prompts: bool = False,
        can_pack: bool = True,
    ) -> "MicroBatching":
        """The micro-batching of a stage whose rows have ``prompt_slots`` columns of prompt and ``longest`` of response.

        ``shared_prompts``: several rows may have the same prompt. ``can_pack``: what ``packing=-1`` means.
        """
        shards = layout.num_shards("rows")
        rows = -(-options.micro_batch // shards) * shards
        shared_slots = prompt_slots if shared_prompts else 0
        columns = max(options.packing, prompt_slots + longest)
        packs = can_pack if options.packing < 0 else options.packing > 0
        packing = Packing(columns, shared_slots) if packs else None
        return cls(rows, tuple(prompt_slots + width for width in options.widths), layout, packing)

    def split(self, batch: Batch) -> tuple[Array, Batch, Array]:
        """(index of the width [M], batch of arrays [M, rows, ...], index of the row at each place [M, rows]).

        M is the number of micro-batches. A place without a row holds zeros, and N as the index of its row.
        """
        count, columns = batch["mask"].shape
        rows = min(self.rows or count, count)
        lengths = jnp.max(jnp.where(batch["mask"], jnp.arange(1, columns + 1), 0), -1)
        order, extra = jnp.argsort(lengths), -count % rows

        def to_micro_batches(x: Array, fill: int = 0) -> Array:
            pad = [(0, extra)] + [(0, 0)] * (x.ndim - 1)
            x = jnp.pad(x, pad, constant_values=fill).reshape(-1, rows, *x.shape[1:])
            return self.layout.constrain(x, None, "rows", "columns")

        longest = to_micro_batches(lengths[order]).max(-1)
        width = jnp.sum(longest[:, None] > jnp.asarray(self.all_widths(columns)[:-1], jnp.int32), -1)
        width = self.layout.max_over_runs(width)  # vmapped runs are all computed at the width that the widest needs
        return width, jax.tree.map(lambda x: to_micro_batches(x[order]), batch), to_micro_batches(order, count)

    def all_widths(self, columns: int) -> tuple[int, ...]:
        """The widths in ascending order. The last one is that of the whole batch."""
        return (*sorted(w for w in set(self.widths) if w < columns), columns)

    def at_each_width(self, compute: Callable[[Batch], Any], pad: bool = False) -> Callable[[Array, Batch], Any]:
        """``call(index of a width, batch)``: ``compute`` of the first columns. ``pad`` pads its result to all columns again."""

        def call(index: Array, batch: Batch) -> Any:
            columns = batch["mask"].shape[1]

            def cut(width: int) -> Callable[[Batch], Any]:
                narrow = lambda x: x[:, :width] if x.ndim > 1 else x
                widen = lambda x: jnp.pad(x, [(0, 0), (0, columns - width)])
                return lambda b: jax.tree.map(widen if pad else lambda x: x, compute(jax.tree.map(narrow, b)))

            return jax.lax.switch(index, [cut(w) for w in self.all_widths(columns)], batch)

        return call


def gradients(
    loss: Callable[[Any, Batch], tuple[Array, Metrics]],
    params: Any,
    batch: Batch,
    micro_batching: MicroBatching,
    constrain: Constrain = lambda x: x,
    loss_scale: Array | None = None,
) -> tuple[Any, Metrics]:
    """(gradients of the batch's loss, its metrics), summed over micro-batches in float32 or wider.

    ``loss(params, micro_batch)`` returns the micro-batch's share of the loss and of each metric. Metrics whose name ends in
    "max" are combined by maximum instead. ``constrain`` shards gradients over the devices. ``loss_scale`` [] is a power of two
    that the loss is multiplied by before it is differentiated; gradients are divided by it in float32 before they are summed.
    """
    differentiated = loss if loss_scale is None else scale_loss(loss, loss_scale)
    compute = lambda b: jax.value_and_grad(differentiated, has_aux=True)(params, b)
    unscale = lambda g: g if loss_scale is None else g / loss_scale

    def add_micro_batch(total: Any, computed: Any, rows: Array) -> Any:
        (value, metrics), grads = computed
        metrics = metrics | {"loss": metrics.get("loss", value)}  # a scaled loss has itself, unscaled, as a metric
        grads = jax.tree.map(lambda a, b: a + unscale(b.astype(a.dtype)), total[0], constrain(grads))
        return constrain(grads), {k: combine_metric(k, total[1][k], v) for k, v in metrics.items()}

    value, metrics = jax.eval_shape(loss, params, micro_batch_shapes(batch, micro_batching))
    zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.promote_types(p.dtype, jnp.float32)), params)
    total = constrain(zeros), jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics | {"loss": value})
    return fold_micro_batches(compute, add_micro_batch, total, batch, micro_batching)


def micro_batch_shapes(batch: Batch, micro_batching: MicroBatching) -> Any:
    """The shapes of a micro-batch of all columns."""

    def first(batch: Batch) -> Any:
        if micro_batching.packing is None:
            return jax.tree.map(lambda x: x[0], micro_batching.split(batch)[1])
        packed, count = pack_micro_batches(batch, micro_batching.packing, micro_batching)
        return packed.micro_batch(batch, jnp.int32(0), count, micro_batching.layout)[0]

    return jax.eval_shape(first, batch)


def pack_micro_batches(batch: Batch, packing: Packing, micro_batching: MicroBatching) -> tuple[PackedBatch, int]:
    """(the batch as packed sequences, the number of them in a micro-batch)."""
    (rows, columns), shards = batch["mask"].shape, micro_batching.layout.num_shards("rows")
    count = packing.sequences_at_once(min(micro_batching.rows or rows, rows), columns, shards)
    return pack_batch(batch, packing, count), count


def fold_micro_batches(
    compute: Callable[[Batch], Any],
    add: Callable[[Any, Any, Array], Any],
    total: Any,
    batch: Batch,
    micro_batching: MicroBatching,
    pad: bool = False,
) -> Any:
    """``total = add(total, compute(micro_batch), rows)`` for one micro-batch after the other: the last ``total``.

    ``rows`` [n] int32 are the numbers of a micro-batch's rows in the batch, N for a place without a row. ``pad``: arrays that
    ``compute`` returns, [n, columns], are padded to all columns where the micro-batch was cut.
    """
    packing = micro_batching.packing
    if packing is None:
        width, micro_batches, order = micro_batching.split(batch)
        compute_cut = micro_batching.at_each_width(compute, pad)
        add_cut = lambda total, xs: (add(total, compute_cut(*xs[:2]), xs[2]), None)
        return jax.lax.scan(add_cut, total, (width, micro_batches, order))[0]

    layout = micro_batching.layout
    packed, count = pack_micro_batches(batch, packing, micro_batching)

    def add_packed(number: Array, total: Any) -> Any:
        part, numbers = packed.micro_batch(batch, number * count, count, layout)
        return add(total, compute(part), numbers)

    loops = layout.max_over_runs(-(-packed.used // count))
    return jax.lax.fori_loop(0, loops, add_packed, total)


def scale_loss(
    loss: Callable[[Any, Batch], tuple[Array, Metrics]], factor: Array
) -> Callable[[Any, Batch], tuple[Array, Metrics]]:
    """The loss times ``factor``, with the loss itself as its metric "loss"."""

    def scaled(params: Any, batch: Batch) -> tuple[Array, Metrics]:
        value, metrics = loss(params, batch)
        return factor * value, metrics | {"loss": value}

    return scaled


def combine_metric(name: str, a: Array, b: Array) -> Array:
    """The metric of two micro-batches together: the larger one of a maximum, else the sum."""
    return jnp.maximum(a, b) if name.endswith("max") else a + b


def score_rows(measure: Callable[[Batch], Any], batch: Batch, start: int, micro_batching: MicroBatching) -> Any:
    """The result of ``measure`` for every row, computed by micro-batches: arrays [N, S], 0 before column ``start``.

    ``measure(micro_batch)`` returns arrays [n, S - start], or a pytree of them.
    """
    rows, columns = batch["tokens"].shape
    pad_prompt = lambda x: jnp.pad(x, [(0, 0), (start, 0)])
    compute = lambda b: jax.tree.map(pad_prompt, measure(b))
    shapes = jax.eval_shape(measure, micro_batch_shapes(batch, micro_batching))
    zeros = jax.tree.map(lambda x: jnp.zeros((rows, columns), x.dtype), shapes)
    put = lambda total, computed, numbers: jax.tree.map(lambda t, x: t.at[numbers].set(x, mode="drop"), total, computed)
    return fold_micro_batches(compute, put, zeros, batch, micro_batching, pad=True)


def score_batch(
    policy: Any, model: Config, batch: Batch, temperature: Array | float = 1.0, start: int = 1
) -> tuple[Array, Array]:
    """(log-probabilities, entropies) [n, S - start] of a micro-batch's tokens from column ``start`` on, packed or not."""
    tokens, kept = batch["tokens"], batch.get("sampling_mask")
    if kept is not None:
        kept = kept[:, : tokens.shape[1] - start]
    if "packed" not in batch:
        return token_logprobs(policy, model, tokens, batch["mask"], temperature, start, kept)
    packed: Any = batch["packed"]
    rows = tokens.shape[0] // packed.tokens.shape[0]
    return packed_token_logprobs(policy, model, packed, rows, tokens.shape[1] - start, temperature, kept)
