"""Curves that keep rising, with Dr. GRPO and with GRPO, whose 1/|o| lengthens wrong responses.

rljax ablate --config ablations/rising --workdir runs/rising --seeds 3
"""

from .. import rising

get_config = rising.get_config


def get_ablation():
    return dict(
        question="Does length keep rising where search pays at any length?",
        hypothesis="Where twice as many tries solve about as many more problems, from the first try to the 198th, accuracy and mean length "
        "rise together through the whole run, length more than tenfold, and both still rise in its last fifth. Hardly a token is "
        "wasted behind the first right try. With 1/|o| long wrong responses are punished less, so that length grows faster than with "
        "Dr. GRPO at the same accuracy.",
        arms=(
            ("Dr. GRPO", "rl.algorithm=dr_grpo"),
            ("GRPO", "rl.algorithm=grpo", "rl.row.kl=none"),
        ),
        claims=(
            "length: Dr. GRPO > 10 x before",
            "length: Dr. GRPO > a fifth ago",
            "pass@1: Dr. GRPO > before",
            "pass@1: Dr. GRPO > a fifth ago",
            "length of wrong: GRPO > Dr. GRPO",
        ),
        measures=("pass@1", "length", "length of right", "length of wrong", "wasted", "truncated"),
    )
