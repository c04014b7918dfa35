"""A run's records and samples -> PNG files, in the manner of DeepSeek-R1-Zero's Figures 2 and 3 and of the lecture.

Every function is pure but for the file it writes. ``runs`` is a list of runs, one a seed; a run is the list of its
``metrics.jsonl`` records. One run is drawn with a band of 1.96 standard errors over questions where its records have
them; several as thin lines, their mean, and a 95% Student interval over seeds. A key that no record has is left out; a
figure that would be empty raises UserError. matplotlib is imported when something is drawn, not with this module.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rljax import r1_zero
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
    return dict(sorted((int(r["step"]), float(r[key])) for r in rows if np.isfinite(r[key])))


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
    found = keys_like(runs, r"eval/cons@(\d+)")
    return found[max(found, key=int)] if found else "eval/cons@16"


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
    figure.savefig(path, dpi=DPI)


# Curves


def accuracy(runs: Sequence[Run], path: str | Path, title: str = "Accuracy during RL") -> None:
    """R1-Zero's Figure 2: pass@1 and cons@k over steps, with the level before RL dashed."""
    figure, (ax,) = canvas(title)
    ends = []
    for key, color in ((vote_key(runs), RED), ("eval/pass@1", BLUE)):
        end = curve(ax, runs, key, color)
        if end is not None:
            ends.append((end, f"{key.removeprefix('eval/')}  {end:.0%}", color))
    need(ends, "accuracy", "eval/pass@1")
    x, y = across(runs, "eval/pass@1")
    if x.size and x[0] == 0:
        level = float(np.nanmean(y[:, 0]))
        ax.axhline(level, color=MUTED, linewidth=1.2, linestyle=(0, (5, 4)))
        ends.append((level, f"before RL  {level:.0%}", MUTED))
    finish(ax, ends, f"Share of held-out problems answered rightly ({band_note(runs)})")
    save(figure, path)


def response_length(runs: Sequence[Run], path: str | Path, title: str = "Response length during RL") -> None:
    """R1-Zero's Figure 3: mean length with median..p95 shaded; the training batches' mean lightly behind."""
    figure, (ax,) = canvas(title)
    ends, length = [], "eval/response_length"
    x, y = across(runs, "train/response_length/mean")
    if x.size:
        ax.plot(x, interval(y)[0], color="#9aa5b1", linewidth=0.9, alpha=0.75)
    (low_x, low), (high_x, high) = across(runs, f"{length}/median"), across(runs, f"{length}/p95")
    if low_x.size and np.array_equal(low_x, high_x):
        top, bottom = interval(high)[0], interval(low)[0]
        ax.fill_between(low_x, bottom, top, color=SKY, alpha=0.18, linewidth=0)
        ends += [
            (float(top[-1]), f"p95  {top[-1]:.0f}", "#3f8fbd"),
            (float(bottom[-1]), f"median  {bottom[-1]:.0f}", "#3f8fbd"),
        ]
    end = curve(ax, runs, f"{length}/mean", BLUE)
    if end is not None:
        ends.append((end, f"mean  {end:.0f}", BLUE))
    elif x.size:
        ends.append((interval(y)[0][-1], "training batches", MUTED))
    need(ends, "response_length", f"{length}/mean")
    grey = "; grey: training batches" if x.size and end is not None else ""
    seeds = f" ({band_note(runs)})" if len(runs) > 1 else ""
    finish(ax, ends, f"Tokens in a response to a held-out problem{seeds}{grey}", share=False)
    save(figure, path)


def overlay(runs: Sequence[Run], path: str | Path, title: str = "Beside DeepSeek-R1-Zero") -> None:
    """Accuracy as it is, and length over its first value, against R1-Zero's; x is the share of training done."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

    figure, (left, right) = canvas(title, panels=2, height=4.1)
    cons = vote_key(runs)
    steps = [*across(runs, "eval/pass@1")[0], *across(runs, "eval/response_length/mean")[0]]
    need(steps, "overlay", "eval/pass@1")
    last = max(steps) or 1.0
    theirs = {"linewidth": 1.1, "linestyle": (0, (4, 2))}
    part = np.array(r1_zero.STEPS) / r1_zero.STEPS[-1]
    ends: Ends = []
    for key, color, reference in ((cons, RED, r1_zero.CONS_16), ("eval/pass@1", BLUE, r1_zero.PASS_1)):
        name = key.removeprefix("eval/")
        left.plot(part, reference, color=color, alpha=0.75, **theirs)
        ends.append((reference[-1], f"{'cons@16' if color == RED else name}, R1-Zero", color))
        if (end := curve(left, runs, key, color, last=last)) is not None:
            ends.append((end, f"{name}, ours", color))
    finish(left, ends, "Accuracy (solid: ours, dashed: R1-Zero on AIME 2024)", xlabel="share of training")
    length = np.array(r1_zero.LENGTH) / r1_zero.LENGTH[0]
    right.plot(np.array(r1_zero.LENGTH_STEPS) / r1_zero.LENGTH_STEPS[-1], length, color=INK, alpha=0.75, **theirs)
    ends = [(length[-1], f"R1-Zero  {length[-1]:.1f}×", INK)]
    if (end := curve(right, runs, "eval/response_length/mean", GREEN, scale=True, last=last)) is not None:
        ends.append((end, f"ours  {end:.1f}×", GREEN))
    right.set_yscale("log", base=2)
    finish(
        right,
        ends,
        "Mean response length, times its first value (log)",
        share=False,
        low=None,
        xlabel="share of training",
    )
    right.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}×"))
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    save(figure, path)


def strategies(runs: Sequence[Run], path: str | Path, title: str = "What the attempts do") -> None:
    """Stacked shares of the strategies over steps, averaged over runs."""
    figure, (ax,) = canvas(title)
    found = keys_like(runs, r"eval/strategy/(\w+)")
    names = [n for n in STRATEGIES if n in found] + [n for n in found if n not in STRATEGIES]
    need(names, "strategies", "eval/strategy/...")
    steps = across(runs, found[names[0]])[0]
    rows = [interval(across(runs, found[n])[1])[0] for n in names]
    if any(len(row) != len(steps) for row in rows):
        raise UserError(f"figure strategies: the evaluations disagree about which strategies there are: {names}")
    colors = [STRATEGIES.get(n, (c, c)) for n, c in zip(names, CYCLE * len(names), strict=False)]
    ax.stackplot(steps, rows, colors=[area for area, _ in colors], edgecolor="white", linewidth=0.8)
    ax.set_axisbelow(False)
    edges = np.cumsum([0.0, *(row[-1] for row in rows)])
    middle = (edges[1:] + edges[:-1]) / 2
    ends = [(m, f"{n}  {row[-1]:.0%}", c) for m, n, row, (_, c) in zip(middle, names, rows, colors, strict=True)]
    ax.plot(steps, np.zeros_like(steps), linewidth=0)
    finish(ax, ends, "Share of responses of each kind" + (f" (mean of {len(runs)} seeds)" if len(runs) > 1 else ""))
    save(figure, path)


def behaviours(runs: Sequence[Run], path: str | Path, title: str = "Words that tell a strategy") -> None:
    """Each counted word: share of responses that contain it, and how often it comes in 1,000 tokens."""
    figure, (left, right) = canvas(title, panels=2, height=4.1)
    found = keys_like(runs, r"eval/behaviour/([^/]+)")
    rates = keys_like(runs, r"eval/behaviour/([^/]+)/per_1k")
    need([*found, *rates], "behaviours", "eval/behaviour/...")
    colors = dict(zip(sorted({*found, *rates}), CYCLE * (len(found) + len(rates)), strict=False))
    for ax, keys, form, note in (
        (left, found, "{}  {:.0%}", "Share of responses with the word"),
        (right, rates, "{}  {:.1f}", "Times in 1,000 tokens"),
    ):
        drawn = [(curve(ax, runs, key, colors[name]), name) for name, key in keys.items()]
        ends = [(end, form.format(name, end), colors[name]) for end, name in drawn if end is not None]
        finish(ax, ends, note, share=ax is left)
        ax.set_ylim(bottom=0)
    save(figure, path)


def skills(runs: Sequence[Run], path: str | Path, title: str = "The skills that a search stands on") -> None:
    """Facts and verdicts right over steps, verdicts right by number of the try, and false "yes"."""
    figure, (left, middle, right) = canvas(title, panels=3, height=3.6, width=8.6)
    lines = {"eval/facts_right": ("facts", GREEN), "eval/verdicts_right": ("verdicts", BLUE)}
    tries = keys_like(runs, r"eval/verdicts_right/try_(\d+)")
    drawn = {key: curve(left, runs, key, color) for key, (_, color) in lines.items()}
    ends = [(end, f"{lines[k][0]}\n{end:.1%}", lines[k][1]) for k, end in drawn.items() if end is not None]
    low = floor_of([across(runs, key)[1] for key in (*lines, *tries.values())])
    finish(left, ends, "Facts and verdicts right", low=low)
    by_try(middle, runs, tries, low)
    end = curve(right, runs, "eval/false_yes", RED)
    need([*ends, *tries, *([] if end is None else [end])], "skills", "eval/facts_right")
    finish(right, [] if end is None else [(end, f"{end:.1%}", RED)], "“same” said wrongly", share=False)
    right.set_ylim(0, max(0.1, right.get_ylim()[1]))
    right.yaxis.set_major_formatter(left.yaxis.get_major_formatter())
    save(figure, path)


def by_try(ax: Any, runs: Sequence[Run], tries: dict[str, str], low: float) -> None:
    """Verdicts right against the number of the try, one line an evaluation, from light (before RL) to dark."""
    steps = sorted(set().union(*(across(runs, key)[0] for key in tries.values())))
    chosen = [steps[i] for i in sorted({round(f * (len(steps) - 1)) for f in (0, 0.33, 0.67, 1)})] if steps else []
    ends: Ends = []
    for rank, step in enumerate(chosen):
        values = {int(n): np.nanmean(at) for n, key in tries.items() if (at := at_step(runs, key, step)).size}
        color = ("#98a2ad", "#7cc3ec", "#3a8fc4", "#0b4f7d")[rank if len(chosen) == 4 else -1 if rank else 0]
        x = sorted(values)
        ax.plot(x, [values[n] for n in x], color=color, linewidth=2, marker="o", markersize=3.5, clip_on=False)
        ends.append((float(values[x[-1]]), f"step {step:.0f}" if step else "before RL", color))
    finish(ax, ends, "Verdicts right, by try", low=low, xlabel="number of the try")
    most = max([2, *map(int, tries)])
    ax.set_xticks(range(1, most + 1, 2))
    ax.set_xlim(1, most)


def at_step(runs: Sequence[Run], key: str, step: float) -> np.ndarray:
    """The runs' values of a key at one step, those that have one."""
    rows = [series(run, key) for run in runs]
    return np.array([row[int(step)] for row in rows if int(step) in row])


def floor_of(arrays: list[np.ndarray]) -> float:
    """A round number below every value: the lower limit of an axis that ends at 1."""
    smallest = min((float(np.nanmin(a)) for a in arrays if a.size), default=0.0)
    return max(0.0, np.floor(smallest * 10 - 0.3) / 10)


def selection(
    runs_by_rule: Mapping[str, Sequence[Run]], path: str | Path, title: str = "Which attempts to train on"
) -> None:
    """Accuracy and mean length over steps, one colour a rule, all from the same start."""
    figure, panels = canvas(title, panels=2, height=4.1)
    everything = [run for runs in runs_by_rule.values() for run in runs]
    need(across(everything, "eval/pass@1")[0], "selection", "eval/pass@1")
    colors = dict(zip(runs_by_rule, (RED, GREEN, BLUE, PURPLE, ORANGE, SKY), strict=False))
    seeds = f", {max(map(len, runs_by_rule.values()))} seeds" if len(everything) > len(runs_by_rule) else ""
    for ax, key, form, note in (
        (panels[0], "eval/pass@1", "{}\n{:.0%}", f"Accuracy (pass@1{seeds})"),
        (panels[1], "eval/response_length/mean", "{}\n{:.0f}", "Mean response length, tokens"),
    ):
        drawn = [(curve(ax, runs, key, colors[rule]), rule) for rule, runs in runs_by_rule.items()]
        ends = [(end, form.format(rule, end), colors[rule]) for end, rule in drawn if end is not None]
        finish(ax, ends, note, share=ax is panels[0])
        ax.set_ylim(bottom=0)
    save(figure, path)


# Attempts


def attempts(before: Sequence[Sample], after: Sequence[Sample], path: str | Path, count: int = 15) -> None:
    """One prompt's attempts as the lecture draws them: before RL on the left, after it on the right.

    A cell is a token, on the same scale left and right; green attempts are right, orange ones wrong, and the cells of
    the final answer darker. Raises UserError without attempts on both sides.
    """
    from matplotlib.figure import Figure

    if not before or not after:
        raise UserError("figure attempts: there is no sample before RL or none after it; evaluate both first")
    columns = [list(before)[:count], list(after)[:count]]
    longest = [max(len(pieces(s)) for s in column) for column in columns]
    width, height = 1200, 150 + 40 * max(map(len, columns))
    room = width - 2 * 28 - 36  # pixels: margins and gutter
    share = min(max(longest[0] / sum(longest), 0.28), 0.72)
    cell = min((room * share - 24) / longest[0], (room * (1 - share) - 24) / longest[1], 20)
    figure = Figure((width / DPI, height / DPI), dpi=DPI, facecolor="white")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.axis("off")
    write = {"va": "center", "color": INK, "parse_math": False}
    prompt, size = tidy(before[0]["prompt"]), 12.5
    if len(prompt) > 75:
        prompt, size = shorten(prompt, 105), 9
    ax.text(28, 36, prompt, fontsize=size, family="monospace", fontweight="bold", **write)
    for name, x, span, column in (
        ("before RL", 28, room * share, columns[0]),
        ("after RL", 28 + room * share + 36, room * (1 - share), columns[1]),
    ):
        right = sum(s["reward"] > 0.5 for s in column)
        tokens = np.mean([len(pieces(s)) for s in column])
        ax.text(x, 84, name, fontsize=10.5, fontweight="bold", **write)
        ax.text(
            x,
            106,
            f"{right} of {len(column)} right, {tokens:.0f} tokens on average",
            fontsize=8.5,
            va="center",
            color=MUTED,
        )
        for row, sample in enumerate(column):
            strip(ax, sample, x, 142 + 40 * row, cell, span)
    save(figure, path)


def strip(ax: Any, sample: Mapping[str, Any], x: float, y: float, cell: float, span: float) -> None:
    """One attempt at pixel (x, y): a tick or a cross, its text, and below it a cell a token."""
    right = sample["reward"] > 0.5
    tokens = pieces(sample)
    pale, dark = RIGHT if right else WRONG
    words = [t.strip() for t in tokens]
    start = len(words) - words[::-1].index("answer") - 1 if "answer" in words else len(words) - 1
    colors = [pale] * start + [dark] * (len(words) - start)
    ax.text(x + 6, y, "✓" if right else "✗", fontsize=8.5, color=dark, va="center", ha="center", fontweight="bold")
    text = shorten(tidy(sample["response"]), int((span - 24) / 6.85))  # pixels a character
    ax.text(x + 20, y - 8, text, fontsize=5.8, family="monospace", color=INK, va="center", parse_math=False)
    gap = 1.2 if cell > 4 else 0.0
    ax.broken_barh([(x + 20 + i * cell, cell - gap) for i in range(len(words))], (y + 1, 12), facecolors=colors)


def pieces(sample: Mapping[str, Any]) -> list[str]:
    """The text of each token; words where a sample has none."""
    return list(sample.get("pieces") or sample["response"].split() or [""])


def tidy(text: str) -> str:
    """On one line, without the marks of the beginning and the end."""
    return " ".join(text.split()).removeprefix("<bos> ").removesuffix("<eos>").rstrip()


def shorten(text: str, width: int) -> str:
    """At most ``width`` characters: the middle gives way to an ellipsis, so that the answer at the end stays."""
    if len(text) <= width:
        return text
    head, tail = text[: width - width // 3 - 2], text[len(text) - width // 3 :]
    return f"{head.rpartition(' ')[0] or head} … {tail.partition(' ')[2] or tail}"
