"""A plan: memory, operations and what is said between devices, of one config on one mesh."""

import dataclasses

from rljax.planning import lowering, memory, operations
from rljax.planning.lowering import Programs
from rljax.planning.memory import Memory
from rljax.planning.operations import Work
from rljax.training.run import Run


@dataclasses.dataclass(frozen=True)
class Plan:
    run: Run
    programs: Programs
    memory: Memory
    sampling: Work
    updating: Work
    note: str  # how programs that are too long to compile were sized; "" where none was

    @property
    def devices(self) -> int:
        mesh = self.run.model.layout.mesh
        return mesh.size if mesh is not None else 1

    @property
    def tokens(self) -> int:
        """Sampled in one iteration, all responses as long as they may be."""
        sampling = self.run.rl.sampling
        return self.run.rl.problems.prompts * sampling.group_size * sampling.max_new_tokens

    @property
    def updates(self) -> int:
        """Optimiser steps in one iteration."""
        return self.run.rl.update.steps


def make_plan(run: Run, exact: bool = False) -> Plan:
    """Compile the config's programs for its mesh and count. ``exact``: all layers of the sampler, however long it takes."""
    compiled, note = lowering.compile_programs(run, exact)
    about = memory.memory(run, compiled)
    slots = run.task.prompt_slots
    devices = run.model.layout.mesh.size if run.model.layout.mesh else 1
    sampled = operations.sampling(run.rl, run.sampler_model, slots, devices)
    held = sum(about.state.values()) * devices
    return Plan(run, compiled, about, sampled, operations.updating(run, slots, held), note)
