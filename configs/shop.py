"""The main job: which two prices make the total? From random weights to both curves of R1-Zero on a 2-core CPU.

    rljax reproduce --config shop --workdir runs/shop

Expected on the 128 test problems, seeds 0 to 2 on one core, mean and 95 % interval: pass@1 .227 [.154, .300] after SFT, .984 [.981, .988]
after RL; mean length 15.8 [13.4, 18.2], then 53.6 [46.9, 60.4]; jumps .51, then .00; cons@16 .48, then 1.00.
Seed 0 on two cores, where sums are rounded in another order, ended at .964.
"""

from . import common


def get_config(arg=None):
    arg = common.parse_arg(arg, prices=5, max_price=12, short=False)
    c = common.base()
    c.task.name = "shop"
    c.task.options = dict(
        prices=arg.prices, max_price=arg.max_price, jump=0.5, jump_right=0.0, give_up=0.3, in_order=0.8
    )
    c.model.rope_base = 1000.0
    c.model.max_length = 192
    c.pretrain.update(dict(steps=1000, batch=20, length=160, micro_batch=5))
    c.pretrain.optimizer = common.optimizer(0.01, name="muon")
    c.sft.update(dict(steps=800, max_new_tokens=160, packing=-1, widths=(16, 56), micro_batch=4))
    c.sft.optimizer = common.optimizer(0.005, name="muon")
    c.rl.update(
        dict(steps=110, updates=4, max_new_tokens=160, packing=-1, widths=(32, 80), micro_batch=4, eval_every=10)
    )
    c.rl.optimizer = common.optimizer(3e-4, schedule="linear", weight_decay=0.0)
    c.selection = dict(rules=("shortest_correct", "rejection_sampling"), steps=50)
    c.eval.budget.update(common.SEARCH_BUDGET)
    if arg.short:
        common.shorten(c)
    return c
