"""Does RL only sharpen? pass@k and cons@k against k, before and after.

rljax ablate --config ablations/test_time --workdir runs/test_time --seeds 3

Expected, seeds 0 to 2, mean and 95 % interval (or the three seeds), before -> after: pass@1 .25 [.21, .29] -> .83
[.74, .92], pass@64 .99 (1.00, .98, 1.00) -> 1.00, cons@64 .52 [.26, .77] -> 1.00. All of it: docs/ablations.md.
"""

from . import small


def get_config(arg=None):
    c = small.get_config(arg)
    c.rl.eval_every, c.eval.attempts = c.rl.steps, 64
    return c


def get_ablation():
    return dict(
        question="Does RL only sharpen?",
        hypothesis="Before RL the right answer is among 64 attempts nearly always, by luck: pass@64 gains little, pass@1 much, "
        "and the majority vote of the model before RL does less than one attempt of the model after it.",
        arms=(("RL",),),
        claims=(
            "pass@1: RL > before",
            "pass@64: RL ~ before [0.02]",
            "cons@64: RL > before",
        ),
        measures=("pass@1", "pass@64", "cons@64"),
        figures=("attempts",),
    )
