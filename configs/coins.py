"""The coins: which coins make the amount? To pay with three kinds is what pays most, and it is in no text.

    rljax reproduce --config coins --workdir runs/coins

Textbook and demonstrators lay down coins of one kind or two (rljax/tasks/coins.py). docs/rising.md says what RL makes of that.
"""

from . import common


def get_config(arg=None):
    arg = common.parse_arg(arg, coins=5, short=False)
    c = common.base()
    c.task.name = "coins"
    c.task.options = dict(coins=arg.coins, one=0.2, three=0.4, give_up=0.1, change=0.3)
    slots = 4 * arg.coins + 3
    c.model.rope_base, c.model.max_length = 1000.0, 192
    c.pretrain.update(dict(steps=800, batch=20, length=160, micro_batch=5, eval_every=800))
    c.pretrain.optimizer = common.optimizer(0.01, name="muon")
    c.sft.update(dict(steps=200, max_new_tokens=slots, packing=-1, micro_batch=4, eval_every=200))
    c.sft.optimizer = common.optimizer(0.005, name="muon")
    c.rl.update(
        dict(steps=400, prompts=16, group_size=16, max_new_tokens=slots, packing=-1, micro_batch=4, eval_every=20)
    )
    c.rl.optimizer = common.optimizer(3e-4, schedule="constant", weight_decay=0.0)
    c.eval.update(dict(problems=256, attempts=8))
    if arg.short:
        common.shorten(c)
    return c
