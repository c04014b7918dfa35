"""A batch, split into micro-batches inside the jit.

Rows are sorted by length first and each micro-batch is computed at the smallest of a few widths that holds it, so that
padding is hardly ever multiplied. Every token's weight in the loss is fixed from the whole batch before the split: the sum
over micro-batches *is* the loss, whatever their number.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rljax.transformer import Layout

Array = jax.Array
Batch = dict[str, Array]  # arrays [N, S] (by column) or [N] (by row); "mask" [N, S] marks real tokens
Metrics = dict[str, Array]
Lay = Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class Split:
    """How a batch is computed: ``rows`` at a time (0: all), each micro-batch cut to one of ``widths`` columns."""

    rows: int = 0
    widths: tuple[int, ...] = ()
    layout: Layout = Layout()

    def micro_batches(self, batch: Batch) -> tuple[Array, Batch, Array]:
        """(index of the width [M], batch of arrays [M, rows, ...], row that stands at each place [M, rows]).

        Places that no row fills hold row number N, and zeros.
        """
        count, columns = batch["mask"].shape
        rows = min(self.rows or count, count)
        lengths = jnp.max(jnp.where(batch["mask"], jnp.arange(1, columns + 1), 0), -1)
        order, extra = jnp.argsort(lengths), -count % rows

        def split(x: Array, fill: int = 0) -> Array:
            pad = [(0, extra)] + [(0, 0)] * (x.ndim - 1)
            x = jnp.pad(x, pad, constant_values=fill).reshape(-1, rows, *x.shape[1:])
            return self.layout.constrain(x, None, "rows", "columns")

        longest = split(lengths[order]).max(-1)
        width = jnp.sum(longest[:, None] > jnp.asarray(self.steps(columns)[:-1], jnp.int32), -1)
        width = self.layout.most(width)  # of runs that are computed together, all at the width that the widest needs
        return width, jax.tree.map(lambda x: split(x[order]), batch), split(order, count)

    def steps(self, columns: int) -> tuple[int, ...]:
        return (*sorted(w for w in set(self.widths) if w < columns), columns)

    def at_width(self, compute: Callable[[Batch], Any], pad: bool = False) -> Callable[[Array, Batch], Any]:
        """``compute`` on the columns that the width of this index keeps; ``pad`` widens the result again."""

        def call(index: Array, batch: Batch) -> Any:
            columns = batch["mask"].shape[1]

            def cut(width: int) -> Callable[[Batch], Any]:
                narrow = lambda x: x[:, :width] if x.ndim > 1 else x
                widen = lambda x: jnp.pad(x, [(0, 0), (0, columns - width)])
                return lambda b: jax.tree.map(widen if pad else lambda x: x, compute(jax.tree.map(narrow, b)))

            return jax.lax.switch(index, [cut(w) for w in self.steps(columns)], batch)

        return call


def gradients(
    loss: Callable[[Any, Batch], tuple[Array, Metrics]], params: Any, batch: Batch, split: Split, lay: Lay = lambda x: x
) -> tuple[Any, Metrics]:
    """Gradient of the batch's loss and its metrics, added up micro-batch by micro-batch in float32 (or wider).

    ``loss(params, micro_batch)`` returns this micro-batch's share of the loss and of each metric; metrics whose name
    ends in "max" are combined by maximum instead. ``lay`` says where a gradient is to lie.
    """
    width, micro, _ = split.micro_batches(batch)
    compute = split.at_width(lambda b: jax.value_and_grad(loss, has_aux=True)(params, b))

    def step(total: Any, xs: Any) -> tuple[Any, None]:
        (value, metrics), grads = compute(*xs)
        metrics = metrics | {"loss": value}
        grads = jax.tree.map(lambda a, b: a + b.astype(a.dtype), total[0], lay(grads))
        return (lay(grads), {k: join(k, total[1][k], v) for k, v in metrics.items()}), None

    zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.promote_types(p.dtype, jnp.float32)), params)
    value, metrics = jax.eval_shape(loss, params, jax.tree.map(lambda x: x[0], micro))
    start = lay(zeros), jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics | {"loss": value})
    return jax.lax.scan(step, start, (width, micro))[0]


def join(name: str, a: Array, b: Array) -> Array:
    return jnp.maximum(a, b) if name.endswith("max") else a + b


def scored(measure: Callable[[Batch], Any], batch: Batch, start: int, split: Split) -> Any:
    """What ``measure`` says of each token from column ``start`` on, micro-batch by micro-batch: arrays [N, S].

    ``measure(micro_batch)`` returns arrays [n, S - start], or a pytree of them; columns before ``start`` are 0.
    """
    width, micro, order = split.micro_batches(batch)
    behind = lambda x: jnp.pad(x, [(0, 0), (start, 0)])
    compute = split.at_width(lambda b: jax.tree.map(behind, measure(b)), pad=True)
    rows, columns = batch["tokens"].shape

    def in_place(x: Array) -> Array:
        return jnp.zeros((rows, columns), x.dtype).at[order.reshape(-1)].set(x.reshape(-1, columns), mode="drop")

    return jax.tree.map(in_place, jax.lax.map(lambda xs: compute(*xs), (width, micro)))
