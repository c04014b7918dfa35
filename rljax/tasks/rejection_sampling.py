"""Rejection sampling: a policy's good attempts, kept in a file and imitated.

A line of the file is a JSON object, ``{"index": 17, "response": "try 3 + 4 = 7 ...", "tokens": [5, 8, ...]}``. ``index`` is the
number of a training problem of the config's task and seed. ``tokens`` are the ids that were sampled, with what ended them (a stop
token, or the token that completes a stop string), and SFT learns these: the same text often has other ids, and a control token
in a text that is encoded becomes letters. A line without ``tokens`` is encoded, and a warning says how many there were. A line
may also have the ``prompt``, which must then be the prompt of that problem. Without one SFT puts the problem as its own config
does, for example without the worked examples that stood before it when the attempt was sampled. ``experiments.collect`` writes
such files; SFT reads them with ``sft.file``.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.errors import UserError
from rljax.json_lines import number_json_lines
from rljax.tasks import batches, shuffle
from rljax.tasks.batches import Batch
from rljax.tasks.task import Record, Task, response_text
from rljax.text import Tokenizer, describe_control_tokens, pad_batch
from rljax.verifiers import text_rewards

LOG = logging.getLogger(__name__)
SHUFFLE_STREAM = 64  # of rljax.tasks.shuffle; data sets use smaller numbers


class AttemptFilter(NamedTuple):
    """Which correct attempts are kept."""

    language: float = 0.0  # at least this share of the words of the reasoning is in ``target``
    target: str = "en"  # a language
    at_least: int = 0  # tokens, the stop token included
    at_most: int = 0  # tokens; 0: no limit
    per_problem: int = 0  # only the first attempts at a problem; 0: all


def filter_attempts(
    attempts: Sequence[Mapping[str, Any]], keep: AttemptFilter, known_ids: int = 1 << 31
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """(lines of a file, {reason: number of attempts that were dropped}) from the samples of an evaluation.

    An attempt that is dropped counts once, for the first reason that applies. ``known_ids`` is the number of ids that the
    tokenizer has: a model may have more, which no text shows, and an attempt with one of these is dropped.
    """
    lines: list[dict[str, Any]] = []
    dropped: dict[str, int] = dict.fromkeys(
        (
            "unfinished",
            "unscored",
            "wrong",
            "in another language",
            "short",
            "long",
            "with ids that are no token",
            "repeated",
            "more",
        ),
        0,
    )
    seen: set[tuple[int, str]] = set()
    count: Counter[int] = Counter()
    for a in attempts:
        index, response = a["problem"], a["response"].removesuffix("<eos>")
        rules = {
            "unfinished": not a["response"].endswith("<eos>"),
            "unscored": a["reward"] != a["reward"],  # NaN: the verifier gave no verdict
            "wrong": a["reward"] <= 0,
            "in another language": text_rewards.language_consistency(response, target=keep.target) < keep.language,
            "short": a["length"] < keep.at_least,
            "long": bool(keep.at_most) and a["length"] > keep.at_most,
            "with ids that are no token": max(a.get("tokens") or [0]) >= known_ids,
            "repeated": (index, response) in seen,
            "more": bool(keep.per_problem) and count[index] >= keep.per_problem,
        }
        why = next((name for name, broken in rules.items() if broken), None)
        if why:
            dropped[why] += 1
            continue
        seen.add((index, response))
        count[index] += 1
        line = {"index": index, "prompt": a["prompt"], "response": response, "length": a["length"]}
        lines.append(line | ({"tokens": a["tokens"]} if "tokens" in a else {}))
    return lines, dropped


def read_sample_batches(path: str, task: Task, seed: int, max_new_tokens: int) -> tuple[Batch, Batch]:
    """(training batch, held-out batch) of a file: one row [P + max_new_tokens] for each line.

    The loss mask is True on the response and its stop token. The lines of the last twentieth of the problems, in the order
    of the file, are held out. Raises UserError where the file cannot be read or has fewer than two problems, and where a line
    is no sample, does not fit the task, or is too long. Logs a warning where lines have no ids and are encoded.
    """
    numbers, lines = zip(*read_sample_lines(path), strict=True)
    index = np.asarray([line["index"] for line in lines])
    problems = jax.device_get(batches.problem_fn(task)(seed, jnp.asarray(index, jnp.int32), "train"))
    records = task.records(problems.facts)
    end = batches.response_ids_fn(task)(records[0], task.demonstration(records[0], np.random.default_rng(0)))[-1]
    prompt, prompt_mask = np.asarray(problems.prompt), np.asarray(problems.prompt_mask)
    rows = []
    for n, line in enumerate(lines):
        where = f"sft.file: line {numbers[n]} of {path}"
        asked = task.tokenizer.decode(prompt[n][prompt_mask[n]])
        if line.get("prompt", asked) != asked:
            raise UserError(
                f"{where} is of another prompt than training problem {index[n]} of this task, options and seed"
            )
        ids = read_response_ids(line, task, end, where)
        if len(ids) > max_new_tokens:
            raise UserError(
                f"{where} has {len(ids)} tokens with its stop token, more than sft.max_new_tokens={max_new_tokens}: raise it, or "
                "leave it out"
            )
        rows.append(ids)
    alone = [(n, line["response"]) for n, line in zip(numbers, lines, strict=True) if line.get("tokens") is None]
    warn_of_encoded_text(alone, len(lines), path, task.tokenizer)
    unasked = [(ids, record) for ids, record, line in zip(rows, records, lines, strict=True) if "prompt" not in line]
    warn_of_wrong_answers(unasked, task, path)
    response, live = pad_batch(rows, max_new_tokens, task.tokenizer.pad)
    whole = {
        "tokens": np.concatenate([prompt, response], 1),
        "mask": np.concatenate([prompt_mask, live], 1),
        "loss_mask": np.concatenate([np.zeros_like(prompt_mask), live], 1),
    }
    kept = np.asarray(list(dict.fromkeys(index.tolist())))
    if len(kept) < 2:
        raise UserError(
            f"sft.file: {path} has samples of {len(kept)} problem(s): at least two are needed, one is held out"
        )
    apart = np.isin(index, kept[-max(1, len(kept) // 20) :])
    some = lambda chosen: {k: v[chosen] for k, v in whole.items()}
    return some(~apart), some(apart)


def read_response_ids(line: Mapping[str, Any], task: Task, end: int, where: str) -> list[int]:
    """The ids of a line's response with its stop token: its ``tokens``, or its text, encoded, and the stop token ``end``.

    Raises UserError where the tokens are no ids that end with a stop token or a stop string, or say another text than the
    response.
    """
    text, ids = line["response"].removesuffix("<eos>"), line.get("tokens")
    if ids is None:
        try:
            return [*task.tokenizer.encode(text), end]
        except UserError as e:
            raise UserError(f"{where}: {e}") from None
    size = task.tokenizer.size
    if not (isinstance(ids, list) and ids and all(type(i) is int and 0 <= i < size for i in ids)):
        raise UserError(f'{where}: "tokens" must be a list of ids below {size}, those of this task\'s tokenizer')
    stops = task.stops
    if ids[-1] not in task.tokenizer.stop_ids and not (stops and stops.find_end(ids) == len(ids)):
        strings = f", and completes none of stop_strings={task.stop_strings}" if stops else ""
        raise UserError(
            f'{where}: "tokens" ends with {ids[-1]}, which is none of the stop tokens {task.tokenizer.stop_ids}{strings}'
        )
    if response_text(task.tokenizer, np.asarray(ids), True, stops).removesuffix("<eos>") != text:
        raise UserError(
            f'{where}: "tokens" say another text than "response": they are of another tokenizer, or one of the two was changed. '
            'Take "tokens" out to learn the text'
        )
    return ids


def warn_of_encoded_text(texts: Sequence[tuple[int, str]], lines: int, path: str, tokenizer: Tokenizer) -> None:
    """Log how many of a file's lines had no ids, and which control tokens in their texts became letters.

    Each text has the number of its line.
    """
    if not texts:
        return
    said = (
        f"sft.file: {len(texts)} of {lines} lines of {path} have no tokens: their text is encoded, perhaps to other ids"
    )
    if found := describe_control_tokens(tokenizer, texts):
        said += f"; {found}"
    LOG.warning(said)


def warn_of_wrong_answers(unasked: Sequence[tuple[list[int], Record]], task: Task, path: str) -> None:
    """Log how many lines without a prompt answer their problem wrongly. Each is (ids of the response, record of the problem)."""
    said = [(response_text(task.tokenizer, np.asarray(ids), True, task.stops), record) for ids, record in unasked]
    if task.verify_batch and said:
        right = [scores["correct"] > 0 for scores in task.verify_batch(said)]
    else:
        right = [task.verify(*pair) for pair in said]
    if not all(right):
        LOG.warning(
            f"sft.file: {right.count(False)} of {len(right)} lines of {path} without a prompt answer their problem wrongly: is it "
            "a file of this task, these options and this seed?"
        )


def read_sample_lines(path: str) -> list[tuple[int, dict[str, Any]]]:
    """(number, value) of each line of a file. Raises UserError where a line has no ``index`` or no ``response``."""
    out = []
    for number, found in number_json_lines(path, "sft.file: "):
        try:
            whole = isinstance(found["response"], str) and type(found["index"]) is int and 0 <= found["index"] < 1 << 31
        except (KeyError, TypeError):
            whole = False
        if not whole:
            raise UserError(
                f'sft.file: line {number} of {path} has no "response" with the "index" of its training problem: write '
                '{"index": 17, "response": "..."}'
            )
        out.append((number, found))
    if not out:
        raise UserError(f"sft.file: {path} is empty")
    return out


def sample_batch(rows: Batch, seed: int, start: int, count: int) -> Batch:
    """Rows number ``start`` .. of an endless sequence: every row once an epoch, each epoch in another order."""
    size = len(rows["tokens"])
    places = [shuffle.shuffled_place(seed, SHUFFLE_STREAM, n, size) for n in range(start, start + count)]
    return {name: x[places] for name, x in rows.items()}
