"""Does a strategy occur in what a policy learned from before RL? A search over every page and every demonstration.

A strategy is a name that ``Task.describe`` gives to an attempt, so that what is looked for in the training text is exactly what
evaluations count.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from rljax.errors import UserError
from rljax.tasks.batches import Batch
from rljax.tasks.task import Record, Task

ROWS = 64  # of a batch that is read at once


class Occurrences(NamedTuple):
    """How often a strategy occurs in a text."""

    rows: int  # pages or demonstrations that were read
    attempts: int  # at problems, in them
    found: int  # attempts that show the strategy
    first: str  # the first of them; "" where there is none


def search_rows(task: Task, strategy: str, batches: Callable[[str, int, int], Batch], rows: int) -> Occurrences:
    """Search the first ``rows`` training rows of ``batches``, pages or demonstrations, for a strategy.

    Raises UserError for a strategy that the task does not tell apart, and for a task that cannot read its own text.
    """
    if strategy not in task.strategies:
        raise UserError(
            f"strategy {strategy!r} is not one of task {task.name}, choose from {', '.join(task.strategies)}"
        )
    if task.read_prompt is None or task.page_attempts is None:
        raise UserError(
            f"task {task.name} does not say which attempts its pages show (Task.read_prompt, page_attempts)"
        )
    attempts = found = 0
    first = ""
    for start in range(0, rows, ROWS):
        batch = batches("train", start, min(ROWS, rows - start))
        for text, record in (shown for n in range(len(batch["tokens"])) for shown in read_row(task, batch, n)):
            attempts += 1
            if task.describe(text, record).strategy == strategy:
                found, first = found + 1, first or text
    return Occurrences(rows, attempts, found, first)


def read_row(task: Task, batch: Batch, n: int) -> Iterator[tuple[str, Record]]:
    """The attempts that a row shows: the response of a demonstration, or all attempts of a page."""
    assert task.read_prompt is not None and task.page_attempts is not None
    tokens, mask, learned = (batch[name][n] for name in ("tokens", "mask", "loss_mask"))
    is_page = bool(np.array_equal(mask, learned))  # of a demonstration only the response is learned
    if is_page:
        yield from task.page_attempts(task.tokenizer.decode(tokens[mask]))
    elif (record := task.read_prompt(task.tokenizer.decode(tokens[mask & ~learned]))) is not None:
        yield task.tokenizer.decode(tokens[learned]), record
