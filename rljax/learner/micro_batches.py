"""A batch, split into micro-batches inside the jit.

Rows are sorted by length first. Each micro-batch is computed at the smallest of a few widths that holds it, so that little
padding is multiplied. Every token's weight in the loss is fixed from the whole batch before the split: the sum over
micro-batches *is* the loss, whatever their number.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rljax.options import option
from rljax.transformer import Layout

Array = jax.Array
Batch = dict[str, Array]  # arrays [N, S] (by column) or [N] (by row); "mask" [N, S] marks real tokens
Metrics = dict[str, Array]
Constrain = Callable[[Any], Any]  # lays a pytree of gradients out over the devices


@dataclasses.dataclass(frozen=True)
class MicroBatchOptions:
    """How a stage's batches are split."""

    micro_batch: int = option(16, "rows computed at a time, rounded up to whole rows a device; 0: all", low=0)
    widths: tuple[int, ...] = option((), "response columns that a micro-batch may be cut to, beside all of them")


@dataclasses.dataclass(frozen=True)
class MicroBatching:
    """How a batch is computed: ``rows`` at a time (0: all), each micro-batch cut to one of ``widths`` columns."""

    rows: int = 0
    widths: tuple[int, ...] = ()
    layout: Layout = Layout()

    @classmethod
    def of(cls, options: MicroBatchOptions, prompt_slots: int, layout: Layout) -> "MicroBatching":
        """The micro-batching of a stage whose rows begin with ``prompt_slots`` columns of prompt."""
        shards = layout.num_shards("rows")
        rows = -(-options.micro_batch // shards) * shards
        return cls(rows, tuple(prompt_slots + width for width in options.widths), layout)

    def split(self, batch: Batch) -> tuple[Array, Batch, Array]:
        """(index of the width [M], batch of arrays [M, rows, ...], number of the row at each place [M, rows]).

        Places that no row fills hold row number N, and zeros.
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
        """The widths in ascending order; the last is the whole batch's."""
        return (*sorted(w for w in set(self.widths) if w < columns), columns)

    def at_width(self, compute: Callable[[Batch], Any], pad: bool = False) -> Callable[[Array, Batch], Any]:
        """``compute`` on the columns that the width of this index keeps; ``pad`` widens the result again."""

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
) -> tuple[Any, Metrics]:
    """Gradient of the batch's loss and its metrics, summed over micro-batches in float32 (or wider).

    ``loss(params, micro_batch)`` returns this micro-batch's share of the loss and of each metric. Metrics whose name ends in
    "max" are combined by maximum instead. ``constrain`` lays gradients out over the devices.
    """
    width, micro_batches, _ = micro_batching.split(batch)
    compute = micro_batching.at_width(lambda b: jax.value_and_grad(loss, has_aux=True)(params, b))

    def add_micro_batch(total: Any, xs: Any) -> tuple[Any, None]:
        (value, metrics), grads = compute(*xs)
        metrics = metrics | {"loss": value}
        grads = jax.tree.map(lambda a, b: a + b.astype(a.dtype), total[0], constrain(grads))
        return (constrain(grads), {k: combine_metric(k, total[1][k], v) for k, v in metrics.items()}), None

    zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.promote_types(p.dtype, jnp.float32)), params)
    value, metrics = jax.eval_shape(loss, params, jax.tree.map(lambda x: x[0], micro_batches))
    start = constrain(zeros), jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics | {"loss": value})
    return jax.lax.scan(add_micro_batch, start, (width, micro_batches))[0]


def combine_metric(name: str, a: Array, b: Array) -> Array:
    return jnp.maximum(a, b) if name.endswith("max") else a + b


def score_rows(measure: Callable[[Batch], Any], batch: Batch, start: int, micro_batching: MicroBatching) -> Any:
    """``measure`` of every row, micro-batch by micro-batch: arrays [N, S], 0 before column ``start``.

    ``measure(micro_batch)`` returns arrays [n, S - start], or a pytree of them.
    """
    width, micro_batches, order = micro_batching.split(batch)
    pad_prompt = lambda x: jnp.pad(x, [(0, 0), (start, 0)])
    compute = micro_batching.at_width(lambda b: jax.tree.map(pad_prompt, measure(b)), pad=True)
    rows, columns = batch["tokens"].shape

    def in_order(x: Array) -> Array:
        return jnp.zeros((rows, columns), x.dtype).at[order.reshape(-1)].set(x.reshape(-1, columns), mode="drop")

    return jax.tree.map(in_order, jax.lax.map(lambda xs: compute(*xs), (width, micro_batches)))
