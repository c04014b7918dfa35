"""Sample many attempts at each prompt, in one jitted loop.

Each prompt is computed once, and its attempts share its keys and values. The loop stops when every row has stopped; of
vmapped runs, when every row of every run has. The cache grows in stages, so that columns that no row has reached are never
read. The random number of row n at token t comes from ``fold_in(fold_in(key, n), t)``. It depends neither on the other rows
nor on the number of devices, and two attempts at one prompt never share it.

Parameters are laid out for sampling (``config.layout``) once before the loop, and not once for each token.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax import transformer
from rljax.errors import UserError
from rljax.sampler.slots import make_slot_loop, rows_at_once
from rljax.sampler.truncation import truncate
from rljax.structs import Rollout

Array = jax.Array
# (tokens, states) -> (does a token end its row?, states): see make_ends
Ends = Callable[[Array, Any], tuple[Array, Any]]
Carry = tuple[Any, Any]  # (what changes, what does not)
BLOCK = 128  # vocabulary entries summed at a time by the inverse-CDF draw
STAGES = 3  # at most this many cache sizes: each is one more compiled loop


SETTINGS = (  # what a program of the sampler is compiled for
    *("config", "group_size", "max_new_tokens", "top_k", "top_p", "stop_ids", "greedy", "weights"),
    *("keep_sampling_mask", "slots"),
)


@functools.partial(jax.jit, static_argnames=SETTINGS)
def sample(
    params: transformer.Params,
    config: transformer.Config,
    prompt: Array,
    prompt_mask: Array,
    key: Array,
    *,
    group_size: int,
    max_new_tokens: int,
    temperature: Array | float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    stop_ids: tuple[int, ...] = (),
    stop_table: Array | None = None,
    greedy: bool = False,
    weights: str = "",
    limit: Array | int | None = None,
    keep_sampling_mask: bool = False,
    row_numbers: Array | None = None,
    slots: int = 0,
) -> Rollout:
    """Sample ``group_size`` responses of at most ``max_new_tokens`` tokens to each of the prompts.

    prompt [B, P] int32 and prompt_mask [B, P] bool, each row's real tokens contiguous, padded on either side (the
    rollout holds them padded on the left). ``temperature`` > 0 divides the logits; ``greedy=True`` takes the likeliest
    token instead. ``top_k`` 0 and ``top_p`` 1 keep the whole distribution. A row ends with the first of ``stop_ids`` it
    samples, or with the token that completes a stop string: ``stop_table`` [S, V] uint8 (``StopStrings.table``) is their
    automaton. This token belongs to the response. ``weights`` says how the layers' matrices are kept meanwhile: "" as every
    product would have them, in the activations' dtype; or lighter, as "bfloat16" or "int8" (a scale a column): the policy that
    samples is then not quite the one that learns. ``limit`` [] int32 ends responses after fewer than ``max_new_tokens`` tokens.
    ``row_numbers`` [rows] int32 decide the random numbers of each row, so that a batch may be sampled in parts; None: 0, 1, 2, ...

    ``slots`` rows decode at a time where there are more, and the next ones wait: see ``slots.py``. 0: all at once. The tokens
    are the same.

    ``Rollout.logprobs`` are those of the distribution that was really sampled from: at this temperature, renormalised
    over what top-k and top-p kept (0 for greedy). ``keep_sampling_mask`` stores which tokens these are in
    ``Rollout.sampling_mask``, for each token that was sampled. Raises UserError where the window is too short for prompt + response.
    """
    settings: dict[str, Any] = dict(
        group_size=group_size, max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k
    )
    settings |= dict(top_p=top_p, stop_ids=stop_ids, stop_table=stop_table, greedy=greedy, weights=weights, limit=limit)
    settings |= dict(keep_sampling_mask=keep_sampling_mask, row_numbers=row_numbers, slots=slots)
    loop = make_loop(params, config, prompt.shape[0], key, **settings)
    carry = loop.start(prompt, prompt_mask)
    for goal in loop.goals:
        carry = loop.advance(carry, goal)
    return loop.rollout(carry)


class Loop(NamedTuple):
    """The sampler's loop over tokens. It may be left at a goal, and entered again with what it carries: (changing, constant)."""

    start: Callable[[Array, Array], Carry]  # of (prompt, prompt_mask)
    goals: Sequence[Any]  # one after the other, the last of which all rows reach
    advance: Callable[[Carry, Any], Carry]  # to a goal
    rollout: Callable[[Carry], Rollout]  # so far
    ended: Callable[[Carry], Array]  # [N] bool: the rows that are complete


def make_loop(
    params: transformer.Params,
    config: transformer.Config,
    prompts: int,
    key: Array,
    *,
    group_size: int,
    max_new_tokens: int,
    temperature: Array | float,
    top_k: int,
    top_p: Array | float,
    stop_ids: tuple[int, ...],
    stop_table: Array | None,
    greedy: bool,
    weights: str,
    limit: Array | None,
    keep_sampling_mask: bool,
    row_numbers: Array | None,
    slots: int,
) -> Loop:
    """The loop of ``sample`` over this number of prompts: to be traced, whole or in pieces."""
    constrain = config.layout.constrain
    params = transformer.constrain_params(transformer.quantize_params(params, config, weights or config.dtype), config)
    rows = prompts * group_size
    ends, stop_state = make_ends(stop_ids, stop_table, rows)
    row_numbers = jnp.arange(rows) if row_numbers is None else row_numbers
    row_keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(row_numbers)

    def draw(logits: Array, keys: Array, columns: Array) -> tuple[Array, Array, Array | None]:
        if greedy:
            return jnp.argmax(logits, -1).astype(jnp.int32), jnp.zeros(logits.shape[0]), None
        fold_in = lambda key, column: jax.random.uniform(jax.random.fold_in(key, column))
        uniform = jax.vmap(fold_in, (0, None if columns.ndim == 0 else 0))(keys, columns)
        kept_logits = truncate(logits / temperature, top_k, top_p)
        kept = jnp.packbits(kept_logits > -jnp.inf, axis=-1) if keep_sampling_mask else None
        return *inverse_cdf(kept_logits, uniform), kept

    def decode(token: Array, cache: transformer.Cache) -> tuple[Array, transformer.Cache]:
        kept = params
        if weights == "int8" or config.scan_layers:  # else the compiler converts or copies all of them before the loop
            kept, _ = jax.lax.optimization_barrier((params, cache.column))
        return transformer.decode(kept, config, token, cache)

    def start(prompt: Array, prompt_mask: Array) -> tuple[Rollout, transformer.Cache, Array]:
        """The empty rollout, the cache of the prompts, and the logits of the first token after each of them."""
        check_window(config, prompt.shape[1], max_new_tokens)
        prompt, prompt_mask = constrain(align_left_padding(prompt, prompt_mask), "rows")
        logits, cache = transformer.prefill(params, config, prompt, prompt_mask, group_size)
        masked_vocab = config.vocab_size if keep_sampling_mask and not greedy else 0
        out = Rollout.empty(rows, prompt.shape[1], max_new_tokens, masked_vocab).replace(
            prompt=jnp.repeat(prompt, group_size, 0), prompt_mask=jnp.repeat(prompt_mask, group_size, 0)
        )
        return out, cache, logits

    at_once = rows_at_once(slots, rows, prompts, config.layout)
    if at_once < rows:
        last = max_new_tokens if limit is None else limit
        slot_draw = lambda logits, row, column: draw(logits, row_keys[row], column)
        in_slots = make_slot_loop(config, at_once, group_size, rows, slot_draw, decode, ends, last)

        def start_in_slots(prompt: Array, prompt_mask: Array) -> Carry:
            out, cache, logits = start(prompt, prompt_mask)
            return in_slots.start(constrain(out, "rows"), cache, logits, stop_state)

        return Loop(start_in_slots, (None,), in_slots.advance, in_slots.rollout, in_slots.ended)

    def constrain_carry(carry):
        return constrain(carry[0], "rows"), carry[1], constrain(carry[2], "drawn"), constrain(carry[3], "rows")

    def body(carry):
        out, cache, logits, stop_state = carry
        token, logprob, kept_tokens = constrain(draw(logits, row_keys, cache.column), "rows")
        live = ~out.finished
        ended, stop_state = ends(token, stop_state)
        write = lambda to, x: jax.lax.dynamic_update_slice_in_dim(to, x[:, None], cache.column, 1)
        out = out.replace(
            response=write(out.response, jnp.where(live, token, 0)),
            mask=write(out.mask, live),
            logprobs=write(out.logprobs, jnp.where(live, logprob, 0.0)),
            finished=out.finished | (live & ended),
        )
        if kept_tokens is not None:
            kept_tokens = jnp.where(live[:, None], kept_tokens, 0)
            out = out.replace(sampling_mask=write(out.sampling_mask, kept_tokens))
        logits, cache = decode(token, cache)
        return constrain_carry((out, cache, logits, stop_state))

    def start_together(prompt: Array, prompt_mask: Array) -> Carry:
        out, cache, logits = start(prompt, prompt_mask)
        return constrain_carry((out, cache, jnp.repeat(logits, group_size, 0), stop_state)), None

    def advance(carry: Carry, columns: int) -> Carry:
        out, cache, *others = carry[0]
        grown = out, transformer.grow_cache(cache, columns, config), *others
        last = columns if limit is None else jnp.minimum(columns, config.layout.max_over_runs(limit))

        def is_running(carry):
            return (carry[1].column < last) & config.layout.max_over_runs(~jnp.all(carry[0].finished))

        return jax.lax.while_loop(is_running, body, grown), None

    rollout = lambda carry: constrain(carry[0][0], "rows")
    return Loop(start_together, stage_sizes(max_new_tokens), advance, rollout, lambda carry: carry[0][0].finished)


def make_ends(stop_ids: tuple[int, ...], stop_table: Array | None, rows: int) -> tuple[Ends, Array | None]:
    """``ends(token, state) -> (whether this token ends its row, the row's next state)``, and the states at the start.

    A state [rows] int32 says what a row has read of the stop strings: 0 nothing, S - 1 a whole one. It is None where there
    are no stop strings. An id that the table lacks has no text, and changes no state.
    """
    ids = jnp.asarray(stop_ids, jnp.int32)
    if stop_table is None:
        return lambda token, state: (jnp.isin(token, ids), None), None
    table = jnp.asarray(stop_table)
    stopped, size = table.shape[0] - 1, table.shape[1]

    def ends(token: Array, state: Array) -> tuple[Array, Array]:
        moved = table[state, jnp.minimum(token, size - 1)].astype(jnp.int32)
        state = jnp.where(token < size, moved, state)
        return jnp.isin(token, ids) | (state == stopped), state

    return ends, jnp.zeros(rows, jnp.int32)


def check_window(config: transformer.Config, prompt_slots: int, max_new_tokens: int) -> None:
    """Raise UserError where prompt and response together do not fit the model's window."""
    if prompt_slots + max_new_tokens > config.max_length:
        raise UserError(
            f"a prompt of {prompt_slots} tokens and a response of {max_new_tokens} need {prompt_slots + max_new_tokens} "
            f"columns, but the model's window is {config.max_length} (model.max_length): ask for shorter responses, or raise it for "
            "a model that starts from random weights"
        )


def stage_sizes(columns: int) -> list[int]:
    """Cache sizes to grow through, equal steps rounded up to 8, the last one exact: 100 -> [40, 80, 100]."""
    step = max(16, -(-columns // (8 * STAGES)) * 8)
    return [*range(step, columns, step), columns]


def align_left_padding(prompt: Array, mask: Array) -> tuple[Array, Array]:
    """Move each row's tokens to the right edge; a row already padded on the left is unchanged."""
    width = prompt.shape[1]
    shift = jnp.argmax(mask[:, ::-1], -1)  # [B], pads after the last real token
    columns = (jnp.arange(width) - shift[:, None]) % width
    move = lambda x: jnp.take_along_axis(x, columns, 1)
    return move(prompt), move(mask)


def inverse_cdf(logits: Array, uniform: Array) -> tuple[Array, Array]:
    """Draw from softmax(logits [N, V]) with one uniform [N] in [0, 1) a row: token [N] int32, its log-probability [N].

    Probabilities are summed in blocks; the draw finds its block, then its place in the block: V exponentials, two short
    cumulative sums, and no V random numbers. Only blocks and tokens with a positive weight are looked for. So a token of
    probability 0 is never drawn, however the sums are rounded.
    """
    rows, size = logits.shape
    blocks = -(-size // BLOCK)
    shifted = logits - jnp.max(logits, -1, keepdims=True)
    weight = jnp.pad(jnp.exp(shifted), [(0, 0), (0, blocks * BLOCK - size)]).reshape(rows, blocks, BLOCK)
    rising = lambda x: jax.lax.cummax(jnp.cumsum(x, -1), x.ndim - 1)  # a parallel sum may round down on the way up
    up_to = rising(weight.sum(-1))  # [N, blocks]
    total = up_to[:, -1]
    goal = uniform * total
    block = first_above(up_to, goal, weight.sum(-1))
    before = jnp.where(block > 0, jnp.take_along_axis(up_to, jnp.maximum(block - 1, 0)[:, None], 1)[:, 0], 0.0)
    weight_inside = jnp.take_along_axis(weight, block[:, None, None], 1)[:, 0]  # [N, BLOCK]
    token = block * BLOCK + first_above(rising(weight_inside), goal - before, weight_inside)
    chosen = jnp.take_along_axis(shifted, token[:, None], 1)[:, 0]
    return token.astype(jnp.int32), chosen - jnp.log(total)


def first_above(sums: Array, goal: Array, weight: Array) -> Array:
    """The first place [N] whose sum [N, W] is above the goal [N] and whose weight [N, W] is positive.

    Where rounding leaves none, the last place of positive weight.
    """
    positive = weight > 0
    reached = positive & (sums > goal[:, None])
    last = weight.shape[-1] - 1 - jnp.argmax(positive[:, ::-1], -1)
    return jnp.where(jnp.any(reached, -1), jnp.argmax(reached, -1), last)
