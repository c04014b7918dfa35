"""Rewards: whether an attempt is correct, and what else it earns.

terms.py    what a reward is made of: "correct + 0.5*format(tags=think)"
verify.py   verifiers on the device and on the host, and the rewards of a rollout
workers.py  text verifiers in worker processes, and what the main process does about them
worker_process.py  what happens in such a process
scoring.py  what a text verifier and the terms that read text say of texts, in whatever process
"""

from rljax.rewards.terms import (
    CORRECT,
    LENGTH_TERMS,
    TEXT_TERMS,
    Term,
    by_group,
    mixed,
    mixed_groups,
    parse_reward,
    reward_values,
    soft_overlong,
)
from rljax.rewards.verify import (
    Verifier,
    device_verifier,
    host_verifier,
    make_reward_fn,
    make_verifier,
    needs_host,
    summarize_rewards,
)
from rljax.rewards.workers import MAX_UNSCORED

__all__ = [
    "CORRECT",
    "LENGTH_TERMS",
    "MAX_UNSCORED",
    "TEXT_TERMS",
    "Term",
    "Verifier",
    "by_group",
    "device_verifier",
    "host_verifier",
    "make_reward_fn",
    "make_verifier",
    "mixed",
    "mixed_groups",
    "needs_host",
    "parse_reward",
    "reward_values",
    "soft_overlong",
    "summarize_rewards",
]
