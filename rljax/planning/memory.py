"""What lies on each device, and when: the state, and beside it what each program needs while it runs."""

import dataclasses

import jax
import jax.numpy as jnp

from rljax.planning.lowering import Programs, Sizes, state_of
from rljax.planning.static_memory import cached, on_each, sampler_weights
from rljax.training.run import Run


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on each device."""

    state: dict[str, float]  # weights, adapters, optimiser, reference, critic, other
    sampling: dict[str, float]  # weights as the sampler lays them out, cache, other
    updating: dict[str, float]  # gradients, activations and other
    phases: dict[str, float]  # state and everything else that lives while the program runs
    host: float  # of the state, what lies in host memory instead

    @property
    def peak(self) -> float:
        return max(self.phases.values())


def memory(run: Run, programs: Programs) -> Memory:
    state = state_of(run)
    frozen = state.frozen.params if state.frozen is not None else None
    parts = {
        "weights": on_each(state.params if frozen is None else frozen),
        "adapters": 0.0 if frozen is None else on_each(state.params),
        "optimiser": on_each(state.opt_state),
        "reference": on_each(state.reference),
        "critic": on_each((state.critic, state.critic_opt_state)),
    }
    held = on_each(state)
    parts["other"] = held - sum(parts.values())
    rollout = programs.sample.output + (programs.greedy.output if programs.greedy else 0.0)
    phases = {
        "sample": held + programs.sample.temporary + rollout,
        "advantages": held + rollout + programs.advantages.temporary + programs.advantages.output,
        "update": held + rollout + programs.advantages.output + new(programs.update),
    }
    cache, weights = cached(run), sampler_weights(run)
    sampling = {
        "weights, as sampled with": min(weights, programs.sample.temporary),
        "cache": cache,
        "other": max(programs.sample.temporary - weights - cache, 0.0),
    }
    learned = state.params
    grads = on_each(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=x.sharding), learned))
    updating = {"gradients": grads, "activations": max(programs.update.temporary - grads, 0.0)}
    return Memory(parts, sampling, updating, phases, on_each(state, host=True))


def new(program: Sizes) -> float:
    """Bytes that a program adds to its inputs while it runs."""
    return program.temporary + program.output - program.aliased
