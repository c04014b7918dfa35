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
# A step gives a new prompt to one in so many slots at most. They are written without a loop, which would copy the whole cache
# in every step. Slots that end together wait a few steps for each other, and do not end together again.
SLOTS_PER_NEW_PROMPT = 8


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
    row: Array  # [D, s] int32: the row of its shard that a slot decodes; n where it waits, or the queue is empty
    done: Array  # [D, s] bool: its row has ended
    prompt: Array  # [D, s] int32: the prompt of its shard whose cache a slot holds
    next_row: Array  # [D] int32: the first row of the queue
    cache: Cache  # of the D * s slots, each with its own copy of its prompt
    logits: Array  # [D * s, V]: of the next token
    stop_state: Array | None  # [D, s] int32: what a slot's row has read of the stop strings; None where there are none


class Queue(NamedTuple):
    """What a slot that has ended takes its next row from. It does not change."""

    prompts: Cache  # of the B prompts
    first_logits: Array  # [B, V]: of the first token after each of them


Carry = tuple[Slots, Queue]


class SlotLoop(NamedTuple):
    """The loop over tokens in slots: the functions of ``sampling.Loop``."""

    start: Callable[[Rollout, Cache, Array, Array | None], Carry]
    # of the empty rollout, the cache and logits of ``prefill``, and the states of ``make_ends``
    advance: Callable[[Carry, Array | None], Carry]  # until so many rows have ended, [] int32; None: all of them
    rollout: Callable[[Carry], Rollout]
    ended: Callable[[Carry], Array]  # [N] bool


def make_slot_loop(
    config: transformer.Config,
    slots: int,
    group_size: int,
    rows: int,
    draw: Callable[[Array, Array, Array], tuple[Array, Array, Array | None]],
    decode: Callable[[Array, Cache], tuple[Array, Cache]],
    ends: Callable[[Array, Any], tuple[Array, Any]],
    last: Array | int,
) -> SlotLoop:
    """The loop that samples N = ``rows`` responses, ``slots`` rows at a time, as ``rows_at_once`` says.

    ``draw(logits, rows, columns)`` draws a token for each slot: (tokens, log-probabilities, kept tokens or None).
    ``decode(tokens, cache)`` returns the next logits and the cache. A row ends with a token that ``ends``, or with ``last`` tokens.
    """
    shards = config.layout.num_shards("rows")
    own_rows, own_slots = rows // shards, slots // shards
    constrain, max_over_runs = config.layout.constrain, config.layout.max_over_runs
    axis = 1 if config.scan_layers else 0  # of the rows in a layer's cache
    new_prompts = max(1, own_slots // SLOTS_PER_NEW_PROMPT)  # in one step
    flat = lambda x: x.reshape(-1, *x.shape[2:])
    prompt_of = lambda row: jnp.minimum(row, own_rows - 1) // group_size  # within the shard

    # Rows and slots, within each shard of rows
    def take(x: Array, index: Array, axis: int = 0) -> Array:
        """The rows ``index`` [D, k] of each shard of x [.., D * m, ...]: [.., D * k, ...]."""
        by_shard = x.reshape(*x.shape[:axis], shards, -1, *x.shape[axis + 1 :])
        taken = jax.vmap(lambda x, i: jnp.take(x, i, axis), (axis, 0), axis)(by_shard, index)
        return taken.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])

    def put(to: Array, index: Array, x: Array, axis: int = 0) -> Array:
        """``to`` [.., D * s, ...] with x [.., D * k, ...] at the slots ``index`` [D, k] of each shard; nowhere where that is s."""
        by_shard, new = (y.reshape(*y.shape[:axis], shards, -1, *y.shape[axis + 1 :]) for y in (to, x))
        first = (slice(None),) * axis
        set_some = lambda to, i, x: to.at[(*first, i)].set(x, mode="drop")
        return jax.vmap(set_some, (axis, 0, axis), axis)(by_shard, index, new).reshape(to.shape)

    # A slot that is done gets the next row of the queue, and a copy of what is cached of its prompt
    def take_prompts(prompts: Cache, row: Array) -> tuple[Any, Array]:
        """What is cached of the prompts of these rows [D, k], and their masks."""
        layers = jax.tree.map(lambda x: take(x, prompt_of(row), axis), prompts.prompt)
        return constrain_layers(layers, config, "rows", "heads"), take(prompts.prompt_mask, prompt_of(row))

    def copy_prompts(prompts: Cache, cache: Cache, row: Array, changed: Array) -> Cache:
        """The cache with the prompts of the rows in those slots that ``changed`` [D, s], at most ``new_prompts`` in each shard."""
        slot = jnp.argsort(~changed, -1, stable=True)[:, :new_prompts]
        layers, mask = take_prompts(prompts, jnp.take_along_axis(row, slot, 1))
        slot = jnp.where(jnp.arange(new_prompts) < changed.sum(-1)[:, None], slot, own_slots)
        put_layer = lambda to, x: put(to, slot, x, axis)
        layers = jax.tree.map(put_layer, cache.prompt, layers)
        return cache._replace(prompt=layers, prompt_mask=put(cache.prompt_mask, slot, mask))

    def refill(s: Slots, queue: Queue) -> Slots:
        """Give the slots that are done or wait the next rows of the queue, as long as not too many change their prompt."""
        free = s.done | (s.row == own_rows)
        new = s.next_row[:, None] + jnp.cumsum(free, -1, dtype=jnp.int32) - 1
        in_queue = free & (new < own_rows)
        changes = in_queue & (prompt_of(new) != s.prompt)
        taken = in_queue & (jnp.cumsum(changes, -1) <= new_prompts)
        row = jnp.where(taken, new, jnp.where(free, own_rows, s.row))
        prompt = jnp.where(taken, prompt_of(new), s.prompt)
        cache = copy_prompts(queue.prompts, s.cache, row, changes & taken)
        logits = jnp.where(flat(taken)[:, None], take(queue.first_logits, prompt), s.logits)
        cache = cache._replace(column=jnp.where(flat(free), 0, cache.column))
        next_row = s.next_row + taken.sum(-1, dtype=jnp.int32)
        state = jax.tree.map(lambda x: jnp.where(free, 0, x), s.stop_state)
        logits, state = constrain(logits, "drawn"), constrain(state, "rows")
        return Slots(s.out, row, jnp.zeros_like(s.done), prompt, next_row, cache, logits, state)

    # One token in every slot
    def body(s: Slots, queue: Queue) -> Slots:
        s = refill(s, queue)  # before the cache is read: written afterwards, all of it would be copied
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
        return s._replace(out=constrain(out, "rows"), done=done, cache=cache, logits=logits, stop_state=state)

    def is_live(s: Slots) -> Array:
        """Whether a slot [D, s] decodes a row that has not ended."""
        return (s.row < own_rows) & ~s.done

    # The first rows, then a loop to the end of the queue
    def start(out: Rollout, prompts: Cache, first_logits: Array, stop_state: Array | None) -> Carry:
        row = jnp.broadcast_to(jnp.arange(own_slots, dtype=jnp.int32), (shards, own_slots))
        layers, mask = take_prompts(prompts, row)
        first = Slots(
            out=jax.tree.map(lambda x: constrain(x.reshape(shards, own_rows, *x.shape[1:]), "rows"), out),
            row=row,
            done=jnp.zeros(row.shape, bool),
            prompt=prompt_of(row),
            next_row=jnp.full(shards, own_slots, jnp.int32),
            cache=chunked_cache(prompts._replace(prompt=layers, prompt_mask=mask), out.mask.shape[1], CHUNK),
            logits=constrain(take(first_logits, prompt_of(row)), "drawn"),
            stop_state=jax.tree.map(lambda x: take(x, row).reshape(row.shape), stop_state),
        )
        return first, Queue(prompts, first_logits)

    def advance(carry: Carry, until: Array | None) -> Carry:
        first, queue = carry
        is_running = lambda s: max_over_runs(jnp.any(is_live(s)) | jnp.any(s.next_row < own_rows))
        goes_on = is_running if until is None else lambda s: is_running(s) & (count_ended(s) < until)
        return jax.lax.while_loop(goes_on, lambda s: body(s, queue), first), queue

    def count_ended(s: Slots) -> Array:
        return jnp.sum(s.next_row) - jnp.sum(is_live(s))

    def ended(carry: Carry) -> Array:
        s, _ = carry
        begun, decoded = jnp.arange(own_rows) < s.next_row[:, None], jnp.where(is_live(s), s.row, own_rows)
        leave_out = jax.vmap(lambda begun, row: begun.at[row].set(False, mode="drop"))
        return flat(leave_out(begun, decoded))

    return SlotLoop(start, advance, lambda carry: jax.tree.map(flat, carry[0].out), ended)
