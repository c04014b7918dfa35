"""Curves over RL steps, in the manner of DeepSeek-R1-Zero's Figures 2 and 3."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rljax.errors import UserError
from rljax.report import r1_zero_curves
from rljax.report.figures.parts import (
    BLUE,
    CYCLE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    STRATEGIES,
    Ends,
    Run,
    across,
    band_note,
    canvas,
    curve,
    finish,
    interval,
    keys_like,
    need,
    save,
    series,
    vote_key,
)


def accuracy(runs: Sequence[Run], path: str | Path, title: str = "Accuracy during RL") -> None:
    """R1-Zero's Figure 2: pass@1 and cons@k over steps, with the level before RL dashed."""
    figure, (ax,) = canvas(title)
    ends = []
    for key, color in ((vote_key(runs), RED), ("eval/pass@1", BLUE)):
        end = curve(ax, runs, key, color)
        if end is not None:
            ends.append((end, f"{key.removeprefix('eval/')}  {end:.0%}", color))
    need(ends, "accuracy", "eval/pass@1")
    x, y = across(runs, "eval/pass@1")
    if x.size and x[0] == 0:
        level = float(np.nanmean(y[:, 0]))
        ax.axhline(level, color=MUTED, linewidth=1.2, linestyle=(0, (5, 4)))
        ends.append((level, f"before RL  {level:.0%}", MUTED))
    finish(ax, ends, f"Share of held-out problems answered rightly ({band_note(runs)})")
    save(figure, path)


def response_length(runs: Sequence[Run], path: str | Path, title: str = "Response length during RL") -> None:
    """R1-Zero's Figure 3: mean length with median..p95 shaded; the training batches' mean lightly behind."""
    figure, (ax,) = canvas(title)
    ends, length = [], "eval/response_length"
    x, y = across(runs, "train/response_length/mean")
    if x.size:
        ax.plot(x, interval(y)[0], color="#9aa5b1", linewidth=0.9, alpha=0.75)
    (low_x, low), (high_x, high) = across(runs, f"{length}/median"), across(runs, f"{length}/p95")
    if low_x.size and np.array_equal(low_x, high_x):
        top, bottom = interval(high)[0], interval(low)[0]
        ax.fill_between(low_x, bottom, top, color=SKY, alpha=0.18, linewidth=0)
        ends += [
            (float(top[-1]), f"p95  {top[-1]:.0f}", "#3f8fbd"),
            (float(bottom[-1]), f"median  {bottom[-1]:.0f}", "#3f8fbd"),
        ]
    end = curve(ax, runs, f"{length}/mean", BLUE)
    if end is not None:
        ends.append((end, f"mean  {end:.0f}", BLUE))
    elif x.size:
        ends.append((interval(y)[0][-1], "training batches", MUTED))
    need(ends, "response_length", f"{length}/mean")
    grey = "; grey: training batches" if x.size and end is not None else ""
    seeds = f" ({band_note(runs)})" if len(runs) > 1 else ""
    finish(ax, ends, f"Tokens in a response to a held-out problem{seeds}{grey}", share=False)
    save(figure, path)


def overlay(runs: Sequence[Run], path: str | Path, title: str = "Beside DeepSeek-R1-Zero") -> None:
    """Accuracy as it is, and length over its first value, against R1-Zero's; x is the share of training done."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

    figure, (left, right) = canvas(title, panels=2, height=4.1)
    cons = vote_key(runs)
    steps = [*across(runs, "eval/pass@1")[0], *across(runs, "eval/response_length/mean")[0]]
    need(steps, "overlay", "eval/pass@1")
    last = max(steps) or 1.0
    theirs = {"linewidth": 1.1, "linestyle": (0, (4, 2))}
    part = np.array(r1_zero_curves.STEPS) / r1_zero_curves.STEPS[-1]
    ends: Ends = []
    for key, color, reference in ((cons, RED, r1_zero_curves.CONS_16), ("eval/pass@1", BLUE, r1_zero_curves.PASS_1)):
        name = key.removeprefix("eval/")
        left.plot(part, reference, color=color, alpha=0.75, **theirs)
        ends.append((reference[-1], f"{'cons@16' if color == RED else name}, R1-Zero", color))
        if (end := curve(left, runs, key, color, last=last)) is not None:
            ends.append((end, f"{name}, ours", color))
    finish(left, ends, "Accuracy (solid: ours, dashed: R1-Zero on AIME 2024)", xlabel="share of training")
    length = np.array(r1_zero_curves.LENGTH) / r1_zero_curves.LENGTH[0]
    right.plot(
        np.array(r1_zero_curves.LENGTH_STEPS) / r1_zero_curves.LENGTH_STEPS[-1], length, color=INK, alpha=0.75, **theirs
    )
    ends = [(length[-1], f"R1-Zero  {length[-1]:.1f}×", INK)]
    if (end := curve(right, runs, "eval/response_length/mean", GREEN, scale=True, last=last)) is not None:
        ends.append((end, f"ours  {end:.1f}×", GREEN))
    right.set_yscale("log", base=2)
    finish(
        right,
        ends,
        "Mean response length, times its first value (log)",
        share=False,
        low=None,
        xlabel="share of training",
    )
    right.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}×"))
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    save(figure, path)


def strategies(runs: Sequence[Run], path: str | Path, title: str = "What the attempts do") -> None:
    """Stacked shares of the strategies over steps, averaged over runs."""
    figure, (ax,) = canvas(title)
    found = keys_like(runs, r"eval/strategy/(\w+)")
    names = [n for n in STRATEGIES if n in found] + [n for n in found if n not in STRATEGIES]
    need(names, "strategies", "eval/strategy/...")
    steps = across(runs, found[names[0]])[0]
    rows = [interval(across(runs, found[n])[1])[0] for n in names]
    if any(len(row) != len(steps) for row in rows):
        raise UserError(f"figure strategies: the evaluations disagree about which strategies there are: {names}")
    colors = [STRATEGIES.get(n, (c, c)) for n, c in zip(names, CYCLE * len(names), strict=False)]
    ax.stackplot(steps, rows, colors=[area for area, _ in colors], edgecolor="white", linewidth=0.8)
    ax.set_axisbelow(False)
    edges = np.cumsum([0.0, *(row[-1] for row in rows)])
    middle = (edges[1:] + edges[:-1]) / 2
    ends = [(m, f"{n}  {row[-1]:.0%}", c) for m, n, row, (_, c) in zip(middle, names, rows, colors, strict=True)]
    ax.plot(steps, np.zeros_like(steps), linewidth=0)
    finish(ax, ends, "Share of responses of each kind" + (f" (mean of {len(runs)} seeds)" if len(runs) > 1 else ""))
    save(figure, path)


def skills(runs: Sequence[Run], path: str | Path, title: str = "The skills that a search stands on") -> None:
    """Facts and verdicts right over steps, verdicts right by number of the try, and false "yes"."""
    figure, (left, middle, right) = canvas(title, panels=3, height=3.6, width=8.6)
    lines = {"eval/facts_right": ("facts", GREEN), "eval/verdicts_right": ("verdicts", BLUE)}
    tries = keys_like(runs, r"eval/verdicts_right/try_(\d+)")
    drawn = {key: curve(left, runs, key, color) for key, (_, color) in lines.items()}
    ends = [(end, f"{lines[k][0]}\n{end:.1%}", lines[k][1]) for k, end in drawn.items() if end is not None]
    low = floor_of([across(runs, key)[1] for key in (*lines, *tries.values())])
    finish(left, ends, "Facts and verdicts right", low=low)
    by_try(middle, runs, tries, low)
    end = curve(right, runs, "eval/false_yes", RED)
    need([*ends, *tries, *([] if end is None else [end])], "skills", "eval/facts_right")
    finish(right, [] if end is None else [(end, f"{end:.1%}", RED)], "“same” said wrongly", share=False)
    right.set_ylim(0, max(0.1, right.get_ylim()[1]))
    right.yaxis.set_major_formatter(left.yaxis.get_major_formatter())
    save(figure, path)


def by_try(ax: Any, runs: Sequence[Run], tries: dict[str, str], low: float) -> None:
    """Verdicts right against the number of the try, one line an evaluation, from light (before RL) to dark."""
    steps = sorted(set().union(*(across(runs, key)[0] for key in tries.values())))
    chosen = [steps[i] for i in sorted({round(f * (len(steps) - 1)) for f in (0, 0.33, 0.67, 1)})] if steps else []
    ends: Ends = []
    for rank, step in enumerate(chosen):
        values = {int(n): np.nanmean(at) for n, key in tries.items() if (at := at_step(runs, key, step)).size}
        color = ("#98a2ad", "#7cc3ec", "#3a8fc4", "#0b4f7d")[rank if len(chosen) == 4 else -1 if rank else 0]
        x = sorted(values)
        ax.plot(x, [values[n] for n in x], color=color, linewidth=2, marker="o", markersize=3.5, clip_on=False)
        ends.append((float(values[x[-1]]), f"step {step:.0f}" if step else "before RL", color))
    finish(ax, ends, "Verdicts right, by try", low=low, xlabel="number of the try")
    most = max([2, *map(int, tries)])
    ax.set_xticks(range(1, most + 1, 2))
    ax.set_xlim(1, most)


def at_step(runs: Sequence[Run], key: str, step: float) -> np.ndarray:
    """The runs' values of a key at one step, those that have one."""
    rows = [series(run, key) for run in runs]
    return np.array([row[int(step)] for row in rows if int(step) in row])


def floor_of(arrays: list[np.ndarray]) -> float:
    """A round number below every value: the lower limit of an axis that ends at 1."""
    smallest = min((float(np.nanmin(a)) for a in arrays if a.size), default=0.0)
    return max(0.0, np.floor(smallest * 10 - 0.3) / 10)


def selection(
    runs_by_rule: Mapping[str, Sequence[Run]], path: str | Path, title: str = "Which attempts to train on"
) -> None:
    """Accuracy and mean length over steps, one colour a rule, all from the same start."""
    figure, panels = canvas(title, panels=2, height=4.1)
    everything = [run for runs in runs_by_rule.values() for run in runs]
    need(across(everything, "eval/pass@1")[0], "selection", "eval/pass@1")
    colors = dict(zip(runs_by_rule, (RED, GREEN, BLUE, PURPLE, ORANGE, SKY), strict=False))
    seeds = f", {max(map(len, runs_by_rule.values()))} seeds" if len(everything) > len(runs_by_rule) else ""
    for ax, key, form, note in (
        (panels[0], "eval/pass@1", "{}\n{:.0%}", f"Accuracy (pass@1{seeds})"),
        (panels[1], "eval/response_length/mean", "{}\n{:.0f}", "Mean response length, tokens"),
    ):
        drawn = [(curve(ax, runs, key, colors[rule]), rule) for rule, runs in runs_by_rule.items()]
        ends = [(end, form.format(rule, end), colors[rule]) for end, rule in drawn if end is not None]
        finish(ax, ends, note, share=ax is panels[0])
        ax.set_ylim(bottom=0)
    save(figure, path)
