"""The train step of pretraining and SFT, bound to the settings of a run."""

from typing import Any

import jax

from rljax import learner
from rljax.learner.optimizer import make_optimizer
from rljax.training.run import Run, Stage


def make_supervised_step(run: Run, stage: Stage) -> tuple[Any, Any]:
    """(``train_step(state, batch) -> (state, metrics)``, ``held_out_loss(params, batch) -> float``, nats per token), jitted."""
    optimizer = make_optimizer(stage.optimizer, run.model, stage.optimizer_steps)

    def train_step(state: Any, batch: Any) -> Any:
        return learner.supervised_step(
            state, batch, model=run.model, optimizer=optimizer, micro_batching=stage.micro_batching
        )

    def loss(params: Any, batch: Any) -> Any:
        return learner.supervised_loss(params, batch, model=run.model, micro_batching=stage.micro_batching)

    jitted_loss = jax.jit(loss)
    return jax.jit(train_step, donate_argnums=0), lambda params, batch: float(jitted_loss(params, batch))
