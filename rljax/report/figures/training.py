"""Small panels: the training log, and held-out measures that no other figure draws."""

from collections.abc import Mapping, Sequence
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
SMOOTHED_POINTS = 20  # independent points of a moving mean, about


def draw_training(runs: Sequence[Run], path: str | Path, title: str = "Training") -> None:
    """Draw a panel for each measure of the training batches that the runs logged: reward, entropy, KL, lengths and so on.

    Thin lines are the logged steps, thick ones their moving mean. Raises UserError where nothing is logged.
    """
    panels = drawable_panels(runs, training_panels(all_keys(runs)))
    require_data(panels, "training", "train/...")
    figure, axes = new_figure(title, panels=len(panels), columns=min(COLUMNS, len(panels)), height=2.35, width=9.2)
    for ax, (name, measures) in zip(axes, panels.items(), strict=True):
        draw_training_panel(ax, runs, name, measures)
    save_figure(figure, path)


def drawable_panels(runs: Sequence[Run], panels: Mapping[str, Sequence[Measure]]) -> dict[str, list[Measure]]:
    """The panels with the measures that ``choose_measures`` keeps, without those that become empty."""
    chosen = {name: choose_measures(runs, measures) for name, measures in panels.items()}
    return {name: measures for name, measures in chosen.items() if measures}


def choose_measures(runs: Sequence[Run], measures: Sequence[Measure]) -> list[Measure]:
    """The measures without those that do not change and have no ``show_constant``."""
    return [m for m in measures if m.show_constant or is_changing(stack_runs(runs, m.key)[1])]


def is_changing(values: np.ndarray) -> bool:
    """Whether the values differ by more than rounding errors."""
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
        ends.append((float(mean[-1]), end_label(m, float(mean[-1]), measures), color))
        values.append(y)
    finish_panel(ax, ends, name, measures[0], values)


def end_label(measure: Measure, value: float, panel: Sequence[Measure]) -> str:
    """The label at the end of a line: the value, with the measure's name where the panel has several."""
    if len(panel) == 1 and not measure.short_label:
        return measure.format(value)
    return f"{measure.short_label or measure.label}{chr(10) if len(panel) < 4 else ' '}{measure.format_short(value)}"


def finish_panel(ax: Any, ends: EndLabels, name: str, measure: Measure, values: Sequence[np.ndarray]) -> None:
    """Set the limits and labels of a small panel. Its y axis includes 0, and that of a share above 50 % ends at 100 %."""
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
    """The centred moving mean of a curve [n], over about n / ``SMOOTHED_POINTS`` values; nan is left out."""
    radius = len(values) // SMOOTHED_POINTS // 2
    known = ~np.isnan(values)
    windows = [slice(max(0, i - radius), i + radius + 1) for i in range(len(values))]
    return np.array([values[s][known[s]].mean() if known[s].any() else np.nan for s in windows])


def draw_other_measures(
    runs: Sequence[Run], path: str | Path, title: str = "More measures on held-out problems"
) -> None:
    """Draw a panel for each held-out measure that no other figure draws."""
    panels = drawable_panels(runs, evaluation_panels(all_keys(runs)))
    require_data(panels, "other_measures", "eval/...")
    figure, axes = new_figure(title, panels=len(panels), columns=min(COLUMNS, len(panels)), height=2.6, width=9.2)
    for ax, (name, measures) in zip(axes, panels.items(), strict=True):
        ends: EndLabels = []
        for m, color in zip(measures, CYCLE * len(measures), strict=False):
            if (end := draw_curve(ax, runs, m.key, color)) is not None:
                ends.append((end, end_label(m, end, measures), color))
        finish_panel(ax, ends, name, measures[0], [stack_runs(runs, m.key)[1] for m in measures])
    save_figure(figure, path)
