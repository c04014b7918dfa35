"""One evaluation of one policy: pass@k and cons@k, and pass@1 by level or data set."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rljax.errors import UserError
from rljax.metrics import half_width
from rljax.report.figures.drawing import BLUE, GRID, MUTED, RED, finish_axes, new_figure, save_figure


def draw_evaluation(
    metrics: Mapping[str, float], path: str | Path, title: str = "Held-out problems", questions: int | None = None
) -> None:
    """Draw pass@k and cons@k over k, and beside them pass@1 by level (or by data set) with its 95 % interval over questions.

    ``metrics`` are those of ``rljax.evaluation``, ``questions`` is their number. Raises UserError where there is no pass@1.
    """
    if "eval/pass@1" not in metrics:
        raise UserError("figure evaluation: there is no eval/pass@1; run the evaluation first")
    field = "level" if group_scores(metrics, "level") else "dataset"
    rows = group_scores(metrics, field)
    figure, panels = new_figure(title, panels=2 if rows else 1, height=4.1)
    ax = panels[0]
    pass_at = {int(match[1]): v for k, v in metrics.items() if (match := re.fullmatch(r"eval/pass@([0-9]+)", k))}
    k = sorted(pass_at)
    ax.plot(range(len(k)), [pass_at[x] for x in k], color=BLUE, linewidth=2.2, marker="o", markersize=4)
    ax.errorbar(
        [0],
        [pass_at[1]],
        np.nan_to_num(half_width(metrics.get("eval/pass@1/se", 0.0), questions)),
        color=BLUE,
        capsize=3,
    )
    ends = [(pass_at[k[-1]], f"pass@{k[-1]}  {pass_at[k[-1]]:.0%}", BLUE)]
    cons_at = {int(match[1]): v for k, v in metrics.items() if (match := re.fullmatch(r"eval/cons@([0-9]+)", k))}
    if cons_at:
        cons_at = {1: pass_at[1]} | cons_at  # the vote of one attempt is its answer
        largest_k = max(cons_at)
        ax.plot(
            np.log2(sorted(cons_at)),
            [cons_at[x] for x in sorted(cons_at)],
            color=RED,
            linewidth=1.6,
            marker="o",
            markersize=3,
        )
        ends.append((cons_at[largest_k], f"cons@{largest_k}  {cons_at[largest_k]:.0%}", RED))
    finish_axes(ax, ends, "Share solved by the best of k attempts, and by their vote", xlabel="k")
    ax.set_xlim(-0.2, max(len(k) - 1, np.log2(max(cons_at, default=1)), 0.8))
    ax.set_xticks(range(len(k)), [str(x) for x in k])
    if rows:
        draw_group_scores(panels[1], rows, field)
    save_figure(figure, path)


def group_scores(metrics: Mapping[str, float], field: str) -> list[tuple[str, float, float, int]]:
    """(value of the field, pass@1, its standard error, number of questions) of each level or data set."""
    names = [match[1] for k in metrics if (match := re.fullmatch(rf"eval/{field}/(.+)/pass@1", k))]
    metric = lambda name, key: metrics.get(f"eval/{field}/{name}/{key}", float("nan"))
    return [(name, metric(name, "pass@1"), metric(name, "pass@1/se"), int(metric(name, "questions"))) for name in names]


def draw_group_scores(ax: Any, rows: list[tuple[str, float, float, int]], field: str) -> None:
    """Draw a bar for each of ``group_scores``, with its 95 % interval."""
    places = range(len(rows))
    ax.bar(places, [r[1] for r in rows], color=GRID, edgecolor=BLUE, linewidth=1.2, width=0.6)
    ax.errorbar(
        places,
        [r[1] for r in rows],
        [np.nan_to_num(half_width(r[2], r[3])) for r in rows],
        fmt="none",
        color=MUTED,
        capsize=3,
    )
    finish_axes(ax, [], f"pass@1 by {field}, 95 % intervals over questions", xlabel="")
    ax.set_xlim(-0.6, len(rows) - 0.4)
    ax.set_xticks(places, [f"{name}\nn={count}" for name, _, _, count in rows])
