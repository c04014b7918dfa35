"""The setting of all ablations on a CPU: the shop with four prices of at most ten, and 50 steps of RL.

A seed's start (pretraining and SFT) takes about a minute of one core, its RL half a minute. `:full` is the main job's setting.
"""

from .. import common, shop


def get_config(arg=None):
    arg = common.parse_arg(arg, full=False, short=False)
    if arg.full:
        c = shop.get_config()
        c.selection.rules, c.rl.optimizer.schedule = (), "constant"
        return c
    c = shop.get_config("prices=4,max_price=10")
    c.model.max_length = 128
    c.pretrain.update(dict(steps=400, length=112, micro_batch=10, eval_every=400))
    c.sft.update(
        dict(steps=300, max_new_tokens=80, packing=-1, widths=(16, 40), micro_batch=16, eval_every=300, distinct=5000)
    )
    c.rl.update(
        dict(steps=50, updates=1, max_new_tokens=80, packing=-1, widths=(24, 48), micro_batch=16, eval_every=10)
    )
    c.rl.optimizer.schedule = "constant"
    c.eval.problems = 64
    c.checkpoint.keep_best = 0
    c.selection.rules = ()
    if arg.short:
        common.shorten(c)
    return c
