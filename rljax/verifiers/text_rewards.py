"""Rewards for properties of the text other than correctness. None of them is in the default reward."""

import re
import unicodedata

WORDS = re.compile(r"[^\W\d_]+")
# A language is recognized by its script alone. This is a proxy: "LATIN" is English, German and French.
LANGUAGE_SCRIPTS = {
    "en": "LATIN", "de": "LATIN", "fr": "LATIN", "es": "LATIN", "zh": "CJK", "ja": "CJK HIRAGANA KATAKANA", "ko": "HANGUL",
    "ru": "CYRILLIC", "ar": "ARABIC", "el": "GREEK", "he": "HEBREW", "hi": "DEVANAGARI",
}  # fmt: skip
SINGLE_CHARACTER_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")


def extract_thinking(text: str) -> str:
    """The text before the first ``</think>``; the whole text if there is none."""
    return text.partition("</think>")[0].rpartition("<think>")[2]


def language_consistency(text: str, *, target: str = "en") -> float:
    """Share of the words of the thought that are in the target language; 0 if it has no word (DeepSeek-R1, 2.3.2).

    A word that mixes scripts belongs to no language. Each Han or Kana character counts as a word. Numbers and formulas
    do not count. ``target`` is a key of ``LANGUAGE_SCRIPTS``.
    """
    good, words = count_language_words(extract_thinking(text), target=target)
    return good / words if words else 0.0


def count_language_words(text: str, *, target: str = "en") -> tuple[int, int]:
    """(number of words in the target language, number of all words)."""
    wanted = LANGUAGE_SCRIPTS[target].split()
    words = [part for word in WORDS.findall(text) for part in split_letters(word)]
    return sum(all(script_of(c) in wanted for c in word) for word in words), len(words)


def split_letters(letters: str) -> list[str]:
    """The words in a run of letters: each Han or Kana character, and each run of other letters between them."""
    return [p for p in re.split(f"({SINGLE_CHARACTER_WORD.pattern})", letters) if p]


def script_of(letter: str) -> str:
    """The script of a letter, as in its Unicode name: "LATIN", "CJK"."""
    return unicodedata.name(letter, "?").partition(" ")[0]


def repetition_penalty(text: str, *, n: int = 4) -> float:
    """Minus the share of repeated n-grams of words: 0 without repetition, towards -1 (arXiv 2502.03373)."""
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(runs)) / len(runs) - 1.0 if runs else 0.0
