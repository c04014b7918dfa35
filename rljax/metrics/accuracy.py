"""pass@k, cons@k and response lengths, from attempts at questions. Pure numpy; each row is a question.

Standard errors are over questions (``intervals``). Attempts at one question resemble each other, so the binomial error over
all attempts would be too small (Miller, arXiv 2411.00640). NaN is an attempt that could not be scored, or a question about
which nothing is known; it is left out.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np


def success_rates(correct: np.ndarray) -> np.ndarray:
    """The mean [Q] of each question's scored attempts [Q, n]; nan where none could be scored."""
    known = ~np.isnan(correct)
    count = known.sum(1).astype(correct.dtype)
    return np.where(count > 0, np.where(known, correct, 0).sum(1) / np.maximum(count, 1), np.nan).astype(correct.dtype)


def mean_known(values: np.ndarray) -> float:
    """The mean of the values that are not nan; nan where there is none."""
    unknown = np.isnan(values)
    if unknown.any():
        values = values[~unknown]
    return values.mean() if values.size else float("nan")


def pass_at_k(correct: np.ndarray, k: int) -> np.ndarray:
    """pass@k, [Q] float64: an unbiased estimate of the chance that at least one of k attempts is right.

    It is 1 - C(n - c, k) / C(n, k) for c right attempts of n (arXiv 2107.03374, eq. 1). ``correct`` is [Q, n], 0 or 1.
    Attempts that could not be scored (nan) are not among the n; a question with fewer than k scored ones has nan. Raises
    ValueError where there are fewer than k columns.
    """
    correct = np.asarray(correct, np.float64)
    if not 1 <= k <= correct.shape[1]:
        raise ValueError(f"pass@{k} needs between 1 and n={correct.shape[1]} attempts a question")
    c, n = np.nansum(correct, 1), (~np.isnan(correct)).sum(1)
    # C(n - c, k) / C(n, k) as a product: no overflow, and 0 as soon as fewer than k attempts are wrong
    steps = np.arange(k)
    ways = np.maximum(n[:, None] - steps, 1)
    return np.where(n >= k, 1.0 - np.prod(np.clip((n - c)[:, None] - steps, 0, None) / ways, axis=1), np.nan)


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
