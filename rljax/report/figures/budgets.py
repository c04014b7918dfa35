"""Accuracy against thinking tokens, with budget forcing (s1, Muennighoff et al., 2501.19393, Figure 1)."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rljax.metrics import half_width
from rljax.report.figures.drawing import BLUE, MUTED, finish_axes, new_figure, save_figure


def draw_budgets(
    as_it_likes: Mapping[str, float],
    measured: Mapping[int, Mapping[str, float]],
    path: str | Path,
    title: str,
    questions: int | None = None,
) -> None:
    """Draw pass@1 over the mean of thinking tokens for each budget in ``measured``, with its 95 % interval over questions.

    The dashed line is pass@1 without a budget, ``as_it_likes``.
    """
    figure, (ax,) = new_figure(title)
    budgets = sorted(measured)
    of = lambda key: [measured[budget][key] for budget in budgets]
    tokens, accuracy = of("eval/budget/thinking_tokens"), of("eval/pass@1")
    widths = [np.nan_to_num(half_width(se, questions)) for se in of("eval/pass@1/se")]
    places = np.log2(np.maximum(tokens, 1))
    ax.errorbar(places, accuracy, widths, color=BLUE, linewidth=2, marker="o", markersize=4, capsize=3)
    free, length = as_it_likes["eval/pass@1"], as_it_likes["eval/response_length/mean"]
    ax.axhline(free, color=MUTED, linestyle="--", linewidth=1.2)
    ends = [(accuracy[-1], "forced", BLUE), (free, f"as it likes,\n{length:.0f} tokens", MUTED)]
    note = "pass@1 and its 95 % interval over questions; beside each point its budget"
    finish_axes(ax, ends, note, xlabel="thinking tokens, mean")
    ax.set_xlim(places.min() - 0.4, places.max() + 0.4)
    ax.set_xticks(places, [f"{x:.0f}" for x in tokens])
    for place, (x, y) in enumerate(zip(places, accuracy, strict=True)):
        ax.annotate(f"{budgets[place]}", (x, y), xytext=(5, 6), textcoords="offset points", color=BLUE, fontsize=9.5)
    save_figure(figure, path)
