"""Data sheets of accelerators: memory, peak speed, bandwidths and price of one chip. The roofline uses them.

``flops_per_second`` is the peak of dense bfloat16 matrix products. ``node_bandwidth`` is what a chip sends in one direction over
all its direct links together: to any chip of a TPU slice, or to the 8 GPUs of a node. ``network_bandwidth`` is the chip's share
of the network between nodes; on a TPU it is the same links. Prices are assumptions, near public on-demand prices in 2025;
``--price`` of experiments.plan replaces them.
"""

import dataclasses

from rljax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chip:
    memory: float  # bytes
    flops_per_second: float  # bfloat16
    memory_bandwidth: float  # bytes a second
    node_bandwidth: float  # bytes a second, one direction
    network_bandwidth: float  # bytes a second, one direction
    chips_per_node: int  # chips that ``node_bandwidth`` reaches; 0: all
    dollars_per_hour: float


G, T = 1e9, 1e12
CHIPS = {
    "v5e": Chip(16 * 2**30, 197 * T, 819 * G, 200 * G, 200 * G, 0, 1.20),
    "v5p": Chip(95 * 2**30, 459 * T, 2765 * G, 600 * G, 600 * G, 0, 4.20),
    "v6e": Chip(32 * 2**30, 918 * T, 1640 * G, 448 * G, 448 * G, 0, 2.70),
    "a100": Chip(80 * G, 312 * T, 2039 * G, 300 * G, 25 * G, 8, 2.50),
    "h100": Chip(80 * G, 989 * T, 3350 * G, 450 * G, 50 * G, 8, 3.50),
    "h200": Chip(141 * G, 989 * T, 4800 * G, 450 * G, 50 * G, 8, 4.00),
}


def get_chip(name: str) -> Chip:
    """Return the chip with this name, in upper or lower case. Raises UserError for a name that CHIPS does not have."""
    if name.lower() not in CHIPS:
        raise UserError(f"--chip={name}: not known, choose from {', '.join(CHIPS)}")
    return CHIPS[name.lower()]
