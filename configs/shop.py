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
    c.sft.widths = (16, 32, 64)
    c.rl.widths = (24, 48, 72, 104)
    c.rl.eval_every = 10
    c.selection = dict(rules=("shortest_correct", "rejection_sampling"), steps=60)
    if arg.short:  # a minute's run of every stage, to see that all is well
        c.pretrain.steps, c.sft.steps, c.rl.steps = 20, 20, 4
        c.pretrain.eval_every = c.sft.eval_every = 10
        c.rl.eval_every, c.rl.prompts, c.rl.group_size = 2, 4, 4
        c.eval.problems, c.eval.attempts = 8, 4
        c.selection.steps = 2
    return c
