"""How much to train on each rollout: optimizer steps, learning rate, clip range.

rljax ablate --config ablations/updates --workdir runs/updates --seeds 3

Expected, seeds 0 to 2, pass@1 .27 before, mean and 95 % interval after: 1 update .83 [.74, .93], 2 .92 [.88, .97], 4
.93 [.88, .99], 8 .93 [.89, .96], 16 .81 [.64, .99]; rate / 4 .45 [.39, .52], x 4 .90 [.84, .95]; at 4 updates clip
.05 .91 [.87, .95], clip 1 .94 [.91, .97]. All of it: docs/ablations.md.
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
