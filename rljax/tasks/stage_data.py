"""What pretraining and supervised fine-tuning learn from: their settings, and batches by number."""

import dataclasses
import logging
from collections.abc import Callable

from rljax.options import option
from rljax.tasks import rejection_sampling
from rljax.tasks.batches import (
    Batch,
    add_page_rows,
    add_worked_problems,
    demonstration_batch,
    page_batch,
    read_text_file,
    text_file_batch,
)
from rljax.tasks.task import Task

LOG = logging.getLogger(__name__)
HELD_OUT_SEED = 1 << 30  # added to the seed: pages that training never draws
BatchFn = Callable[[str, int, int], Batch]  # (split, number of the first row, rows) -> arrays [rows, S]


@dataclasses.dataclass(frozen=True)
class PretrainingData:
    """Pages of raw text."""

    batch: int = option(32, "pages a step", low=1)
    length: int = option(96, "tokens a page", low=2)
    text_file: str = option("", "a UTF-8 file to learn from instead of the task's own pages")
    worked: float = option(
        0.0, "share of pages that are worked training problems: RL may then start from here", low=0.0, high=1.0
    )


@dataclasses.dataclass(frozen=True)
class SFTData:
    """Demonstrations, or samples of a policy from a file."""

    batch: int = option(64, "demonstrations a step", low=1)
    max_new_tokens: int = option(144, "longest demonstration, in tokens", low=1)
    file: str = option(
        "", "a .jsonl file of samples to imitate instead of demonstrations, as experiments.collect writes them"
    )
    general: float = option(0.0, "share of rows that are textbook pages in their place", low=0.0, high=1.0)
    distinct: int = option(20_000, "different training problems; 0: never the same twice", low=0)


def pretraining_batches(data: PretrainingData, task: Task, seed: int) -> BatchFn:
    """Pages of the task's textbook, or windows of ``text_file``. Raises UserError for a file that cannot be used."""
    seeds = {"train": seed, "validation": seed + HELD_OUT_SEED}
    if data.text_file:
        train, held_out = read_text_file(data.text_file, task.tokenizer, data.length)
        texts = {"train": train, "validation": held_out}

    def batch(split: str, start: int, count: int) -> Batch:
        if data.text_file:
            pages = text_file_batch(texts[split], seed, start, count, data.length)
        else:
            pages = page_batch(task, seeds[split], start, count, data.length)
        return add_worked_problems(pages, task, seeds[split], start, data.worked) if data.worked else pages

    return batch


def sft_batches(data: SFTData, task: Task, seed: int) -> BatchFn:
    """Demonstrations of a split's problems, or the samples of ``file``, of which a twentieth of the problems is held out.

    Raises UserError for a file that cannot be used.
    """
    if data.file:
        train, held_out = rejection_sampling.read_sample_batches(data.file, task, seed, data.max_new_tokens)
        samples = {"train": train, "validation": held_out}
    elif task.about_demonstrations:
        LOG.warning(f"sft: {task.about_demonstrations}")

    def batch(split: str, start: int, count: int) -> Batch:
        if data.file:
            rows = rejection_sampling.sample_batch(samples[split], seed, start, count)
        else:
            distinct = data.distinct if split == "train" else 0
            rows = demonstration_batch(task, seed, start, count, data.max_new_tokens, split=split, distinct=distinct)
        mixed = data.general and split == "train"
        return add_page_rows(rows, task, seed, start, data.general) if mixed else rows

    return batch
