"""What a run learned, in one small picture: accuracy and response length over steps, of one kind of run or of several."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rljax.report.figures.drawing import (
    CYCLE,
    EndLabels,
    describe_band,
    draw_curve,
    finish_axes,
    new_figure,
    require_data,
    save_figure,
)
from rljax.report.records import Run

PANELS = {"eval/pass@1": "pass@1 on held-out problems", "eval/response_length/mean": "tokens in a response"}


def draw_learning(
    groups: Mapping[str, Sequence[Run]], path: str | Path, title: str = "", questions: int | None = None
) -> None:
    """Draw pass@1 and the mean length of responses over steps, with 95 % intervals, for each {label: runs, one a seed}.

    A single group needs no label: "". ``questions`` is the number of held-out problems, for the interval of a single run.
    """
    figure, axes = new_figure(title, panels=2, height=3.2)
    for ax, (key, about) in zip(axes, PANELS.items(), strict=True):
        ends: EndLabels = []
        for color, (label, runs) in zip(CYCLE, groups.items(), strict=False):
            end = draw_curve(ax, runs, key, color, questions=questions)
            if end is not None:
                value = f"{end:.0%}" if key == "eval/pass@1" else f"{end:.0f}"
                ends.append((end, f"{value}\n{label}" if label else value, color))
        require_data(ends, "learning", key)
        bands = sorted({describe_band(runs) for runs in groups.values()}) if key == "eval/pass@1" else []
        finish_axes(ax, ends, "\n".join([about, *bands]), share=key == "eval/pass@1")
    save_figure(figure, path)
