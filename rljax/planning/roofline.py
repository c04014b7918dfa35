"""How long an iteration takes on a chip at best, and at the share of the best that one expects.

The best: the larger of products at the peak and bytes at the memory's bandwidth, and after it what devices say to each
other at the links' bandwidth, nothing of it hidden behind computing. Devices that talk within a node use its links, others
the network.
"""

import dataclasses

from rljax.planning.chips import Chip
from rljax.planning.collectives import Collective
from rljax.planning.lowering import Programs, Sizes
from rljax.planning.operations import Work


@dataclasses.dataclass(frozen=True)
class Phase:
    """Seconds of one iteration, on each device."""

    flops: float
    memory: float
    links: float

    @property
    def seconds(self) -> float:
        return max(self.flops, self.memory) + self.links

    @property
    def bound(self) -> str:
        best = {"products": self.flops, "memory": self.memory, "links": self.links}
        return max(best, key=lambda name: best[name])


def phase(work: Work, programs: list[Sizes], chip: Chip, devices: int) -> Phase:
    links = sum(spoken(c, chip) for p in programs for c in p.said)
    return Phase(work.flops / devices / chip.flops, work.bytes / devices / chip.bandwidth, max(links, 0.0))


def spoken(c: Collective, chip: Chip) -> float:
    near = not chip.node or c.within <= chip.node
    return c.times * c.sent / (chip.near if near else chip.far)


def phases(sampling: Work, updating: Work, programs: Programs, chip: Chip, devices: int) -> dict[str, Phase]:
    draws = [p for p in (programs.sample, programs.greedy) if p is not None]
    return {
        "sample": phase(sampling, draws, chip, devices),
        "update": phase(updating, [programs.advantages, programs.update], chip, devices),
    }
