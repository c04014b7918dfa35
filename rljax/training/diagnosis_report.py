"""A diagnosis in words, for the terminal, and as one JSON value."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rljax.metrics import half_width
from rljax.metrics.alarms import Alarm
from rljax.training.diagnosis import Attempts, StepCost, choose_attempts, compares_within_groups
from rljax.training.run import Run

WIDTH = 24  # of the names in a table


def format_measures(run: Run, split: str, attempts: Attempts, measured: dict[str, float]) -> str:
    """What was asked, a table of what was measured, and three attempts in full."""
    rows = measure_rows(run, measured, len(attempts.records))
    lines = [describe_asked(run, split, len(attempts.records)), *format_rows(rows)]
    for number, (q, n) in enumerate(chosen := choose_attempts(attempts), 1):
        lines += ["", f"attempt {number} of {len(chosen)}: {describe_attempt(attempts, q, n)}"]
        lines += [prompt_text(run, attempts, q, n), attempts.texts[q][n]]
    return "\n".join([*lines, ""])


def format_rows(rows: Sequence[tuple[str, str]]) -> list[str]:
    """A table of two columns."""
    return [f"  {name:<{WIDTH}}  {text}" for name, text in rows]


def describe_asked(run: Run, split: str, problems: int) -> str:
    """What was sampled, in one line."""
    sampling, cut = run.rl.sampling, f", top-k {run.rl.sampling.top_k}, top-p {run.rl.sampling.top_p}"
    longest = sampling.limit.tokens if sampling.limit.until else sampling.max_new_tokens
    return (
        f"{run.task.name}, from {run.rl.start or 'random weights'}: {problems} {split} problems x {sampling.group_size} attempts, "
        f"temperature {sampling.temperature:g}{cut if sampling.truncated else ''}, at most {longest} tokens"
    )


def measure_rows(run: Run, measured: dict[str, float], problems: int) -> list[tuple[str, str]]:
    """(name, text) of what was measured."""
    width = half_width(measured["eval/pass@1/se"], problems)
    largest = max(
        int(k.removeprefix("eval/pass@")) for k in measured if k.startswith("eval/pass@") and k[10:].isdigit()
    )
    rows = [("pass@1", f"{measured['eval/pass@1']:.3f}" + (f" ± {width:.3f}" if width == width else ""))]
    if largest > 1:
        rows.append((f"pass@{largest}", f"{measured[f'eval/pass@{largest}']:.3f}"))
    if "eval/groups/mixed" in measured:
        wrong, right = measured["eval/groups/all_wrong"], measured["eval/groups/all_right"]
        gradient = ", the others give no gradient" if compares_within_groups(run) else ""
        shares = f"{measured['eval/groups/mixed']:.1%} (all wrong {wrong:.1%}, all right {right:.1%}{gradient})"
        rows.append(("groups of mixed outcome", shares))
    rows += [
        ("cut off at the limit", f"{measured['eval/truncated']:.1%}"),
        ("no answer could be read", f"{measured['eval/answers/none']:.1%}"),
        ("reward", f"{measured['eval/reward']:.3f}"),
        ("entropy", f"{measured['eval/entropy']:.3f} nats a token"),
    ]
    lengths = [
        f"{name} {x:.1f}"
        for name, key in (("right", "correct"), ("wrong", "wrong"))
        if (x := measured.get(f"eval/response_length/{key}")) is not None
    ]
    return [*rows, ("mean length", f"{', '.join(lengths)} tokens")]


def format_cost(run: Run, cost: StepCost) -> str:
    """What a train step takes, and all of them."""
    steps = run.rl.loop.steps
    rows = [
        ("a train step", f"{cost.seconds:.2f} s, the first {cost.first_seconds:.1f} s with compilation"),
        (f"{steps} steps", f"{describe_seconds(steps * cost.seconds)}, evaluations apart"),
        ("memory", f"{cost.memory / 1e9:.2f} GB at the peak, of {cost.memory_of}"),
    ]
    return "\n".join([*format_rows(rows), ""])


def describe_seconds(seconds: float) -> str:
    """A time in seconds, minutes or hours."""
    unit, size = next((u for u in (("h", 3600.0), ("min", 60.0)) if seconds >= 2 * u[1]), ("s", 1.0))
    return f"{seconds / size:.1f} {unit}"


def prompt_text(run: Run, attempts: Attempts, problem: int, attempt: int) -> str:
    """The prompt of an attempt, as the model sees it."""
    row = problem * attempts.correct.shape[1] + attempt
    prompt, mask = (np.asarray(getattr(attempts.rollout, name)[row]) for name in ("prompt", "prompt_mask"))
    return run.task.tokenizer.decode(prompt[mask])


def verdict(attempts: Attempts, problem: int, attempt: int) -> str:
    """ "right", "wrong", or "not scored"."""
    correct = attempts.correct[problem, attempt]
    return "not scored" if np.isnan(correct) else "right" if correct > 0 else "wrong"


def describe_attempt(attempts: Attempts, problem: int, attempt: int) -> str:
    """Its verdict, length and answer, in one line."""
    columns, answer = attempts.columns(), attempts.described[problem][attempt].answer
    tokens = int(columns["mask"][problem, attempt].sum())
    end = "" if columns["finished"][problem, attempt] else ", cut off"
    read = "no answer could be read" if answer is None else f"answer read: {answer}"
    return f"{verdict(attempts, problem, attempt)}, {tokens} tokens{end}, {read}"


def format_findings(found: Sequence[Alarm]) -> str:
    """A line for each finding, or one that says that there is none."""
    if not found:
        return "nothing was found that keeps RL from working as set"
    order = ", what to mend first on top" if len(found) > 1 else ""
    return "\n".join([f"RL cannot work well as set{order}:", *(f"  {alarm.name}: {alarm.text}" for alarm in found)])


def diagnosis_to_dict(
    run: Run, split: str, attempts: Attempts, measured: dict[str, float], cost: StepCost | None, found: Sequence[Alarm]
) -> dict[str, Any]:
    """The numbers, the findings and the attempts that were shown."""
    sampling = run.rl.sampling
    asked = {"task": run.task.name, "start": run.rl.start, "split": split, "problems": len(attempts.records)}
    asked |= {"attempts": sampling.group_size, "temperature": float(sampling.temperature)}
    shown = [
        {
            "problem": q,
            "prompt": prompt_text(run, attempts, q, n),
            "response": attempts.texts[q][n],
            "verdict": verdict(attempts, q, n),
            "answer": attempts.described[q][n].answer,
        }
        for q, n in choose_attempts(attempts)
    ]
    return {
        "asked": asked | {"max_new_tokens": sampling.max_new_tokens},
        "metrics": measured,
        "step": cost._asdict() if cost else None,
        "findings": [{"name": alarm.name, "text": alarm.text} for alarm in found],
        "attempts": shown,
    }
