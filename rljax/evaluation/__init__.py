"""Evaluation: a policy on problems that it never trained on."""

from rljax.evaluation.evaluator import *  # noqa: F403
