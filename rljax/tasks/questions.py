r"""Questions in words, with answers that can be checked: GSM8K, MATH, AIME, MBPP, HumanEval, Countdown, your own files.

    Question: Natalia sold clips to 48 of her friends in April, ... altogether in April and May?
    Answer: Natalia sold 48/2 = 24 clips in May.
    Natalia sold 48+24 = 72 clips altogether in April and May.
    #### 72

``datasets="math + 0.5*gsm8k"`` mixes sets by weight; ``test="math500"`` evaluates on others. Read with the tokenizer of
``weights``, or byte by byte without one. What has no room, no readable answer, or stands in the evaluation sets too is
dropped up front and counted. A twentieth of the training questions, chosen by a hash of the question, is the validation
split.
"""

import functools
from typing import Any

import numpy as np

from rljax.errors import UserError
from rljax.metrics import behaviours
from rljax.structs import Array, Problems
from rljax.tasks import Record, Task, grading, responses, shuffle, split_number
from rljax.tasks.mixture import Options, Split, demonstration, load, response_ids
from rljax.tasks.prompting import Wording
from rljax.text import ByteTokenizer, Tokenizer, pad_batch
from rljax.verifiers import sandbox


def make(options: Options, tokenizer: Tokenizer | None = None) -> Task:
    """The task of these options. Raises UserError where the data cannot be had or read, or no question has room."""
    words = options.words(tokenizer or ByteTokenizer())
    splits = load(options, words)
    if any(r["kind"] == "code" for split in splits.values() for rows in split.sets for r in rows):
        sandbox.require_isolation(options.allow_unsafe)
    return Task(
        name="questions",
        tokenizer=words.tokenizer,
        prompt_slots=options.prompt_slots,
        demonstration_slots=options.max_response,
        problems=lambda seed, index, split: problems(options, words, splits, seed, index, split),
        records=list,
        verify=functools.partial(verify, allow_unsafe=options.allow_unsafe),
        demonstration=lambda record, rng: demonstration(words, record),
        response_ids=lambda record, text: response_ids(words, record),
        page=lambda rng, length: page(words, some(splits, "train"), rng, length),
        describe=responses.describe,
        final=responses.final,
        words=(*behaviours.REFLECTION, *behaviours.IN_WORDS),
        judge=functools.partial(judge, allow_unsafe=options.allow_unsafe),
        wrap=words.template.ask,
        prompt_ids=words.prompt_ids,
        notes=("answers/none", "answers/several"),
        same=responses.same,
        prefill=words.template.prefill,
        size=lambda split: splits[split].size,
    )


# Problems and text


def problems(o: Options, words: Wording, splits: dict[str, Split], seed: int, index: Array, split: str) -> Problems:
    """Problems number ``index`` [B] of a split; numbers past its size begin the next epoch, in another order."""
    stream, kept = split_number(split), some(splits, split)
    facts = tuple(chosen(o, kept, int(seed), stream, int(i), split) for i in np.asarray(index))
    rows = [words.prompt_ids(r["question"]) for r in facts]
    prompt: Any  # numpy: a host task's arrays go to the device with the rest of the batch
    mask: Any
    prompt, mask = pad_batch(rows, o.prompt_slots, words.tokenizer.pad, left=True)
    return Problems(prompt=prompt, prompt_mask=mask, facts=facts)


def some(splits: dict[str, Split], split: str) -> Split:
    """A split that is not empty. Raises UserError for one that is."""
    if not splits[split].size:
        raise UserError(f"task questions: the {split} split is empty: choose other datasets, or other limits on them")
    return splits[split]


def chosen(o: Options, split: Split, seed: int, stream: int, index: int, name: str) -> Record:
    """Question number ``index``."""
    which, number = shuffle.mixture(seed, stream, index, split.weights)
    rows, stream = split.sets[which], stream + 8 * which
    if o.curriculum and name == "train":
        return rows[shuffle.easy_first(seed, stream, number, len(rows), o.curriculum_over)]
    return rows[shuffle.epochs(seed, stream, number, len(rows))]


def page(words: Wording, split: Split, rng: np.random.Generator, length: int) -> list[int]:
    """Training questions with their solutions, one after the other."""
    rows = [r for rows in split.sets for r in rows]
    out: list[int] = []
    while len(out) < length:
        record = rows[rng.integers(len(rows))]
        out += [*words.prompt_ids(record["question"]), *response_ids(words, record)]
    return out[:length]


# Verifying


def verify(response: str, record: Record, allow_unsafe: bool = False) -> bool:
    """Right, and finished: a truncated response counts as wrong whatever it had written."""
    return response.endswith("<eos>") and grading.judge([(response, record)], allow_unsafe)[0].correct


def judge(pairs: list[tuple[str, Record]], allow_unsafe: bool = False) -> list[dict[str, float]]:
    """The same verdict for a batch, and what else is worth a line in the log."""
    found = grading.judge(pairs, allow_unsafe)
    return [
        {
            "correct": float(j.correct and response.endswith("<eos>")),
            "answers/none": float(j.answer is None),
            "answers/several": float(j.num_answers > 1),
        }
        for j, (response, _) in zip(found, pairs, strict=True)
    ]
