"""The first aha of a run: when a behaviour came to stay in its responses (docs/behaviours.md)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rljax.metrics import behaviours
from rljax.report.attempts import render_example
from rljax.report.records import Run, Sample, read_series


class FirstAha(NamedTuple):
    """When a behaviour came to stay, as ``behaviours.first_aha_step`` says."""

    behaviour: str
    threshold: float  # the share of responses that it had to reach
    step: int | None  # None: it never did
    before: float | None  # its share at the evaluation before that step
    then: float | None  # its share at that step


def find_first_aha(wanted: Mapping[str, Any], records: Run) -> FirstAha | None:
    """The first aha of the run; None where its behaviour was not counted.

    ``wanted`` is config.report.aha: {"behaviour": name, "share": threshold}, or {}. "" is the first that the task counts.
    """
    behaviour = (wanted["behaviour"] or first_counted(records)) if wanted else ""
    shares = read_series(records, f"eval/behaviour/{behaviour}") if behaviour else {}
    if not shares:
        return None
    step = behaviours.first_aha_step(shares, wanted["share"])
    before = None if step is None else behaviours.share_before(shares, step)
    return FirstAha(behaviour, wanted["share"], step, before, None if step is None else shares[step])


def first_counted(records: Run) -> str:
    """The first behaviour that the run counted, in the task's order; "" where it counted none."""
    names = [k.removeprefix("eval/behaviour/") for r in records for k in r if k.startswith("eval/behaviour/")]
    return next((name for name in names if "/" not in name), "")


def aha_tile(aha: FirstAha) -> tuple[str, Any, str]:
    """The headline number: (label, value, note)."""
    if aha.step is None:
        return "First aha", "none", f"“{aha.behaviour}” never stayed in {aha.threshold:.0%} of responses"
    before = "there before RL" if aha.before is None else f"{aha.before:.0%} at the evaluation before"
    return "First aha", f"step {aha.step}", f"“{aha.behaviour}” in {aha.then:.0%} of responses, {before}"


def aha_section(aha: FirstAha, read_samples: Callable[[int], Sequence[Sample]]) -> str:
    """The section of the page, as HTML: what is said of the first aha, and an attempt that shows it."""
    rule = f"“{aha.behaviour}” in {aha.threshold:.0%} of the responses or more, at one evaluation and still at the next"
    if aha.step is None:
        return render_example(f"There was no first aha: at no step was {rule}.")
    said = f"The first aha is the first step with {rule}: step {aha.step}, with {aha.then:.0%}"
    said += ". It was there before RL." if aha.before is None else f" after {aha.before:.0%} at the evaluation before."
    counted = behaviours.compile_patterns([aha.behaviour])[aha.behaviour]
    shown = behaviours.find_example(read_samples(aha.step), counted)
    if shown is None:
        return render_example(f"{said} None of the attempts that were written down shows it.")
    which = "first right attempt of that evaluation that shows it before its answer"
    if shown["reward"] <= 0.5:
        which = "first attempt of that evaluation that shows it; no right one does before its answer"
    return render_example(f"{said} Below, the {which}.", shown, counted, f"step {aha.step}")
