"""A stage whose step counts: the real loop, journal and checkpoints around it, in milliseconds a step."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp

from rljax.structs import TrainState
from rljax.training import loop
from rljax.training.schema import CheckpointOptions, LoopOptions
from rljax.training.signals import Interrupted


def new_state(size=3):
    noise = jax.random.normal(jax.random.key(7), (size,))
    zeros = {name: jnp.int32(0) for name in ("step", "cursor")}
    return TrainState(params={"w": noise, "n": jnp.zeros(())}, opt_state={"m": noise}, key=jax.random.key(0), **zeros)


@jax.jit
def train_step(state):
    params = {"w": state.params["w"] * 1.1 + 0.01, "n": state.params["n"] + 1}
    return state.replace(step=state.step + 1, params=params), {"loss": state.params["w"].sum()}


def train(workdir, steps=12, stop_at=(), eval_every=2, in_step=None, size=3, name="rl", **keep):
    """Train the toy in ``workdir``. Step s of ``stop_at`` is followed by a request to stop. ``in_step(step)`` runs in each.

    The score of an evaluation rises and falls: the best is step 4, then 6 and 2. Returns (state, evaluated steps, whether it
    was interrupted).
    """
    evaluated = []

    def evaluate(params):
        step = int(params["n"])
        evaluated.append(step)
        return {"eval/loss": abs(step - 4.4), "eval/w": float(params["w"].sum())}, [{"text": f"step {step}"}]

    def one_step(state):
        step = int(state.step) + 1
        if in_step:
            in_step(step)
        if step in stop_at:
            asked[0].asked.set()
        return train_step(state)

    asked = []
    requests = loop.stop_requests

    @contextlib.contextmanager
    def remembered():
        with requests() as current:
            current.asked.clear()
            asked.append(current)
            yield current

    loop.stop_requests = remembered
    options = LoopOptions(steps=steps, log_every=1, eval_every=eval_every)
    settings = dict(keep=dataclasses.replace(CheckpointOptions(), **keep), workdir=workdir, loggers=())
    try:
        state = loop.train(name, new_state(size), one_step, evaluate, loop=options, score="-eval/loss", **settings)
        return state, evaluated, False
    except Interrupted:
        return None, evaluated, True
    finally:
        loop.stop_requests = requests


def checkpoints(workdir, name="rl"):
    """The names in the folder of checkpoints."""
    return sorted(path.name for path in (workdir / "checkpoints" / name).iterdir())
