"""Counted behaviours over RL steps: share of responses, times per response, times per 1,000 tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rljax.metrics.behaviours import REFLECTION
from rljax.report.figures.drawing import (
    CYCLE,
    INK,
    EndLabels,
    draw_curve,
    finish_axes,
    new_figure,
    require_data,
    save_figure,
)
from rljax.report.records import Run, find_keys, stack_runs

PANELS = {  # {end of the key: (title, format of the last value)}
    "": ("Share of responses", "{:.0%}"),
    "/per_response": ("Times per response", "{:.1f}"),
    "/per_1k": ("Times in 1,000 tokens", "{:.1f}"),
}
MAX_LABEL_LENGTH = 8  # characters of a name that fits beside its curve


def draw_behaviours(
    runs: Sequence[Run],
    path: str | Path,
    title: str = "Counted behaviours",
    aha: int | None = None,
    rare: float = 0.0,
) -> None:
    """Draw each counted behaviour: share of responses that show it, times per response, and times per 1,000 tokens.

    ``aha`` is the step of the first aha, marked by a thin line. Where a run has "reflection", the sum over R1's reflective
    words, "wait" is the only one of these words that is drawn. A behaviour whose share of responses is always below ``rare`` is
    left out.
    """
    keys_by_end = {end: find_keys(runs, rf"eval/behaviour/([^/]+){end}") for end in PANELS}
    names = sorted({name for keys in keys_by_end.values() for name in keys})
    if "reflection" in names:
        names = [n for n in names if n == "wait" or n not in REFLECTION]
    largest = {
        name: np.nanmax(stack_runs(runs, keys_by_end[""][name])[1]) if name in keys_by_end[""] else 1.0
        for name in names
    }
    names = [name for name in names if largest[name] >= rare]
    panels = [end for end in PANELS if keys_by_end[end]] if names else []
    require_data(panels, "behaviours", "eval/behaviour/...")
    colors = dict(zip(names, CYCLE * len(names), strict=False))
    labels_fit = max(map(len, names)) <= MAX_LABEL_LENGTH
    figure, axes = new_figure(title, panels=len(panels), height=3.8 if labels_fit else 4.6, width=9.2)
    for ax, end in zip(axes, panels, strict=True):
        note, number_format = PANELS[end]
        ends: EndLabels = []
        for name in names:
            last = draw_curve(ax, runs, keys_by_end[end][name], colors[name]) if name in keys_by_end[end] else None
            if last is not None:
                value = number_format.format(last)
                ends.append((last, f"{name}\n{value}" if labels_fit else value, colors[name]))
        top = max(largest[name] for name in names)
        finish_axes(ax, ends, note, share=not end, high=1.15 * top if not end and top < 0.5 else None)
        ax.set_ylim(bottom=0)
        if aha is not None:
            mark_step(ax, aha, f"first aha\nstep {aha}" if ax is axes[0] else "")
    if not labels_fit:
        from matplotlib.lines import Line2D

        lines = [Line2D([], [], color=colors[name], linewidth=2) for name in names]
        labels = [name.replace("_", " ") for name in names]
        figure.legend(lines, labels, loc="outside lower left", ncols=4, frameon=False, fontsize=9.5, labelcolor=INK)
    save_figure(figure, path)


def mark_step(ax: Any, step: int, text: str) -> None:
    """Draw a thin vertical line at a step, with a label at its bottom on the side that has more space."""
    left = step > sum(ax.get_xlim()) / 2
    ax.axvline(step, color=INK, linewidth=0.9, alpha=0.7, zorder=1)
    ax.annotate(
        text,
        (step, 0),
        xycoords=("data", "axes fraction"),
        xytext=(-4 if left else 4, 4),
        textcoords="offset points",
        ha="right" if left else "left",
        va="bottom",
        fontsize=8.5,
        color=INK,
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1},
    )
