"""What was said in an evaluation: one line an attempt, as samples/*.jsonl holds it."""

import bisect
from typing import Any

import numpy as np

from rljax.structs import Problems
from rljax.tasks import Attempt, Task, response_text
from rljax.text import Tokenizer

Sample = dict[str, Any]


def read_attempts(
    task: Task, rows: dict[str, np.ndarray], records: list[Any]
) -> tuple[list[list[str]], list[list[Attempt]]]:
    """The text of each response, and what it did: a list of n for each of Q problems, both."""
    lengths = rows["mask"].sum(-1)
    decode = lambda q, n: response_text(
        task.tokenizer, rows["response"][q, n, : lengths[q, n]], bool(rows["finished"][q, n])
    )
    texts = [[decode(q, n) for n in range(lengths.shape[1])] for q in range(len(records))]
    return texts, [[task.describe(t, r) for t in row] for row, r in zip(texts, records, strict=True)]


def write_samples(
    task: Task,
    asked: Problems,
    records: list[Any],
    reward: np.ndarray,
    rows: dict[str, np.ndarray],
    texts: list[list[str]],
    attempts: list[list[Attempt]],
    keep: int,
) -> list[Sample]:
    """One line an attempt at each of the first ``keep`` problems.

    ``final`` is where its final answer begins, in characters, and ``think_tokens`` how many tokens stand before that.
    """
    out, lengths = [], rows["mask"].sum(-1)
    for q in range(min(keep, len(texts))):
        prompt = task.tokenizer.decode(np.asarray(asked.prompt[q])[np.asarray(asked.prompt_mask[q])])
        for n, text in enumerate(texts[q]):
            tokens = rows["response"][q, n, : lengths[q, n]].tolist()
            final = min(task.answer_start(text, records[q]), len(text.removesuffix("<eos>")))
            out.append(
                {
                    "problem": q,
                    **{name: records[q][name] for name in ("dataset", "level") if records[q].get(name)},
                    "prompt": prompt,
                    "response": text,
                    "final": final,
                    "think_tokens": count_tokens(task.tokenizer, tokens, text[:final]),
                    "answer": attempts[q][n].answer,
                    "reward": float(reward[q, n]),
                    "strategy": attempts[q][n].strategy,
                    "length": len(tokens),
                    "tokens": tokens,
                    "pieces": [task.tokenizer.decode([t]) for t in tokens],
                    "logprobs": [round(float(x), 4) for x in rows["logprobs"][q, n, : lengths[q, n]]],
                }
            )
    return out


def count_tokens(tokenizer: Tokenizer, tokens: list[int], beginning: str) -> int:
    """How many of a response's tokens make up the beginning of its text; spaces at its end do not count."""
    length = lambda count: len(tokenizer.decode(tokens[:count]).rstrip())
    return bisect.bisect_right(range(len(tokens) + 1), len(beginning.rstrip()), key=length) - 1


def write_rewards(reward: np.ndarray, rows: dict[str, np.ndarray], first: int) -> list[Sample]:
    """One short line an attempt at each problem from number ``first`` on."""
    lengths = rows["mask"].sum(-1)
    numbers = [(q, n) for q in range(first, len(reward)) for n in range(reward.shape[1])]
    return [{"problem": q, "reward": float(reward[q, n]), "length": int(lengths[q, n])} for q, n in numbers]
