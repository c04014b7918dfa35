"""Which problems to practise on? Easy, hard, mixed, from easy to hard, or only those that are neither always solved nor never.

    rljax ablate --config ablations/distribution --workdir runs/distribution --seeds 3

Lists of three to five prices; pass@1 is over all of them, "level 5" over the longest.

Expected, seeds 0 to 2, pass@1 .34 before, mean and 95 % interval (or the three seeds) after, and level 5, .19 before:
mixed .76 (.68, .71, .88), level 5 .58; easy .72 [.45, .99], level 5 .50; hard .72 (.68, .61, .87), level 5 .61; easy
to hard .76 [.54, .99], level 5 .59; groups that disagree .75 (.71, .67, .88), level 5 .56. All of it:
docs/ablations.md.
"""

from .. import common, shop


def get_config(arg=None):
    arg = common.parse_arg(arg, short=False)
    c = shop.get_config("prices=5,max_price=12")
    c.task.options.fewest = 3
    c.model.max_length = 144
    c.pretrain.update(dict(steps=600, length=128, micro_batch=10, eval_every=600))
    c.sft.update(
        dict(steps=400, max_new_tokens=112, packing=-1, widths=(16, 48), micro_batch=16, eval_every=400, distinct=5000)
    )
    c.rl.update(
        dict(steps=50, updates=1, max_new_tokens=112, packing=-1, widths=(24, 56), micro_batch=16, eval_every=10)
    )
    c.rl.optimizer.schedule = "constant"
    c.eval.problems, c.checkpoint.keep_best, c.selection.rules = 96, 0, ()
    if arg.short:
        common.shorten(c)
    return c


def get_ablation():
    return dict(
        question="Which problems to practise on?",
        hypothesis="Easy problems teach searching that carries over to hard ones in part; hard ones alone give little reward at "
        "first; leaving out groups that agree gets more from each step, at the price of more samples.",
        arms=(
            ("mixed",),
            ("easy", "rl.levels.high=3"),
            ("hard", "rl.levels.low=5"),
            ("easy to hard", "rl.levels.rise=30"),
            ("groups that disagree", "rl.row.groups=refill(rounds=4)"),
        ),
        claims=(
            "level 5: easy < hard",
            "level 5: hard > mixed",
            "pass@1: easy to hard > mixed",
            "pass@1: groups that disagree > mixed",
        ),
        measures=("pass@1", "level 3", "level 5", "length"),
        figures=("ends", "curves"),
    )
