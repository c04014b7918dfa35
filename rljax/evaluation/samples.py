"""The samples of an evaluation: one record for each attempt, as samples/*.jsonl holds it."""

import bisect
from typing import Any

import numpy as np

from rljax.json_lines import shorten_float
from rljax.structs import Problems
from rljax.tasks import Attempt, Task, response_text
from rljax.text import Tokenizer

Sample = dict[str, Any]


def decode_attempts(
    task: Task, columns: dict[str, np.ndarray], records: list[Any]
) -> tuple[list[list[str]], list[list[Attempt]]]:
    """(texts, attempts) of n responses to each of Q problems: lists ``[Q][n]``. An attempt is ``task.describe`` of the text."""
    lengths, stops = columns["mask"].sum(-1), task.stops
    decode = lambda q, n: response_text(
        task.tokenizer, columns["response"][q, n, : lengths[q, n]], bool(columns["finished"][q, n]), stops
    )
    texts = [[decode(q, n) for n in range(lengths.shape[1])] for q in range(len(records))]
    return texts, [[task.describe(t, r) for t in row] for row, r in zip(texts, records, strict=True)]


def make_samples(
    task: Task,
    problems: Problems,
    records: list[Any],
    reward: np.ndarray,
    columns: dict[str, np.ndarray],
    texts: list[list[str]],
    attempts: list[list[Attempt]],
    count: int,
) -> list[Sample]:
    """One record for each attempt at the first ``count`` problems.

    ``final`` is the index of the first character of the final answer, and ``think_tokens`` the number of tokens before it.
    """
    out, lengths = [], columns["mask"].sum(-1)
    for q in range(min(count, len(texts))):
        prompt = task.tokenizer.decode(np.asarray(problems.prompt[q])[np.asarray(problems.prompt_mask[q])])
        for n, text in enumerate(texts[q]):
            tokens = columns["response"][q, n, : lengths[q, n]].tolist()
            final = min(task.answer_start(text, records[q]), len(text.removesuffix("<eos>")))
            out.append(
                {
                    "problem": q,
                    **{name: records[q][name] for name in ("dataset", "level") if records[q].get(name)},
                    "prompt": prompt,
                    "response": text,
                    "final": final,
                    "think_tokens": count_prefix_tokens(task.tokenizer, tokens, text[:final]),
                    "answer": attempts[q][n].answer,
                    "reward": float(reward[q, n]),
                    "strategy": attempts[q][n].strategy,
                    "length": len(tokens),
                    "tokens": tokens,
                    "pieces": [task.tokenizer.decode([t]) for t in tokens],
                    "logprobs": [shorten_float(x) for x in columns["logprobs"][q, n, : lengths[q, n]]],
                }
            )
    return out


def count_prefix_tokens(tokenizer: Tokenizer, tokens: list[int], prefix: str) -> int:
    """The number of a response's tokens that make up this prefix of its text, without the spaces at the prefix's end."""
    length = lambda count: len(tokenizer.decode(tokens[:count]).rstrip())
    return bisect.bisect_right(range(len(tokens) + 1), len(prefix.rstrip()), key=length) - 1


def make_reward_samples(reward: np.ndarray, columns: dict[str, np.ndarray], first: int) -> list[Sample]:
    """One record {"problem", "reward", "length"} for each attempt at the problems from index ``first`` on."""
    lengths = columns["mask"].sum(-1)
    indices = [(q, n) for q in range(first, len(reward)) for n in range(reward.shape[1])]
    return [{"problem": q, "reward": float(reward[q, n]), "length": int(lengths[q, n])} for q, n in indices]
