"""Evaluation: the metrics and samples of a policy on held-out problems.

evaluator.py  sample and verify attempts at held-out problems
budget.py     attempts that think at least or at most so long
estimates.py  attempts -> pass@k, cons@k, lengths, strategies, behaviours
samples.py    attempts -> the records of samples/*.jsonl
"""

from rljax.evaluation.budget import BudgetOptions, make_budget
from rljax.evaluation.estimates import canonicalize_answers, estimate_metrics
from rljax.evaluation.evaluator import (
    ROWS_PER_KEY,
    Evaluate,
    EvaluateRuns,
    Evaluation,
    EvaluationOptions,
    VmapRuns,
    divide_attempts,
    divide_greedy,
    make_evaluator,
    make_evaluators,
    sample_in_parts,
    stack_runs,
    take_problems,
)
from rljax.evaluation.samples import count_prefix_tokens, decode_attempts, make_samples

__all__ = [
    "BudgetOptions",
    "ROWS_PER_KEY",
    "Evaluate",
    "divide_attempts",
    "divide_greedy",
    "EvaluateRuns",
    "Evaluation",
    "EvaluationOptions",
    "VmapRuns",
    "count_prefix_tokens",
    "decode_attempts",
    "estimate_metrics",
    "make_budget",
    "make_evaluator",
    "make_evaluators",
    "make_samples",
    "canonicalize_answers",
    "sample_in_parts",
    "stack_runs",
    "take_problems",
]
