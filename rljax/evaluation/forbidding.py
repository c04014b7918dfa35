"""What does a policy achieve without one strategy? Attempts in which the tokens that would begin the strategy are never sampled.

The task says which words these are, from the response so far. The host looks at every response after every token, so this is
slow, and made for small models and short responses.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax import sampler, transformer
from rljax.errors import UserError
from rljax.structs import KeyTag, Problems
from rljax.tasks import Task, response_text
from rljax.text import SymbolTokenizer


class Forbidding(NamedTuple):
    """Attempts at Q problems, n at each."""

    reward: np.ndarray  # [Q, n]
    shows: np.ndarray  # [Q, n] bool: whether it shows the strategy
    forbidden: np.ndarray  # [Q, n] int: tokens at which words were forbidden


@functools.partial(jax.jit, static_argnames="config")
def draw_next(
    params: Any, config: transformer.Config, tokens: jax.Array, mask: jax.Array, allowed: jax.Array, last: jax.Array,
    temperature: jax.Array, keys: jax.Array,
) -> jax.Array:  # fmt: skip
    """The next token [N] int32 of rows [N, S], whose newest token is in column ``last`` []; ``allowed`` is [N, V] bool.

    At temperature 0 it is the likeliest that is allowed.
    """
    logits = jnp.where(allowed, transformer.forward(params, config, tokens, mask)[:, last], -jnp.inf)
    drawn = jax.vmap(jax.random.categorical)(keys, logits / jnp.where(temperature > 0, temperature, 1.0))
    return jnp.where(temperature > 0, drawn, jnp.argmax(logits, -1))


def attempt_without(
    params: Any,
    model: transformer.Config,
    task: Task,
    problems: Problems,
    strategy: str,
    *,
    attempts: int,
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> Forbidding:
    """``attempts`` at each problem, with the words forbidden that ``task.forbidden[strategy]`` names; "" forbids nothing.

    Raises UserError for a strategy that the task cannot forbid, and for a temperature below 0.
    """
    sampler.is_greedy(temperature)
    if strategy and strategy not in task.forbidden:
        raise UserError(
            f"strategy {strategy!r} cannot be forbidden in task {task.name}, choose from {sorted(task.forbidden) or 'none'}"
        )
    tokenizer = task.tokenizer
    assert isinstance(tokenizer, SymbolTokenizer), "words of a vocabulary are forbidden"
    records = [record for record in task.records(problems.facts) for _ in range(attempts)]
    rows, slots = len(records), problems.prompt.shape[1]
    prompt, prompt_mask = (np.repeat(np.asarray(x), attempts, 0) for x in (problems.prompt, problems.prompt_mask))
    tokens = np.concatenate([prompt, np.full((rows, max_new_tokens), tokenizer.pad, np.int32)], 1)
    mask = np.concatenate([prompt_mask, np.zeros((rows, max_new_tokens), bool)], 1)
    said: list[list[int]] = [[] for _ in records]
    finished, forbidden = np.zeros(rows, bool), np.zeros(rows, int)
    key = jax.random.fold_in(jax.random.key(seed), KeyTag.EVALUATION)
    for t in range(max_new_tokens):
        allowed = np.ones((rows, tokenizer.size), bool)
        for n in np.flatnonzero(~finished) if strategy else ():
            words = task.forbidden[strategy](tokenizer.decode(said[n]), records[n])
            allowed[n, [tokenizer.ids[word] for word in words]] = False
            forbidden[n] += bool(words)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, t), jnp.arange(rows))
        place = jnp.int32(slots + t - 1)
        drawn = np.asarray(draw_next(params, model, tokens, mask, allowed, place, jnp.float32(temperature), keys))
        for n in np.flatnonzero(~finished):
            said[n].append(int(drawn[n]))
        tokens[~finished, slots + t], mask[~finished, slots + t] = drawn[~finished], True
        finished |= np.isin(drawn, tokenizer.stop_ids)
        if finished.all():
            break
    texts = [response_text(tokenizer, np.asarray(ids), bool(done)) for ids, done in zip(said, finished, strict=True)]
    pairs = list(zip(texts, records, strict=True))
    shape = (len(records) // attempts, attempts)
    reward = np.array([float(task.verify(*pair)) for pair in pairs]).reshape(shape)
    shows = np.array([task.describe(*pair).strategy == strategy for pair in pairs]).reshape(shape)
    return Forbidding(reward, shows, forbidden.reshape(shape))
