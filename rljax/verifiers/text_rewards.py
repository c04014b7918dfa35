"""What a reward may hold besides correctness, read from the text. None of it is in the default reward."""

import re
import unicodedata

WORDS = re.compile(r"[^\W\d_]+")
SCRIPTS = {  # a language is told by its script alone: a proxy, as "Latin" is English and German and French
    "en": "LATIN", "de": "LATIN", "fr": "LATIN", "es": "LATIN", "zh": "CJK", "ja": "CJK HIRAGANA KATAKANA", "ko": "HANGUL",
    "ru": "CYRILLIC", "ar": "ARABIC", "el": "GREEK", "he": "HEBREW", "hi": "DEVANAGARI",
}  # fmt: skip
ONE_WORD_A_SIGN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")


def thought(text: str) -> str:
    """What stands before ``</think>``, the whole where there is none."""
    return text.partition("</think>")[0].rpartition("<think>")[2]


def language(text: str, *, target: str = "en") -> float:
    """Share of the words of the thought that are in the target language (DeepSeek-R1, 2.3.2); 0 where it has no word.

    Words of more scripts than one are of none; each Han or Kana sign counts as a word. Numbers and formulas do not count.
    """
    good, words = words_in(thought(text), target=target)
    return good / words if words else 0.0


def words_in(text: str, *, target: str = "en") -> tuple[int, int]:
    """(words that are in the target language, all words)."""
    wanted = SCRIPTS[target].split()
    words = [part for word in WORDS.findall(text) for part in pieces(word)]
    return sum(all(script(c) in wanted for c in word) for word in words), len(words)


def pieces(word: str) -> list[str]:
    """A run of letters as words: signs that are words by themselves, and what stands between them."""
    return [p for p in re.split(f"({ONE_WORD_A_SIGN.pattern})", word) if p]


def script(letter: str) -> str:
    return unicodedata.name(letter, "?").partition(" ")[0]


def repetition(text: str, *, n: int = 4) -> float:
    """0 for a text without a repeated run of ``n`` words, down to -1 for one that says nothing else (arXiv 2502.03373)."""
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(runs)) / len(runs) - 1.0 if runs else 0.0
