"""Which training questions does an evaluation ask too? By shared runs of ten words, as for DeepSeek-R1 (section B.3.1)."""

import re
from collections.abc import Iterable, Sequence

WORDS = re.compile(r"[^\W_]+")


def grams(text: str, n: int = 10) -> set[tuple[str, ...]]:
    """Runs of ``n`` words, case and punctuation ignored; a shorter text is one run."""
    words = WORDS.findall(text.lower())
    return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))} if words else set()


def contaminated(questions: Sequence[str], evaluated: Iterable[str], n: int = 10) -> list[bool]:
    """For each question: does it share a run of ``n`` words with any of ``evaluated``?"""
    known = set().union(*(grams(text, n) for text in evaluated))
    return [not known.isdisjoint(grams(text, n)) for text in questions]
