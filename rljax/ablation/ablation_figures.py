"""The figures of an ablation, drawn from the results of its runs."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rljax.ablation.arms import Ablation
from rljax.ablation.results import RunResult, arm_curves, arm_names, arm_values, describe_seed_count, values_by_seed
from rljax.report import figures

CaptionedFigure = tuple[Path, str]  # (PNG file, caption)
# draw(ablation, results, path, title) -> caption
DrawFigure = Callable[[Ablation, Sequence[RunResult], Path, str], str]
AXIS_VALUE = re.compile(r"(\w+)=(\S+)")  # in the name of an arm, such as "layers=2 swaps=4 written=1"


def draw_figures(ablation: Ablation, results: Sequence[RunResult], folder: Path, name: str) -> list[CaptionedFigure]:
    """Draw the figures of ``ablation.figures`` as FOLDER/NAME_KIND.png; returns the file and caption of each."""
    title = ablation.question or name
    drawn = []
    for kind in ablation.figures:
        path = folder / f"{name}_{kind}.png"
        if caption := DRAW_FUNCTIONS[kind](ablation, results, path, title):
            intervals = "" if kind == "grid" else ", 95 % intervals over seeds"
            drawn.append((path, f"{caption} {describe_seed_count(results)}{intervals}."))
    return drawn


def draw_training_curves(ablation: Ablation, results: Sequence[RunResult], path: Path, title: str) -> str:
    """Draw each measure over training steps; returns the caption, or "" if no arm has several evaluations."""
    panels = {}
    for measure in ablation.measures:
        curves = {arm: arm_curves(results, arm, measure) for arm in arm_names(results)}
        panels[measure] = {arm: (steps, np.array(values)) for arm, (steps, values) in curves.items() if values}
    panels = {m: arms for m, arms in panels.items() if any(len(steps) > 1 for steps, _ in arms.values())}
    if not panels:
        return ""
    figures.draw_arm_curves(panels, path, title, xlabel="RL step" if ablation.stage == "rl" else "step")
    return "Held-out problems over training."


def draw_last_values(ablation: Ablation, results: Sequence[RunResult], path: Path, title: str) -> str:
    """Draw the last evaluation of each arm; returns the caption."""
    arms, panels, before_rl = arm_names(results), {}, {}
    for measure in ablation.measures:
        panels[measure] = {arm: v for arm in arms if (v := arm_values(results, arm, measure)).size}
        if ablation.stage == "rl":
            first = {arm: arm_values(results, arm, measure, evaluation=0) for arm in arms}
            before_rl[measure] = {arm: float(v.mean()) for arm, v in first.items() if v.size}
    figures.draw_arm_ends(panels, before_rl, path, title)
    rings = " Dashed line, or rings: before RL." if before_rl else ""
    return f"The last evaluation. Dots: seeds. Diamonds: their means.{rings}"


def draw_pass_at_k(ablation: Ablation, results: Sequence[RunResult], path: Path, title: str) -> str:
    """Draw pass@k and cons@k (majority vote) over k, before and after RL; returns the caption."""
    panels: dict[str, dict] = {}
    for estimator in ("pass", "cons"):
        prefix = f"eval/{estimator}@"
        measured = {int(key.removeprefix(prefix)) for r in results for key in r["curves"] if key.startswith(prefix)}
        ks, panel = sorted(measured | {1}), {}
        measures = ["pass@1", *(f"{estimator}@{k}" for k in ks[1:])]  # cons@1, the vote of one attempt, is pass@1
        for arm in arm_names(results):
            for when, evaluation in (("before", 0), ("after", -1)):
                by_measure = [values_by_seed(results, arm, measure, evaluation) for measure in measures]
                seeds = sorted(set.intersection(*map(set, by_measure)))
                label = f"{when} RL" if len(ablation.arms) == 1 else f"{arm}, {when}"
                panel[label] = (ks, np.array([[values[seed] for values in by_measure] for seed in seeds]))
        panels[f"{estimator}@k"] = panel
    figures.draw_arm_attempts(panels, path, title)
    return "The chance that one of k attempts is right, and that a majority vote of k is."


def draw_heat_maps(ablation: Ablation, results: Sequence[RunResult], path: Path, title: str) -> str:
    """Draw heat maps of the first measure over three settings; returns the caption.

    The arms have names such as "layers=2 swaps=4 written=1": the panel, the row and the column of their cell.
    """
    axis_values = {arm: AXIS_VALUE.findall(arm) for arm in arm_names(results)}
    axis_values = {arm: pairs for arm, pairs in axis_values.items() if len(pairs) == 3}
    panels, rows, columns = (list(dict.fromkeys(pairs[i][1] for pairs in axis_values.values())) for i in range(3))
    panel_name, row_name, column_name = (name for name, _ in next(iter(axis_values.values())))
    cells = {f"{panel_name}={p}": np.full((len(rows), len(columns)), np.nan) for p in panels}
    for arm, ((_, panel), (_, row), (_, column)) in axis_values.items():
        values = arm_values(results, arm, ablation.measures[0])
        mean = values.mean() if values.size else np.nan
        cells[f"{panel_name}={panel}"][rows.index(row), columns.index(column)] = mean
    figures.draw_arm_grid(cells, rows, columns, path, title, (row_name, column_name))
    return f"{ablation.measures[0]}, mean over seeds."


DRAW_FUNCTIONS: dict[str, DrawFigure] = {  # {name in ``Ablation.figures``: its function}
    "curves": draw_training_curves,
    "ends": draw_last_values,
    "attempts": draw_pass_at_k,
    "grid": draw_heat_maps,
}
