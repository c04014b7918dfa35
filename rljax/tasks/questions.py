r"""Questions in words, with answers that can be checked: GSM8K, MATH, AIME, MBPP, HumanEval, Countdown, your own files.

    Question: Natalia sold clips to 48 of her friends in April, ... altogether in April and May?
    Answer: Natalia sold 48/2 = 24 clips in May.
    Natalia sold 48+24 = 72 clips altogether in April and May.
    #### 72

``datasets="math + 0.5*gsm8k"`` mixes sets by weight; ``test="math500"`` evaluates on others. Read with the tokenizer of
``weights``, or byte by byte without one. Questions that are too long, have no readable answer, or are also in the
evaluation sets are dropped at the start; the log says how many. A twentieth of the training questions, chosen by a hash of the question, is the validation
split.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from rljax.errors import UserError
from rljax.metrics import behaviours
from rljax.structs import Array, Problems
from rljax.tasks import grading, responses, shuffle
from rljax.tasks.mixture import (
    Options,
    Split,
    content_hash,
    count_prompt_slots,
    demonstration,
    load_splits,
    response_ids,
)
from rljax.tasks.prompting import PromptFormat
from rljax.tasks.task import Record, Task, split_number
from rljax.text import ByteTokenizer, Tokenizer, describe_control_tokens, pad_batch
from rljax.verifiers import sandbox
from rljax.verifiers.failures import known_verdict, score_of_verdict


def make(options: Options, tokenizer: Tokenizer | None = None) -> Task:
    """The task of these options. Raises UserError where data is missing or cannot be read, or no question fits."""
    prompt_format = options.prompt_format(tokenizer or ByteTokenizer())
    splits = load_splits(options, prompt_format)
    slots = options.prompt_slots or count_prompt_slots(splits, prompt_format)
    options = dataclasses.replace(options, prompt_slots=slots)
    runs_code = any(r["kind"] == "code" for split in splits.values() for rows in split.sets for r in rows)
    if runs_code:
        sandbox.require_isolation(options.allow_unsafe)
    return Task(
        name="questions",
        tokenizer=prompt_format.tokenizer,
        prompt_slots=options.prompt_slots,
        demonstration_slots=options.max_response,
        problems=lambda seed, index, split: problems(options, prompt_format, splits, seed, index, split),
        records=list,
        verify=functools.partial(verify, allow_unsafe=options.allow_unsafe),
        demonstration=lambda record, rng: demonstration(prompt_format, record),
        response_ids=lambda record, text: response_ids(prompt_format, record),
        about_demonstrations=about_demonstrations(splits["train"], prompt_format.tokenizer),
        page=lambda rng, length: page(prompt_format, require_questions(splits, "train"), rng, length),
        describe=responses.describe,
        strategies=("jump", "steps", "retry"),
        answer_start=responses.answer_start,
        behaviours=(*behaviours.REFLECTION, *behaviours.SENTENCE_BEHAVIOURS),
        aha_behaviour="wait",
        content=content_hash,
        verify_batch=functools.partial(verify_batch, allow_unsafe=options.allow_unsafe),
        slow_verifier=runs_code,
        format_question=prompt_format.template.format_prompt,
        prompt_ids=prompt_format.prompt_ids,
        verifier_metrics=("answers/none", "answers/several"),
        same_answer=responses.same_answer,
        prefill=prompt_format.template.prefill,
        stop_strings=tuple(options.stop_strings),
        num_questions=lambda split: splits[split].size,
    )


def about_demonstrations(train: Split, tokenizer: Tokenizer) -> str:
    """Which demonstrations hold the names of control tokens. They come from data, so their text is ordinary text."""
    found = []
    for rows in train.sets:
        texts = ((r["number"] + 1, f"{r['solution']}\n{r['answer']}") for r in rows)
        if said := describe_control_tokens(tokenizer, sorted(texts)):
            found.append(f"{len(rows)} demonstrations of {rows[0]['dataset']}: {said}")
    return "; ".join(found)


# Problems and text


def problems(
    o: Options, prompt_format: PromptFormat, splits: dict[str, Split], seed: int, index: Array, split: str
) -> Problems:
    """Problems number ``index`` [B] of a split. Numbers beyond its size begin the next epoch, in another order."""
    stream, kept = split_number(split), require_questions(splits, split)
    facts = tuple(pick_question(o, kept, int(seed), stream, int(i), split) for i in np.asarray(index))
    rows = [prompt_format.prompt_ids(r["question"]) for r in facts]
    prompt: Any  # numpy arrays: they go to the device with the rest of the batch
    mask: Any
    prompt, mask = pad_batch(rows, o.prompt_slots, prompt_format.tokenizer.pad, left=True)
    return Problems(prompt=prompt, prompt_mask=mask, facts=facts)


def require_questions(splits: dict[str, Split], split: str) -> Split:
    """The questions of a split. Raises UserError where it is empty."""
    if not splits[split].size:
        sizes = ", ".join(f"{kept.size} of {name}" for name, kept in splits.items())
        raise UserError(
            f"task questions: the {split} split is empty ({sizes}): choose other datasets, or other limits on them"
        )
    return splits[split]


def pick_question(o: Options, split: Split, seed: int, stream: int, index: int, name: str) -> Record:
    """Question number ``index`` of a split; ``stream`` keeps the orders of the splits apart."""
    which, number = shuffle.mixture_place(seed, stream, index, split.weights)
    rows, stream = split.sets[which], stream + 8 * which
    if o.curriculum and name == "train":
        return rows[shuffle.curriculum_place(seed, stream, number, len(rows), o.curriculum_over)]
    return rows[shuffle.shuffled_place(seed, stream, number, len(rows))]


def page(prompt_format: PromptFormat, split: Split, rng: np.random.Generator, length: int) -> list[int]:
    """Training questions with their solutions, one after the other."""
    rows = [r for rows in split.sets for r in rows]
    out: list[int] = []
    while len(out) < length:
        record = rows[rng.integers(len(rows))]
        out += [*prompt_format.prompt_ids(record["question"]), *response_ids(prompt_format, record)]
    return out[:length]


# Verifying


def verify(response: str, record: Record, allow_unsafe: bool = False) -> bool:
    """Whether a response is right and finished. A truncated response counts as wrong, whatever it says.

    Raises VerifierFailed where there is no verdict.
    """
    grade = grading.grade_responses([(response, record)], allow_unsafe)[0]
    return response.endswith("<eos>") and known_verdict(grade.correct)


def verify_batch(pairs: list[tuple[str, Record]], allow_unsafe: bool = False) -> list[dict[str, float]]:
    """The verdicts for a batch, and whether a response has no answer or several."""
    found = grading.grade_responses(pairs, allow_unsafe)
    return [
        {
            "correct": score_of_verdict(j.correct, response.endswith("<eos>")),
            "answers/none": float(j.answer is None),
            "answers/several": float(j.num_answers > 1),
        }
        for j, (response, _) in zip(found, pairs, strict=True)
    ]
