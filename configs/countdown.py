"""Countdown: reach a target from three or four numbers with + - * /, each once.

rljax reproduce --config countdown --workdir runs/countdown
"""

from . import common


def get_config(arg=None):
    arg = common.parse_arg(arg, numbers=3, max_number=9, limit=99, short=False)
    c = common.base()
    c.task.name = "countdown"
    c.task.options = dict(
        numbers=arg.numbers, max_number=arg.max_number, limit=arg.limit, jump=0.5, give_up=0.35, tries=6
    )
    c.model.rope_base, c.model.max_length = 1000.0, 256
    c.pretrain.optimizer = common.optimizer(0.01, name="muon")
    c.sft.optimizer = common.optimizer(0.005, name="muon")
    c.sft.max_new_tokens = c.rl.max_new_tokens = 160
    c.sft.packing = c.rl.packing = -1
    c.sft.widths, c.rl.widths = (16, 48), (40, 80, 120)
    c.rl.eval_every = 10
    c.eval.budget.update(common.SEARCH_BUDGET)
    if arg.short:
        common.shorten(c)
    return c
