"""A strategy that nobody showed: does RL find out that pairs behind a total that is too high can be left out?

    rljax ablate --config ablations/emergence --workdir runs/emergence --seeds 4
    rljax absence --config ablations/emergence --strategy prune
    rljax forbid --workdir runs/emergence/limited/seed_0 --strategy prune

Prices are listed in ascending order, and every search in the textbook and in the demonstrations pairs each price with the highest
others first. So behind a + b that is too low all later pairs of a are too low as well: to go on with the next price at once, to prune,
leaves out only what must be wrong. A search of the text leaves out pairs once at the most, behind any total, by chance. To prune again and
again is in no text. Responses are cut off after eight tries of fifteen, so that it pays. In the control worlds it does not: there all pairs
have room, or the list has no order.
"""

from .. import common


def get_config(arg=None):
    arg = common.parse_arg(arg, tokens=76, short=False)
    c = common.base()
    c.task.name = "shop"
    c.task.options = dict(prices=6, max_price=20, jump=0.3, give_up=0.25, in_order=1.0, searches=1.0)
    c.task.options.update(dict(ascending=True, prunes=True, skip=0.15))
    c.model.rope_base, c.model.max_length = 1000.0, 192
    c.pretrain.update(dict(steps=800, batch=20, length=160, micro_batch=5, eval_every=800))
    c.pretrain.optimizer = common.optimizer(0.01, name="muon")
    c.sft.update(dict(steps=400, max_new_tokens=144, packing=-1, micro_batch=4, eval_every=400))
    c.sft.optimizer = common.optimizer(0.005, name="muon")
    c.rl.update(dict(steps=200, max_new_tokens=arg.tokens, packing=-1, micro_batch=8, eval_every=20))
    c.rl.optimizer = common.optimizer(3e-4, schedule="constant", weight_decay=0.0)
    c.eval.problems, c.eval.attempts = 128, 8
    c.checkpoint.keep_best = 0
    if arg.short:
        common.shorten(c)
    return c


def get_ablation():
    return dict(
        question="Does RL find a strategy that no text showed?",
        hypothesis="Where a search has no room for all pairs, leaving out those that must be too low is rewarded, and RL finds it. Where "
        "it has room, or where the list has no order, leaving out is not rewarded and does not appear.",
        arms=(
            ("limited",),
            ("room for all pairs", "rl.max_new_tokens=144"),
            ("limited, no order", "task.options.ascending=False"),
        ),
        claims=(
            "prunes: limited > before",
            "prunes: limited > room for all pairs",
            "prunes: limited > limited, no order",
            "pass@1: limited > before",
        ),
        measures=("pass@1", "prunes", "length"),
    )
