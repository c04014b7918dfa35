"""What travels between the wings: problems, rollouts, rewards and the training state.

Letters used everywhere: B prompts, G attempts at each, N = B * G rows (the attempts at one prompt are neighbours),
P prompt slots, T response slots, V vocabulary size. Prompts are padded on the left, responses on the right.
"""

import enum
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

Array = jax.Array
ConfigTree = Any  # an ml_collections.ConfigDict: its settings are attributes, which no type checker can see


class KeyTag(enum.IntEnum):
    """What a PRNG key is folded with, so that no two uses of a key share their randomness.

    Step k of a run uses ``fold_in(run key, k)``. Attempt n of a rollout folds its number n into the key of the step, and each
    sampled token folds in its position. Epoch e of the updates folds in N + e, behind the N attempts.
    """

    INIT_PARAMS = 0x1217  # of the run's key
    INIT_ADAPTERS = 0x10FA  # of the run's key
    EVALUATION = 0x5EED  # of the key of the seed
    CONTINUATION = 1 << 28  # of the key of a rollout, plus the number of the call that continues attempts
    ADVANTAGES = 1 << 29  # of the step's key: ties between attempts
    CHOOSE_TOKENS = (1 << 29) + 1  # of the step's key, then the number of the optimizer step
    SAMPLING_ROUND = 1 << 30  # of the step's key, plus the number of the round of dynamic sampling


class Problems(struct.PyTreeNode):
    """A batch of problems to ask.

    ``facts`` is whatever the task's verifier needs: arrays with a leading axis B for tasks that live on the device, a
    list of B records for tasks whose verifier reads text.
    """

    prompt: Array  # [B, P] int32, padded on the left
    prompt_mask: Array  # [B, P] bool, True on real tokens
    facts: Any


class EndedRows(struct.PyTreeNode):
    """The rows of a rollout that had ended at some moment of its sampling; what the others hold has no meaning."""

    ended: Array  # [N] bool
    response: Array  # [N, T], and so on as in the rollout
    mask: Array
    finished: Array


class Rollout(struct.PyTreeNode):
    """Sampled attempts: the tokens, and the log-probability of each under the policy that sampled it."""

    prompt: Array  # [N, P] int32, padded on the left
    prompt_mask: Array  # [N, P] bool
    response: Array  # [N, T] int32, padded on the right
    mask: Array  # [N, T] bool, True on every sampled token, the one that ends the response included
    logprobs: Array  # [N, T] float32, nats, of the behaviour policy at the sampling temperature; 0 where mask is False
    finished: Array  # [N] bool, True where a stop token was sampled or a stop string completed; False means truncated
    greedy: Any = None  # Rollout of the B greedy responses, where the advantage compares with them; else None
    sampling_mask: Any = (
        None  # [N, T, ceil(V / 8)] uint8, where top-k or top-p left tokens out: one bit a token, True where it was kept
    )
    earlier: Any = None  # EndedRows at some moments, where the rollout is verified while it is sampled; else None

    @property
    def lengths(self) -> Array:
        """[N] int32, sampled tokens in each response, the one that ends it included."""
        return self.mask.sum(-1)

    @classmethod
    def empty(cls, rows: int, prompt_slots: int, response_slots: int, masked_vocab: int = 0) -> "Rollout":
        """A rollout of this shape in which nothing has been sampled.

        ``masked_vocab`` is the size of the vocabulary where the rollout has a sampling mask, else 0.
        """
        mask_bytes = -(-masked_vocab // 8)
        return cls(
            prompt=jnp.zeros((rows, prompt_slots), jnp.int32),
            prompt_mask=jnp.zeros((rows, prompt_slots), bool),
            response=jnp.zeros((rows, response_slots), jnp.int32),
            mask=jnp.zeros((rows, response_slots), bool),
            logprobs=jnp.zeros((rows, response_slots), jnp.float32),
            finished=jnp.zeros(rows, bool),
            sampling_mask=jnp.zeros((rows, response_slots, mask_bytes), jnp.uint8) if masked_vocab else None,
        )


class Rewards(struct.PyTreeNode):
    """What the attempts of a rollout earned."""

    correct: Array  # [B, G] float32, 1 where the verifier accepts the answer
    terms: Array  # [B, G, R] float32, each reward term times its weight; their sum is the reward
    info: dict[str, Array]  # {name: [B, G] or []}, what the verifier noted
    greedy: Any = None  # [B] float32, the reward of each greedy response; None where there is none


class Experience(struct.PyTreeNode):
    """One rollout and what it earned."""

    rollout: Rollout
    rewards: Rewards
    ahead: Any = None  # the Rollout of the next step, where other devices sample one step ahead


class TrainState(struct.PyTreeNode):
    """Everything that a run needs to continue bit for bit.

    Checkpoints hold all of it but ``frozen`` and a reference that never moves: these are read again from where the run started.

    ``key`` never changes: step k uses ``fold_in(key, k)``, so that nothing about randomness depends on how the run was
    cut into sessions, micro-batches or devices. ``cursor`` is the index of the next problem: the whole data position.
    """

    step: Array  # [] int32, train steps so far (skipped ones included)
    params: Any
    opt_state: Any
    key: Array  # typed PRNG key
    cursor: Array  # [] int32
    reference: Any = None  # parameters that the KL term is measured from; None without a KL term
    reference_is_fixed: bool = struct.field(pytree_node=False, default=False)  # whether the reference never moves
    critic: Any = None  # parameters of the value function; None where the algorithm has no critic
    critic_opt_state: Any = None
    frozen: Any = (
        None  # what ``params`` are adapters of (rljax.transformer.lora.Base); None where they are the policy themselves
    )
    fingerprint: Any = None  # of what checkpoints leave out: a run continues with what it began with, or not at all
    ahead: Any = None  # the Rollout of the next step, where other devices sample one step ahead
    entropy_coef: Any = None  # [] float32, where an entropy bonus adapts
    loss_scale: Any = None  # rljax.learner.loss_scale.LossScale, where gradients pass through float16
    skipped: Array = struct.field(default_factory=lambda: jnp.zeros((), jnp.int32))  # [] steps skipped in a row
    skipped_total: Array = struct.field(default_factory=lambda: jnp.zeros((), jnp.int32))  # [] steps skipped so far

    def step_key(self) -> Array:
        """The key of the current step: ``fold_in(key, step)``."""
        return jax.random.fold_in(self.key, self.step)

    def round_key(self, number: Array | int) -> Array:
        """The key of one round of dynamic sampling, apart from the keys of the attempts and of the update."""
        return jax.random.fold_in(self.step_key(), KeyTag.SAMPLING_ROUND + number)
