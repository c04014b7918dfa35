"""Optimizer steps, supervised or by policy gradient: (state, batch) -> (state, metrics).

policy.py          the settings of policy-gradient learning
advantages.py      a rollout and its rewards -> a batch with advantages
policy_update.py   the policy-gradient update
supervised.py      next-token prediction
micro_batches.py   a batch, split into micro-batches inside the jit
packing.py         rows one behind the other in sequences of one width, without padding
reference.py       the reference of the KL term
loss_scale.py      the factor of the loss, for float16
update.py          one gradient, applied if it is finite
master_weights.py  float32 weights of an optimizer whose model has fewer bits
optimizer.py       AdamW, Muon, SGD and their schedules
"""

from rljax.learner.advantages import compute_advantages, make_policy_batch
from rljax.learner.micro_batches import Batch, Metrics, MicroBatching, MicroBatchOptions, gradients, score_rows
from rljax.learner.policy import CriticLearner, CriticOptions, PolicyLearner, UpdateOptions
from rljax.learner.policy_update import update_policy
from rljax.learner.supervised import supervised_loss, supervised_step
from rljax.learner.update import apply_gradients

__all__ = [
    "Batch",
    "CriticLearner",
    "CriticOptions",
    "Metrics",
    "MicroBatchOptions",
    "MicroBatching",
    "PolicyLearner",
    "UpdateOptions",
    "apply_gradients",
    "compute_advantages",
    "gradients",
    "make_policy_batch",
    "score_rows",
    "supervised_loss",
    "supervised_step",
    "update_policy",
]
