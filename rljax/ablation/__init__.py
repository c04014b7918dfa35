"""Ablations: one question, several arms, several seeds of each arm.

arms.py              an ablation as data: its arms, the settings that they change, and the runs that follow from them
results.py           the result of each run, a line of results.jsonl, and its values by arm and seed
claims.py            a hypothesis as claims that a program checks against the results
ablation_figures.py  the figures of an ablation
ablation_report.py   its tables and report.html
recipe_report.py     the table and report.html of DeepSeek-R1's recipe
scheduler.py         computes the runs: as processes (process_pool.py) or many runs as one vmapped program
vmapped.py           many RL runs as one program
vmap_groups.py       which runs can be one program
"""

from rljax.ablation.ablation_figures import draw_figures
from rljax.ablation.ablation_report import arms_table, markdown_table, write_report
from rljax.ablation.arms import Ablation, ArmRun, check_arm, expand_runs, is_finished, load_ablation, run_folder
from rljax.ablation.claims import ClaimResult, check_claim, format_estimate, format_verdict
from rljax.ablation.results import (
    RunResult,
    read_results,
    read_run_result,
    results_table,
    values_by_seed,
    write_results,
)

__all__ = [
    "Ablation",
    "ArmRun",
    "ClaimResult",
    "RunResult",
    "arms_table",
    "check_arm",
    "check_claim",
    "draw_figures",
    "expand_runs",
    "format_estimate",
    "format_verdict",
    "is_finished",
    "load_ablation",
    "markdown_table",
    "read_results",
    "read_run_result",
    "results_table",
    "run_folder",
    "values_by_seed",
    "write_report",
    "write_results",
]
