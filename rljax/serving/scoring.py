"""The log-probability of each token of a text, and the likeliest tokens in its place: what ``echo`` with ``logprobs`` returns."""

import functools
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax import transformer
from rljax.serving.programs import Programs
from rljax.serving.shapes import SMALLEST, check_window, power_of_two
from rljax.text import pad_batch
from rljax.transformer.blocks import unembed
from rljax.transformer.sequence import run_layers

Array = jax.Array
ROWS = 8  # texts scored at a time
PLACES = 64  # logits that exist at a time: of so many tokens


class Scored(NamedTuple):
    """A text of S tokens. The first one has nothing before it: its entries have no meaning."""

    logprobs: np.ndarray  # [S] float32, nats, at temperature 1
    top_ids: np.ndarray  # [S, K] int32, the likeliest first
    top_logprobs: np.ndarray  # [S, K] float32


def score_texts(
    programs: Programs, params: Any, config: transformer.Config, texts: Sequence[Sequence[int]], tops: int
) -> Generator[Any, None, list[Scored]]:
    """Part of a request's work: score texts, some at a turn. Raises UserError for one that does not fit in the window."""
    for ids in texts:
        check_window(len(ids), 0, config.max_length)
    out: list[Scored] = []
    how: dict[str, Any] = dict(config=config, tops=min(tops, config.vocab_size))
    for start in range(0, len(texts), ROWS):
        part = [list(ids) for ids in texts[start : start + ROWS]]
        columns = min(config.max_length, power_of_two(max(map(len, part)), SMALLEST))
        rows = power_of_two(len(part))
        tokens, mask = pad_batch(part + [[0]] * (rows - len(part)), columns, 0)
        program = yield from programs.use(score, params, tokens, mask, **how)
        found = [np.asarray(x) for x in program(params, tokens, mask)]
        out += [Scored(*(x[n, : len(ids)] for x in found)) for n, ids in enumerate(part)]
        yield None
    return out


@functools.partial(jax.jit, static_argnames=("config", "tops"))
def score(
    params: Any, tokens: Array, mask: Array, *, config: transformer.Config, tops: int
) -> tuple[Array, Array, Array]:
    """(log-probabilities [B, S], the likeliest tokens [B, S, K], theirs [B, S, K]) of tokens [B, S]; column 0 is 0."""
    x = run_layers(params, config, tokens, mask)[0][:, :-1]
    targets = tokens[:, 1:]
    rows, columns, width = x.shape
    extra = -(rows * columns) % PLACES
    flat = jnp.pad(x.reshape(-1, width), [(0, extra), (0, 0)]).reshape(-1, PLACES, width)
    wanted = jnp.pad(targets.reshape(-1), (0, extra)).reshape(-1, PLACES)

    def one(chunk: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        logp = jax.nn.log_softmax(unembed(params, config, chunk[0]))
        best, ids = jax.lax.top_k(logp, tops)
        return jnp.take_along_axis(logp, chunk[1][:, None], -1)[:, 0], ids, best

    def whole(y: Array) -> Array:
        y = y.reshape(-1, *y.shape[2:])[: rows * columns].reshape(rows, columns, *y.shape[2:])
        return jnp.pad(y, [(0, 0), (1, 0)] + [(0, 0)] * (y.ndim - 2))

    logp, ids, best = jax.lax.map(one, (flat, wanted))
    return whole(logp), whole(ids), whole(best)
