"""What can be jumped? The shell game: swaps in a problem, swaps followed in one step, layers of the model.

    rljax sft --config cups:swaps=8,stride=2,layers=4 --workdir runs/cups

imitates demonstrators who always know the answer, from random weights. pass@1 on 128 test problems, 4 attempts at each,
after 600 steps, by how often the place is written down (0: a jump); mean of seeds 0 to 2, chance is .17:

    swaps, written   4,0   4,2   4,4     8,0   8,2   8,4   8,8
    1 layer          .38   .73   .80     .16   .16   .57   .29
    2 layers         .48   .93   1.00    .16   .20   .86   1.00
    4 layers         .62   .99   1.00    .16   .30   .99   1.00

(configs/ablations/frontier.py; intervals are in docs/ablations.md.) One layer that writes all places gets .76 of them right: it has
more places to write, and it has to find out which swap is next.

    rljax reproduce --config cups:jump=0.5 --workdir runs/cups

has half of the demonstrators jump, the others write every place, and lets reinforcement learning choose. Expected,
seeds 0 to 2, mean and 95 % interval: pass@1 .56 [.47, .65] after SFT, .995 (.990 to .998 in the three seeds) after 30 RL steps;
jumps .53 [.42, .64], of which a fifth are right, then .00; mean length 10.5 [8.6, 12.4], then 19.0.
"""

from . import common


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
    c.report.aha.behaviour = "at"
    if arg.short:
        common.shorten(c)
    return c
