"""Estimators over attempts at questions: pure numpy, a question a row.

The question is the unit of every error: the attempts at one question resemble each other, so a binomial over all of
them would claim too much (Miller, arXiv 2411.00640).
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np


def pass_at_k(correct: np.ndarray, k: int) -> np.ndarray:
    """Unbiased chance that at least one of k attempts is right, a question (arXiv 2107.03374, eq. 1).

    correct [Q, n] of 0 and 1, n >= k -> [Q] float64: 1 - C(n - c, k) / C(n, k). Raises ValueError where n < k.
    """
    correct = np.asarray(correct, np.float64)
    n = correct.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs between 1 and n={n} attempts a question")
    c = correct.sum(1)
    # C(n - c, k) / C(n, k) as a product: no overflow, and 0 as soon as fewer than k attempts are wrong
    steps = np.arange(k)
    return 1.0 - np.prod(np.clip((n - c)[:, None] - steps, 0, None) / (n - steps), axis=1)


def cons_at_k(answers: Sequence[Sequence[str | None]], gold: Sequence[str], k: int) -> np.ndarray:
    """Chance that a majority vote of k attempts is right, a question -> [Q] float64.

    ``answers`` holds each question's n >= k extracted answers in canonical form, None where none could be read (those do not
    vote). Every whole block of k neighbours votes, and the mean of these n // k elections is taken. A tie counts by the share
    of the tied answers that is right; no vote counts 0. Raises ValueError where n < k.
    """
    out = []
    for row, right in zip(answers, gold, strict=True):
        if len(row) < k:
            raise ValueError(f"cons@{k} needs k attempts a question, one has {len(row)}")
        blocks = [row[i : i + k] for i in range(0, len(row) - k + 1, k)]
        out.append(np.mean([majority_is(right, block) for block in blocks]))
    return np.asarray(out)


def majority_is(right: str, answers: Sequence[str | None]) -> float:
    """Whether most vote for the right answer; of several with as many votes, their share of right ones."""
    votes = Counter(answer for answer in answers if answer is not None)
    first = [answer for answer, count in votes.items() if count == max(votes.values())]
    return (right in first) / len(first) if first else 0.0


def vote_key(names: Iterable[str]) -> str:
    """Of an evaluation's keys, the one of the majority vote with most attempts; "" where there is none."""
    found = {int(match[1]): name for name in names if (match := re.fullmatch(r"eval/cons@(\d+)", name))}
    return found[max(found)] if found else ""


def standard_error(by_question: np.ndarray) -> float:
    """Standard error of the mean over questions, from their sample deviation; nan for a single question."""
    x = np.asarray(by_question, np.float64)
    return float(x.std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else float("nan")


def half_width(error: float, questions: int) -> float:
    """Of the 95 % interval of a mean over questions with this standard error: Student's below 30 questions, else 1.96."""
    if questions >= 30:
        return 1.96 * error
    from scipy.special import stdtrit

    return float(error * stdtrit(max(questions - 1, 1), 0.975))


def lengths(values: np.ndarray) -> dict[str, float]:
    """mean, median, p95 and max of response lengths, in tokens."""
    x = np.asarray(values, np.float64)
    return {"mean": x.mean(), "median": np.median(x), "p95": np.percentile(x, 95), "max": x.max()}
