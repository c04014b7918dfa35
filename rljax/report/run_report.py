"""The report of one RL run: its figures, captions, sections and tables, as far as the run has the data."""

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rljax.errors import UserError
from rljax.metrics.alarms import Alarm, find_alarms
from rljax.report import figures, texts
from rljax.report.aha import FirstAha, find_first_aha, make_aha_tile, render_aha
from rljax.report.attempts import is_right, rank_by_improvement, render_models, render_problem
from rljax.report.page import Picture, write_page
from rljax.report.records import Run, Sample, find_keys, group_by_problem, read_series
from rljax.report.tables import run_tables

Samples = Sequence[Sample]
LISTED_PROBLEMS = 4  # problems whose attempts are listed
RARE = 0.01  # a behaviour or a strategy that is never in so large a share of responses has no curve
MIN_CURVE_POINTS = 3  # evaluations that a run needs for the comparison with R1-Zero's curves


def write_report(
    records: Run,
    read_samples: Callable[[int], Samples],
    config: Mapping[str, Any],
    folder: str | Path,
    *,
    config_json: Mapping[str, Any] | None = None,
    timings: Run = (),
    selection: Mapping[str, Run] | None = None,
    asked: tuple[Samples, Samples] | None = None,
) -> Path:
    """Draw a run's figures into folder/figures and write folder/report.html; returns its path.

    ``records`` are those of metrics.jsonl, ``timings`` those of timings.jsonl. ``read_samples(step)`` returns the attempts of
    one evaluation. ``config`` is the resolved config as a plain dict, ``config_json`` the whole config.json. ``selection``
    is {algorithm: records} of runs from the same start with other algorithms. ``asked`` are the attempts at a question of the
    user's own, before and after RL. Raises UserError where there are fewer than
    two evaluations of RL.
    """
    evaluations = texts.rl_evaluations(records)
    if len(evaluations) < 2:
        raise UserError(f"{folder}: there is no RL run to draw yet: run `rljax rl` with this config first")
    folder, questions = Path(folder), config.get("eval", {}).get("problems")

    # Figures and sections
    aha = find_first_aha(config.get("report", {}).get("aha", {}), records)
    if aha and max(read_series(records, f"eval/behaviour/{aha.behaviour}").values()) < RARE:
        aha = None  # what hardly ever occurs is no aha, nor is its absence: the section on reflection says so
    pictures = draw_run_figures(records, config, folder / "figures", aha, questions)
    sections = [("Alarms", render_alarms(find_alarms(records)))]
    names = texts.name_start_model(config), f"RL model, step {evaluations[-1]['step']}"
    if asked:
        sections.append(("A question of its own, before and after RL", render_asked(asked, names)))
    pairs = pair_attempts(read_samples(evaluations[0]["step"]), read_samples(evaluations[-1]["step"]))
    if pairs:
        path = folder / "figures" / "attempts.png"
        figures.draw_attempts(*pairs[0], path)
        pictures.append((path, "One held-out problem, attempts before and after RL: right ones green."))
        note = texts.describe_question(*map(pass_rate, pairs[0]))
        cards = render_models(list(zip(names, pairs[0], strict=True)), note)
        sections.append(("One question, before and after RL", cards))
    if aha:
        sections.append(("First aha", render_aha(aha, read_samples)))
    if said := texts.describe_rare_behaviours(records, RARE):
        sections.append(("Reflection", f'<p class="note">{html.escape(said)}</p>'))
    runs_by_rule = label_selection_runs(records, selection or {}, config)
    if runs_by_rule:
        path = folder / "figures" / "selection.png"
        figures.draw_selection({rule: [run] for rule, run in runs_by_rule.items()}, path, questions=questions)
        pictures.append((path, texts.describe_selection(runs_by_rule)))

    # The page
    write_page(
        folder / "report.html",
        f"rljax: learning to reason by reinforcement learning, task “{config.get('task', {}).get('name', '?')}”",
        texts.headline_numbers(records, timings, questions) + ([make_aha_tile(aha)] if aha else []),
        pictures,
        pairs,
        run_tables(records, texts.name_start_model(config), questions),
        config_json or {},
        sections,
    )
    return folder / "report.html"


def render_asked(asked: tuple[Samples, Samples], names: tuple[str, str]) -> str:
    """HTML of the attempts at the question of the report: the median one of each model, then all in full."""
    note = (
        "The question of the config (report.question), put to the model before RL and after it, whatever RL has asked."
    )
    cards = render_models(list(zip(names, asked, strict=True)), note)
    return cards + render_problem(*asked, False, ("before RL", "after RL"), "all attempts")


def render_alarms(alarms: Sequence[Alarm]) -> str:
    """HTML of the alarms of a run, as a list; "" where there was none."""
    items = "".join(
        f"<li><b>step {alarm.step}, {html.escape(alarm.name)}</b>: {html.escape(alarm.text)}</li>" for alarm in alarms
    )
    return f"<ul>{items}</ul>" if items else ""


def draw_run_figures(
    records: Run, config: Mapping[str, Any], folder: Path, aha: FirstAha | None, questions: int | None
) -> list[Picture]:
    """Draw the figures that this run has data for. Returns (file, caption) of each."""
    runs, pictures = [records], []

    def draw(name: str, caption: str, **options: Any) -> None:
        """Draw one figure with ``figures.draw_NAME``, if the run has data for it."""
        path = folder / f"{name}.png"
        try:
            getattr(figures, f"draw_{name}")(runs, path, **options)
        except UserError:  # the run measured nothing of this kind
            path.unlink(missing_ok=True)  # a figure of an earlier run in this folder
        else:
            pictures.append((path, caption))

    draw("accuracy", texts.describe_accuracy(config), questions=questions)
    draw("response_length", texts.describe_response_length(config, records))
    draw("training", texts.describe_training(records))
    draw("other_measures", "Further measures on held-out problems.")
    if min(len(read_series(records, key)) for key in ("eval/pass@1", "eval/response_length/mean")) >= MIN_CURVE_POINTS:
        draw("overlay", OVERLAY, questions=questions)
    keys = find_keys(runs, r"eval/strategy/(\w+)")
    strategies = [name for name, key in keys.items() if max(read_series(records, key).values(), default=0.0) >= RARE]
    if len(strategies) > 1:
        draw("strategies", texts.describe_strategies(strategies))
    draw("behaviours", texts.BEHAVIOURS_CAPTION, aha=aha.step if aha else None, rare=RARE)
    draw("skills", "Calculations and verdicts that are right, verdicts by number of the try, and wrong “yes” verdicts.")
    return pictures


OVERLAY = (
    "The same two curves beside R1-Zero's, digitised from arXiv 2501.12948v1. The x axis is the share of training done. Lengths "
    "are relative to the first one. Ours are of held-out responses, R1-Zero's are of its training set."
)


def pair_attempts(before: Samples, after: Samples) -> list[tuple[list[Sample], list[Sample]]]:
    """(attempts before, attempts after) of ``LISTED_PROBLEMS`` problems that have both, the most improved first."""
    first, last = group_by_problem(before), group_by_problem(after)
    return [(first[q], last[q]) for q in rank_by_improvement(first, last)[:LISTED_PROBLEMS]]


def pass_rate(samples: Samples) -> float:
    """The share of right attempts."""
    return sum(map(is_right, samples)) / max(len(samples), 1)


def label_selection_runs(records: Run, selection: Mapping[str, Run], config: Mapping[str, Any]) -> dict[str, Run]:
    """{label: records} of the runs with other algorithms, and of this run up to their last step; {} without others."""
    if not any(selection.values()):
        return {}
    end = max(r["step"] for run in selection.values() for r in run)
    this_run = [r for r in records if r["stage"] == "rl" and r["step"] <= end]
    others = {texts.SELECTION_LABELS.get(rule, rule): run for rule, run in selection.items() if run}
    return others | {f"this run ({config.get('rl', {}).get('algorithm', 'RL')})": this_run}
