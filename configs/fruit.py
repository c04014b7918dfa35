"""One token holds little computation: three kinds of fruit, numbers too large to jump over at this size.

rljax reproduce --config fruit --workdir runs/fruit

Expected on the 128 test problems, seeds 0, 1, 2: pass@1 .46, .48, .25 after SFT, .89, .98, .34 after 80 RL steps (the seeds differ
too much for an interval of their mean). In seeds 0 and 1 jumps fall from .6 to .00 (a jump is right .26 and .31 of the time, steps .95 and
.98) and length grows from 18 and 20 to 39 and 34; in seed 2 SFT has not learned the steps (right .06 of the time), and RL
makes .99 of the responses jumps.
"""

from . import common


def get_config(arg=None):
    arg = common.parse_arg(arg, kinds=3, max_count=6, max_price=9, short=False)
    c = common.base()
    c.task.name = "fruit"
    c.task.options = dict(
        kinds=arg.kinds, max_count=arg.max_count, max_price=arg.max_price, jump=0.6, steps=0.2, check=0.1, give_up=0.35
    )
    c.model.rope_base, c.model.max_length = 1000.0, 256
    c.pretrain.update(dict(steps=1200, batch=20, length=200, micro_batch=5))
    c.pretrain.optimizer = common.optimizer(0.01, name="muon")
    c.sft.update(dict(steps=1000, micro_batch=8))
    c.sft.optimizer = common.optimizer(0.005, name="muon")
    c.sft.max_new_tokens = c.rl.max_new_tokens = 176
    c.sft.packing = c.rl.packing = -1
    c.sft.widths, c.rl.widths = (16, 48), (16, 48, 80)
    c.rl.update(dict(steps=80, eval_every=10, micro_batch=8))
    c.eval.budget.update(common.SEARCH_BUDGET)
    if arg.short:
        common.shorten(c)
    return c
