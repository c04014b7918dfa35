"""One token holds only little computation: what can be jumped, over swaps, steps written down, and layers?

    rljax ablate --config ablations/frontier --workdir runs/frontier --seeds 3

The shell game (configs/cups.py), imitated from random weights: 21 cells of 7 to 45 seconds of one core.

Expected, seeds 0 to 2, mean and 95 % interval (or the three seeds): jumps over 4 swaps .38 [.27, .50], .48 [.35,
.60], .62 [.59, .64] with 1, 2, 4 layers, over 8 swaps .16 with each; 8 swaps with 2, 4, 8 places written .20 [.13,
.28], .86 (.81, .85, .94), 1.00 with 2 layers. All of it: docs/ablations.md.
"""

from .. import cups


def get_config(arg=None):
    return cups.get_config(arg)


def cell(layers, swaps, stride):
    """One arm: the place is written after every ``stride`` swaps; 0: only the answer."""
    written = swaps // stride if 0 < stride < swaps else 0
    said = {
        "model.layers": layers,
        "task.options.swaps": swaps,
        "task.options.stride": stride,
        "sft.max_new_tokens": 2 * written + 3,
        "rl.max_new_tokens": 2 * written + 8,
    }
    name = f"layers={layers} swaps={swaps} written={written}"
    return (name, *(f"{k}={v}" for k, v in said.items()))


def get_ablation():
    cells = [(n, swaps, stride) for n in (1, 2, 4) for swaps in (4, 8) for stride in (0, 4, 2, 1) if stride < swaps]
    return dict(
        question="What can be jumped?",
        hypothesis="Depth buys a few swaps in one token; written steps buy any number of them.",
        stage="sft",
        arms=[cell(*c) for c in cells],
        claims=(
            "pass@1: layers=4 swaps=4 written=0 > layers=1 swaps=4 written=0",
            "pass@1: layers=2 swaps=8 written=8 > layers=2 swaps=8 written=0",
            "pass@1: layers=2 swaps=8 written=8 > layers=4 swaps=8 written=0",
            "pass@1: layers=4 swaps=8 written=2 > layers=2 swaps=8 written=2",
        ),
        measures=("pass@1", "facts right"),
        figures=("grid", "ends"),
    )
