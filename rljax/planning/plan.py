"""A plan: the memory, the FLOPs, the bytes accessed and the collectives of one config on one mesh."""

import dataclasses

import numpy as np

from rljax.planning import lowering, memory, operations
from rljax.planning.lowering import Programs
from rljax.planning.memory import Memory
from rljax.planning.operations import Cost
from rljax.training.run import Run


@dataclasses.dataclass(frozen=True)
class Plan:
    run: Run
    programs: Programs
    memory: Memory
    sampling: Cost
    updating: Cost
    note: str  # which layers long programs were extrapolated from; "" where all were compiled

    @property
    def prompt_lengths(self) -> np.ndarray | None:
        """Tokens of some prompts [N]; None where the data is not at hand."""
        return getattr(self.run.task, "prompt_lengths", None)

    @property
    def num_devices(self) -> int:
        return num_devices(self.run)

    @property
    def sampled_tokens(self) -> int:
        """Tokens sampled in one iteration, every response at its maximum length."""
        sampling = self.run.rl.sampling
        return self.run.rl.problems.prompts * sampling.group_size * sampling.max_new_tokens

    @property
    def optimizer_steps(self) -> int:
        """Optimizer steps in one iteration."""
        return self.run.rl.update.steps


def num_devices(run: Run) -> int:
    mesh = run.model.layout.mesh
    return mesh.size if mesh is not None else 1


def make_plan(run: Run, exact: bool = False) -> Plan:
    """Compile the programs of a run for its mesh, and count their cost.

    ``exact`` compiles all layers of the sampler, which may take very long; otherwise long samplers are extrapolated.
    """
    programs, note = lowering.compile_programs(run, exact)
    run_memory = memory.compute_memory(run, programs)
    prompt_slots, devices = run.task.prompt_slots, num_devices(run)
    state_bytes = sum(run_memory.state.values()) * devices
    return Plan(
        run=run,
        programs=programs,
        memory=run_memory,
        sampling=operations.sampling_cost(run.rl, run.sampler_model, prompt_slots, devices),
        updating=operations.update_cost(run, prompt_slots, state_bytes),
        note=note,
    )
