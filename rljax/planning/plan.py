"""A plan: memory, operations and what is said between devices, of one config on one mesh."""

import dataclasses

from rljax.planning import lowering, memory, operations
from rljax.planning.lowering import Programs
from rljax.planning.memory import Memory
from rljax.planning.operations import Work
from rljax.training import settings
from rljax.training.settings import Settings


@dataclasses.dataclass(frozen=True)
class Plan:
    settings: Settings
    programs: Programs
    memory: Memory
    sampling: Work
    updating: Work
    note: str  # how programs that are too long to compile were sized; "" where none was

    @property
    def devices(self) -> int:
        mesh = self.settings.model.layout.mesh
        return mesh.size if mesh is not None else 1

    @property
    def tokens(self) -> int:
        """Sampled in one iteration, all responses as long as they may be."""
        c = self.settings.config.rl
        return c.prompts * c.group_size * c.max_new_tokens

    @property
    def updates(self) -> int:
        """Optimiser steps in one iteration."""
        return settings.policy_update(self.settings).steps


def make(s: Settings, exact: bool = False) -> Plan:
    """Compile the config's programs for its mesh and count. ``exact``: all layers of the sampler, however long it takes."""
    compiled, note = lowering.compiled(s, exact)
    about = memory.memory(s, compiled)
    slots = s.task.prompt_slots
    devices = s.model.layout.mesh.size if s.model.layout.mesh else 1
    sampled = operations.sampling(s.config.rl, s.actor, slots, devices)
    held = sum(about.state.values()) * devices
    return Plan(s, compiled, about, sampled, operations.updating(s, slots, held), note)
