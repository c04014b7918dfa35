"""Curves that keep rising: a search that pays at any length, from ten tokens to a thousand.

rljax reproduce --config rising --workdir runs/rising
"""

from . import common


def get_config(arg=None):
    arg = common.parse_arg(arg, stones=251, short=False)
    c = common.base()
    c.task.name = "ring"
    c.task.options = dict(stones=arg.stones, hops=8, jump=0.3, give_up=0.5)
    longest = 4 * arg.stones + 20  # 1,024 of 251 stones
    c.model.max_length = longest + 8
    c.model.attention_chunk = 128
    c.pretrain.update(dict(steps=500, batch=8, length=768, micro_batch=1, eval_every=500))
    c.pretrain.optimizer = common.optimizer(0.01, name="muon")
    c.sft.update(dict(steps=100, batch=64, max_new_tokens=longest, widths=(32,), micro_batch=16, eval_every=100))
    c.sft.optimizer = common.optimizer(0.002, name="muon")
    c.rl.update(dict(steps=200, max_new_tokens=longest, widths=(32, 96, 288), micro_batch=8, eval_every=20, slots=64))
    c.rl.optimizer = common.optimizer(4e-4, schedule="constant", weight_decay=0.0)
    c.eval.update(dict(problems=128, attempts=4, greedy=False))
    if arg.short:
        common.shorten(c)
    return c
