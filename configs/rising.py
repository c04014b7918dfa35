"""Curves that keep rising: a search that pays at any length, from ten tokens to a thousand.

    rljax reproduce --config rising --workdir runs/rising

How many stops is it to the next station of a colour? docs/rising.md says why search pays up to 1,000 tokens here.

Expected, seeds 0, 1 and 2, on held-out problems: mean length 10.7, 9.5 and 8.9 before RL, 185, 215 and 183 after it; pass@1 .102, .160 and
.137, then .846, .818 and .861. Both still rise in the last fifth. About 15 minutes on one core.
"""

from . import common


def get_config(arg=None):
    arg = common.parse_arg(arg, longest=198, short=False)
    c = common.base()
    c.task.name = "ring"
    c.task.options = dict(stations=400, longest=arg.longest, jump=0.3, give_up=0.5)
    longest = 5 * arg.longest + 24  # 1,014 for 198 stops
    c.model.max_length = longest + 8
    c.model.attention_chunk = 128  # scores of 128 queries at a time stay in a core's cache
    c.pretrain.update(dict(steps=360, batch=8, length=768, micro_batch=1, eval_every=360))
    c.pretrain.optimizer = common.optimizer(0.01, name="muon")
    # one row in 64 is a page of 1,020 tokens: else what follows 10 stops would be forgotten
    c.sft.update(dict(steps=400, max_new_tokens=longest, packing=-1, micro_batch=1, general=1 / 64, eval_every=400))
    c.sft.optimizer = common.optimizer(0.005, name="muon")
    # widths instead of packing: a packed sequence has the columns of the longest row, and attention costs their square
    c.rl.update(dict(steps=100, prompts=16, group_size=8, max_new_tokens=longest, eval_every=10))
    c.rl.update(dict(widths=(32, 96, 288), micro_batch=8, slots=64))
    c.rl.optimizer = common.optimizer(5e-5, schedule="constant", weight_decay=0.0)
    c.eval.update(dict(problems=128, attempts=4, greedy=False))
    if arg.short:
        common.shorten(c)
    return c
