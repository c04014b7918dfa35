"""The memory of each device: the training state, and what each program needs beside it while it runs."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from rljax.planning.lowering import CompiledProgram, Programs, abstract_state
from rljax.planning.static_memory import bytes_per_device, kv_cache_bytes, sampler_weight_bytes
from rljax.training.run import Run


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on each device."""

    state: dict[str, float]  # weights, adapters, optimizer, reference, critic, other
    sampling: dict[str, float]  # the sampler's copy of the weights, KV cache, other
    updating: dict[str, float]  # gradients, activations and all other temporary memory
    phases: dict[
        str, float
    ]  # the total while each program of a run runs: state, its inputs, and the program's own memory
    host: float  # the part of the state that is offloaded to host memory

    @property
    def peak(self) -> float:
        return max(self.phases.values())

    @property
    def largest_phase(self) -> str:
        """The phase that needs the most memory."""
        return max(self.phases, key=lambda name: self.phases[name])


def compute_memory(run: Run, programs: Programs) -> Memory:
    """Return the memory of a run with these compiled programs."""
    state = abstract_state(run)
    state_total, state_parts = bytes_per_device(state), compute_state_memory(run)

    rollout = programs.sample.output + (programs.greedy.output if programs.greedy else 0.0)
    batch = programs.advantages.output
    evaluations = [p for p in (programs.evaluate, programs.evaluate_greedy) if p is not None]
    phases = {
        "sample": state_total + programs.sample.temporary + rollout,
        "advantages": state_total + rollout + programs.advantages.temporary + batch,
        "update": state_total + rollout + batch + added_bytes(programs.update),
        "evaluate": state_total + max(p.temporary + p.output for p in evaluations),
        "restore": state_total + largest_array_bytes(state),
    }

    cache, weights = kv_cache_bytes(run), sampler_weight_bytes(run)
    sampling = {
        "sampler weights": min(weights, programs.sample.temporary),
        "cache": cache,
        "other": max(programs.sample.temporary - weights - cache, 0.0),
    }

    to_gradient = lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=x.sharding)
    gradients = bytes_per_device(jax.tree.map(to_gradient, state.params))
    updating = {"gradients": gradients, "activations": max(programs.update.temporary - gradients, 0.0)}
    return Memory(state_parts, sampling, updating, phases, bytes_per_device(state, host=True))


def compute_state_memory(run: Run) -> dict[str, float]:
    """Return the bytes of each part of the training state on each device. Master weights are part of the optimizer."""
    state = abstract_state(run)
    base = state.frozen.params if state.frozen is not None else None  # with LoRA, ``params`` are the adapters
    parts = {
        "weights": bytes_per_device(state.params if base is None else base),
        "adapters": 0.0 if base is None else bytes_per_device(state.params),
        "optimizer": bytes_per_device(state.opt_state),
        "reference": bytes_per_device(state.reference),
        "critic": bytes_per_device((state.critic, state.critic_opt_state)),
    }
    return parts | {"other": bytes_per_device(state) - sum(parts.values())}


def largest_array_bytes(state: Any) -> float:
    """Return the bytes of the largest array: while a checkpoint is restored, one array at a time is summed on its device."""
    return max((bytes_per_device([x]) or bytes_per_device([x], host=True)) for x in jax.tree.leaves(state))


def added_bytes(program: CompiledProgram) -> float:
    """Return the bytes that a program needs beside its inputs while it runs."""
    return program.temporary + program.output - program.aliased
