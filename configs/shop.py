"""The main job: which two prices make the total? From random weights to both curves of R1-Zero on a 2-core CPU.

make reproduce
"""

from configs import common


def get_config(arg=None):
    arg = common.parse_arg(arg, prices=5, max_price=12, short=False)
    c = common.base()
    c.task.name = "shop"
    c.task.options = dict(
        prices=arg.prices, max_price=arg.max_price, jump=0.5, jump_right=0.0, give_up=0.3, in_order=0.5
    )
    c.model.rope_base = 1000.0
    c.model.max_length = 192
    c.sft.widths = (16, 56)
    c.rl.widths = (32, 80)
    c.rl.eval_every = 10
    c.selection = dict(rules=("shortest_correct", "rejection_sampling"), steps=60)
    if arg.short:
        common.shorten(c)
    return c
