"""Several models side by side: pass@1 and language consistency."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rljax.errors import UserError
from rljax.report.figures.drawing import BLUE, GRID, MUTED, RED, finish_axes, new_figure, save_figure


class Bar(NamedTuple):
    """The scores of one model, as shares from 0 to 1."""

    name: str
    pass_at_1: float
    half_width: float  # half of the 95 % interval of pass@1
    language: float  # share of words in the language of the prompt
    gap_before: bool = False


def draw_models(rows: Sequence[Bar], path: str | Path, title: str = "Every model of the recipe") -> None:
    """Draw bars of pass@1 with their 95 % intervals, and dots for the share of words in the language of the prompt.

    Raises UserError where there is no model.
    """
    if not rows:
        raise UserError("figure models: there is no model to draw; evaluate some first")
    figure, (ax,) = new_figure(title, height=4.8)
    places = [n + 0.6 * sum(r.gap_before for r in rows[: n + 1]) for n in range(len(rows))]
    ax.bar(places, [r.pass_at_1 for r in rows], color=GRID, edgecolor=BLUE, linewidth=1.2, width=0.6)
    ax.errorbar(places, [r.pass_at_1 for r in rows], [r.half_width for r in rows], fmt="none", color=MUTED, capsize=3)
    ax.plot(places, [r.language for r in rows], color=RED, linestyle="none", marker="D", markersize=5, clip_on=False)
    ends = [(rows[-1].pass_at_1, "pass@1", BLUE), (rows[-1].language, "language", RED)]
    finish_axes(
        ax, ends, "Bars: pass@1, 95 % intervals over questions. Dots: share of words in the language", xlabel=""
    )
    ax.set_xlim(-0.6, places[-1] + 0.6)
    ax.set_xticks(places, [r.name for r in rows], rotation=35, ha="right", rotation_mode="anchor")
    save_figure(figure, path)
