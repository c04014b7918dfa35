"""What RL starts from: pretraining alone (R1-Zero), SFT (R1), SFT on fewer demonstrations or on other strategies.

    rljax ablate --config ablations/start --workdir runs/start --seeds 3

In all arms a tenth of the textbook's pages are worked problems, so that a model without SFT sometimes answers.

Expected, seeds 0 to 2, pass@1 before -> after, mean and 95 % interval (or the three seeds): SFT .27 -> .67 [.41,
.93], pretraining only .01 -> .06 [.04, .08], SFT on 50 problems .09 -> .05 (.09, .04, .03), on 500 .24 -> .34 [.21,
.47]; .05 of them jump .47 -> .87 (.89, .93, .78), .95 jump .16 -> .12 [.10, .14], length 5.0 -> 5.2. All of it:
docs/ablations.md.
"""

from . import small


def get_config(arg=None):
    c = small.get_config(arg)
    c.pretrain.worked = 0.1
    return c


def get_ablation():
    return dict(
        question="What to start RL from?",
        hypothesis="RL needs a start that succeeds sometimes and thinks sometimes; then it gets to the same place. Where "
        "demonstrators nearly always jump there is less thinking to make more of.",
        arms=(
            ("SFT",),
            ("pretraining only", "rl.start=pretrain"),
            ("SFT on 50 problems", "sft.distinct=50"),
            ("SFT on 500 problems", "sft.distinct=500"),
            ("SFT, .05 of them jump", "task.options.jump=0.05"),
            ("SFT, .95 of them jump", "task.options.jump=0.95"),
        ),
        claims=(
            "pass@1: pretraining only > before",
            "pass@1: pretraining only < SFT",
            "pass@1: SFT on 50 problems < SFT",
            "pass@1: SFT, .95 of them jump < SFT",
            "length: SFT, .95 of them jump < SFT",
        ),
        measures=("pass@1", "length", "jumps"),
        figures=("ends", "curves"),
    )
