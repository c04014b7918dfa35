"""A run on one page: report.html, with nothing outside it. Pictures are data URIs, style is inline, every text is escaped.

The page is a function of its arguments and of the pictures' bytes: no clock, no machine, no network.
"""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from rljax.errors import UserError

Tile = tuple[str, Any, str]  # (label, number, what it is compared with); a number is shown by ``show``
Picture = tuple[str | Path, str]  # (PNG file, caption)
Attempts = tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]  # one prompt's samples before, after RL
Table = tuple[str, Sequence[str], Sequence[Sequence[Any]]]  # (caption, header, rows)


def write(
    path: str | Path,
    title: str,
    summary: Sequence[Tile],
    figures: Sequence[Picture],
    attempts: Sequence[Attempts],
    tables: Sequence[Table],
    config: Mapping[str, Any],
    compared: tuple[str, str] = ("before RL", "after RL"),
) -> None:
    """Write the page. ``compared`` says whose the two columns of attempts are; ``config`` is the run's config.json; "versions", "commit" and "devices" go to the footer.

    Raises UserError where a picture cannot be read.
    """
    sections = [
        ("Curves", "".join(picture(*figure) for figure in figures)),
        ("Measures", "".join(table(*t) for t in tables)),
        (
            "Attempts at the same problems, {} and {}".format(*compared),
            "".join(problem(*a, i == 0, compared) for i, a in enumerate(attempts)),
        ),
        ("Config", details("resolved config", f"<pre>{html.escape(as_json(config))}</pre>", False) if config else ""),
    ]
    page = PAGE.substitute(
        style=STYLE,
        title=html.escape(title),
        tiles="".join(tile(*t) for t in summary),
        body="".join(f"<section><h2>{name}</h2>{text}</section>" for name, text in sections if text),
        footer=footer(config),
    )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(page, encoding="utf-8")


def show(value: Any) -> str:
    """A cell's text, escaped: three significant digits of a fraction, all digits of an integer, a dash for nothing."""
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return html.escape(str(value))


def tile(label: str, value: Any, note: str) -> str:
    return f'<div class="tile"><b>{show(value)}</b><span>{html.escape(label)}</span><i>{html.escape(note)}</i></div>'


def picture(path: str | Path, caption: str) -> str:
    try:
        data = base64.b64encode(Path(path).read_bytes()).decode()
    except OSError as e:
        raise UserError(f"report: cannot read the figure {path}: {e.strerror}; draw the figures first") from None
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


def table(caption: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f"<th>{html.escape(str(h))}</th>" for h in header)
    body = "".join("<tr>" + "".join(f"<td>{show(v)}</td>" for v in row) + "</tr>" for row in rows)
    caption = html.escape(caption)
    return f'<div class="wide"><table><caption>{caption}</caption><tr>{head}</tr>{body}</table></div>'


def problem(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], opened: bool, compared: tuple[str, str]
) -> str:
    """One prompt with its attempts in two columns; ``opened``: unfolded at first."""
    prompt = html.escape(next((s["prompt"] for s in (*before, *after)), ""))
    columns = "".join(
        f"<div><h3>{name} <span>{sum(s['reward'] > 0.5 for s in samples)} of {len(samples)} right</span></h3>"
        f"<ol>{''.join(map(attempt, samples))}</ol></div>"
        for name, samples in zip(compared, (before, after), strict=True)
    )
    return details(f"<code>{prompt}</code>", f'<div class="columns">{columns}</div>', opened)


def attempt(sample: Mapping[str, Any]) -> str:
    right = sample["reward"] > 0.5
    count = f"{len(sample['tokens'])} tokens" if sample.get("tokens") else ""
    note = ", ".join(filter(None, (count, str(sample.get("strategy") or ""))))
    text = html.escape(sample["response"])
    kind, mark = ("right", "✓") if right else ("wrong", "✗")
    return f'<li class="{kind}"><b>{mark}</b><div><p>{text}</p><small>{html.escape(note)}</small></div></li>'


def details(summary: str, body: str, opened: bool) -> str:
    """A part that folds away; both texts are HTML already."""
    return f"<details{' open' if opened else ''}><summary>{summary}</summary>{body}</details>"


def footer(config: Mapping[str, Any]) -> str:
    """Versions, commit and devices in one line."""
    versions = config.get("versions") or {}
    parts = [f"{k} {v}" for k, v in versions.items()] if isinstance(versions, Mapping) else [str(versions)]
    parts += [f"{key} {config[key]}" for key in ("commit", "devices") if config.get(key)]
    return html.escape(" · ".join(parts))


def as_json(config: Mapping[str, Any]) -> str:
    return json.dumps(config, indent=2, default=str, ensure_ascii=False)


STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --muted: #66707c; --page: #f6f7f9; --card: #ffffff; --line: #e1e5ea;
  --blue: #0072b2; --right: #00734f; --wrong: #b84a00; --rightback: #e8f6f0; --wrongback: #fdf0e7; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaee; --muted: #98a3af; --page: #14181d; --card: #1d232a;
  --line: #303840; --blue: #56b4e9; --right: #5ecfa5; --wrong: #f0975a; --rightback: #16302a; --wrongback: #36251b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 20px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 24px; }
h2 { font-size: 20px; margin: 48px 0 16px; }
h3 { font-size: 15px; margin: 0 0 8px; }
h3 span, small, figcaption, footer, caption { color: var(--muted); font-weight: normal; font-size: 14px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 14px; }
.tile, figure, details, .wide { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 16px 18px; display: flex; flex-direction: column; }
.tile b { font-size: 36px; line-height: 1.15; color: var(--blue); font-variant-numeric: tabular-nums; }
.tile span { font-weight: 600; margin-top: 4px; }
.tile i { font-style: normal; font-size: 14px; color: var(--muted); }
figure { margin: 0 0 18px; padding: 14px; }
figure img { display: block; width: 100%; height: auto; background: white; border-radius: 6px; }
figcaption { padding: 10px 4px 0; }
.wide { overflow-x: auto; padding: 14px 18px; margin-bottom: 18px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: 8px; }
th, td { text-align: right; padding: 6px 10px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-size: 14px; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr:last-child td { border-bottom: 0; }
details { padding: 12px 18px; margin-bottom: 12px; }
summary { cursor: pointer; }
summary code { font-weight: 600; }
pre, code, li p { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: 13.5px; }
pre { overflow-x: auto; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 20px; margin-top: 14px; }
ol { list-style: none; margin: 0; padding: 0; }
li { display: flex; gap: 10px; padding: 7px 10px; margin-bottom: 5px; border-radius: 6px; border-left: 3px solid; }
li div { min-width: 0; }
li p { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; line-height: 1.45; }
li small { font-size: 12px; }
.right { background: var(--rightback); border-color: var(--right); color: var(--right); }
.wrong { background: var(--wrongback); border-color: var(--wrong); color: var(--wrong); }
footer { margin-top: 40px; overflow-wrap: anywhere; }
"""

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
