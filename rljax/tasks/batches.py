"""Supervised batches: demonstrations, pages of raw text, and mixtures of both.

A batch is a function of (seed, number of its first row), so the data position of a stage is one integer. A batch is a dict of
arrays [N, S]: tokens int32, mask bool (True on real tokens), loss_mask bool (True on tokens that count in the loss).
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax.errors import UserError
from rljax.tasks.task import Record, Task
from rljax.text import Tokenizer, find_control_tokens, pad_batch

LOG = logging.getLogger(__name__)
Batch = dict[str, np.ndarray]
RNG_STREAMS = {"page": 1, "demonstration": 2, "worked": 3, "general": 4}  # each use draws from its own random numbers


def make_rng(seed: int, stream: str, index: int) -> np.random.Generator:
    """The random numbers of row ``index`` of a stream, one of ``RNG_STREAMS``."""
    return np.random.default_rng((seed, RNG_STREAMS[stream], index))


def demonstration_batch(
    task: Task, seed: int, start: int, count: int, max_new_tokens: int, *, split: str = "train", distinct: int = 0
) -> Batch:
    """Demonstrations number ``start`` .. ``start + count - 1``: rows of prompt and response, [count, P + max_new_tokens].

    ``distinct`` > 0: only the first ``distinct`` demonstrations, again and again. The loss mask is True on the response and
    its stop token. Raises UserError where a response is longer than ``max_new_tokens``.
    """
    index = np.arange(start, start + count)
    index = index % distinct if distinct else index
    problems = jax.device_get(problem_fn(task)(seed, jnp.asarray(index), split))
    records, ids = task.records(problems.facts), response_ids_fn(task)
    rows = [
        ids(r, task.demonstration(r, make_rng(seed, "demonstration", int(i))))
        for r, i in zip(records, index, strict=True)
    ]
    response, live = pad_batch(rows, max_new_tokens, task.tokenizer.pad)
    tokens = np.concatenate([np.asarray(problems.prompt), response], 1)
    mask = np.concatenate([np.asarray(problems.prompt_mask), live], 1)
    return {"tokens": tokens, "mask": mask, "loss_mask": np.concatenate([np.zeros_like(problems.prompt_mask), live], 1)}


def response_ids_fn(task: Task) -> Callable[[Record, str], list[int]]:
    """(record, response text) -> ids of the response, with its stop token."""
    return task.response_ids or (lambda record, text: [*task.tokenizer.encode(text), task.tokenizer.eos])


def page_batch(task: Task, seed: int, start: int, count: int, length: int) -> Batch:
    """Pages number ``start`` .. of the task's raw text, [count, length]. The loss mask is True on every real token."""
    rows = [task.page(make_rng(seed, "page", i), length) for i in range(start, start + count)]
    tokens, mask = pad_batch(rows, length, task.tokenizer.pad)
    return {"tokens": tokens, "mask": mask, "loss_mask": mask}


def add_worked_problems(pages: Batch, task: Task, seed: int, start: int, share: float) -> Batch:
    """Pages [N, S] number ``start`` .., of which about a ``share`` is replaced by pages of worked problems.

    Such a page holds prompts of training problems, each followed by its demonstration; it is cut at the end of the page.
    Whether a page is replaced depends on its number alone.
    """
    count, length = pages["tokens"].shape
    rngs = [make_rng(seed, "worked", start + n) for n in range(count)]
    chosen = [n for n, rng in enumerate(rngs) if rng.random() < share]
    rows: dict[int, list[int]] = {n: [] for n in chosen}
    ask, ids, size = problem_fn(task), response_ids_fn(task), task.num_questions("train") or 1 << 30
    while short := [n for n in chosen if len(rows[n]) < length]:
        index = np.zeros(count, np.int32)  # always ``count`` problems: one compiled function
        index[short] = [rngs[n].integers(size) for n in short]
        problems = jax.device_get(ask(seed, jnp.asarray(index), "train"))
        records = task.records(problems.facts)
        for n in short:
            prompt = np.asarray(problems.prompt[n])[np.asarray(problems.prompt_mask[n])].tolist()
            rows[n] += prompt + ids(records[n], task.demonstration(records[n], rngs[n]))
    if not chosen:
        return pages
    tokens, mask = pages["tokens"].copy(), pages["mask"].copy()
    tokens[chosen], mask[chosen] = pad_batch([rows[n][:length] for n in chosen], length, task.tokenizer.pad)
    return {"tokens": tokens, "mask": mask, "loss_mask": mask}


def add_page_rows(batch: Batch, task: Task, seed: int, start: int, share: float) -> Batch:
    """Rows [N, S] number ``start`` .., of which about a ``share`` is replaced by pages of raw text, all tokens in the loss.

    This keeps fine-tuning from forgetting what its samples do not show. Whether a row is replaced depends on its number
    alone.
    """
    count, length = batch["tokens"].shape
    chosen = [n for n in range(count) if make_rng(seed, "general", start + n).random() < share]
    if not chosen:
        return batch
    out = {name: x.copy() for name, x in batch.items()}
    for n in chosen:
        page = page_batch(task, seed, start + n, 1, length)
        for name in out:
            out[name][n] = page[name][0]
    return out


def text_file_batch(tokens: np.ndarray, seed: int, start: int, count: int, length: int) -> Batch:
    """Windows of ``length`` tokens at random places of a text file, whose ids ``read_text_file`` returned."""
    places = [int(make_rng(seed, "page", i).integers(len(tokens) - length + 1)) for i in range(start, start + count)]
    rows = np.stack([tokens[p : p + length] for p in places])
    mask = np.ones(rows.shape, bool)
    return {"tokens": rows, "mask": mask, "loss_mask": mask}


def read_text_file(path: str, tokenizer: Tokenizer, length: int) -> tuple[np.ndarray, np.ndarray]:
    """(training ids, held-out ids) of a UTF-8 text file. The last twentieth is held out.

    The names of control tokens in it are ordinary text, and a warning says so. Raises UserError where the file is missing, is
    not UTF-8, or is too short for windows of ``length`` tokens.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"pretrain.text_file: cannot read {path}: {e}") from None
    if found := find_control_tokens(tokenizer, [text]):
        names = ", ".join(map(repr, found))
        LOG.warning(f"pretrain.text_file: {names} in {path} is ordinary text, not a control token")
    ids = np.asarray(tokenizer.encode(text), np.int32)
    cut = len(ids) - len(ids) // 20
    if min(cut, len(ids) - cut) < length:
        raise UserError(f"pretrain.text_file: {path} has {len(ids)} tokens, too few: 20 windows of {length} are needed")
    return ids[:cut], ids[cut:]


def problem_fn(task: Task) -> Callable[..., Any]:
    """``task.problems(seed, index, split)``, compiled where the task runs on the device."""
    return jax.jit(task.problems, static_argnums=2) if task.on_device else task.problems
