"""The roofline: the shortest time that an iteration can take on a chip.

A phase computes at the chip's peak while it accesses memory at the full bandwidth; the slower of the two counts. The collectives
come on top at the full bandwidth of the links: none is overlapped with computation. A collective within one node uses the
node's links; any other uses the network between nodes. What a run reaches is a share of this, the efficiency.
"""

import dataclasses

from rljax.planning.chips import Chip
from rljax.planning.collectives import Collective
from rljax.planning.lowering import CompiledProgram, Programs
from rljax.planning.operations import Cost


@dataclasses.dataclass(frozen=True)
class PhaseTime:
    """Seconds of one phase of an iteration. Every device takes the same time."""

    compute: float
    memory: float
    network: float

    @property
    def seconds(self) -> float:
        return max(self.compute, self.memory) + self.network

    @property
    def bound(self) -> str:
        """The part that takes the longest: "compute", "memory" or "network"."""
        parts = {"compute": self.compute, "memory": self.memory, "network": self.network}
        return max(parts, key=lambda name: parts[name])


def phase_time(cost: Cost, programs: list[CompiledProgram], chip: Chip, devices: int) -> PhaseTime:
    """Return the time of a phase that runs these programs, with this cost over all devices."""
    network = sum(transfer_seconds(c, chip) for program in programs for c in program.collectives)
    return PhaseTime(
        compute=cost.flops / devices / chip.flops_per_second,
        memory=cost.bytes / devices / chip.memory_bandwidth,
        network=max(network, 0.0),  # an extrapolated program subtracts collectives
    )


def transfer_seconds(c: Collective, chip: Chip) -> float:
    """Return the seconds that all executions of a collective take."""
    within_node = not chip.chips_per_node or c.span <= chip.chips_per_node
    return c.count * c.bytes_sent / (chip.node_bandwidth if within_node else chip.network_bandwidth)


def phase_times(sampling: Cost, updating: Cost, programs: Programs, chip: Chip, devices: int) -> dict[str, PhaseTime]:
    """Return the times of the two phases of an iteration: "sample" and "update"."""
    samplers = [p for p in (programs.sample, programs.greedy) if p is not None]
    return {
        "sample": phase_time(sampling, samplers, chip, devices),
        "update": phase_time(updating, [programs.advantages, programs.update], chip, devices),
    }
