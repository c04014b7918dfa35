"""Sampling: many attempts at each prompt, in one jitted loop.

sampling.py        ``sample``: prefill, decode, draw
truncation.py      top-k and top-p
slots.py           continuous batching: a slot whose response has ended takes the next row
parts.py           the same loop in several programs, so that the host reads what has ended while the rest decodes
policy_sampler.py  the settings of a run's sampler, bound to a model
"""

from rljax.sampler.parts import sample_part_by_part
from rljax.sampler.policy_sampler import LengthLimit, PolicySampler, Sampling, is_greedy, make_sampler
from rljax.sampler.sampling import align_left_padding, check_window, inverse_cdf, sample, stage_sizes
from rljax.sampler.slots import choose_slots, rows_at_once
from rljax.sampler.truncation import truncate

__all__ = [
    "LengthLimit",
    "PolicySampler",
    "Sampling",
    "align_left_padding",
    "check_window",
    "choose_slots",
    "inverse_cdf",
    "is_greedy",
    "make_sampler",
    "rows_at_once",
    "sample",
    "sample_part_by_part",
    "stage_sizes",
    "truncate",
]
