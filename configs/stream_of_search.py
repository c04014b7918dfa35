"""Countdown with four numbers as Stream of Search poses it (arXiv 2404.03683), from random weights.

    rljax reproduce --config stream_of_search --workdir runs/stream_of_search

Targets are uniform within 10 .. 100, numbers within 1 .. 99, and a tenth of the targets is kept for test problems. Results of steps
are 199 at the most, since each number is a token: .07 of their problems have no such solution, and are none here.
Demonstrations try at random; half of the tries end with the operation that comes nearest to the target.

Seen so far on 256 test problems, 2 attempts each, seed 0, 0.9M parameters: pass@1 .115, .244, .287 and .340 ± .049 after each thousand
steps of SFT on two cores (held-out targets .354, others .327), 333 tokens, results of steps right in .89. On one core, an hour and a half
with pretraining, where sums are rounded in another order: .326 ± .047. RL has not been run to its end: a step takes 90 seconds on
two slow cores.
"""

from . import common


def get_config(arg=None):
    arg = common.parse_arg(arg, numbers=4, limit=199, tries=20, layers=4, width=128, short=False)
    c = common.base()
    c.task.name = "countdown"
    c.task.options = dict(
        **dict(
            numbers=arg.numbers, max_number=99, limit=arg.limit, jump=0.0, give_up=0.03, tries=arg.tries, nearest=0.5
        ),
        **dict(lowest_target=10, highest_target=100, held_targets=0.1),
    )
    longest = 6 * (arg.numbers - 1) * (arg.tries + 1) + 3 * arg.tries + 1  # of a demonstration
    c.model.update(dict(layers=arg.layers, width=arg.width, heads=4, kv_heads=4, head_width=32, ff_width=3 * arg.width))
    c.model.max_length, c.model.rope_base = 1032, 10_000.0
    c.model.attention_chunk = 128  # scores of 128 queries at a time stay in a core's cache
    c.pretrain.update(dict(steps=1500, batch=16, length=256, micro_batch=4, eval_every=300))
    c.pretrain.optimizer = common.optimizer(0.01, name="muon")
    c.sft.update(
        dict(steps=4000, batch=16, distinct=0, max_new_tokens=longest, packing=-1, micro_batch=1, eval_every=1000)
    )
    c.sft.optimizer = common.optimizer(0.005, name="muon")
    # widths instead of packing: a packed sequence has the columns of the longest row, and attention costs their square
    c.rl.update(dict(steps=120, updates=2, prompts=16, group_size=8, max_new_tokens=1016, eval_every=30))
    c.rl.update(dict(widths=(192, 448), micro_batch=8, slots=64))
    c.rl.optimizer = common.optimizer(1.5e-4, schedule="constant", weight_decay=0.0)
    c.eval.update(dict(problems=256, attempts=2, greedy=False))  # 500 attempts of up to 1,000 tokens
    if arg.short:
        common.shorten(c)
    return c
