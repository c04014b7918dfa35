"""The first aha of a run: the step from which on its responses show a behaviour (docs/behaviours.md)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rljax.metrics import behaviours
from rljax.report.attempts import render_example
from rljax.report.records import Run, Sample, read_series


class FirstAha(NamedTuple):
    """The first aha, as ``behaviours.first_aha_step`` defines it."""

    behaviour: str
    threshold: float  # share of responses that defines the first aha
    step: int | None  # None: there was no first aha
    share_before: float | None  # share of responses at the evaluation before the step; None: there was none
    share: float | None  # share of responses at the step


def find_first_aha(options: Mapping[str, Any], records: Run) -> FirstAha | None:
    """The first aha of a run; None where its behaviour was not counted.

    ``options`` is config.report.aha: {"behaviour": name, "share": threshold}, or {}. The name "" is the first behaviour that
    the task counts.
    """
    behaviour = (options["behaviour"] or first_counted_behaviour(records)) if options else ""
    shares = read_series(records, f"eval/behaviour/{behaviour}") if behaviour else {}
    if not shares:
        return None
    step = behaviours.first_aha_step(shares, options["share"])
    before = None if step is None else behaviours.share_before(shares, step)
    return FirstAha(behaviour, options["share"], step, before, None if step is None else shares[step])


def first_counted_behaviour(records: Run) -> str:
    """The first behaviour in the run's metrics, which have the task's order; "" where there is none."""
    names = [k.removeprefix("eval/behaviour/") for r in records for k in r if k.startswith("eval/behaviour/")]
    return next((name for name in names if "/" not in name), "")


def make_aha_tile(aha: FirstAha) -> tuple[str, Any, str]:
    """The first aha as a headline number: (label, value, note)."""
    if aha.step is None:
        return "First aha", "none", f"“{aha.behaviour}” never stayed in {aha.threshold:.0%} of responses"
    before = "there before RL" if aha.share_before is None else f"{aha.share_before:.0%} at the evaluation before"
    return "First aha", f"step {aha.step}", f"“{aha.behaviour}” in {aha.share:.0%} of responses, {before}"


def render_aha(aha: FirstAha, read_samples: Callable[[int], Sequence[Sample]]) -> str:
    """The section of the page as HTML: when the first aha was, and an attempt that shows it."""
    rule = f"“{aha.behaviour}” in {aha.threshold:.0%} of the responses or more, at one evaluation and still at the next"
    if aha.step is None:
        return render_example(f"There was no first aha: at no step was {rule}.")
    text = f"The first aha is the first step with {rule}: step {aha.step}, with {aha.share:.0%}"
    text += (
        ". It was there before RL."
        if aha.share_before is None
        else f" after {aha.share_before:.0%} at the evaluation before."
    )
    pattern = behaviours.compile_patterns([aha.behaviour])[aha.behaviour]
    sample = behaviours.find_example(read_samples(aha.step), pattern)
    if sample is None:
        return render_example(f"{text} None of the recorded attempts shows it.")
    which = "first right attempt of that evaluation that shows it before its answer"
    if sample["reward"] <= 0.5:
        which = "first attempt of that evaluation that shows it; no right one does before its answer"
    return render_example(f"{text} Below, the {which}.", sample, pattern, f"step {aha.step}")
