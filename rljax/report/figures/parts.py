"""What the figures share: records to arrays, colours, and the parts of a picture."""

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rljax import metrics
from rljax.errors import UserError

Record = Mapping[str, Any]
Run = Sequence[Record]
Sample = Mapping[str, Any]
Ends = list[tuple[float, str, str]]  # (height in data units, text, colour) of what is written beside a line's end

DPI = 140  # 8 inches make a picture 1120 pixels wide
INK, MUTED, GRID = "#1f2933", "#66707c", "#e6e9ed"
BLUE, RED, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#C98500", "#A8568C", "#56B4E9"  # Okabe, Ito
CYCLE = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY, INK, MUTED)
STRATEGIES = {  # an area, its name
    "jump": ("#cdd3da", "#727d89"),
    "steps": ("#f3d68b", "#9a7410"),
    "check": ("#9fd3f0", "#2a86bb"),
    "retry": ("#3d86bd", "#1f6499"),
}
RIGHT, WRONG = ("#7fcfb4", "#00734f"), ("#f2b48c", "#b84a00")  # a token, a token of the final answer


# From records to arrays


def series(run: Run, key: str, stage: str = "rl") -> dict[int, float]:
    """{step: value} of one key; the later of two records of one step counts, as after a resumed run."""
    rows = [r for r in run if r.get("stage") == stage and r.get(key) is not None]
    return dict(sorted({int(r["step"]): float(r[key]) for r in rows if np.isfinite(r[key])}.items()))


def across(runs: Sequence[Run], key: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps [n], values [runs, n]), NaN where a run has no value at a step."""
    rows = [series(run, key) for run in runs]
    steps = sorted(set().union(*rows)) if rows else []
    values = np.array([[row.get(s, np.nan) for s in steps] for row in rows])
    return np.array(steps, float), values.reshape(len(rows), len(steps))


def interval(values: np.ndarray, se: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(mean [n], half-width of its 95% interval [n]) of values [runs, n]; NaN where nothing is known of the spread.

    Several runs: Student's interval over runs. One run: 1.96 ``se`` [n].
    """
    count = np.sum(~np.isnan(values), 0)
    mean = np.nansum(values, 0) / np.maximum(count, 1)
    if len(values) == 1:
        return mean, np.full_like(mean, np.nan) if se is None else 1.96 * se
    from scipy.special import stdtrit

    variance = np.nansum((values - mean) ** 2, 0) / np.maximum(count - 1, 1)
    half = stdtrit(np.maximum(count - 1, 1), 0.975) * np.sqrt(variance / np.maximum(count, 1))
    return mean, np.where(count > 1, half, np.nan)


def keys_like(runs: Sequence[Run], pattern: str) -> dict[str, str]:
    """{what the pattern's group matched: key} over all RL records, in order of appearance."""
    found = {}
    for key in dict.fromkeys(k for run in runs for r in run if r.get("stage") == "rl" for k in r):
        if match := re.fullmatch(pattern, key):
            found[match[1]] = key
    return found


def vote_key(runs: Sequence[Run]) -> str:
    """The key of the majority vote with most samples."""
    return metrics.vote_key(k for run in runs for r in run if r.get("stage") == "rl" for k in r) or "eval/cons@16"


def need(drawn: Any, figure: str, key: str) -> None:
    """Raise UserError where a figure has nothing to show."""
    if not len(drawn):
        raise UserError(
            f"figure {figure}: no record of stage 'rl' has {key!r}; run that stage and its evaluations first"
        )


# Parts of a picture


def canvas(title: str, panels: int = 1, height: float = 4.3, width: float = 8.0) -> tuple[Any, list[Any]]:
    """(figure, its panels side by side), with a title at the top left."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import MaxNLocator

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.075, wspace=0.03)
    figure = Figure((width, height), dpi=DPI, layout=layout, facecolor="white")
    figure.suptitle(title, x=0.012, ha="left", fontsize=14, fontweight="bold", color=INK)
    axes = [figure.add_subplot(1, panels, i + 1) for i in range(panels)]
    for ax in axes:
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.spines["bottom"].set_color("#b8bfc8")
        ax.grid(axis="y", color=GRID, linewidth=0.8)
        ax.set_axisbelow(True)
        ax.tick_params(length=0, labelsize=9.5, labelcolor=MUTED, pad=5)
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=True))
    return figure, axes


def finish(
    ax: Any, ends: Ends, note: str, *, share: bool = True, low: float | None = 0.0, xlabel: str = "RL step"
) -> None:
    """Limits, axis names, a grey line of explanation above, and the ends' labels, pushed apart where they collide."""
    from matplotlib.ticker import PercentFormatter

    right = max([x for line in ax.lines for x in line.get_xdata()], default=1.0)
    ax.set_xlim(0, right or 1.0)
    ax.set_ylim(low, 1.0 if share else None)
    if share:
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set_xlabel(xlabel, fontsize=9.5, color=MUTED)
    ax.set_title(note, loc="left", fontsize=9.5, color=MUTED)
    height = 72 * ax.figure.get_figheight() * 0.72  # of the panel, about, in points
    gap = 13 * (1 + max((text.count("\n") for _, text, _ in ends), default=0)) / height
    to_axes = ax.transData + ax.transAxes.inverted()
    places = spread(np.array([to_axes.transform((right, y))[1] for y, _, _ in ends]), gap)
    where = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
    style = {"va": "center", "fontsize": 9.5, "parse_math": False}
    for y, (_, text, color) in zip(places, ends, strict=True):
        ax.annotate(text, (1, y), xytext=(7, 0), color=color, **where, **style)


def spread(places: np.ndarray, gap: float) -> np.ndarray:
    """Heights in 0..1 at least ``gap`` apart, in the same order and as near to ``places`` as pushing leaves them."""
    order = np.argsort(places)
    y = places[order]
    for _ in range(200):
        push = np.maximum(gap - np.diff(y), 0) / 2
        y = np.clip(y - np.append(push, 0) + np.append(0, push), 0, 1)
    return y[np.argsort(order)]


def curve(
    ax: Any, runs: Sequence[Run], key: str, color: str, *, scale: bool = False, last: float = 1.0, **style: Any
) -> float | None:
    """One key over steps / ``last``, as the module's docstring says; ``scale`` divides each run by its first value.

    Returns the height of the line's end, None where no record has the key.
    """
    x, y = across(runs, key)
    if not x.size:
        return None
    _, se = across(runs, f"{key}/se")
    y = y / np.array([next(iter(series(r, key).values()), np.nan) for r in runs])[:, None] if scale else y
    x = x / last
    mean, half = interval(y, se[0] if se.shape[-1] == x.size and not scale else None)
    if len(runs) > 1:
        for row in y:
            ax.plot(x, row, color=color, linewidth=0.7, alpha=0.4)
    ax.fill_between(x, mean - half, mean + half, color=color, alpha=0.15, linewidth=0)
    marker = "o" if x.size <= 40 else ""
    ax.plot(x, mean, color=color, **{"linewidth": 2, "marker": marker, "markersize": 3.5, "clip_on": False, **style})
    return float(mean[-1])


def band_note(runs: Sequence[Run]) -> str:
    if len(runs) > 1:
        return f"mean of {len(runs)} seeds, 95% interval"
    return "band: 1.96 standard errors over questions"


def save(figure: Any, path: str | Path) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():  # a model may say anything in any script; what the font lacks is drawn as a box
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(path, dpi=DPI)
