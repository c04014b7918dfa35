"""The error of a verifier that could not judge."""

import math


class VerifierFailed(Exception):
    """A verifier could not judge a response. That says nothing about the response: it is unscored, never wrong and never right."""


def known_verdict(verdict: bool | None) -> bool:
    """A verdict that is there. Raises VerifierFailed where there is none."""
    if verdict is None:
        raise VerifierFailed("the process that compares formulas dies or hangs: is there enough memory?")
    return verdict


def score_of_verdict(verdict: bool | None, finished: bool) -> float:
    """1 for a right response, 0 for a wrong one and for one that was cut off, NaN where there is no verdict."""
    return 0.0 if not finished else math.nan if verdict is None else float(verdict)
