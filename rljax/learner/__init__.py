"""Optimiser steps, supervised or by policy gradient: (state, batch) -> (state, metrics).

policy.py         the settings of policy-gradient learning   advantages.py     from a rollout to a batch with advantages
policy_update.py  the policy-gradient update                 supervised.py     next-token learning
micro_batches.py  a batch, split inside the jit              update.py         applying a gradient, or refusing to
optimizer.py      AdamW, Muon, SGD and their schedules
"""

from rljax.learner.advantages import compute_advantages, policy_batch
from rljax.learner.micro_batches import Batch, Metrics, MicroBatching, MicroBatchOptions, gradients, score_rows
from rljax.learner.policy import CriticLearner, CriticOptions, PolicyLearner, UpdateOptions
from rljax.learner.policy_update import update_policy
from rljax.learner.supervised import supervised_loss, supervised_step
from rljax.learner.update import update

__all__ = [
    "Batch",
    "CriticLearner",
    "CriticOptions",
    "Metrics",
    "MicroBatchOptions",
    "MicroBatching",
    "PolicyLearner",
    "UpdateOptions",
    "compute_advantages",
    "gradients",
    "policy_batch",
    "score_rows",
    "supervised_loss",
    "supervised_step",
    "update",
    "update_policy",
]
