"""Curves that keep rising: a search that pays at any length, from ten tokens to a thousand.

    rljax reproduce --config rising --workdir runs/rising

Which stone of a ring does a frog reach after how many hops? docs/rising.md says why length has no ceiling below 1,000 tokens here.
No run has shown it yet: docs/log.md says what was tried. With hops that are right, responses before RL would have 7 to 9 tokens and
.12 of them would be right.
"""

from . import common


def get_config(arg=None):
    arg = common.parse_arg(arg, stones=251, short=False)
    c = common.base()
    c.task.name = "ring"
    c.task.options = dict(stones=arg.stones, hops=8, jump=0.3, give_up=0.5)
    longest = 4 * arg.stones + 20  # 1,024 of 251 stones
    c.model.max_length = longest + 8
    c.model.attention_chunk = 128  # scores of 128 queries at a time stay in a core's cache
    c.pretrain.update(dict(steps=400, batch=8, length=768, micro_batch=1, eval_every=400))
    c.pretrain.optimizer = common.optimizer(0.01, name="muon")
    # a tenth of the rows are pages of 1,032 tokens: demonstrations are short, and long walks are not to be forgotten
    c.sft.update(
        dict(steps=100, batch=64, max_new_tokens=longest, widths=(32,), micro_batch=4, general=0.1, eval_every=100)
    )
    c.sft.optimizer = common.optimizer(0.002, name="muon")
    # widths instead of packing: a packed sequence has the columns of the longest row, and attention costs their square
    c.rl.update(dict(steps=200, max_new_tokens=longest, widths=(32, 96, 288), micro_batch=8, eval_every=10, slots=64))
    c.rl.optimizer = common.optimizer(4e-4, schedule="constant", weight_decay=0.0)
    c.eval.update(dict(problems=128, attempts=4, greedy=False))
    if arg.short:
        common.shorten(c)
    return c
