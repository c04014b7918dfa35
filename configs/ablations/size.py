"""Does the gain of RL vanish below a size, as R1's appendix reports for 7B?

rljax ablate --config ablations/size --workdir runs/size --seeds 3

Expected, seeds 0 to 2, pass@1 before -> after, mean and 95 % interval (or the three seeds), layers x width: 1 x 16
.01 -> .02 [.01, .03], 1 x 32 .05 -> .06 (.07, .03, .08), 1 x 64 .15 -> .18 [.05, .32], 2 x 32 .14 -> .25 (.23, .14,
.37), 2 x 64 .27 -> .83 [.74, .93], 3 x 96 .32 -> .92 [.91, .92]. All of it: docs/ablations.md.
"""

from . import small

get_config = small.get_config


def sized(layers, width):
    changes = {"layers": layers, "width": width, "head_width": width // 2, "ff_width": 4 * width}
    return (f"{layers} x {width}", *(f"model.{k}={v}" for k, v in changes.items()))


def get_ablation():
    return dict(
        question="How small can a model be that gains from RL?",
        hypothesis="Below a size the skills that a search stands on are not there, and RL gains little.",
        arms=(("2 x 64",), sized(1, 16), sized(1, 32), sized(1, 64), sized(2, 32), sized(3, 96)),
        claims=(
            "pass@1: 1 x 16 < 2 x 64",
            "pass@1: 1 x 16 ~ before [0.1]",
            "pass@1: 2 x 32 > before",
            "pass@1: 3 x 96 > 2 x 64",
        ),
        measures=("pass@1", "length", "verdicts right"),
        figures=("ends", "curves"),
    )
