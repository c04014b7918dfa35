"""The table of the peers in docs/performance.md, from the JSON lines of ``benchmarks.peers``.

python -m benchmarks.peers.table
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.cases import CASES
from benchmarks.peers.pairs import OURS, ROOT
from rljax.json_lines import read_json_lines

RESULTS = ROOT / "benchmarks" / "results" / "peers_cpu.jsonl"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- peers: begin -->\n", "<!-- peers: end -->\n"
NAMES = {"tunix": "tunix", "trl": "transformers"}  # the library that samples and learns; TRL where it is the whole step
COLUMNS = ("work", "rows × tokens", "peer", "tokens a second, rljax", "peer", "ratio", "peak MB, rljax", "peer")


def name_of(line: dict[str, Any]) -> str:
    return "TRL" if line["peer"] == "trl" and line["work"] in ("step", "start") else NAMES[line["peer"]]


def row(line: dict[str, Any]) -> str:
    """A row of the table: tokens a second, or for a start its seconds."""
    ratio = "**{median:.1f}** [{min:.1f}, {max:.1f}]".format(**line["ratio"])
    cells = [" ".join(word for word in line["case"].split() if word != f"{line['rows']}x{line['new']}")]
    cells += [f"{line['rows']} × {line['new']}", name_of(line)]
    cells += [speed(line, line[who]) for who in (OURS, "peer_measured")]
    cells += [ratio] + [f"{line[who]['peak_mb']:,}" for who in (OURS, "peer_measured")]
    return "| " + " | ".join(cells) + " |"


def speed(line: dict[str, Any], measured: dict[str, Any]) -> str:
    if line["work"] == "start":
        return f"{sorted(measured['seconds'])[len(measured['seconds']) // 2]:.1f} s"
    return f"{measured['tokens_per_second']:,}"


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Markdown: the last line of each case and peer, in the order of ``CASES``."""
    last = {(line["case"], line["peer"]): line for line in lines}
    order = [(case.name, peer) for case in CASES for peer in case.peers]
    rows = [row(last[key]) for key in order if key in last]
    return "\n".join(["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|", *rows]) + "\n"


def write(page: Path = PAGE, results: Path = RESULTS) -> None:
    """Put the table between the two marks of the page."""
    before, rest = page.read_text().split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(before + BEGIN + table(read_json_lines(results)) + END + after)


if __name__ == "__main__":
    write()
