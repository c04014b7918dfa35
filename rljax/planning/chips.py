"""What one chip can do, from its maker's sheet: the numbers that a roofline is made of.

Peaks are of dense bfloat16 products. ``near`` is what a chip sends (one way, all links together) to those it is wired to:
all of a TPU slice, or the 8 GPUs of a node; ``far`` is its share of the network between nodes (TPU: the same links).
Prices are assumptions, of the size of public on-demand prices in 2025; ``--price`` says yours.
"""

import dataclasses

from rljax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chip:
    memory: float  # bytes
    flops: float  # bfloat16, a second
    bandwidth: float  # bytes a second, memory
    near: float  # bytes a second, one way
    far: float  # bytes a second, one way
    node: int  # chips that ``near`` reaches; 0: all
    price: float  # $ an hour


G, T = 1e9, 1e12
CHIPS = {
    "v5e": Chip(16 * 2**30, 197 * T, 819 * G, 200 * G, 200 * G, 0, 1.20),
    "v5p": Chip(95 * 2**30, 459 * T, 2765 * G, 600 * G, 600 * G, 0, 4.20),
    "v6e": Chip(32 * 2**30, 918 * T, 1640 * G, 448 * G, 448 * G, 0, 2.70),
    "a100": Chip(80 * G, 312 * T, 2039 * G, 300 * G, 25 * G, 8, 2.50),
    "h100": Chip(80 * G, 989 * T, 3350 * G, 450 * G, 50 * G, 8, 3.50),
    "h200": Chip(141 * G, 989 * T, 4800 * G, 450 * G, 50 * G, 8, 4.00),
}


def chip(name: str) -> Chip:
    """Raises UserError for a chip that is not listed."""
    if name.lower() not in CHIPS:
        raise UserError(f"--chip={name}: not known, choose from {', '.join(CHIPS)}")
    return CHIPS[name.lower()]
