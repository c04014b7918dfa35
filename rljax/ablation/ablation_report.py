"""The report of an ablation: the table of arms, the verdict on its hypothesis, figures and report.html."""

import html
from pathlib import Path
from typing import Any

import numpy as np

from rljax import report
from rljax.ablation.arms import Ablation
from rljax.ablation.arms import folder as folder_of
from rljax.ablation.claims import judge, say, verdict
from rljax.ablation.draw import draw_figures
from rljax.ablation.results import Line, table, values
from rljax.metrics import intervals
from rljax.training import journal


def write_report(asked: Ablation, lines: list[Line], workdir: Path, name: str) -> None:
    """Figures and report.html; the table of arms, and the verdict, also on the terminal."""
    drawn = draw_figures(asked, lines, workdir / "figures", name)
    judged = [judge(claim, lines) for claim in asked.claims]
    header, rows = arms_table(asked, lines)
    print(markdown_table(header, rows))
    for j in judged:
        print(f"{j.outcome.upper():>9}  {j.claim}: {say(j.left)} against {say(j.right)}, "
              f"difference {say(j.difference, True)}")  # fmt: skip
    held = sum(j.outcome == "holds" for j in judged)
    tiles = [("claims that hold", f"{held} of {len(judged)}", "95 % intervals of paired differences")] if judged else []
    for arm in list(asked.arms)[:5]:
        e = intervals.interval(np.array([*values(lines, arm, asked.measures[0]).values()]))
        tiles.append((arm, f"{e.mean:.3f}", f"{asked.measures[0]}, {say(e)}"))
    claims = [[j.claim, j.outcome, *map(say, (j.left, j.right)), say(j.difference, True)] for j in judged]
    tables = [("Arms: mean over seeds, 95 % interval; difference from the first arm, paired by seed", header, rows)]
    if claims:
        tables.insert(
            0, ("The hypothesis, claim by claim", ["claim", "outcome", "left", "right", "difference"], claims)
        )
    tables.append(("Every run", *table(lines, asked.measures)))
    said = "".join(f"<p>{html.escape(text)}</p>" for text in (asked.hypothesis, verdict(judged, lines)) if text)
    journal.replace_text(workdir / "verdict.txt", verdict(judged, lines) + "\n")
    report.write_page(
        workdir / "report.html",
        f"rljax: {asked.question}",
        tiles,
        drawn,
        [],
        tables,
        {"arms": {arm: list(changes) for arm, changes in asked.arms.items()}, "commit": lines[-1]["commit"]},
        more=[("Question", said), *compare_models(asked, lines, workdir)],
    )
    print(verdict(judged, lines))
    print(f"report {workdir / 'report.html'}")


def compare_models(asked: Ablation, lines: list[Line], workdir: Path) -> list[tuple[str, str]]:
    """The report's section in which one question is put to the model before and to some arms' models after, where the
    runs' samples are still there: the problem on which the first arm gained most."""
    line = lines[0]

    def attempts(arm: str, place: int) -> dict[int, list[Any]]:
        folder = folder_of(workdir, arm, line["seed"])
        return report.group_by_problem(
            journal.read_records(folder / "samples" / f"{asked.stage}_step_{line['steps'][place]:06d}.jsonl")
        )

    before, after = attempts(asked.reference, 0), {arm: attempts(arm, -1) for arm in asked.arms}
    after = {arm: found for arm, found in after.items() if found}
    best = report.rank_by_improvement(before, after.get(asked.reference, {}))
    if not best or asked.stage != "rl":
        return []
    q = best[0]
    models = [("before RL", before[q]), *((arm, found[q]) for arm, found in after.items() if q in found)]
    note = f"Seed {line['seed']}, the held-out problem on which {asked.reference} gained most."
    return [("Thinking against imitation", report.render_models(models, note))]


def arms_table(asked: Ablation, lines: list[Line]) -> tuple[list[str], list[list[Any]]]:
    """(header, one row an arm): each measure's mean and interval, and its paired difference from the first arm."""
    header = ["arm", "seeds", *(x for m in asked.measures for x in (m, f"{m}, difference"))]
    rows = []
    for arm in asked.arms:
        row: list[Any] = [arm, len(values(lines, arm, asked.measures[0]))]
        for m in asked.measures:
            mine = values(lines, arm, m)
            d = intervals.paired_difference(mine, values(lines, asked.reference, m))
            row.append(say(intervals.interval(np.array([*mine.values()]))))
            row.append("–" if arm == asked.reference else say(d, True))
        rows.append(row)
    return header, rows


def markdown_table(header: list[str], rows: list[list[Any]]) -> str:
    show = lambda x: f"{x:.3f}" if isinstance(x, float) else str(x)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(show, line)) + " |" for line in lines)
