"""Which attempts to learn from: imitate the best of n (shortest, likeliest, random, all correct), or the policy gradient?

rljax ablate --config ablations/selection --workdir runs/selection --seeds 3

Expected, seeds 0 to 2, pass@1 .27 and length 14.0 before, mean and 95 % interval after: Dr. GRPO .83 [.74, .93],
36.4; GRPO .73 [.63, .82], 38.5; RLOO .83 [.73, .93]; all correct .79 [.77, .82]; random .68 [.55, .82]; likeliest .84
[.80, .89]; shortest .22 [.16, .29], 8.7. All of it: docs/ablations.md.
"""

from . import small

get_config = small.get_config


def get_ablation():
    best = "rl.row.advantage=best_of_n(by={}, at_least=1)".format
    return dict(
        question="Which attempts to learn from?",
        hypothesis="Choosing the shortest correct attempt teaches jumping, not thinking: responses stay short and accuracy "
        "stays where it was. Any choice that does not look at the length lets thinking grow; comparing attempts (RLOO, GRPO, "
        "Dr. GRPO) learns more from the same samples than imitating right ones, since it also learns from wrong ones.",
        arms=(
            ("Dr. GRPO", "rl.algorithm=dr_grpo"),
            ("GRPO", "rl.algorithm=grpo"),
            ("RLOO", "rl.algorithm=rloo"),
            ("all correct", "rl.algorithm=rejection_sampling"),
            ("random correct", "rl.algorithm=best_of_n", best("random")),
            ("likeliest correct", "rl.algorithm=best_of_n", best("likeliest")),
            ("shortest correct", "rl.algorithm=best_of_n", best("shortest")),
        ),
        claims=(
            "pass@1: shortest correct < Dr. GRPO",
            "length: shortest correct < Dr. GRPO",
            "length: shortest correct < random correct",
            "jumps: shortest correct > before",
            "length: all correct > before",
            "pass@1: all correct < Dr. GRPO",
            "pass@1: GRPO ~ Dr. GRPO [0.05]",
            "pass@1: RLOO ~ Dr. GRPO [0.05]",
        ),
        measures=("pass@1", "length", "jumps"),
    )
