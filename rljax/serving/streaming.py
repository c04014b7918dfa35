"""Attempts column by column: the sampler's loop, left every few tokens so that the host can show them and may stop.

The tokens are those of ``rljax.sampler.sample`` with the same key and shapes: the same steps in the same order. Rows that nobody
asked for pad the batch to a power of two, and have ended before the first token. Programs are compiled aside of the device.
"""

import functools
import time
from collections.abc import Generator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax import transformer
from rljax.sampler.sampling import make_loop, stage_sizes
from rljax.serving.aside import Aside
from rljax.serving.programs import Program, Programs
from rljax.serving.shapes import STATES, Shape, choose_shape, power_of_two
from rljax.text import StopStrings, pad_batch

Array = jax.Array
CHUNK = 16  # columns at most between two looks of the host
PACE = 0.08  # seconds that the device works between two looks, if one column takes no longer
TOPS = 5  # alternatives of each token
MANY_TOPS = 20  # the most that are ever wanted
STATIC = ("config", "rows", "response", "stop_ids", "greedy", "tops")


class Ask(NamedTuple):
    """What is asked of a policy, checked and in ids."""

    prompt: tuple[int, ...]
    attempts: int
    max_new_tokens: int
    temperature: float = 1.0  # 0: the likeliest token
    top_p: float = 1.0
    seed: int = 0
    stop_ids: tuple[int, ...] = ()
    stops: StopStrings | None = None
    tops: int = TOPS


class Columns(NamedTuple):
    """Some columns of the attempts: G attempts, C columns, K alternatives."""

    tokens: np.ndarray  # [G, C] int32
    live: np.ndarray  # [G, C] bool, whether the attempt sampled a token there
    logprobs: np.ndarray  # [G, C] float32, nats, of the policy at temperature 1, nothing left out
    sampled: np.ndarray  # [G, C] float32, nats, of the distribution that was sampled from
    top_ids: np.ndarray  # [G, C, K] int32, the likeliest tokens at temperature 1
    top_logprobs: np.ndarray  # [G, C, K] float32
    finished: np.ndarray  # [G] bool, the attempts that a stop token or a stop string has ended


class Start(NamedTuple):
    """A request as the programs take it."""

    shape: Shape
    prompt: np.ndarray  # [1, P] int32, padded on the left
    mask: np.ndarray  # [1, P] bool
    noise: tuple[Any, ...]  # (key, (temperature, top-p), table of stop strings)
    settings: dict[str, Any]  # what the programs are compiled for


def lay_out(config: transformer.Config, ask: Ask) -> Start:
    """The inputs of the programs. Raises UserError where prompt and response do not fit in the window."""
    shape = choose_shape(ask.attempts, len(ask.prompt), ask.max_new_tokens, config.max_length)
    prompt, mask = pad_batch([list(ask.prompt)], shape.prompt, 0, left=True)
    numbers = (jnp.float32(ask.temperature or 1.0), jnp.float32(ask.top_p) if ask.top_p < 1 else None)
    table = None if ask.stops is None else jnp.asarray(pad_table(ask.stops.table))
    how: dict[str, Any] = dict(config=config, rows=shape.rows, response=shape.response, stop_ids=ask.stop_ids)
    how |= dict(greedy=not ask.temperature, tops=ask.tops)
    return Start(shape, prompt, mask, (jax.random.key(ask.seed), numbers, table), how)


def stream_attempts(
    programs: Programs, params: Any, config: transformer.Config, ask: Ask
) -> Generator[Columns | Aside, None, None]:
    """Sample the attempts, a few columns at a time. Raises UserError where they do not fit in the window."""
    start = lay_out(config, ask)
    changing = yield from fill(programs, params, start, ask)
    column, count = 0, 1
    for size in stage_sizes(start.shape.response):
        changing, sample = yield from enlarge(programs, params, start, changing, size)
        while column < min(size, ask.max_new_tokens):
            until = min(column + count, size, ask.max_new_tokens)
            before = time.perf_counter()
            changing, seen = sample(params, changing, *start.noise, jnp.int32(until))
            *by_column, finished = map(np.asarray, seen)  # waits for the device
            done, pace = until - column, (time.perf_counter() - before) / (until - column)
            count = min(CHUNK, max(1, min(2 * count, int(PACE / max(pace, 1e-6)))))
            column = until
            parts: Any = [*(x[: ask.attempts, :done] for x in by_column), finished[: ask.attempts]]
            yield Columns(*parts)
            if finished.all():
                return
        if column == ask.max_new_tokens:
            return


def prepare_attempts(
    programs: Programs, params: Any, config: transformer.Config, ask: Ask
) -> Generator[Aside, None, None]:
    """Compile everything that such a request may need, and sample nothing."""
    start = lay_out(config, ask)
    changing = yield from fill(programs, params, start, ask)
    for size in stage_sizes(start.shape.response):
        changing, _ = yield from enlarge(programs, params, start, changing, size)


def fill(programs: Programs, params: Any, start: Start, ask: Ask) -> Generator[Aside, None, Any]:
    """What the loop carries before the first token: the prompt is read."""
    asked = (params, start.prompt, start.mask, *start.noise, jnp.int32(ask.attempts))
    return (yield from programs.use(begin, *asked, **start.settings))(*asked)


def enlarge(
    programs: Programs, params: Any, start: Start, changing: Any, size: int
) -> Generator[Aside, None, tuple[Any, Program]]:
    """(What the loop carries, with room for ``size`` columns; the program that samples them)."""
    changing = (yield from programs.use(grow, changing, config=start.settings["config"], columns=size))(changing)
    asked = (params, changing, *start.noise, jnp.int32(0))
    return changing, (yield from programs.use(advance, *asked, columns=size, **start.settings))


def pad_table(table: np.ndarray) -> np.ndarray:
    """The automaton of stop strings with a power of two of states: the new ones are never reached, the last one still stops."""
    states, size = table.shape
    padded = power_of_two(states, STATES)
    stopped = np.where(table == states - 1, padded - 1, table)
    return np.concatenate([stopped[:-1], np.full((padded - states + 1, size), padded - 1, table.dtype)]).astype(
        np.uint8
    )


def loop_of(
    params: Any,
    config: transformer.Config,
    key: Array,
    numbers: tuple[Array, Array | None],
    table: Array | None,
    limit: Array | None,
    *,
    rows: int,
    response: int,
    stop_ids: tuple[int, ...],
    greedy: bool,
    tops: int,
):
    """The sampler's loop with the settings of a request. ``tops`` is not one of them."""
    temperature, top_p = numbers
    how: dict[str, Any] = dict(
        group_size=rows, max_new_tokens=response, stop_ids=stop_ids, stop_table=table, greedy=greedy
    )
    how |= dict(temperature=temperature, top_k=0, top_p=1.0 if top_p is None else top_p, limit=limit)
    how |= dict(weights="", keep_sampling_mask=False, row_numbers=None, slots=0)
    return make_loop(params, config, 1, key, **how)


@functools.partial(jax.jit, static_argnames=STATIC)
def begin(
    params: Any,
    prompt: Array,
    mask: Array,
    key: Array,
    numbers: tuple[Array, Array | None],
    table: Array | None,
    attempts: Array,
    *,
    config: transformer.Config,
    **settings: Any,
) -> Any:
    """What the loop carries before the first token. Rows from number ``attempts`` [] on have ended."""
    loop = loop_of(params, config, key, numbers, table, None, **settings)
    (out, *others), _ = loop.start(prompt, mask)
    return out.replace(finished=jnp.arange(settings["rows"]) >= attempts), *others


@functools.partial(jax.jit, static_argnames=("config", "columns"))
def grow(changing: Any, *, config: transformer.Config, columns: int) -> Any:
    """The same with room for more columns."""
    out, cache, *others = changing
    return out, transformer.grow_cache(cache, columns, config), *others


@functools.partial(jax.jit, static_argnames=(*STATIC, "columns"), donate_argnames="changing")
def advance(
    params: Any,
    changing: Any,
    key: Array,
    numbers: tuple[Array, Array | None],
    table: Array | None,
    until: Array,
    *,
    config: transformer.Config,
    columns: int,
    **settings: Any,
) -> tuple[Any, tuple[Array, ...]]:
    """Sample up to column ``until`` [], at most ``CHUNK`` columns: (what the loop carries then, the fields of ``Columns``)."""
    rows, tops = settings["rows"], min(settings["tops"], config.vocab_size)
    first = changing[1].column
    room = lambda dtype, *more: jnp.zeros((rows, CHUNK, *more), dtype)
    seen = (room(jnp.int32), room(bool), room(jnp.float32), room(jnp.float32))
    seen += (room(jnp.int32, tops), room(jnp.float32, tops))

    def step(carry: Any) -> Any:
        changing, seen = carry
        column = changing[1].column
        logp = jax.nn.log_softmax(changing[2])
        best, best_ids = jax.lax.top_k(logp, tops)
        one_more = loop_of(params, config, key, numbers, table, column + 1, **settings)
        changing, _ = one_more.advance((changing, None), columns)
        at_column = lambda x: jax.lax.dynamic_index_in_dim(x, column, 1, keepdims=False)
        out = changing[0]
        token, live, sampled = (at_column(x) for x in (out.response, out.mask, out.logprobs))
        chosen = jnp.take_along_axis(logp, token[:, None], 1)[:, 0]
        new = token, live, chosen, sampled, best_ids, best
        write = lambda to, x: jax.lax.dynamic_update_index_in_dim(to, x.astype(to.dtype), column - first, 1)
        return changing, tuple(map(write, seen, new))

    def is_running(carry: Any) -> Array:
        changing, _ = carry
        return (changing[1].column < until) & ~jnp.all(changing[0].finished)

    changing, seen = jax.lax.while_loop(is_running, step, (changing, seen))
    return changing, (*seen, changing[0].finished)
