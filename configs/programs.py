"""Reinforcement learning on code: a Python function from two examples, judged by running it on three more.

rljax reproduce --config programs --workdir runs/programs

Expected on 64 test problems, seeds 0, 1, 2 (two cores, six minutes alone): pass@1 .593, .574, .590 after SFT; .887, .946,
.860 after 40 RL rollouts of four updates each; mean length 24 (23.6 to 25.1), then 42 (41.0 to 41.8); jumps .49, then .01.
"""

from . import common


def get_config(arg=None):
    arg = common.parse_arg(arg, max_number=9, short=False)
    c = common.base()
    c.task.name = "programs"
    c.task.options = dict(max_number=arg.max_number, jump=0.5, give_up=0.35, tries=6, allow_unsafe=False)
    c.model.rope_base, c.model.max_length = 1000.0, 192
    c.pretrain.update(dict(steps=1500, batch=20, length=128, micro_batch=5))
    c.pretrain.optimizer = common.optimizer(0.01, name="muon")
    c.sft.update(dict(steps=800, max_new_tokens=128, packing=-1, widths=(16, 48), micro_batch=8))
    c.sft.optimizer = common.optimizer(0.005, name="muon")
    c.rl.update(
        dict(steps=40, max_new_tokens=128, packing=-1, widths=(32, 64), micro_batch=8, eval_every=10, updates=4)
    )
    c.rl.optimizer = common.optimizer(3e-4, schedule="linear", weight_decay=0.0)
    c.eval.problems, c.eval.attempts = 64, 16
    c.eval.budget.update(common.SEARCH_BUDGET)
    if arg.short:
        common.shorten(c)
    return c
