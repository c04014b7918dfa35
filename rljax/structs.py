"""What travels between the rooms: problems, rollouts and the training state.

Letters used everywhere: B prompts, G attempts at each, N = B * G rows (the attempts at one prompt are neighbours),
P prompt slots, T response slots, V vocabulary size. Prompts are padded on the left, responses on the right.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

Array = jax.Array
ConfigTree = Any  # an ml_collections.ConfigDict: its settings are attributes, which no type checker can see


class Problems(struct.PyTreeNode):
    """A batch of problems to ask.

    ``facts`` is whatever the task's verifier needs: arrays with a leading axis B for tasks that live on the device, a
    list of B records for tasks whose verifier reads text.
    """

    prompt: Array  # [B, P] int32, padded on the left
    prompt_mask: Array  # [B, P] bool, True on real tokens
    facts: Any


class Rollout(struct.PyTreeNode):
    """Sampled attempts: what the policy did, and how likely it thought each token was when it did it."""

    prompt: Array  # [N, P] int32, padded on the left
    prompt_mask: Array  # [N, P] bool
    response: Array  # [N, T] int32, padded on the right
    mask: Array  # [N, T] bool, True on every sampled token, the stop token included
    logprobs: Array  # [N, T] float32, nats, of the sampling policy at the sampling temperature; 0 where mask is False
    finished: Array  # [N] bool, True where a stop token was sampled; False means truncated

    @property
    def lengths(self) -> Array:
        """[N] int32, sampled tokens in each response, the stop token included."""
        return self.mask.sum(-1)


class TrainState(struct.PyTreeNode):
    """Everything a run needs to continue bit for bit; ``frozen`` alone is not in its checkpoints, but read again.

    ``key`` never changes: step k uses ``fold_in(key, k)``, so that nothing about randomness depends on how the run was
    cut into sessions, micro-batches or devices. ``cursor`` is the index of the next problem: the whole data position.
    """

    step: Array  # [] int32, optimiser steps asked for so far (skipped ones included)
    params: Any
    opt_state: Any
    key: Array  # typed PRNG key
    cursor: Array  # [] int32
    reference: Any = None  # parameters that the KL term is measured from; None where no KL is asked for
    critic: Any = None  # what PPO's value function is made of; None where the algorithm has no critic
    critic_opt_state: Any = None
    frozen: Any = (
        None  # what ``params`` are adapters of (rljax.transformer.lora.Base); None where they are the policy themselves
    )
    fingerprint: Any = (
        None  # of what is frozen: a checkpoint goes on with the weights that it began with, or not at all
    )
    ahead: Any = None  # (Rollout, greedy Rollout or None) of the next step, where other devices sample one step ahead
    entropy_coef: Any = None  # [] float32, where an entropy bonus adapts
    skipped: Array = struct.field(default_factory=lambda: jnp.zeros((), jnp.int32))  # [] steps skipped in a row
    skipped_total: Array = struct.field(default_factory=lambda: jnp.zeros((), jnp.int32))  # [] steps skipped so far

    def step_key(self) -> Array:
        """The key of the current step: ``fold_in(key, step)``."""
        return jax.random.fold_in(self.key, self.step)
