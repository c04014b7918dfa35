"""The CSS of report.html, light or dark as the reader's system."""

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
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 14px; }
.tile, figure, details, .wide { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 16px 18px; display: flex; flex-direction: column; }
.tile b { font-size: 32px; line-height: 1.15; color: var(--blue); font-variant-numeric: tabular-nums; }
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
.note, h4, h4 span, .verdict span { color: var(--muted); }
.note { margin: 0 0 12px; }
.question, .model { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 18px; }
.question { margin: 0 0 14px; white-space: pre-wrap; overflow-wrap: anywhere; }
.question code { font-weight: 600; }
.question details { background: none; border: 0; padding: 0; margin: 8px 0 0; font-size: 14px; color: var(--muted); }
.columns + details { margin-top: 18px; }
.model .question { border-style: dashed; }
h4 { font-size: 13px; margin: 14px 0 4px; text-transform: uppercase; letter-spacing: .04em; }
h4 span { text-transform: none; letter-spacing: 0; font-weight: normal; }
.model p { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
.model .think, .model .final { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.think { color: var(--muted); font-weight: normal; }
.model .think { font-size: 13.5px; max-height: 26em; overflow-y: auto; }
.final { font-weight: 700; }
.model .final { font-size: 18px; }
.model .verdict { margin-top: 12px; font-weight: 600; }
.verdict span { font-weight: normal; }
mark { background: none; color: var(--blue); font-weight: 700; text-decoration: underline; }
.model.right, .model.wrong { background: var(--card); color: var(--ink); border-color: var(--line); border-left-width: 4px; }
.model.right { border-left-color: var(--right); }
.model.wrong { border-left-color: var(--wrong); }
.model.right .final, .model.right .verdict { color: var(--right); }
.model.wrong .final, .model.wrong .verdict { color: var(--wrong); }
.right { background: var(--rightback); border-color: var(--right); color: var(--right); }
.wrong { background: var(--wrongback); border-color: var(--wrong); color: var(--wrong); }
footer { margin-top: 40px; overflow-wrap: anywhere; }
"""
