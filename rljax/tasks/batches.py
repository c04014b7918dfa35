"""(seed, index) -> batch. The data position of every stage is one integer; nothing is shuffled, stored or read ahead.

A supervised batch is a dict of arrays [N, S]: tokens int32, mask bool (real), loss_mask bool (True on tokens that count in the loss).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax.errors import UserError
from rljax.tasks.task import Record, Task
from rljax.text import Tokenizer, pad_batch

Batch = dict[str, np.ndarray]
RNG_STREAMS = {"page": 1, "demonstration": 2, "worked": 3, "general": 4}  # keeps the randomness of different uses apart


def make_rng(seed: int, stream: str, index: int) -> np.random.Generator:
    return np.random.default_rng((seed, RNG_STREAMS[stream], index))


def demonstration_batch(
    task: Task, seed: int, start: int, count: int, max_new_tokens: int, *, split: str = "train", distinct: int = 0
) -> Batch:
    """Demonstrations number start .. start + count - 1; ``distinct`` > 0 repeats the first so many for ever.

    The loss counts the response, its stop token included, and not the prompt.
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
    """(record, response text) -> its ids, what ends it included."""
    return task.response_ids or (lambda record, text: [*task.tokenizer.encode(text), task.tokenizer.eos])


def page_batch(task: Task, seed: int, start: int, count: int, length: int) -> Batch:
    """Raw text: ``count`` pages of ``length`` tokens; every token but the first is learned."""
    rows = [task.page(make_rng(seed, "page", i), length) for i in range(start, start + count)]
    tokens, mask = pad_batch(rows, length, task.tokenizer.pad)
    return {"tokens": tokens, "mask": mask, "loss_mask": mask}


def add_worked_problems(pages: Batch, task: Task, seed: int, start: int, share: float) -> Batch:
    """The same pages [N, S], number ``start`` .., but about a ``share`` of them made of worked problems, as the web has some.

    Such a page is prompts of training problems, each with its demonstration, one after the other and cut at the page's
    end. Whether a page is one depends on its number alone.
    """
    count, length = pages["tokens"].shape
    rngs = [make_rng(seed, "worked", start + n) for n in range(count)]
    chosen = [n for n, rng in enumerate(rngs) if rng.random() < share]
    rows: dict[int, list[int]] = {n: [] for n in chosen}
    known, ids, most = problem_fn(task), response_ids_fn(task), task.num_questions("train") or 1 << 30
    while short := [n for n in chosen if len(rows[n]) < length]:
        index = np.zeros(count, np.int32)  # always so many: one compiled function
        index[short] = [rngs[n].integers(most) for n in short]
        problems = jax.device_get(known(seed, jnp.asarray(index), "train"))
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
    """The same rows [N, S], number ``start`` .., but about a ``share`` of them a textbook page of S tokens, wholly learned.

    So fine-tuning does not forget what is not in its samples. Whether a row is one depends on its number alone.
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
    """Windows of ``length`` tokens at random places of one long text, as ``read_text_file`` returned it."""
    places = [int(make_rng(seed, "page", i).integers(len(tokens) - length + 1)) for i in range(start, start + count)]
    rows = np.stack([tokens[p : p + length] for p in places])
    mask = np.ones(rows.shape, bool)
    return {"tokens": rows, "mask": mask, "loss_mask": mask}


def read_text_file(path: str, tokenizer: Tokenizer, length: int) -> tuple[np.ndarray, np.ndarray]:
    """(training, held-out) ids of a UTF-8 text file; the last twentieth is held out.

    Raises UserError for a file that is missing, is not UTF-8, or is too short for windows of ``length`` tokens.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"pretrain.text_file: cannot read {path}: {e}") from None
    ids = np.asarray(tokenizer.encode(text), np.int32)
    cut = len(ids) - len(ids) // 20
    if min(cut, len(ids) - cut) < length:
        raise UserError(f"pretrain.text_file: {path} has {len(ids)} tokens, too few: 20 windows of {length} are needed")
    return ids[:cut], ids[cut:]


def problem_fn(task: Task) -> Any:
    """``task.problems``, jitted where it is jnp."""
    return jax.jit(task.problems, static_argnums=2) if task.on_device else task.problems
