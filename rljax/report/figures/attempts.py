"""The attempts at one prompt, before and after RL, side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rljax.errors import UserError
from rljax.report.attempts import split_examples
from rljax.report.figures.drawing import DPI, INK, MUTED, RIGHT, WRONG, save_figure
from rljax.report.records import Sample


def draw_attempts(before: Sequence[Sample], after: Sequence[Sample], path: str | Path, count: int = 15) -> None:
    """Draw the attempts at one prompt: before RL on the left, after RL on the right.

    Each cell is a token, of the same size on both sides. Right attempts are green, wrong ones orange. Cells of the final
    answer are darker. Raises UserError unless both sides have attempts.
    """
    from matplotlib.figure import Figure

    if not before or not after:
        raise UserError("figure attempts: samples before or after RL are missing; evaluate both first")
    columns = [list(before)[:count], list(after)[:count]]
    longest = [max(len(token_texts(s)) for s in column) for column in columns]
    width, height = 1200, 150 + 40 * max(map(len, columns))
    available = width - 2 * 28 - 36  # pixels: margins and gutter
    share = min(max(longest[0] / sum(longest), 0.28), 0.72)
    cell = min((available * share - 24) / longest[0], (available * (1 - share) - 24) / longest[1], 20)
    figure = Figure((width / DPI, height / DPI), dpi=DPI, facecolor="white")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.axis("off")
    text_style = {"va": "center", "color": INK, "parse_math": False}
    prompt, size = clean_text(split_examples(before[0]["prompt"])[1]), 12.5
    if len(prompt) > 75:
        prompt, size = shorten(prompt, 105), 9
    ax.text(28, 36, prompt, fontsize=size, family="monospace", fontweight="bold", **text_style)
    for name, x, span, column in (
        ("before RL", 28, available * share, columns[0]),
        ("after RL", 28 + available * share + 36, available * (1 - share), columns[1]),
    ):
        right = sum(s["reward"] > 0.5 for s in column)
        tokens = np.mean([len(token_texts(s)) for s in column])
        ax.text(x, 84, name, fontsize=10.5, fontweight="bold", **text_style)
        ax.text(
            x,
            106,
            f"{right} of {len(column)} right, {tokens:.0f} tokens on average",
            fontsize=8.5,
            va="center",
            color=MUTED,
        )
        for row, sample in enumerate(column):
            draw_attempt(ax, sample, x, 142 + 40 * row, cell, span)
    save_figure(figure, path)


def draw_attempt(ax: Any, sample: Mapping[str, Any], x: float, y: float, cell: float, span: float) -> None:
    """Draw one attempt at pixel (x, y): a tick or a cross, its text, and a cell for each token below it."""
    right = sample["reward"] > 0.5
    tokens = token_texts(sample)
    pale, dark = RIGHT if right else WRONG
    words = [t.strip() for t in tokens]
    start = sample.get("think_tokens")
    if start is None:  # samples of older runs do not have it
        start = len(words) - words[::-1].index("answer") - 1 if "answer" in words else len(words) - 1
    colors = [pale] * start + [dark] * (len(words) - start)
    ax.text(x + 6, y, "✓" if right else "✗", fontsize=8.5, color=dark, va="center", ha="center", fontweight="bold")
    text = shorten(clean_text(sample["response"]), int((span - 24) / 6.85))  # pixels a character
    ax.text(x + 20, y - 8, text, fontsize=5.8, family="monospace", color=INK, va="center", parse_math=False)
    gap = 1.2 if cell > 4 else 0.0
    ax.broken_barh([(x + 20 + i * cell, cell - gap) for i in range(len(words))], (y + 1, 12), facecolors=colors)


def token_texts(sample: Mapping[str, Any]) -> list[str]:
    """The text of each token; the words of the response where the sample has no tokens."""
    return list(sample.get("pieces") or sample["response"].split() or [""])


def clean_text(text: str) -> str:
    """The text on one line, without <bos> and <eos>."""
    return " ".join(text.split()).removeprefix("<bos> ").removesuffix("<eos>").rstrip()


def shorten(text: str, width: int) -> str:
    """The text in at most ``width`` characters. An ellipsis replaces its middle, so that the answer at its end stays."""
    if len(text) <= width:
        return text
    head, tail = text[: width - width // 3 - 2], text[len(text) - width // 3 :]
    return f"{head.rpartition(' ')[0] or head} … {tail.partition(' ')[2] or tail}"
