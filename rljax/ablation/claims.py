"""A hypothesis as something that can be checked: "length: shortest < dr_grpo".

    MEASURE: ARM < ARM        the first arm ends lower, over the seeds that both have
    MEASURE: ARM > before     an arm ends higher than it began
    MEASURE: ARM ~ ARM [d]    they end within d of each other (the interval of the difference lies in -d to d)

A claim holds where the 95 % interval of the paired difference says so, fails where it says the opposite, and else nothing
was shown.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rljax.ablation import results
from rljax.ablation.results import Line
from rljax.errors import UserError
from rljax.metrics.intervals import Estimate, interval, paired_difference

BEFORE = "before"
FORM = re.compile(r"(?P<measure>[^:]+): (?P<left>.+?) (?P<sign>[<>~]) (?P<right>.+?)(?: \[(?P<within>[\d.]+)\])?")


class Claim(NamedTuple):
    measure: str
    left: str
    sign: str
    right: str
    within: float


class Judgement(NamedTuple):
    claim: str
    outcome: str  # holds | fails | not shown
    left: Estimate
    right: Estimate
    difference: Estimate


def parse_claim(text: str, arms: Sequence[str]) -> Claim:
    """Raises UserError for a text that is no claim, or names an arm that is not there."""
    found = FORM.fullmatch(text)
    if not found or (found["sign"] == "~") != (found["within"] is not None):
        raise UserError(f"claim {text!r}: write MEASURE: ARM < ARM, or > before, or MEASURE: ARM ~ ARM [0.05]")
    for side in (found["left"], found["right"]):
        if side not in (*arms, BEFORE):
            raise UserError(f"claim {text!r}: there is no arm {side!r}, choose from {[*arms, BEFORE]}")
    if found["left"] == BEFORE:
        raise UserError(f"claim {text!r}: {BEFORE!r} stands on the right")
    return Claim(found["measure"], found["left"], found["sign"], found["right"], float(found["within"] or 0))


def judge(text: str, lines: Sequence[Line]) -> Judgement:
    """What the runs say about a claim."""
    c = parse_claim(text, results.arms_in(lines))
    left = results.values(lines, c.left, c.measure)
    begin = c.right == BEFORE
    right = results.values(lines, c.left if begin else c.right, c.measure, 0 if begin else -1)
    d = paired_difference(left, right)
    outcome = "not shown"
    if c.sign == "~":
        outcome = "holds" if -c.within <= d.low and d.high <= c.within else outcome
        outcome = "fails" if d.low > c.within or d.high < -c.within else outcome
    elif d.excludes_zero:
        outcome = "holds" if (d.mean < 0) == (c.sign == "<") else "fails"
    over = lambda x: interval(np.array([*x.values()]))
    return Judgement(text, outcome, over(left), over(right), d)


def say(e: Estimate, signed: bool = False) -> str:
    """The mean and its interval, as in 0.800 [0.770, 0.830]; fewer digits for lengths."""
    digits = 1 if max(map(abs, [x for x in e[:3] if x == x] or [0])) >= 3 else 3
    show = lambda x: f"{x:+.{digits}f}" if signed else f"{x:.{digits}f}"
    return show(e.mean) + (f" [{show(e.low)}, {show(e.high)}]" if e.low == e.low else " (one seed)")


def verdict(judged: Sequence[Judgement], lines: Sequence[Line]) -> str:
    """One paragraph: which claims held, with numbers, and over how many seeds."""
    if not judged:
        return ""
    last = lines[0]["steps"][-1]
    by = {o: [j for j in judged if j.outcome == o] for o in ("holds", "fails", "not shown")}
    what = "; ".join(f"{title(j)}, difference {say(j.difference, True)}" for j in judged)
    counted = ", ".join(f"{len(v)} {k.replace('holds', 'hold').replace('fails', 'fail')}" for k, v in by.items() if v)
    return f"After {last} steps, {results.seeds_said(lines)}, of {len(judged)} claims {counted}: {what}."


def title(j: Judgement) -> str:
    """The claim, its outcome and both sides' numbers."""
    return f"{j.claim} {j.outcome.upper()} ({say(j.left)} against {say(j.right)})"
