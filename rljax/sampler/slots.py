"""Continuous batching inside the jit: a slot whose response has ended takes the next row of the queue.

A few slots decode at a time, each at a column of its own, until the queue is empty: nobody waits for the longest response of a
batch, and memory holds the cache of the slots, not that of all rows. The queue holds the rows in order, so attempts at one prompt
follow each other. Each device that holds rows has its own queue and slots for them.

A token depends on its row's key and its column alone, and on the logits of its row. So it is the same in whatever slot, and
beside whatever other rows, it is drawn.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax import transformer
from rljax.structs import Rollout
from rljax.transformer import Cache
from rljax.transformer.decoding import chunked_cache, constrain_layers

Array = jax.Array
CHUNK = 64  # response columns in one part of the cache: a part that no slot has reached is not read


def choose_slots(rows: int, layout: transformer.Layout, platform: str = "") -> int:
    """The number of slots that this many rows are sampled in where the settings do not say it; 0: all rows at once.

    On a CPU 32 for each shard of rows, where that leaves a queue of three times as many: responses of varying lengths are then
    sampled 2 to 4 times as fast, and those of one length at .65 to 1.1 of the speed. An accelerator computes a few hundred rows
    as fast as a few: 256 for each shard. ``platform`` "": that of the mesh.
    """
    here = platform or (layout.mesh.devices.flat[0].platform if layout.mesh else jax.default_backend())
    shards = layout.num_shards("rows")
    if here != "cpu":
        return 256 * shards
    return 32 * shards if rows >= 128 * shards else 0


def rows_at_once(slots: int, rows: int, prompts: int, layout: transformer.Layout) -> int:
    """How many rows decode at a time: ``slots`` rounded up to the shards of rows, or all of them.

    All, where there are not more, where ``slots`` is 0, and where the prompts cannot be split evenly over the shards.
    """
    shards = layout.num_shards("rows")
    rounded = -(-slots // shards) * shards
    return rounded if 0 < rounded < rows and prompts % shards == 0 else rows


class Slots(NamedTuple):
    """What the loop carries. D shards of rows, n = N / D rows and s slots in each."""

    out: Rollout  # arrays [D, n, ...]
    row: Array  # [D, s] int32: the row of its shard that a slot decodes; n where the queue is empty
    next_row: Array  # [D] int32: the first row of the queue
    cache: Cache  # of the D * s slots, each with its own copy of its prompt
    logits: Array  # [D * s, V]: of the next token
    stop_state: Array | None  # [D, s] int32: what a slot's row has read of the stop strings; None where there are none


def sample_in_slots(
    config: transformer.Config,
    slots: int,
    group_size: int,
    out: Rollout,
    prompts: Cache,
    first_logits: Array,
    draw: Callable[[Array, Array, Array], tuple[Array, Array, Array | None]],
    decode: Callable[[Array, Cache], tuple[Array, Cache]],
    ends: Callable[[Array, Any], tuple[Array, Any]],
    stop_state: Array | None,
    last: Array | int,
) -> Rollout:
    """The rollout ``out`` of N rows, empty at first, with all responses, ``slots`` rows at a time, as ``rows_at_once`` says.

    ``prompts`` and ``first_logits`` [B, V] are those of ``prefill``. ``draw(logits, rows, columns)`` draws a token for each slot:
    (tokens, log-probabilities, kept tokens or None). ``decode(tokens, cache)`` returns the next logits and the cache. A row ends
    with a token that ``ends``, or with ``last`` tokens. ``stop_state`` [N] are the states of ``make_ends`` at the start.
    """
    shards, (rows, columns) = config.layout.num_shards("rows"), out.mask.shape
    own_rows, own_slots = rows // shards, slots // shards
    constrain, max_over_runs = config.layout.constrain, config.layout.max_over_runs
    axis = 1 if config.scan_layers else 0  # of the rows in a layer's cache
    flat = lambda x: x.reshape(-1, *x.shape[2:])
    prompt_of = lambda row: jnp.minimum(row, own_rows - 1) // group_size  # within the shard

    # Rows and slots, within each shard of rows
    def take(x: Array, index: Array, axis: int = 0) -> Array:
        """The rows ``index`` [D, k] of each shard of x [.., D * m, ...]: [.., D * k, ...]."""
        by_shard = x.reshape(*x.shape[:axis], shards, -1, *x.shape[axis + 1 :])
        taken = jax.vmap(lambda x, i: jnp.take(x, i, axis), (axis, 0), axis)(by_shard, index)
        return taken.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])

    def put(to: Array, index: Array, x: Array, axis: int = 0) -> Array:
        """``to`` [.., D * s, ...] with x [.., D, ...] at slot ``index`` [D] of each shard; nowhere where that is s."""
        by_shard = to.reshape(*to.shape[:axis], shards, -1, *to.shape[axis + 1 :])
        first = (slice(None),) * axis
        set_one = lambda to, i, x: to.at[(*first, i)].set(x, mode="drop")
        return jax.vmap(set_one, (axis, 0, axis), axis)(by_shard, index, x).reshape(to.shape)

    # A slot that is done gets the next row of the queue, and a copy of what is cached of its prompt
    def take_prompts(row: Array) -> tuple[Any, Array]:
        """What is cached of the prompts of these rows [D, k], and their masks."""
        layers = jax.tree.map(lambda x: take(x, prompt_of(row), axis), prompts.prompt)
        return constrain_layers(layers, config, "rows", "heads"), take(prompts.prompt_mask, prompt_of(row))

    def copy_prompts(cache: Cache, row: Array, changed: Array) -> Cache:
        """The cache with the prompts of the rows in those slots that ``changed`` [D, s], one slot of each shard at a time."""
        order, counts = jnp.argsort(~changed, -1, stable=True), changed.sum(-1)

        def copy(number: Array, held: tuple[Any, Array]) -> tuple[Any, Array]:
            slot = jax.lax.dynamic_index_in_dim(order, number, 1, keepdims=False)
            layers, mask = take_prompts(jnp.take_along_axis(row, slot[:, None], 1))
            slot = jnp.where(number < counts, slot, own_slots)
            put_layer = lambda to, x: put(to, slot, x, axis)
            return jax.tree.map(put_layer, held[0], layers), put(held[1], slot, mask)

        loops = max_over_runs(counts.max())
        layers, mask = jax.lax.fori_loop(0, loops, copy, (cache.prompt, cache.prompt_mask))
        return cache._replace(prompt=layers, prompt_mask=mask)

    def refill(s: Slots, done: Array) -> Slots:
        """Give each slot that is ``done`` [D, s] the next row of the queue, or none."""
        new = s.next_row[:, None] + jnp.cumsum(done, -1, dtype=jnp.int32) - 1
        row = jnp.where(done, jnp.minimum(new, own_rows), s.row)
        changed = done & (row < own_rows) & (prompt_of(row) != prompt_of(s.row))
        cache = copy_prompts(s.cache, row, changed)
        logits = jnp.where(flat(done)[:, None], take(first_logits, prompt_of(row)), s.logits)
        cache = cache._replace(column=jnp.where(flat(done | (row == own_rows)), 0, cache.column))
        next_row = jnp.minimum(s.next_row + done.sum(-1, dtype=jnp.int32), own_rows)
        state = jax.tree.map(lambda x: jnp.where(done, 0, x), s.stop_state)
        return Slots(s.out, row, next_row, cache, constrain(logits, "drawn"), constrain(state, "rows"))

    # One token in every slot
    def body(s: Slots) -> Slots:
        column, live = s.cache.column.reshape(s.row.shape), s.row < own_rows
        global_row = jnp.arange(shards)[:, None] * own_rows + jnp.minimum(s.row, own_rows - 1)
        drawn = draw(s.logits, flat(global_row), s.cache.column)
        token, logprob, kept = jax.tree.map(lambda x: x.reshape(*s.row.shape, *x.shape[1:]), drawn)
        set_tokens = jax.vmap(lambda to, row, column, x: to.at[row, column].set(x, mode="drop"))
        write = lambda to, x: set_tokens(to, s.row, column, x)
        ended, state = ends(token, s.stop_state)
        stopped = live & ended
        set_finished = jax.vmap(lambda to, row, x: to.at[row].max(x, mode="drop"))
        out = s.out.replace(
            response=write(s.out.response, token),
            mask=write(s.out.mask, live),
            logprobs=write(s.out.logprobs, logprob),
            finished=set_finished(s.out.finished, s.row, stopped),
        )
        if kept is not None:
            out = out.replace(sampling_mask=write(out.sampling_mask, kept))
        logits, cache = decode(flat(token), s.cache)
        done = live & (stopped | (column + 1 >= last))
        return refill(Slots(constrain(out, "rows"), s.row, s.next_row, cache, logits, state), done)

    # The first rows, then one loop to the end of the queue
    row = jnp.broadcast_to(jnp.arange(own_slots, dtype=jnp.int32), (shards, own_slots))
    layers, mask = take_prompts(row)
    start = Slots(
        out=jax.tree.map(lambda x: constrain(x.reshape(shards, own_rows, *x.shape[1:]), "rows"), out),
        row=row,
        next_row=jnp.full(shards, own_slots, jnp.int32),
        cache=chunked_cache(prompts._replace(prompt=layers, prompt_mask=mask), columns, CHUNK),
        logits=constrain(take(first_logits, prompt_of(row)), "drawn"),
        stop_state=jax.tree.map(lambda x: take(x, row).reshape(row.shape), stop_state),
    )
    is_running = lambda s: max_over_runs(jnp.any(s.row < own_rows))
    return jax.tree.map(flat, jax.lax.while_loop(is_running, body, start).out)
