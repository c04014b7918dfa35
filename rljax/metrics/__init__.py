"""What is counted: pass@k and cons@k, intervals, and behaviours in responses.

accuracy.py    pass@k, cons@k, standard errors over questions
intervals.py   95 % intervals over seeds
behaviours.py  reflective words, and the four behaviours of Gandhi et al.
"""

from rljax.metrics.accuracy import cons_at_k, half_width, lengths, majority_is, pass_at_k, standard_error, vote_key

__all__ = ["cons_at_k", "half_width", "lengths", "majority_is", "pass_at_k", "standard_error", "vote_key"]
