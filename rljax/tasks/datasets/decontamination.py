"""Which training questions does an evaluation ask too? By shared runs of ten words, as for DeepSeek-R1 (section B.3.1)."""

import re
from collections.abc import Iterable, Sequence

WORD_PATTERN = re.compile(r"[^\W_]+")


def word_ngrams(text: str, n: int = 10) -> set[tuple[str, ...]]:
    """Runs of ``n`` words, case and punctuation ignored; a shorter text is one run."""
    words = WORD_PATTERN.findall(text.lower())
    return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))} if words else set()


def find_contaminated(questions: Sequence[str], evaluated: Iterable[str], n: int = 10) -> list[bool]:
    """For each question: does it share a run of ``n`` words with any of ``evaluated``?"""
    known = set().union(*(word_ngrams(text, n) for text in evaluated))
    return [not known.isdisjoint(word_ngrams(text, n)) for text in questions]
