"""The settings of policy-gradient learning: options of the config, and ``PolicyLearner``, which binds them to a model."""

import dataclasses
from typing import Any

import jax
import optax

from rljax import policy_gradient as pg
from rljax import transformer
from rljax.learner.micro_batches import Batch, MicroBatching, score_batch
from rljax.options import option
from rljax.transformer import lora

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class UpdateOptions:
    """How often the policy is updated on each rollout, and when the reference of the KL term moves."""

    updates: int = option(1, "optimizer steps in one pass over a rollout, on disjoint random parts of it", low=1)
    epochs: int = option(1, "passes over each rollout", low=1)
    refresh_reference: int = option(0, "move the KL reference every so many optimizer steps; 0: never", low=0)
    mix_reference: float = option(1.0, "share of the policy in the moved reference; 1: a copy of it", low=0.0, high=1.0)
    teacher: str = option(
        "",
        "the reference that attempts are compared with, for on_policy_distillation and KL terms: DIR:stage[@step] of another run, "
        "or a Hugging Face folder, of the same vocabulary; '': what rl.start names",
    )

    @property
    def steps(self) -> int:
        """The number of optimizer steps on each rollout."""
        return self.updates * self.epochs


@dataclasses.dataclass(frozen=True)
class CriticOptions:
    """The critic (value function) of PPO, for an algorithm that has one."""

    trunk: str = option("own", "a transformer of its own, or a head on the policy's layers", choices=("own", "policy"))
    clip: float = option(0.2, "values stay this near those before the first update; 0: no clipping", low=0.0)
    coef: float = option(1.0, "weight of the value loss in layers that are shared", low=0.0)
    warmup: int = option(0, "rollouts on which only the critic learns (VAPO's value pretraining)", low=0)


@dataclasses.dataclass(frozen=True)
class CriticLearner:
    """The critic's optimizer and options."""

    optimizer: optax.GradientTransformation
    options: CriticOptions = CriticOptions()


@dataclasses.dataclass(frozen=True)
class PolicyLearner:
    """Everything that ``compute_advantages`` and ``update_policy`` need besides the training state and the data."""

    algorithm: pg.Algorithm
    model: transformer.Config
    optimizer: optax.GradientTransformation
    prompt_slots: int  # P: the column where responses begin
    max_new_tokens: int  # T: the constant that Dr. GRPO divides by
    group_size: int  # G
    temperature: Array | float = 1.0
    update: UpdateOptions = UpdateOptions()
    micro_batching: MicroBatching = MicroBatching()
    critic: CriticLearner | None = None
    teacher: transformer.Config | None = None  # architecture of the reference, where it is another model's policy

    def score(self, params: Any, batch: Batch, frozen: lora.Base | None = None) -> tuple[Array, Array]:
        """(log-probabilities, entropies) of the response tokens, [n, S - P] float32 nats, at the sampling temperature.

        Both are of the distribution over the tokens that the sampler kept, where the batch has a sampling mask.
        ``params`` are adapters where ``frozen`` holds the weights that they are attached to.
        """
        policy = lora.policy_params(params, frozen)
        return score_batch(policy, self.model, batch, self.temperature, self.prompt_slots)

    def score_reference(self, reference: Any, batch: Batch, frozen: lora.Base | None = None) -> Array:
        """Log-probabilities [n, S - P] of the response tokens under the reference, as ``score`` has them of the policy."""
        if self.teacher is None:
            return self.score(reference, batch, frozen)[0]
        return score_batch(reference, self.teacher, batch, self.temperature, self.prompt_slots)[0]
