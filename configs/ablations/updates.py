"""How much to train on each rollout: optimiser steps, learning rate, clip range.

python -m experiments.ablate --config configs/ablations/updates.py --workdir runs/updates --seeds 3

Expected, seeds 0 to 2, pass@1 .27 before, mean and 95 % interval after: 1 update .83 [.79, .86], 2 .92 [.91, .94], 4 .93 [.91,
.96], 8 .93 [.91, .93], 16 .81 [.74, .88]; rate / 4 .45 [.44, .48], x 4 .90 [.88, .92]; at 4 updates clip .05 .91 [.89, .92], clip 1
.94 [.93, .95]. All of it: docs/ablations.md.
"""

from . import small

get_config = small.get_config


def get_ablation():
    clip = "rl.row.surrogate=ppo_clip(low={0}, high={0})".format
    several = "rl.updates=4"
    return dict(
        question="How much to train on each rollout?",
        hypothesis="Several updates a rollout learn more from the same samples, up to a point; beyond it the policy is too far "
        "from the one that sampled. The clip matters only then. The learning rate does much of what updates do.",
        arms=(
            ("updates=1",),
            ("updates=2", "rl.updates=2"),
            ("updates=4", several),
            ("updates=8", "rl.updates=8"),
            ("updates=16", "rl.updates=16"),
            ("rate / 4", "rl.optimizer.learning_rate=7.5e-5"),
            ("rate x 4", "rl.optimizer.learning_rate=1.2e-3"),
            ("updates=4, clip .05", several, clip(0.05)),
            ("updates=4, clip 1", several, clip(1.0)),
        ),
        claims=(
            "pass@1: updates=4 > updates=1",
            "pass@1: updates=16 < updates=4",
            "pass@1: rate x 4 > updates=1",
            "pass@1: rate / 4 < updates=1",
            "pass@1: updates=4, clip .05 < updates=4",
            "pass@1: updates=4, clip 1 ~ updates=4 [0.05]",
        ),
        measures=("pass@1", "length", "truncated"),
        figures=("ends", "curves"),
    )
