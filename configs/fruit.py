"""One token holds little computation: three kinds of fruit, numbers too large to jump over at this size.

make reproduce CONFIG=configs/fruit.py WORKDIR=runs/fruit

Expected on the 128 test problems, seed 0: pass@1 .361 after SFT, .925 after 80 RL steps; jumps .62, then .00 (a jump is
right .21 of the time); mean length 19.1, then 32.1; steps .19, then .99.
"""

from configs import common


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
    c.sft.widths, c.rl.widths = (16, 48), (16, 48, 80)
    c.rl.update(dict(steps=80, eval_every=10, micro_batch=8))
    if arg.short:
        common.shorten(c)
    return c
