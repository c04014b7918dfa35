"""Curves over RL steps, as in Figures 2 and 3 of DeepSeek-R1."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rljax.errors import UserError
from rljax.report import r1_zero_curves
from rljax.report.figures.drawing import (
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
    EndLabels,
    describe_band,
    draw_curve,
    finish_axes,
    format_percent,
    format_ticks,
    new_figure,
    require_data,
    save_figure,
)  # fmt: skip
from rljax.report.measures import find_measure
from rljax.report.records import Run, find_cons_key, find_keys, mean_and_half_width, read_series, stack_runs


def draw_accuracy(
    runs: Sequence[Run], path: str | Path, title: str = "Accuracy during RL", questions: int | None = None
) -> None:
    """Draw pass@1 and cons@k over steps, as in R1's Figure 2. Dashed: pass@1 before RL."""
    figure, (ax,) = new_figure(title)
    ends = []
    for key, color in ((find_cons_key(runs), RED), ("eval/pass@1", BLUE)):
        end = draw_curve(ax, runs, key, color, questions=questions)
        if end is not None:
            ends.append((end, f"{key.removeprefix('eval/')}  {end:.0%}", color))
    require_data(ends, "accuracy", "eval/pass@1")
    x, y = stack_runs(runs, "eval/pass@1")
    if x.size and x[0] == 0:
        level = float(np.nanmean(y[:, 0]))
        ax.axhline(level, color=MUTED, linewidth=1.2, linestyle=(0, (5, 4)))
        ends.append((level, f"before RL  {level:.0%}", MUTED))
    finish_axes(ax, ends, f"Share of right answers to held-out problems ({describe_band(runs)})")
    save_figure(figure, path)


def draw_response_length(runs: Sequence[Run], path: str | Path, title: str = "Response length during RL") -> None:
    """Draw the mean response length over steps, as in R1's Figure 3. Shade: median to p95. Grey: training batches."""
    figure, (ax,) = new_figure(title)
    ends, length = [], "eval/response_length"
    x, y = stack_runs(runs, "train/response_length/mean")
    if x.size:
        ax.plot(x, mean_and_half_width(y)[0], color="#9aa5b1", linewidth=0.9, alpha=0.75)
    (low_x, low), (high_x, high) = stack_runs(runs, f"{length}/median"), stack_runs(runs, f"{length}/p95")
    if low_x.size and np.array_equal(low_x, high_x):
        top, bottom = mean_and_half_width(high)[0], mean_and_half_width(low)[0]
        ax.fill_between(low_x, bottom, top, color=SKY, alpha=0.18, linewidth=0)
        ends += [
            (float(top[-1]), f"p95  {top[-1]:.0f}", "#3f8fbd"),
            (float(bottom[-1]), f"median  {bottom[-1]:.0f}", "#3f8fbd"),
        ]
    end = draw_curve(ax, runs, f"{length}/mean", BLUE)
    if end is not None:
        ends.append((end, f"mean  {end:.0f}", BLUE))
    elif x.size:
        ends.append((mean_and_half_width(y)[0][-1], "training batches", MUTED))
    require_data(ends, "response_length", f"{length}/mean")
    grey = "; grey: training batches" if x.size and end is not None else ""
    seeds = f" ({describe_band(runs)})" if len(runs) > 1 else ""
    finish_axes(ax, ends, f"Tokens in a response to a held-out problem{seeds}{grey}", share=False)
    save_figure(figure, path)


def draw_overlay(
    runs: Sequence[Run], path: str | Path, title: str = "Beside DeepSeek-R1-Zero", questions: int | None = None
) -> None:
    """Draw accuracy, and length relative to its first value, beside R1-Zero's. The x axis is the share of training done."""
    from matplotlib.ticker import MaxNLocator

    figure, (left, right) = new_figure(title, panels=2, height=4.1)
    cons = find_cons_key(runs)
    steps = [*stack_runs(runs, "eval/pass@1")[0], *stack_runs(runs, "eval/response_length/mean")[0]]
    require_data(steps, "overlay", "eval/pass@1")
    total_steps = max(steps) or 1.0
    reference_style = {"linewidth": 1.1, "linestyle": (0, (4, 2))}

    # Accuracy
    training_share = np.array(r1_zero_curves.STEPS) / r1_zero_curves.STEPS[-1]
    ends: EndLabels = []
    curves = (
        (cons, RED, r1_zero_curves.CONS_16),
        ("eval/pass@1", BLUE, r1_zero_curves.PASS_1),
    )
    for key, color, reference in curves if cons else curves[1:]:
        name = key.removeprefix("eval/")
        left.plot(training_share, reference, color=color, alpha=0.75, **reference_style)
        ends.append((reference[-1], f"{'cons@16' if color == RED else name}, R1-Zero", color))
        if (end := draw_curve(left, runs, key, color, total_steps=total_steps, questions=questions)) is not None:
            ends.append((end, f"{name}, ours", color))
    finish_axes(left, ends, "Accuracy (dashed: R1-Zero, AIME 2024)", xlabel="share of training")

    # Length
    length = np.array(r1_zero_curves.LENGTH) / r1_zero_curves.LENGTH[0]
    right.plot(
        np.array(r1_zero_curves.LENGTH_STEPS) / r1_zero_curves.LENGTH_STEPS[-1],
        length,
        color=INK,
        alpha=0.75,
        **reference_style,
    )
    ends = [(length[-1], f"R1-Zero  {length[-1]:.1f}×", INK)]
    if (
        end := draw_curve(right, runs, "eval/response_length/mean", GREEN, relative=True, total_steps=total_steps)
    ) is not None:
        ends.append((end, f"ours  {end:.1f}×", GREEN))
    right.set_yscale("log", base=2)
    finish_axes(
        right,
        ends,
        "Mean response length, times its first value (log)",
        share=False,
        low=None,
        xlabel="share of training",
    )
    format_ticks(right.yaxis, lambda v: f"{v:g}×")
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(5))
        format_percent(ax.xaxis)
    save_figure(figure, path)


def draw_strategies(runs: Sequence[Run], path: str | Path, title: str = "What the attempts do") -> None:
    """Draw the shares of the strategies that occurred, stacked, over steps, averaged over runs."""
    figure, (ax,) = new_figure(title)
    keys = find_keys(runs, r"eval/strategy/(\w+)")
    keys = {n: key for n, key in keys.items() if np.nanmax(stack_runs(runs, key)[1], initial=0.0) > 0}
    names = [n for n in STRATEGIES if n in keys] + [n for n in keys if n not in STRATEGIES]
    require_data(names, "strategies", "eval/strategy/...")
    steps = stack_runs(runs, keys[names[0]])[0]
    rows = [mean_and_half_width(stack_runs(runs, keys[n])[1])[0] for n in names]
    if any(len(row) != len(steps) for row in rows):
        raise UserError(f"figure strategies: some evaluations lack some of the strategies {names}; evaluate them again")
    colors = [STRATEGIES.get(n, (c, c)) for n, c in zip(names, CYCLE * len(names), strict=False)]
    ax.stackplot(steps, rows, colors=[area for area, _ in colors], edgecolor="white", linewidth=0.8)
    ax.set_axisbelow(False)
    edges = np.cumsum([0.0, *(row[-1] for row in rows)])
    middle = (edges[1:] + edges[:-1]) / 2
    ends = [(m, f"{n}  {row[-1]:.0%}", c) for m, n, row, (_, c) in zip(middle, names, rows, colors, strict=True)]
    ax.plot(steps, np.zeros_like(steps), linewidth=0)
    finish_axes(
        ax, ends, "Share of responses of each kind" + (f" (mean of {len(runs)} seeds)" if len(runs) > 1 else "")
    )
    save_figure(figure, path)


def draw_skills(runs: Sequence[Run], path: str | Path, title: str = "The skills that a search needs") -> None:
    """Draw right calculations and verdicts over steps, right verdicts by number of the try, and wrong "yes" verdicts.

    A panel without data is left out.
    """
    lines = {"eval/facts_right": ("calculations", GREEN), "eval/verdicts_right": ("verdicts", BLUE)}
    lines = {key: line for key, line in lines.items() if stack_runs(runs, key)[0].size}
    tries = find_keys(runs, r"eval/verdicts_right/try_(\d+)")
    x, wrong = stack_runs(runs, "eval/false_yes")
    panels = [name for name, data in (("right", lines), ("tries", tries), ("wrong", x)) if len(data)]
    require_data(panels, "skills", "eval/facts_right")
    figure, axes = new_figure(title, panels=len(panels), height=3.6, width=(8.0, 8.0, 8.6)[len(panels) - 1])
    low = lower_axis_limit([stack_runs(runs, key)[1] for key in (*lines, *tries.values())])
    for ax, panel in zip(axes, panels, strict=True):
        if panel == "right":
            drawn = {key: draw_curve(ax, runs, key, color) for key, (_, color) in lines.items()}
            ends = [(end, f"{lines[k][0]}\n{end:.1%}", lines[k][1]) for k, end in drawn.items() if end is not None]
            finish_axes(ax, ends, "Share right", low=low)
        elif panel == "tries":
            draw_verdicts_by_try(ax, runs, tries, low)
        else:
            end = draw_curve(ax, runs, "eval/false_yes", RED) or 0.0
            high = max(0.02, 1.2 * float(np.nanmax(wrong)))
            finish_axes(ax, [(end, f"{end:.1%}", RED)], "Wrong “yes” verdicts", high=high)
            ax.yaxis.get_major_locator().set_params(nbins=5)
    save_figure(figure, path)


def draw_verdicts_by_try(ax: Any, runs: Sequence[Run], tries: dict[str, str], low: float) -> None:
    """Draw right verdicts over the number of the try, one line for each of four evaluations, from light (first) to dark."""
    steps = sorted(set().union(*(stack_runs(runs, key)[0] for key in tries.values())))
    chosen = [steps[i] for i in sorted({round(f * (len(steps) - 1)) for f in (0, 0.33, 0.67, 1)})] if steps else []
    ends: EndLabels = []
    for rank, step in enumerate(chosen):
        values = {int(n): np.nanmean(v) for n, key in tries.items() if (v := values_at_step(runs, key, step)).size}
        color = ("#98a2ad", "#7cc3ec", "#3a8fc4", "#0b4f7d")[rank if len(chosen) == 4 else -1 if rank else 0]
        x = sorted(values)
        ax.plot(x, [values[n] for n in x], color=color, linewidth=2, marker="o", markersize=3.5, clip_on=False)
        ends.append((float(values[x[-1]]), f"step {step:.0f}" if step else "before RL", color))
    finish_axes(ax, ends, "Verdicts right, by try", low=low, xlabel="number of the try")
    max_try = max([2, *map(int, tries)])
    ax.set_xticks(range(1, max_try + 1, 2))
    ax.set_xlim(1, max_try)


def values_at_step(runs: Sequence[Run], key: str, step: float) -> np.ndarray:
    """The values of a key at one step, of the runs that have one."""
    rows = [read_series(run, key) for run in runs]
    return np.array([row[int(step)] for row in rows if int(step) in row])


def lower_axis_limit(arrays: list[np.ndarray]) -> float:
    """A round number below every value: the lower limit of an axis that ends at 1."""
    smallest = min((float(np.nanmin(a)) for a in arrays if a.size), default=0.0)
    return max(0.0, np.floor(smallest * 10 - 0.3) / 10)


def draw_selection(
    runs_by_rule: Mapping[str, Sequence[Run]],
    path: str | Path,
    title: str = "Which attempts to train on",
    questions: int | None = None,
) -> None:
    """Draw accuracy and mean length over steps, one colour for each selection rule."""
    from matplotlib.lines import Line2D

    figure, panels = new_figure(title, panels=2, height=4.3)
    all_runs = [run for runs in runs_by_rule.values() for run in runs]
    require_data(stack_runs(all_runs, "eval/pass@1")[0], "selection", "eval/pass@1")
    colors = dict(zip(runs_by_rule, (RED, GREEN, BLUE, PURPLE, ORANGE, SKY), strict=False))
    seeds = f", {max(map(len, runs_by_rule.values()))} seeds" if len(all_runs) > len(runs_by_rule) else ""
    for ax, name, note in (
        (panels[0], "pass@1", f"pass@1{seeds}"),
        (panels[1], "length", "Mean response length, tokens"),
    ):
        m = find_measure(name)
        drawn = {
            rule: draw_curve(ax, runs, m.key, colors[rule], questions=questions) for rule, runs in runs_by_rule.items()
        }
        ends = [(end, m.format_short(end), colors[rule]) for rule, end in drawn.items() if end is not None]
        finish_axes(ax, ends, note, share=m.is_share)
    lines = [Line2D([], [], color=color, linewidth=2) for color in colors.values()]
    style = {"frameon": False, "fontsize": 9.5, "labelcolor": INK}
    figure.legend(lines, list(colors), loc="outside lower left", ncols=3, **style)
    save_figure(figure, path)
