"""Length biases: GRPO's 1/|o| against Dr. GRPO's constant against the token mean, on lengths of right and of wrong answers.

rljax ablate --config ablations/lengths --workdir runs/lengths --seeds 3

Expected, seeds 0 to 2, mean and 95 % interval after: length of wrong responses 46.7 [39.5, 54.0] (constant), 55.0
[51.1, 58.9] (1/|o|), 45.8 [37.4, 54.1] (token mean); of right ones 34.3, 33.2, 34.1; pass@1 .83 [.74, .93], .73 [.63,
.83], .82 [.74, .89]. All of it: docs/ablations.md.
"""

from . import small

get_config = small.get_config


def get_ablation():
    mean = "rl.row.aggregation={}".format
    return dict(
        question="What does the weight of a token do to lengths?",
        hypothesis="With 1/|o| a long wrong response is punished less a token than a short one, so that wrong responses grow "
        "longer than with a constant (arXiv 2503.20783). The token mean lies between.",
        arms=(
            ("constant", mean("seq_mean_token_sum_const")),
            ("1/|o|", mean("seq_mean_token_mean")),
            ("token mean", mean("token_mean")),
        ),
        claims=(
            "length of wrong: 1/|o| > constant",
            "length of wrong: token mean < 1/|o|",
            "length of right: 1/|o| ~ constant [3]",
            "pass@1: 1/|o| ~ constant [0.05]",
            "truncated: 1/|o| > constant",
        ),
        measures=("pass@1", "length of right", "length of wrong"),
    )
