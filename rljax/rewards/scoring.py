"""Scoring texts with a text verifier and the terms that read text, in whatever process. An exception costs one response its score."""

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

from rljax.errors import UserError
from rljax.rewards.terms import Term
from rljax.tasks import Record
from rljax.verifiers.failures import VerifierFailed

Scores = dict[str, Any]  # {name: number}; "exception" holds what was raised, as text, "raised_by" in words by what
Pairs = list[tuple[str, Record]]  # (response, record of its problem)
Score = Callable[[Pairs], list[Scores]]
UNSCORED = {"correct": math.nan, "verifier_unscored": 1.0}
WRONG = {"correct": 0.0, "verifier_error": 1.0}


def score_pairs(
    verify: Callable[[str, Record], bool],
    verify_batch: Score | None,
    prefill: str,
    terms: Sequence[Term],
    pairs: Pairs,
) -> list[Scores]:
    """What each (response, record) scores, by name.

    ``verifier_error`` is 1 where its verifier or a term raised, ``verifier_unscored`` where "correct" or
    a term is NaN.
    """
    score = lambda pair: verify_batch([pair])[0] if verify_batch else {"correct": float(verify(*pair))}
    try:
        out = verify_batch(pairs) if verify_batch else [score_guarded(score, pair) for pair in pairs]
    except UserError:
        raise
    except Exception:  # one response did it: the others keep their scores
        out = [score_guarded(score, pair) for pair in pairs]
    if len(out) != len(pairs):
        raise UserError(f"verify_batch returned {len(out)} scores for {len(pairs)} responses: return one for each")
    texts = [prefill + text.removesuffix("<eos>") for text, _ in pairs]
    for term in terms:
        for scores, value in zip(out, term_values(term, texts), strict=True):
            scores |= value
    rewards = lambda scores: [v for k, v in scores.items() if k == "correct" or k.startswith("reward/")]
    unscored = lambda scores: float(any(map(math.isnan, rewards(scores))))  # a verifier or a term may say so itself
    return [{"verifier_error": 0.0, "verifier_unscored": unscored(scores)} | scores for scores in out]


def term_values(term: Term, texts: list[str]) -> list[Scores]:
    """``reward/NAME`` of each text, by the term's own function."""
    options, name = term.choice.options, f"reward/{term.name}"
    batched = getattr(term.function, "batched", False)
    if batched:
        with contextlib.suppress(Exception):  # one text did it: the others keep their values
            values = [{name: float(value)} for value in term.function(texts, **options)]
            if len(values) == len(texts):
                return values
    value = lambda text: {
        name: float(term.function([text], **options)[0] if batched else term.function(text, **options))
    }
    failed = {name: 0.0, "verifier_error": 1.0}
    return [score_guarded(value, text, failed, f"the reward term {term.name!r}") for text in texts]


def score_guarded(
    score: Callable[[Any], Scores], pair: Any, failed: Scores = WRONG, by: str = "its verifier"
) -> Scores:
    """``score(pair)``; where that raises, ``failed`` with the exception's text, and ``by``: what raised it."""
    try:
        return score(pair)
    except UserError:  # of the problem or the machine, never of a response: no reward can be trusted then
        raise
    except VerifierFailed:
        return dict(UNSCORED)
    except Exception as e:  # whatever a policy's text provokes is a wrong answer, and is counted
        return failed | {"exception": f"{type(e).__name__}: {e}"[:300], "raised_by": by}
