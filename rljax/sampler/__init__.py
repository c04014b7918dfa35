"""Sampling: many attempts at each prompt, in one jitted loop."""

from rljax.sampler.sampling import (
    align_left_padding,
    check_window,
    inverse_cdf,
    sample,
    stage_sizes,
    truncate,
)

__all__ = ["align_left_padding", "check_window", "inverse_cdf", "sample", "stage_sizes", "truncate"]
