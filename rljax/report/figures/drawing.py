"""What the figures share: colours, axes, labels at the ends of lines, and curves with their intervals."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rljax.errors import UserError
from rljax.report.records import Run, mean_and_half_width, read_series, stack_runs

EndLabels = list[tuple[float, str, str]]  # labels at the ends of lines: (y in data units, text, colour)

DPI = 140  # 8 inches make a picture 1120 pixels wide
INK, MUTED, GRID = "#1f2933", "#66707c", "#e6e9ed"
BLUE, RED, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#C98500", "#A8568C", "#56B4E9"  # Okabe, Ito
CYCLE = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY, INK, MUTED)
STRATEGIES = {  # {strategy: (colour of its area, colour of its label)}
    "jump": ("#cdd3da", "#727d89"),
    "steps": ("#f3d68b", "#9a7410"),
    "check": ("#9fd3f0", "#2a86bb"),
    "retry": ("#3d86bd", "#1f6499"),
}
RIGHT, WRONG = (
    ("#7fcfb4", "#00734f"),
    ("#f2b48c", "#b84a00"),
)  # (colour of a token, colour of a token of the final answer)


def require_data(drawn: Any, figure: str, key: str) -> None:
    """Raise UserError where ``drawn`` is empty. ``key`` is a key that the figure needs."""
    if not len(drawn):
        raise UserError(
            f"figure {figure}: no record of stage 'rl' has {key!r}; run that stage and its evaluations first"
        )


def new_figure(
    title: str, panels: int = 1, height: float = 4.3, width: float = 8.0, columns: int = 0
) -> tuple[Any, list[Any]]:
    """(figure, its axes), with a title at the top left and ``columns`` panels in a row (0: all).

    ``width`` is that of the figure, ``height`` that of one row of panels, both in inches.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import MaxNLocator

    columns = columns or panels
    rows = -(-panels // columns)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.075, wspace=0.03)
    figure = Figure((width, height * rows), dpi=DPI, layout=layout, facecolor="white")
    figure.suptitle(title, x=0.012, ha="left", fontsize=14, fontweight="bold", color=INK)
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(panels)]
    for ax in axes:
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.spines["bottom"].set_color("#b8bfc8")
        ax.grid(axis="y", color=GRID, linewidth=0.8)
        ax.set_axisbelow(True)
        ax.tick_params(length=0, labelsize=9.5, labelcolor=MUTED, pad=5)
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=True))
    return figure, axes


def finish_axes(
    ax: Any,
    ends: EndLabels,
    note: str,
    *,
    share: bool = True,
    low: float | None = 0.0,
    high: float | None = None,
    xlabel: str = "RL step",
) -> None:
    """Set the limits and labels of the axes, a grey ``note`` above, and the labels at the ends of lines.

    With ``share`` the y axis ends at 1 and is in percent. Labels that would overlap are moved apart.
    """
    right = max([x for line in ax.lines for x in line.get_xdata()], default=1.0)
    ax.set_xlim(0, right or 1.0)
    ax.set_ylim(low, 1.0 if share and high is None else high)
    if share:
        format_percent(ax.yaxis)
    ax.set_xlabel(xlabel, fontsize=9.5, color=MUTED)
    ax.set_title(note, loc="left", fontsize=9.5, color=MUTED)
    label_ends(ax, ends, right)


def label_ends(ax: Any, ends: EndLabels, right: float) -> None:
    """Write a label to the right of each line's end. ``right`` is the x of the ends, in data units."""
    rows = ax.get_subplotspec().get_gridspec().nrows
    height = 72 * ax.figure.get_figheight() / rows * 0.72  # approximate height of the panel, in points
    extra_lines = max((text.count("\n") for _, text, _ in ends), default=0)
    gap = 13 * (1 + extra_lines) / height
    to_axes = ax.transData + ax.transAxes.inverted()
    places = np.array([to_axes.transform((right, y))[1] for y, _, _ in ends])
    places = spread_labels(places, gap, top=1 - 9 * extra_lines / height)  # keeps labels out of the title
    position = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
    style = {"va": "center", "fontsize": 9.5, "parse_math": False}
    for y, (_, text, color) in zip(places, ends, strict=True):
        ax.annotate(text, (1, y), xytext=(7, 0), color=color, **position, **style)


def format_percent(axis: Any) -> None:
    """Write the tick labels of an axis in percent, with as many decimals as they need."""
    format_ticks(axis, lambda v: f"{100 * v:.6g}%")


def format_ticks(axis: Any, write: Callable[[float], str]) -> None:
    """Write each tick label of an axis by ``write``, without a common power of ten."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))


def spread_labels(places: np.ndarray, gap: float, top: float = 1.0) -> np.ndarray:
    """Heights in 0..``top`` close to ``places``, in the same order and at least ``gap`` apart."""
    order = np.argsort(places)
    y = places[order]
    for _ in range(200):
        push = np.maximum(gap - np.diff(y), 0) / 2
        y = np.clip(y - np.append(push, 0) + np.append(0, push), 0, top)
    return y[np.argsort(order)]


def draw_curve(
    ax: Any,
    runs: Sequence[Run],
    key: str,
    color: str,
    *,
    relative: bool = False,
    total_steps: float = 1.0,
    questions: int | None = None,
    **style: Any,
) -> float | None:
    """Draw one key over steps / ``total_steps``, with the band of its 95 % interval.

    One run has the interval over ``questions``, where its records have standard errors. Several runs have thin lines, their
    mean, and the interval over seeds. ``relative`` divides each run by its first value. Returns the last value of the line,
    None where no record has the key.
    """
    x, y = stack_runs(runs, key)
    if not x.size:
        return None
    _, se = stack_runs(runs, f"{key}/se")
    y = y / np.array([next(iter(read_series(r, key).values()), np.nan) for r in runs])[:, None] if relative else y
    x = x / total_steps
    mean, half = mean_and_half_width(y, se[0] if se.shape[-1] == x.size and not relative else None, questions)
    if len(runs) > 1:
        for row in y:
            ax.plot(x, row, color=color, linewidth=0.7, alpha=0.4)
    ax.fill_between(x, mean - half, mean + half, color=color, alpha=0.15, linewidth=0)
    marker = "o" if x.size <= 40 else ""
    ax.plot(x, mean, color=color, **{"linewidth": 2, "marker": marker, "markersize": 3.5, "clip_on": False, **style})
    return float(mean[-1])


def describe_band(runs: Sequence[Run]) -> str:
    """A description of the shaded band of ``draw_curve``."""
    if len(runs) > 1:
        return f"mean of {len(runs)} seeds; band: 95 % interval over seeds"
    return "band: 95 % interval over questions"


def save_figure(figure: Any, path: str | Path) -> None:
    """Write the PNG file, and make its folder."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():  # a response may have any character; one that the font lacks is drawn as a box
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(path, dpi=DPI)
