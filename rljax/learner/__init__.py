"""Optimiser steps, supervised or by policy gradient: (state, batch) -> (state, metrics).

policy.py         compare attempts, push the policy       micro_batches.py  a batch, split inside the jit
supervised.py     next-token learning                     update.py         applying a gradient, or refusing to
"""

from rljax.learner.micro_batches import Batch, Metrics, Split, gradients, scored
from rljax.learner.policy import CriticUpdate, PolicyUpdate, compare, experience, push
from rljax.learner.supervised import supervised_loss, supervised_step
from rljax.learner.update import update
