"""The figures of an ablation, from the lines of its results.jsonl."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rljax.ablation import results
from rljax.ablation.arms import Ablation
from rljax.ablation.results import Line
from rljax.report import figures

Drawn = tuple[Path, str]


def draw_figures(ablation: Ablation, lines: Sequence[Line], folder: Path, name: str) -> list[Drawn]:
    """Write the figures that the ablation asks for; returns (file, caption) of each."""
    title = ablation.question or name
    drawers = {"curves": draw_curves, "ends": draw_ends, "attempts": draw_attempts, "grid": draw_grid}
    out = []
    for kind in ablation.figures:
        path = folder / f"{name}_{kind}.png"
        caption = drawers[kind](ablation, lines, path, title)
        if caption:
            intervals = "" if kind == "grid" else ", 95 % intervals over seeds"
            out.append((path, f"{caption} {results.seeds_said(lines)}{intervals}."))
    return out


def seed_values(ends: dict[int, float]) -> np.ndarray:
    """[seeds] of {seed: value}."""
    return np.array([*ends.values()])


def draw_curves(ablation: Ablation, lines: Sequence[Line], path: Path, title: str) -> str:
    """Draw each measure over steps, if there are several evaluations; returns the caption, "" where nothing was drawn."""
    panels = {}
    for measure in ablation.measures:
        found = {arm: results.curves(lines, arm, measure) for arm in results.arms_in(lines)}
        panels[measure] = {arm: (steps, np.array(rows)) for arm, (steps, rows) in found.items() if rows}
    panels = {m: arms for m, arms in panels.items() if any(len(steps) > 1 for steps, _ in arms.values())}
    if not panels:
        return ""
    figures.draw_arm_curves(panels, path, title, xlabel="RL step" if ablation.stage == "rl" else "step")
    return "Held-out problems over training."


def draw_ends(ablation: Ablation, lines: Sequence[Line], path: Path, title: str) -> str:
    """Draw each arm's last evaluation; returns the caption."""
    arms, panels, before = results.arms_in(lines), {}, {}
    for measure in ablation.measures:
        panels[measure] = {arm: v for arm in arms if (v := seed_values(results.values(lines, arm, measure))).size}
        if ablation.stage == "rl":
            began = {arm: seed_values(results.values(lines, arm, measure, 0)) for arm in arms}
            before[measure] = {arm: float(v.mean()) for arm, v in began.items() if v.size}
    figures.draw_arm_ends(panels, before, path, title)
    rings = " Dashed line, or rings: before RL." if before else ""
    return f"The last evaluation. Dots: seeds. Diamonds: their means.{rings}"


def draw_attempts(ablation: Ablation, lines: Sequence[Line], path: Path, title: str) -> str:
    """Draw pass@k and cons@k against k, before and after RL; returns the caption."""
    panels: dict[str, dict] = {}
    for estimator in ("pass", "cons"):
        found = {int(k.split("@")[1]) for line in lines for k in line["curves"] if k.startswith(f"eval/{estimator}@")}
        ks, panel = sorted(found | {1}), {}
        for arm in results.arms_in(lines):
            for when, place in (("before", 0), ("after", -1)):
                named = ["pass@1", *(f"{estimator}@{k}" for k in ks[1:])]  # one attempt votes for itself
                rows = [results.values(lines, arm, name, place) for name in named]
                shared = sorted(set.intersection(*map(set, rows)))
                name = f"{when} RL" if len(ablation.arms) == 1 else f"{arm}, {when}"
                panel[name] = (ks, np.array([[row[s] for row in rows] for s in shared]))
        panels[f"{estimator}@k"] = panel
    figures.draw_arm_attempts(panels, path, title)
    return "The chance that one of k attempts is right, and that a majority vote of k is."


PAIR = re.compile(r"(\w+)=(\S+)")


def draw_grid(ablation: Ablation, lines: Sequence[Line], path: Path, title: str) -> str:
    """Draw heat maps of the first measure, for arms named "panel=.. row=.. column=..", such as "layers=2 swaps=4 stride=1".

    Returns the caption.
    """
    named = {arm: PAIR.findall(arm) for arm in results.arms_in(lines)}
    named = {arm: pairs for arm, pairs in named.items() if len(pairs) == 3}
    axes = [list(dict.fromkeys(pairs[i][1] for pairs in named.values())) for i in range(3)]
    labels = [pair[0] for pair in next(iter(named.values()))]
    cells = {f"{labels[0]}={p}": np.full((len(axes[1]), len(axes[2])), np.nan) for p in axes[0]}
    for arm, ((key, panel), (_, row), (_, column)) in named.items():
        value = seed_values(results.values(lines, arm, ablation.measures[0]))
        cells[f"{key}={panel}"][axes[1].index(row), axes[2].index(column)] = value.mean() if value.size else np.nan
    figures.draw_arm_grid(cells, axes[1], axes[2], path, title, (labels[1], labels[2]))
    return f"{ablation.measures[0]}, mean over seeds."
