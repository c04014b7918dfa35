"""The sampler's loop cut into a few programs, so that the host can read responses that have ended while the others decode.

The programs are dispatched one behind the other, and nobody waits for them. Their steps are those of ``sample``, with the same
shapes and in the same order: the rollout does not depend on the cuts.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax import transformer
from rljax.sampler.sampling import SETTINGS, Carry, make_loop, stage_sizes
from rljax.sampler.slots import rows_at_once
from rljax.structs import EndedRows, Rollout

Array = jax.Array


def sample_part_by_part(
    params: transformer.Params,
    config: transformer.Config,
    prompt: Array,
    prompt_mask: Array,
    key: Array,
    *,
    parts: int,
    **settings: Any,
) -> Rollout:
    """``sample`` with all of its ``settings``, in at most this many parts. Not to be traced.

    ``Rollout.earlier`` holds the rows that had ended after each part but the last. In slots, each part ends as many rows as
    the others. Where all rows decode at once, it ends where the cache grows.
    """
    prompts = prompt.shape[0]
    rows, columns = prompts * settings["group_size"], settings["max_new_tokens"]
    if rows_at_once(settings["slots"], rows, prompts, config.layout) < rows:
        go_on, goals = advance_slots, [(np.int32(-(-rows * n // parts)),) for n in range(1, parts + 1)]
    else:
        stages = np.array_split(stage_sizes(columns), parts)
        go_on, goals = advance_together, [tuple(x.tolist()) for x in stages if x.size]
    carry, earlier = start(params, config, prompt, prompt_mask, key, **settings), []
    for number, part in enumerate(goals, 1):
        carry, ended = go_on(params, config, *carry, key, part, prompts=prompts, **settings)
        earlier += [ended] if number < len(goals) else []
    return finish(params, config, *carry, key, prompts=prompts, **settings).replace(earlier=tuple(earlier))


@functools.partial(jax.jit, static_argnames=SETTINGS)
def start(
    params: transformer.Params,
    config: transformer.Config,
    prompt: Array,
    prompt_mask: Array,
    key: Array,
    **settings: Any,
) -> Carry:
    """What the loop carries before the first token."""
    return make_loop(params, config, prompt.shape[0], key, **settings).start(prompt, prompt_mask)


def advance(
    params: transformer.Params,
    config: transformer.Config,
    changing: Any,
    constant: Any,
    key: Array,
    goals: tuple[Any, ...],
    *,
    prompts: int,
    **settings: Any,
) -> tuple[Carry, EndedRows]:
    """What the loop carries when it has reached these goals, and the rows that have ended by then."""
    loop, carry = make_loop(params, config, prompts, key, **settings), (changing, constant)
    for goal in goals:
        carry = loop.advance(carry, goal)
    out, ended = loop.rollout(carry), loop.ended(carry)
    found = EndedRows(
        ended, jnp.where(ended[:, None], out.response, 0), out.mask & ended[:, None], out.finished & ended
    )
    return carry, config.layout.constrain(found, "rows")


advance_together = jax.jit(advance, static_argnames=(*SETTINGS, "prompts", "goals"))
advance_slots = jax.jit(advance, static_argnames=(*SETTINGS, "prompts"), donate_argnames="changing")


@functools.partial(jax.jit, static_argnames=(*SETTINGS, "prompts"))
def finish(
    params: transformer.Params,
    config: transformer.Config,
    changing: Any,
    constant: Any,
    key: Array,
    *,
    prompts: int,
    **settings: Any,
) -> Rollout:
    """The rollout."""
    return make_loop(params, config, prompts, key, **settings).rollout((changing, constant))
