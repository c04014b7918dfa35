"""What can be jumped? The shell game: swaps in a problem, swaps followed in one step, layers of the model.

    python -m experiments.sft --config configs/cups.py:swaps=8,stride=2,layers=4 --workdir runs/cups

imitates demonstrators who always know the answer, from random weights. pass@1 on 128 test problems, 4 attempts at each,
after 600 steps (chance is .17; stride 0 is a jump; one run a cell: the .51, on other problems, was .42):

    swaps, stride    2,0   4,0   6,0   8,0     8,4   8,2   8,1
    1 layer          .70   .39   .19   .19     .17   .62   .30
    2 layers         .77   .51   .20   .19     .25   .92   1.00
    4 layers         .83   .64   .19   .19     .32   .99   1.00

Over 2 swaps there are only about 1,080 different training problems: jumps are partly learned by heart (.87, .98 and
1.00 on training problems). One layer at stride 1 gets .77 of the places right: more places are written, and it has to
find out which swap is next.

    make reproduce CONFIG=configs/cups.py:jump=0.5 WORKDIR=runs/cups

has half of the demonstrators jump, the others write every place, and lets reinforcement learning choose. Expected,
seed 0: pass@1 .570 after SFT, .996 after 30 RL steps; jumps .53, of which a fifth are right, then .00; mean length
10.5, then 19.0.
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
    c.report.aha.behaviour = "at"
    if arg.short:
        common.shorten(c)
    return c
