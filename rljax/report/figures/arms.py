"""The arms of an ablation, several seeds each: curves, last values, pass@k and heat maps. Bands: 95 % intervals over seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rljax.metrics.intervals import confidence_bands, confidence_interval
from rljax.report.figures.drawing import (
    CYCLE,
    GRID,
    INK,
    MUTED,
    finish_axes,
    format_percent,
    new_figure,
    require_data,
    save_figure,
)
from rljax.report.measures import find_measure

Curves = Mapping[str, tuple[Sequence[float], np.ndarray]]  # {arm: (steps [n], values [seeds, n])}
LastValues = Mapping[str, np.ndarray]  # {arm: values [seeds]}


def draw_arm_curves(panels: Mapping[str, Curves], path: str | Path, title: str, xlabel: str = "RL step") -> None:
    """Draw a panel for each measure and a line for each arm: the mean over seeds, its 95 % interval shaded."""
    require_data([a for curves in panels.values() for a in curves], "curves", "eval/pass@1")
    arms = list(dict.fromkeys(arm for curves in panels.values() for arm in curves))
    colors = {arm: CYCLE[i % len(CYCLE)] for i, arm in enumerate(arms)}
    dashes = {arm: ["-", (0, (5, 2)), (0, (1, 1.5))][i // len(CYCLE) % 3] for i, arm in enumerate(arms)}
    figure, axes = new_figure(title, panels=len(panels), height=4.4, width=4.6 * len(panels) + 0.8)
    for ax, (measure, curves) in zip(axes, panels.items(), strict=True):
        ends, m = [], find_measure(measure)
        for arm, (steps, values) in curves.items():
            mean, low, high = confidence_bands(values)
            ax.fill_between(steps, low, high, color=colors[arm], alpha=0.14, linewidth=0)
            ax.plot(steps, mean, color=colors[arm], linestyle=dashes[arm], linewidth=2)
            ends.append((float(mean[-1]), f"{arm}  {m.format_short(float(mean[-1]))}", colors[arm]))
        finish_axes(ax, ends, m.header, share=m.is_share, xlabel=xlabel)
    save_figure(figure, path)


def draw_arm_ends(
    panels: Mapping[str, LastValues], before: Mapping[str, Mapping[str, float]], path: str | Path, title: str
) -> None:
    """Draw the last values of each arm in a row: a dot for each seed, a diamond and a bar for their mean and 95 % interval.

    ``before`` is {measure: {arm: value before RL}}. It is a dashed line where all arms have the same value, else a ring in
    each row.
    """
    from matplotlib.ticker import MaxNLocator

    arms = list(dict.fromkeys(arm for ends in panels.values() for arm in ends))[::-1]
    require_data(arms, "ends", "eval/pass@1")
    height = 0.34 * len(arms) + 1.5
    figure, axes = new_figure(title, panels=len(panels), height=height, width=3.6 * len(panels) + 1.4)
    for ax, (measure, ends) in zip(axes, panels.items(), strict=True):
        ax.grid(axis="x", color=GRID, linewidth=0.8)
        ax.grid(axis="y", visible=False)
        start_values, m = before.get(measure, {}), find_measure(measure)
        same_start = len(set(start_values.values())) == 1
        if same_start:
            ax.axvline(next(iter(start_values.values())), color=MUTED, linewidth=1.2, linestyle=(0, (5, 4)))
        for place, arm in enumerate(arms):
            if arm not in ends:
                continue
            estimate, color = confidence_interval(ends[arm]), CYCLE[(len(arms) - 1 - place) % len(CYCLE)]
            ax.plot(
                [estimate.low, estimate.high], [place, place], color=color, linewidth=2.4
            )  # cut off at 0 and 1 for a share
            ax.plot(
                ends[arm], np.full(len(ends[arm]), place), "o", ms=4.5, mfc=color, mec="white", mew=0.7, clip_on=False
            )
            ax.plot(estimate.mean, place, "D", ms=5.5, color=color, clip_on=False)
            if arm in start_values and not same_start:
                ax.plot(start_values[arm], place, "o", ms=6.5, mfc="white", mec=color, mew=1.4, clip_on=False)
        ax.set_yticks(range(len(arms)), arms if ax is axes[0] else [""] * len(arms))
        ax.set_ylim(-0.6, len(arms) - 0.4)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        if m.is_share:
            format_percent(ax.xaxis)
        ax.set_xlim(left=0, right=1.0 if m.is_share else None)
        ax.set_title(m.header, loc="left", fontsize=9.5, color=MUTED)
    save_figure(figure, path)


def draw_arm_attempts(
    panels: Mapping[str, Mapping[str, tuple[Sequence[int], np.ndarray]]], path: str | Path, title: str
) -> None:
    """Draw pass@k and cons@k against k. ``panels`` is {estimator: {model: (k [n], values [seeds, n])}}."""
    require_data([a for lines in panels.values() for a in lines], "attempts", "eval/pass@2")
    figure, axes = new_figure(title, panels=len(panels), height=4.3, width=4.6 * len(panels) + 0.8)
    names = list(dict.fromkeys(n for lines in panels.values() for n in lines))
    for ax, (estimator, lines) in zip(axes, panels.items(), strict=True):
        ends, largest = [], 1
        for name, (k, values) in lines.items():
            mean, low, high = confidence_bands(values)
            color, x = CYCLE[names.index(name) % len(CYCLE)], np.log2(np.asarray(k, float))
            ax.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
            ax.plot(x, mean, color=color, linewidth=2, marker="o", markersize=3.5, clip_on=False)
            ends.append((float(mean[-1]), f"{name}  {mean[-1]:.0%}", color))
            largest = max(largest, int(x[-1]))
        finish_axes(ax, ends, estimator, xlabel="k, attempts at each problem")
        ax.set_xticks(range(largest + 1), [str(2**i) for i in range(largest + 1)])
        ax.set_xlim(0, largest)
    save_figure(figure, path)


def draw_arm_grid(
    panels: Mapping[str, np.ndarray], rows: Sequence[str], columns: Sequence[str], path: str | Path, title: str,
    labels: tuple[str, str],
) -> None:  # fmt: skip
    """Draw heat maps of means [rows, columns] between 0 and 1, each written in its cell. nan is an arm without runs."""
    require_data(list(panels), "grid", "eval/pass@1")
    width = (0.62 * len(columns) + 0.6) * len(panels) + 1.6
    figure, axes = new_figure(title, panels=len(panels), height=0.5 * len(rows) + 1.7, width=max(width, 6.0))
    for ax, (name, cells) in zip(axes, panels.items(), strict=True):
        ax.imshow(cells, vmin=0, vmax=1, cmap="cividis", aspect="auto")
        for (i, j), value in np.ndenumerate(cells):
            if value == value:
                ink = INK if value > 0.6 else "white"
                ax.text(j, i, f"{value:.0%}", ha="center", va="center", fontsize=9, color=ink)
        ax.grid(visible=False)
        ax.set_xticks(range(len(columns)), columns)
        ax.set_yticks(range(len(rows)), rows if ax is axes[0] else [""] * len(rows))
        ax.set_xlabel(labels[1], fontsize=9.5, color=MUTED)
        if ax is axes[0]:
            ax.set_ylabel(labels[0], fontsize=9.5, color=MUTED)
        ax.set_title(name, loc="left", fontsize=9.5, color=MUTED)
    save_figure(figure, path)
