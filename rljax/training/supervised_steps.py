"""The train step of pretraining and fine-tuning, bound to a run's settings."""

from typing import Any

import jax

from rljax import learner
from rljax.learner.optimizer import make_optimizer
from rljax.training.run import Run, Stage


def make_supervised_step(run: Run, stage: Stage) -> tuple[Any, Any]:
    """(update(state, batch) -> (state, metrics), measure(params, batch) -> held-out loss in nats a token), jitted."""
    optimizer = make_optimizer(stage.optimizer, run.model, stage.optimizer_steps)

    def update(state: Any, batch: Any) -> Any:
        return learner.supervised_step(
            state, batch, model=run.model, optimizer=optimizer, micro_batching=stage.micro_batching
        )

    def measure(params: Any, batch: Any) -> Any:
        return learner.supervised_loss(params, batch, model=run.model, micro_batching=stage.micro_batching)

    measure_loss = jax.jit(measure)
    return jax.jit(update, donate_argnums=0), lambda params, batch: float(measure_loss(params, batch))
