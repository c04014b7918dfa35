"""Decontamination: training questions that share ten words in a row with a test question (DeepSeek-R1, section B.3.1)."""

import re
from collections.abc import Iterable, Sequence

WORD_PATTERN = re.compile(r"[^\W_]+")


def word_ngrams(text: str, n: int = 10) -> set[tuple[str, ...]]:
    """All runs of ``n`` words in a text; case and punctuation do not matter. A shorter text is one run."""
    words = WORD_PATTERN.findall(text.lower())
    return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))} if words else set()


def find_contaminated(questions: Sequence[str], evaluated: Iterable[str], n: int = 10) -> list[bool]:
    """For each question, whether it shares a run of ``n`` words with one in ``evaluated``."""
    known = set().union(*(word_ngrams(text, n) for text in evaluated))
    return [not known.isdisjoint(word_ngrams(text, n)) for text in questions]
