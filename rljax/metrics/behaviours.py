"""What a response does, counted in its text: words, lists of words, and regular expressions. Plain Python, pure functions.

Three numbers each. The share of responses that show it, and how often it comes per response, both grow by themselves when
responses grow; occurrences per 1,000 tokens do not. An expression finds how a thing is said, not whether it was done: the
names of those that stand in for a judge end in ``_proxy``. Sources and conventions: docs/behaviours.md.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Patterns = dict[str, re.Pattern[str]]  # by the name of the behaviour

# DeepSeek-R1's list of reflective words (arXiv 2501.12948v2, App. C.2)
REFLECTION = ("wait", "mistake", "however", "but", "retry", "error", "verify", "wrong", "evaluate", "check")

# Oat-zero's list for self-reflection (arXiv 2503.20783): anywhere in the text, also within a word
SELF_REFLECTION = (
    *("recheck", "rethink", "reassess", "reevaluate", "re-evaluate", "reevaluation", "re-examine", "reexamine"),
    *("reconsider", "reanalyze", "double-check", "check again", "think again", "verify again", "go over the steps"),
)


def any_of(*parts: str) -> re.Pattern[str]:
    """Any of these expressions, case ignored; the longer one first, so that none hides one that it begins."""
    return re.compile("|".join(sorted(parts, key=lambda p: (-len(p), p))), re.IGNORECASE)


def whole_word(word: str) -> str:
    """The expression of a whole word; a hyphen ends a word: "double-check" holds "check", "checked" does not."""
    return rf"\b{re.escape(word)}\b"


PATTERNS: Patterns = {
    "reflection": any_of(*map(whole_word, REFLECTION)),
    "self_reflection": any_of(*map(re.escape, SELF_REFLECTION)),
    # four behaviours of Gandhi et al. (arXiv 2503.01307), who ask a model whether they are there
    "verification_proxy": any_of(
        r"\blet(?: me|['’]s| us) (?:check|verify)\b",
        r"\bverify(?:ing)?\b",
        r"= ?-?\$?[0-9][0-9.,]*, which is\b",  # "= 39, which is not the target"
    ),
    "backtracking_proxy": any_of(r"\btry (?:a different|another)\b", r"\binstead\b", r"\bthat['’]s not\b"),
    "subgoals_proxy": any_of(r"\bfirst,", r"\bget to a multiple of\b"),
    "backward_chaining_proxy": any_of(r"\bwork(?:ing)? backwards?\b"),
}
SENTENCE_BEHAVIOURS = tuple(PATTERNS)  # what is counted where a model writes sentences


class BehaviourRates(NamedTuple):
    """How much of a behaviour a set of responses shows."""

    share: float  # of responses that show it
    per_response: float  # mean number of times in a response
    per_1k: float  # times in 1,000 tokens, over all responses together


def compile_patterns(names: Iterable[str]) -> Patterns:
    """The expression of each name: one of ``PATTERNS``, or the name itself as a whole word, case ignored."""
    return {name: PATTERNS[name] if name in PATTERNS else any_of(whole_word(name)) for name in names}


def count_matches(text: str, counted: re.Pattern[str]) -> int:
    """Times that a behaviour is shown in a text; two that overlap count once."""
    return sum(1 for _ in counted.finditer(text))


def behaviour_rates(texts: Sequence[str], tokens: Sequence[int], counted: Patterns) -> dict[str, BehaviourRates]:
    """Each behaviour over responses; ``tokens`` are their lengths. Raises ValueError where these are not as many."""
    if len(texts) != len(tokens):
        raise ValueError(f"{len(texts)} texts, but {len(tokens)} lengths")
    total, out = max(sum(tokens), 1), {}
    for name, of in counted.items():
        times = [count_matches(text, of) for text in texts]
        share = sum(t > 0 for t in times) / max(len(times), 1)
        out[name] = BehaviourRates(share, sum(times) / max(len(times), 1), 1000 * sum(times) / total)
    return out


def first_aha_step(shares: Mapping[int, float], threshold: float) -> int | None:
    """The step at which a behaviour has come to stay; None where it never has.

    ``shares`` is {step of an evaluation: share of responses in 0..1}, by step. The first aha is the earliest step at which
    the share is at or above ``threshold`` and at the next evaluation is so still. The last evaluation has no next one, so it
    is never the first aha. Step 0 means that the model had it before this stage.
    """
    found = list(shares.items())
    passed = (step for (step, here), (_, after) in zip(found, found[1:], strict=False) if min(here, after) >= threshold)
    return next(passed, None)


def share_before(shares: Mapping[int, float], step: int) -> float | None:
    """The share at the evaluation before ``step``; None where there was none."""
    return next((v for s, v in reversed([*shares.items()]) if s < step), None)


def find_example(samples: Iterable[Mapping[str, Any]], counted: re.Pattern[str]) -> Mapping[str, Any] | None:
    """An attempt that shows a behaviour: the first right one that shows it before its final answer.

    Where there is none, the first that shows it at all; None where no attempt does.
    """
    shown = [s for s in samples if counted.search(s.get("response", ""))]
    right = (s for s in shown if s["reward"] > 0.5 and counted.search(s["response"][: s.get("final")]))
    return next(right, shown[0] if shown else None)
