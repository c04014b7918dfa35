"""A hypothesis as claims that a program checks, such as "length: shortest < dr_grpo". A claim has one of these forms.

    MEASURE: ARM < ARM        the last value of the first arm is lower, over the seeds that both arms have
    MEASURE: ARM > before     the last value of an arm is higher than its value before training
    MEASURE: ARM > 10 x before    it is more than ten times as high
    MEASURE: ARM > a fifth ago    it still rises: the straight line through the evaluations of the last fifth of the run goes up
    MEASURE: ARM ~ ARM [d]    the last values differ by at most d

A claim is checked with the 95 % interval of the paired difference (``rljax.metrics.intervals``). It "holds" if the whole
interval agrees with the claim. It "fails" if the whole interval contradicts it. Otherwise it is "not shown".
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rljax.ablation.results import RunResult, arm_names, describe_seed_count, values_by_seed
from rljax.errors import UserError
from rljax.metrics.intervals import Estimate, confidence_interval, paired_difference
from rljax.report.measures import find_measure

BEFORE = "before"  # the right side of a claim that compares an arm with itself before training
FIFTH = "a fifth ago"  # of one that compares the end of the line through its last fifth with the beginning of that line
CLAIM_PATTERN = re.compile(
    r"(?P<measure>[^:]+): (?P<left>.+?) (?P<operator>[<>~]) (?P<right>.+?)(?: \[(?P<tolerance>[\d.]+)\])?"
)


class Claim(NamedTuple):
    """A claim, parsed."""

    measure: str
    left: str  # an arm
    operator: str  # < | > | ~
    right: str  # an arm, ``BEFORE`` or ``FIFTH``
    tolerance: float  # of ~; 0 for the others
    factor: float = 1.0  # of the value before


class ClaimResult(NamedTuple):
    """A claim and what the results show about it."""

    claim: str
    outcome: str  # holds | fails | not shown
    left: Estimate
    right: Estimate
    difference: Estimate  # left - right, paired by seed


def parse_claim(text: str, arms: Sequence[str]) -> Claim:
    """The claim in this text. Raises UserError if the text is not a claim, or if it names an unknown arm."""
    match = CLAIM_PATTERN.fullmatch(text)
    if not match or (match["operator"] == "~") != (match["tolerance"] is not None):
        raise UserError(
            f"claim {text!r}: write MEASURE: ARM < ARM, MEASURE: ARM > before, or MEASURE: ARM ~ ARM [0.05]"
        )
    times = re.fullmatch(rf"([\d.]+) x {BEFORE}", match["right"])
    factor, right = (float(times[1]), BEFORE) if times else (1.0, match["right"])
    for side in (match["left"], right):
        if side not in (*arms, BEFORE, FIFTH):
            raise UserError(f"claim {text!r}: there is no arm {side!r}, choose from {[*arms, BEFORE, FIFTH]}")
    if match["left"] in (BEFORE, FIFTH):
        raise UserError(f"claim {text!r}: {match['left']!r} must be on the right side")
    return Claim(match["measure"], match["left"], match["operator"], right, float(match["tolerance"] or 0), factor)


def check_claim(text: str, results: Sequence[RunResult]) -> ClaimResult:
    """Whether the results of the runs support a claim."""
    claim = parse_claim(text, arm_names(results))
    left = values_by_seed(results, claim.left, claim.measure)
    if claim.right == BEFORE:
        before = values_by_seed(results, claim.left, claim.measure, evaluation=0)
        right = {seed: claim.factor * value for seed, value in before.items()}
    elif claim.right == FIFTH:
        lines = last_lines(results, claim.left, claim.measure)
        left, right = ({seed: line[end] for seed, line in lines.items()} for end in (1, 0))
    else:
        right = values_by_seed(results, claim.right, claim.measure)
    difference = paired_difference(left, right)
    outcome = "not shown"
    if claim.operator == "~":
        if -claim.tolerance <= difference.low and difference.high <= claim.tolerance:
            outcome = "holds"
        if difference.low > claim.tolerance or difference.high < -claim.tolerance:
            outcome = "fails"
    elif difference.excludes_zero:
        outcome = "holds" if (difference.mean < 0) == (claim.operator == "<") else "fails"
    left_mean, right_mean = (confidence_interval(np.array([*values.values()])) for values in (left, right))
    return ClaimResult(text, outcome, left_mean, right_mean, difference)


def last_lines(results: Sequence[RunResult], arm: str, measure: str) -> dict[int, tuple[float, float]]:
    """{seed: values at both ends of the last fifth of a run's steps, of the least-squares line through its evaluations there}.

    Seeds with fewer than three evaluations there are left out: through two any line goes.
    """
    key, lines = find_measure(measure).key, {}
    for result in results:
        curve = result["curves"].get(key)
        if result["arm"] != arm or not curve:
            continue
        start, end = 0.8 * result["steps"][-1], result["steps"][-1]
        points = [(x, y) for x, y in zip(result["steps"], curve, strict=True) if x >= start - 1e-6 and y is not None]
        if len(points) > 2:
            slope, offset = np.polyfit([x for x, _ in points], [y for _, y in points], 1)
            lines[result["seed"]] = (float(offset + slope * start), float(offset + slope * end))
    return lines


def format_estimate(estimate: Estimate, signed: bool = False) -> str:
    """A mean and its interval as text, such as "0.800 [0.770, 0.830]". Values of 3 or more have one decimal.

    ``signed`` writes a plus sign before positive values.
    """
    numbers = [x for x in (estimate.mean, estimate.low, estimate.high) if x == x]  # not nan
    spec = f"{'+' if signed else ''}.{1 if max(map(abs, numbers), default=0) >= 3 else 3}f"
    mean, low, high = (format(x, spec) for x in (estimate.mean, estimate.low, estimate.high))
    return f"{mean} [{low}, {high}]" if estimate.low == estimate.low else f"{mean} (one seed)"


def format_verdict(claim_results: Sequence[ClaimResult], results: Sequence[RunResult]) -> str:
    """One paragraph: how many claims hold, over how many seeds, and the numbers of each claim. "" without claims."""
    if not claim_results:
        return ""
    last_step = results[0]["steps"][-1]
    counts = []
    for outcome, verb in (("holds", "hold"), ("fails", "fail"), ("not shown", "not shown")):
        if count := sum(r.outcome == outcome for r in claim_results):
            counts.append(f"{count} {verb}")
    details = "; ".join(
        f"{format_claim_result(r)}, difference {format_estimate(r.difference, True)}" for r in claim_results
    )
    return (
        f"After {last_step} steps, {describe_seed_count(results)}, of {len(claim_results)} claims {', '.join(counts)}: "
        f"{details}."
    )


def format_claim_result(result: ClaimResult) -> str:
    """The claim, its outcome, and the values of both sides."""
    values = f"{format_estimate(result.left)} against {format_estimate(result.right)}"
    return f"{result.claim} {result.outcome.upper()} ({values})"
