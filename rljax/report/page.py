"""Write report.html: headline numbers, figures, tables and attempts on one page that needs no other file."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from rljax.errors import UserError
from rljax.report.attempts import render_details, render_problem
from rljax.report.style import STYLE

Tile = tuple[str, Any, str]  # (label, number or text, note)
Picture = tuple[str | Path, str]  # (PNG file, caption)
Attempts = tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]  # one problem's samples: (before, after)
Section = tuple[str, str]  # (title, HTML)
Table = tuple[str, Sequence[str], Sequence[Sequence[Any]]]  # (caption, header, rows)


def write_page(
    path: str | Path,
    title: str,
    summary: Sequence[Tile],
    figures: Sequence[Picture],
    attempts: Sequence[Attempts],
    tables: Sequence[Table],
    config: Mapping[str, Any],
    more: Sequence[Section] = (),
    column_titles: tuple[str, str] = ("before RL", "after RL"),
) -> None:
    """Write the page.

    The sections ``more`` follow the figures. ``render_models`` and ``render_example`` make their HTML. ``column_titles`` are
    the titles of the two columns of attempts. ``config`` is the run's config.json; its "versions", "commit" and "devices"
    are also in the footer. Raises UserError where a figure cannot be read.
    """
    sections = [
        ("Curves", "".join(render_picture(*figure) for figure in figures)),
        *((html.escape(name), text) for name, text in more),
        ("Measures", "".join(render_table(*t) for t in tables)),
        (
            "Attempts at the same problems, {} and {}".format(*column_titles),
            "".join(render_problem(*a, i == 0, column_titles) for i, a in enumerate(attempts)),
        ),
        (
            "Config",
            render_details("resolved config", f"<pre>{html.escape(format_json(config))}</pre>", False)
            if config
            else "",
        ),
    ]
    page = PAGE.substitute(
        style=STYLE,
        title=html.escape(title),
        tiles="".join(render_tile(*t) for t in summary),
        body="".join(f"<section><h2>{name}</h2>{text}</section>" for name, text in sections if text),
        footer=render_footer(config),
    )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(page, encoding="utf-8")


def format_cell(value: Any) -> str:
    """A value as escaped text: a float with three significant digits, an integer in full, a dash for None and NaN."""
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return html.escape(str(value))


def render_tile(label: str, value: Any, note: str) -> str:
    """HTML of one headline number."""
    return f'<div class="tile"><b>{format_cell(value)}</b><span>{html.escape(label)}</span><i>{html.escape(note)}</i></div>'


def render_picture(path: str | Path, caption: str) -> str:
    """HTML of a figure, with its PNG file as a data URI. Raises UserError where the file cannot be read."""
    try:
        data = base64.b64encode(Path(path).read_bytes()).decode()
    except OSError as e:
        raise UserError(
            f"report: cannot read the figure {path}: {e.strerror}; draw the figures before the page"
        ) from None
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


def render_table(caption: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """HTML of a table."""
    head = "".join(f"<th>{html.escape(str(h))}</th>" for h in header)
    body = "".join("<tr>" + "".join(f"<td>{format_cell(v)}</td>" for v in row) + "</tr>" for row in rows)
    caption = html.escape(caption)
    return f'<div class="wide"><table><caption>{caption}</caption><tr>{head}</tr>{body}</table></div>'


def render_footer(config: Mapping[str, Any]) -> str:
    """The versions, commit and devices of a run in one line, escaped."""
    versions = config.get("versions") or {}
    parts = [f"{k} {v}" for k, v in versions.items()] if isinstance(versions, Mapping) else [str(versions)]
    parts += [f"{key} {config[key]}" for key in ("commit", "devices") if config.get(key)]
    return html.escape(" · ".join(parts))


def format_json(config: Mapping[str, Any]) -> str:
    """The config as indented JSON."""
    return json.dumps(config, indent=2, default=str, ensure_ascii=False)


PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<h1>$title</h1>
<div class="tiles">$tiles</div>
$body
<footer>$footer</footer>
</main>
</body>
</html>
""")
