"""Estimators over attempts: pass@k and cons@k, 95 % intervals, and behaviours in responses.

accuracy.py    pass@k, cons@k, response lengths
intervals.py   standard errors and 95 % intervals, over questions and over seeds
alarms.py      what goes wrong in a run, found in its records: alarm_rules.py while it trains, first_rules.py before it
behaviours.py  reflective words, and the four behaviours of Gandhi et al.
"""

from rljax.metrics.accuracy import (
    cons_at_k,
    find_cons_key,
    length_statistics,
    majority_score,
    mean_known,
    pass_at_k,
    success_rates,
)
from rljax.metrics.intervals import half_width, standard_error

__all__ = [
    "cons_at_k",
    "half_width",
    "length_statistics",
    "majority_score",
    "mean_known",
    "pass_at_k",
    "standard_error",
    "success_rates",
    "find_cons_key",
]
