"""pass@k, cons@k and response lengths, from attempts at questions. Pure numpy; each row is a question.

Standard errors are over questions (``intervals``). Attempts at one question resemble each other, so the binomial error over
all attempts would be too small (Miller, arXiv 2411.00640).
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np


def pass_at_k(correct: np.ndarray, k: int) -> np.ndarray:
    """pass@k, [Q] float64: an unbiased estimate of the chance that at least one of k attempts is right.

    It is 1 - C(n - c, k) / C(n, k) for c right attempts of n (arXiv 2107.03374, eq. 1). ``correct`` is [Q, n], 0 or 1.
    Raises ValueError where n < k.
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
    """cons@k, [Q] float64: the chance that a majority vote of k attempts is right.

    ``answers`` holds n extracted answers for each question, in canonical form. None is an attempt without an answer, which
    does not vote. Each block of k neighbours votes, and the mean over the n // k blocks is taken. In a tie, the share of the
    tied answers that is right counts. A block without votes counts 0. Raises ValueError where n < k.
    """
    out = []
    for row, right in zip(answers, gold, strict=True):
        if len(row) < k:
            raise ValueError(f"cons@{k} needs k attempts a question, one has {len(row)}")
        blocks = [row[i : i + k] for i in range(0, len(row) - k + 1, k)]
        out.append(np.mean([majority_score(right, block) for block in blocks]))
    return np.asarray(out)


def majority_score(right: str, answers: Sequence[str | None]) -> float:
    """1 if the right answer has most votes, else 0. In a tie: the share of the tied answers that is right."""
    votes = Counter(answer for answer in answers if answer is not None)
    leaders = [answer for answer, count in votes.items() if count == max(votes.values())]
    return (right in leaders) / len(leaders) if leaders else 0.0


def find_cons_key(names: Iterable[str]) -> str:
    """The key "eval/cons@k" with the largest k among the keys of an evaluation; "" where there is none."""
    by_k = {int(match[1]): name for name in names if (match := re.fullmatch(r"eval/cons@(\d+)", name))}
    return by_k[max(by_k)] if by_k else ""


def length_statistics(values: np.ndarray) -> dict[str, float]:
    """{"mean", "median", "p95", "max"} of response lengths [n], in tokens."""
    x = np.asarray(values, np.float64)
    return {"mean": x.mean(), "median": np.median(x), "p95": np.percentile(x, 95), "max": x.max()}
