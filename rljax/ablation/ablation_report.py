"""The report of an ablation: the table of arms, the verdict on its hypothesis, the figures, and report.html."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rljax import report
from rljax.ablation.ablation_figures import draw_figures
from rljax.ablation.arms import Ablation, run_folder
from rljax.ablation.claims import ClaimResult, check_claim, format_estimate, format_verdict
from rljax.ablation.results import RunResult, arm_values, results_table, values_by_seed
from rljax.metrics.intervals import confidence_interval, paired_difference
from rljax.training import journal

MAX_TILES = 5  # arms with a headline number at the top of report.html


def write_report(ablation: Ablation, results: list[RunResult], workdir: Path, name: str) -> None:
    """Write the figures, verdict.txt and report.html; print the table of arms and the verdict.

    ``name`` is the beginning of the figures' file names.
    """
    pictures = draw_figures(ablation, results, workdir / "figures", name)
    claim_results = [check_claim(claim, results) for claim in ablation.claims]
    verdict = format_verdict(claim_results, results)
    header, rows = arms_table(ablation, results)
    print(markdown_table(header, rows))
    for r in claim_results:
        values = f"{format_estimate(r.left)} against {format_estimate(r.right)}"
        print(f"{r.outcome.upper():>9}  {r.claim}: {values}, difference {format_estimate(r.difference, True)}")

    tables = [("Arms: mean over seeds, 95 % interval; difference from the first arm, paired by seed", header, rows)]
    if claim_results:
        tables.insert(0, ("The hypothesis, claim by claim", *claims_table(claim_results)))
    tables.append(("Every run", *results_table(results, ablation.measures)))
    question = "".join(f"<p>{html.escape(text)}</p>" for text in (ablation.hypothesis, verdict) if text)
    journal.replace_text(workdir / "verdict.txt", verdict + "\n")
    report.write_page(
        workdir / "report.html",
        f"rljax: {ablation.question}",
        headline_tiles(ablation, results, claim_results),
        pictures,
        [],
        tables,
        {"arms": {arm: list(changes) for arm, changes in ablation.arms.items()}, "commit": results[-1]["commit"]},
        more=[("Question", question), *compare_models(ablation, results, workdir)],
    )
    print(verdict)
    print(f"report {workdir / 'report.html'}")


def headline_tiles(
    ablation: Ablation, results: list[RunResult], claim_results: Sequence[ClaimResult]
) -> list[tuple[str, str, str]]:
    """(label, number, note) of each headline number: the claims that hold, and the first measure of the first arms."""
    tiles = []
    if claim_results:
        num_holding = sum(r.outcome == "holds" for r in claim_results)
        tiles.append(
            ("claims that hold", f"{num_holding} of {len(claim_results)}", "95 % intervals of paired differences")
        )
    for arm in list(ablation.arms)[:MAX_TILES]:
        estimate = confidence_interval(arm_values(results, arm, ablation.measures[0]))
        tiles.append((arm, f"{estimate.mean:.3f}", f"{ablation.measures[0]}, {format_estimate(estimate)}"))
    return tiles


def claims_table(claim_results: Sequence[ClaimResult]) -> tuple[list[str], list[list[Any]]]:
    """(header, rows) of a table with a row for each claim."""
    header = ["claim", "outcome", "left", "right", "difference"]
    rows: list[list[Any]] = []
    for r in claim_results:
        sides = format_estimate(r.left), format_estimate(r.right)
        rows.append([r.claim, r.outcome, *sides, format_estimate(r.difference, True)])
    return header, rows


def compare_models(ablation: Ablation, results: list[RunResult], workdir: Path) -> list[tuple[str, str]]:
    """A section of the report that shows attempts at one held-out problem: before RL, and by each arm after RL.

    It is the problem on which the first arm improved most. Returns (title, HTML), or nothing if the samples of the runs are
    not there or the stage is not RL.
    """
    first_result = results[0]

    def read_attempts(arm: str, evaluation: int) -> dict[int, list[Any]]:
        """{problem: its attempts} of one arm at one evaluation (an index, as in ``values_by_seed``)."""
        folder, step = run_folder(workdir, arm, first_result["seed"]), first_result["steps"][evaluation]
        return report.group_by_problem(journal.read_samples(folder, ablation.stage, step))

    before, after = read_attempts(ablation.reference, 0), {arm: read_attempts(arm, -1) for arm in ablation.arms}
    after = {arm: attempts for arm, attempts in after.items() if attempts}
    ranked = report.rank_by_improvement(before, after.get(ablation.reference, {}))
    if not ranked or ablation.stage != "rl":
        return []
    problem = ranked[0]
    models = [("before RL", before[problem])]
    models += [(arm, attempts[problem]) for arm, attempts in after.items() if problem in attempts]
    note = f"Seed {first_result['seed']}, the held-out problem on which {ablation.reference} gained most."
    return [("Thinking against imitation", report.render_models(models, note))]


def arms_table(ablation: Ablation, results: list[RunResult]) -> tuple[list[str], list[list[Any]]]:
    """(header, rows) of a table with a row for each arm: each measure's mean and interval over seeds, and its difference.

    The difference is the one from the first arm, paired by seed.
    """
    header = ["arm", "seeds", *(text for m in ablation.measures for text in (m, f"{m}, difference"))]
    rows = []
    for arm in ablation.arms:
        row: list[Any] = [arm, len(values_by_seed(results, arm, ablation.measures[0]))]
        for measure in ablation.measures:
            values, reference = (values_by_seed(results, a, measure) for a in (arm, ablation.reference))
            row.append(format_estimate(confidence_interval(arm_values(results, arm, measure))))
            is_reference = arm == ablation.reference
            row.append("–" if is_reference else format_estimate(paired_difference(values, reference), True))
        rows.append(row)
    return header, rows


def markdown_table(header: list[str], rows: list[list[Any]]) -> str:
    """A table as Markdown. Fractions have three decimals."""
    format_cell = lambda x: f"{x:.3f}" if isinstance(x, float) else str(x)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(format_cell, line)) + " |" for line in lines)
