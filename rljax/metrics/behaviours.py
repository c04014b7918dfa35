"""Behaviours in responses, counted in their text by words, lists of words and regular expressions.

Each behaviour gives three numbers: the share of responses that show it, occurrences per response, and occurrences per 1,000
tokens. The first two grow when responses get longer, the third does not. An expression finds words, not intentions. Where
the original work asked a model to judge, the name therefore ends in ``_proxy``. Sources and conventions: docs/behaviours.md.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Patterns = dict[str, re.Pattern[str]]  # {name of a behaviour: its expression}

# The reflective words of DeepSeek-R1 (arXiv 2501.12948v2, App. C.2)
REFLECTION = ("wait", "mistake", "however", "but", "retry", "error", "verify", "wrong", "evaluate", "check")

# The self-reflection keywords of Oat-zero (arXiv 2503.20783); they also match within a word
SELF_REFLECTION = (
    *("recheck", "rethink", "reassess", "reevaluate", "re-evaluate", "reevaluation", "re-examine", "reexamine"),
    *("reconsider", "reanalyze", "double-check", "check again", "think again", "verify again", "go over the steps"),
)


def compile_alternatives(*parts: str) -> re.Pattern[str]:
    """An expression that matches any of these, ignoring case. Longer ones come first, so that they win over their prefixes."""
    return re.compile("|".join(sorted(parts, key=lambda p: (-len(p), p))), re.IGNORECASE)


def whole_word(word: str) -> str:
    """An expression for a whole word. A hyphen ends a word: it finds "check" in "double-check", and not in "checked"."""
    return rf"\b{re.escape(word)}\b"


PATTERNS: Patterns = {
    "reflection": compile_alternatives(*map(whole_word, REFLECTION)),
    "self_reflection": compile_alternatives(*map(re.escape, SELF_REFLECTION)),
    # the four behaviours of Gandhi et al. (arXiv 2503.01307), who ask a model to find them
    "verification_proxy": compile_alternatives(
        r"\blet(?: me|['’]s| us) (?:check|verify)\b",
        r"\bverify(?:ing)?\b",
        r"= ?-?\$?[0-9][0-9.,]*, which is\b",  # "= 39, which is not the target"
    ),
    "backtracking_proxy": compile_alternatives(
        r"\btry (?:a different|another)\b", r"\binstead\b", r"\bthat['’]s not\b"
    ),
    "subgoals_proxy": compile_alternatives(r"\bfirst,", r"\bget to a multiple of\b"),
    "backward_chaining_proxy": compile_alternatives(r"\bwork(?:ing)? backwards?\b"),
}
SENTENCE_BEHAVIOURS = tuple(PATTERNS)  # counted where a model writes sentences


class BehaviourRates(NamedTuple):
    """How often a set of responses shows a behaviour."""

    share: float  # of responses that show it
    per_response: float  # mean occurrences in a response
    per_1k: float  # occurrences in 1,000 tokens, over all responses together


def compile_patterns(names: Iterable[str]) -> Patterns:
    """The expression of each name: an entry of ``PATTERNS``, or the name itself as a whole word."""
    return {name: PATTERNS[name] if name in PATTERNS else compile_alternatives(whole_word(name)) for name in names}


def count_matches(text: str, pattern: re.Pattern[str]) -> int:
    """The number of matches in a text. Matches that overlap count once."""
    return sum(1 for _ in pattern.finditer(text))


def behaviour_rates(texts: Sequence[str], tokens: Sequence[int], patterns: Patterns) -> dict[str, BehaviourRates]:
    """The rates of each behaviour in responses. ``tokens`` are the lengths of the responses in tokens.

    Raises ValueError where there are not as many lengths as texts.
    """
    if len(texts) != len(tokens):
        raise ValueError(f"{len(texts)} texts, but {len(tokens)} lengths")
    total, out = max(sum(tokens), 1), {}
    for name, pattern in patterns.items():
        counts = [count_matches(text, pattern) for text in texts]
        share = sum(c > 0 for c in counts) / max(len(counts), 1)
        out[name] = BehaviourRates(share, sum(counts) / max(len(counts), 1), 1000 * sum(counts) / total)
    return out


def first_aha_step(shares: Mapping[int, float], threshold: float) -> int | None:
    """The step of the first aha: the earliest evaluation where a behaviour reaches ``threshold`` and the next one confirms it.

    ``shares`` is {step of an evaluation: share of responses, 0 to 1}, sorted by step. Both shares must be at least
    ``threshold``. The last evaluation is never the first aha, because none confirms it. Step 0 means that the model showed
    the behaviour before this stage. None where there is no such step.
    """
    points = list(shares.items())
    pairs = zip(points, points[1:], strict=False)
    return next((step for (step, share), (_, following) in pairs if min(share, following) >= threshold), None)


def share_before(shares: Mapping[int, float], step: int) -> float | None:
    """The share at the last evaluation before ``step``; None where there is none."""
    return next((v for s, v in reversed([*shares.items()]) if s < step), None)


def find_example(samples: Iterable[Mapping[str, Any]], pattern: re.Pattern[str]) -> Mapping[str, Any] | None:
    """An attempt that shows a behaviour; None where no attempt does.

    It is the first right attempt that shows it before its final answer. If there is none, it is the first that shows it.
    """
    matching = [s for s in samples if pattern.search(s.get("response", ""))]
    right = (s for s in matching if s["reward"] > 0.5 and pattern.search(s["response"][: s.get("final")]))
    return next(right, matching[0] if matching else None)
