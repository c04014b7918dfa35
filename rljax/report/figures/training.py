"""Small panels of what a run logs: its training steps, and held-out measures that no other figure draws."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rljax.report.figures.drawing import (
    CYCLE,
    MUTED,
    EndLabels,
    draw_curve,
    finish_axes,
    format_ticks,
    new_figure,
    require_data,
    save_figure,
)
from rljax.report.measures import Measure, evaluation_panels, training_panels
from rljax.report.records import Run, all_keys, stack_runs

COLUMNS = 3
POINTS = 20  # a smoothed curve has about this many independent points


def draw_training(runs: Sequence[Run], path: str | Path, title: str = "Training") -> None:
    """One panel for each measure of the training batches that the runs logged: reward, entropy, KL, lengths and so on.

    Thin lines are the logged steps, thick ones their moving mean. Raises UserError where nothing is logged.
    """
    panels = {name: keep for name, of in training_panels(all_keys(runs)).items() if (keep := choose_measures(runs, of))}
    require_data(panels, "training", "train/...")
    figure, axes = new_figure(title, panels=len(panels), columns=min(COLUMNS, len(panels)), height=2.35, width=9.2)
    for ax, (name, measures) in zip(axes, panels.items(), strict=True):
        draw_training_panel(ax, runs, name, measures)
    save_figure(figure, path)


def choose_measures(runs: Sequence[Run], measures: Sequence[Measure]) -> list[Measure]:
    """The measures to draw: without those that matter only where they change, and do not change."""
    return [m for m in measures if m.always or is_changing(stack_runs(runs, m.key)[1])]


def is_changing(values: np.ndarray) -> bool:
    """Whether the values are not all the same, rounding errors apart."""
    known = values[~np.isnan(values)]
    return bool(np.ptp(known) > 1e-4 * max(1.0, abs(known[0])))


def draw_training_panel(ax: Any, runs: Sequence[Run], name: str, measures: Sequence[Measure]) -> None:
    """Draw the measures of one panel over steps: each step as a thin line, the moving mean as a thick one."""
    ends: EndLabels = []
    values = []
    for m, color in zip(measures, CYCLE * len(measures), strict=False):
        x, y = stack_runs(runs, m.key)
        for row in y:
            ax.plot(x, row, color=color, linewidth=0.7, alpha=0.35)
        mean = np.nanmean([moving_mean(row) for row in y], 0)
        ax.plot(x, mean, color=color, linewidth=1.8)
        ends.append((float(mean[-1]), label_of(m, float(mean[-1]), measures), color))
        values.append(y)
    finish_panel(ax, ends, name, measures[0], values)


def label_of(measure: Measure, value: float, beside: Sequence[Measure]) -> str:
    """The label at the end of a line: the value, and its measure where the panel has several."""
    if len(beside) == 1 and not measure.short:
        return measure.format(value)
    return f"{measure.short or measure.label}{chr(10) if len(beside) < 4 else ' '}{measure.format_short(value)}"


def finish_panel(ax: Any, ends: EndLabels, name: str, measure: Measure, values: Sequence[np.ndarray]) -> None:
    """Set the limits and names of a small panel: zero is on its axis, a share ends at 100 % where it comes near."""
    top = max(0.0, *(float(np.nanmax(v)) for v in values))
    bottom = min(0.0, *(float(np.nanmin(v)) for v in values))
    high = 1.0 if measure.is_share and 0.5 < top <= 1 else 1.12 * top or (0.01 if measure.is_share else 1.0)
    finish_axes(ax, ends, name, share=measure.is_share, low=1.12 * bottom, high=high)
    if not measure.is_share:
        format_ticks(ax.yaxis, lambda v: f"{v:.6g}")
    ax.yaxis.get_major_locator().set_params(nbins=4)
    ax.xaxis.get_major_locator().set_params(nbins=4)
    ax.set_ylabel(measure.unit, fontsize=8.5, color=MUTED)
    ax.set_xlabel("RL step", fontsize=8.5, color=MUTED)


def moving_mean(values: np.ndarray) -> np.ndarray:
    """The centred moving mean of a curve [n], over about n / ``POINTS`` values; nan is left out."""
    reach = len(values) // POINTS // 2
    known = ~np.isnan(values)
    near = [slice(max(0, i - reach), i + reach + 1) for i in range(len(values))]
    return np.array([values[s][known[s]].mean() if known[s].any() else np.nan for s in near])


def draw_other_measures(
    runs: Sequence[Run], path: str | Path, title: str = "More measures on held-out problems"
) -> None:
    """One panel for each held-out measure that no other figure draws, as the table of measures names them."""
    found = evaluation_panels(all_keys(runs))
    panels = {name: keep for name, of in found.items() if (keep := choose_measures(runs, of))}
    require_data(panels, "other_measures", "eval/...")
    figure, axes = new_figure(title, panels=len(panels), columns=min(COLUMNS, len(panels)), height=2.6, width=9.2)
    for ax, (name, measures) in zip(axes, panels.items(), strict=True):
        ends: EndLabels = []
        for m, color in zip(measures, CYCLE * len(measures), strict=False):
            if (end := draw_curve(ax, runs, m.key, color)) is not None:
                ends.append((end, label_of(m, end, measures), color))
        finish_panel(ax, ends, name, measures[0], [stack_runs(runs, m.key)[1] for m in measures])
    save_figure(figure, path)
