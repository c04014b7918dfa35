"""A strategy that nobody showed: does RL find out that three kinds of coin can be mixed?

    rljax ablate  --config ablations/emergence --workdir runs/emergence --seeds 4
    rljax absence --config ablations/emergence --strategy three_kinds
    rljax forbid  --workdir runs/emergence/three_kinds_pay/seed_0 --strategy three_kinds

All text that the policy learns from lays down coins of one kind, or changes to a second kind once, at random. An attempt with three kinds
is in no text. Two problems in five cannot be made otherwise. In the control world no problem can be made so.

Seen (four seeds, docs/rising.md): three kinds in .03 of the attempts before RL and .45 after; in the control world .03 and .04.
"""

from .. import coins

get_config = coins.get_config


def get_ablation():
    return dict(
        question="Does RL find a strategy that no text showed?",
        hypothesis="Where three kinds of coin make amounts that two cannot, attempts that mix three kinds appear and grow, and the share of "
        "right attempts grows with them. Where three kinds make no amount, they do not appear.",
        arms=(
            ("three kinds pay",),
            ("three kinds never pay", "task.options.three=0.0"),
        ),
        claims=(
            "three kinds: three kinds pay > 5 x before",
            "three kinds: three kinds pay > three kinds never pay",
            "pass@1: three kinds pay > before",
        ),
        measures=("pass@1", "three kinds", "length", "facts right"),
    )
