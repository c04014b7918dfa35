"""Evaluation: a policy on problems that it never trained on.

evaluator.py  sample and verify attempts at held-out problems
estimates.py  pass@k, cons@k, lengths, strategies, behaviours
samples.py    what was said, one line an attempt
"""

from rljax.evaluation.estimates import count_votes, estimate_metrics
from rljax.evaluation.evaluator import (
    ROWS_AT_ONCE,
    Evaluate,
    EvaluateRuns,
    Evaluation,
    EvaluationOptions,
    Lift,
    make_evaluator,
    make_evaluators,
    stack_runs,
    take_problems,
)
from rljax.evaluation.samples import count_tokens, read_attempts, write_samples

__all__ = [
    "ROWS_AT_ONCE",
    "Evaluate",
    "EvaluateRuns",
    "Evaluation",
    "EvaluationOptions",
    "Lift",
    "count_tokens",
    "count_votes",
    "estimate_metrics",
    "make_evaluator",
    "make_evaluators",
    "read_attempts",
    "stack_runs",
    "take_problems",
    "write_samples",
]
