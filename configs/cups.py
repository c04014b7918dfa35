"""What can be jumped? The shell game: swaps in a problem, swaps followed in one step, layers of the model.

    python -m experiments.sft --config configs/cups.py:swaps=8,stride=2,layers=4 --workdir runs/cups

imitates demonstrators who always know the answer, from random weights, and ends with the held-out pass@1 of a cell of this
table; stride=0 is a jump from the prompt to the answer.

    make reproduce CONFIG=configs/cups.py:jump=0.5 WORKDIR=runs/cups

has half of the demonstrators jump, the others write every place, and lets reinforcement learning choose.
"""

from configs import common


def get_config(arg=None):
    arg = common.parse_arg(arg, swaps=8, stride=1, layers=2, fewest=0, jump=0.0, short=False)
    c = common.base()
    c.stages = ("sft", "rl") if 0 < arg.jump < 1 else ("sft",)  # one way to answer leaves nothing to choose
    c.task.name = "cups"
    c.task.options = dict(cups=6, swaps=arg.swaps, fewest=arg.fewest, stride=arg.stride, jump=arg.jump, drill=1)
    c.model.layers = arg.layers
    c.model.rope_base, c.model.max_length = 100.0, 128
    written = arg.swaps // arg.stride if 0 < arg.stride < arg.swaps else 0
    c.sft.update(dict(start="", steps=600, distinct=0, eval_every=600, max_new_tokens=2 * written + 3))
    c.sft.optimizer = common.optimizer(0.004, name="muon")
    c.rl.update(dict(steps=30, max_new_tokens=2 * written + 8, eval_every=10, micro_batch=16))
    if written and arg.jump:  # jumps are short: their rows are computed at their own width
        c.sft.widths, c.rl.widths = (4,), (4,)
    c.eval.update(dict(attempts=4, greedy=False))
    if arg.short:
        common.shorten(c)
    return c
