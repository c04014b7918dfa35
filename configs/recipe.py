"""DeepSeek-R1's whole recipe in miniature: R1-Zero, cold start, RL for a language, rejection sampling, RL again, distillation.

rljax recipe --config recipe --workdir runs/recipe
"""

from . import common


def get_config(arg=None):
    arg = common.parse_arg(arg, prices=4, max_price=12, second=0.4, short=False)
    c = common.base()
    c.workers = 0
    c.task.name = "shop"
    c.task.options = dict(
        prices=arg.prices, max_price=arg.max_price, jump=0.5, jump_right=0.0, give_up=0.3, in_order=0.8
    )
    c.task.options.second = arg.second
    c.model.rope_base = 1000.0
    c.model.max_length = 96
    c.pretrain.update(dict(steps=600, batch=20, length=96, micro_batch=10, worked=0.3))
    c.pretrain.optimizer = common.optimizer(0.01, name="muon")
    c.sft.update(dict(batch=16, max_new_tokens=72, packing=-1, widths=(32, 56), micro_batch=8, log_every=10))
    c.sft.optimizer = common.optimizer(0.003, name="muon")
    c.rl.update(
        dict(steps=50, max_new_tokens=72, packing=-1, widths=(24, 48), micro_batch=16, eval_every=25, updates=4)
    )
    c.rl.optimizer = common.optimizer(3e-4, schedule="linear", weight_decay=0.0)
    c.eval.update(dict(problems=64, attempts=16, temperature=0.6, top_p=0.95, greedy=False))  # R1's protocol
    c.recipe = dict(
        small=dict(width=32, head_width=16, ff_width=128),  # the model that is distilled into
        watch=dict(split="validation", problems=32, attempts=8),  # what a stage is looked at with while it runs
        # of RL; on the small base alone as many as its teacher had on the way to R1
        steps=dict(zero=50, dev2=50, dev2_free=50, r1=50, small_rl=150, small_distilled_rl=50),
        target="en",
        reward="correct + language(target=en)",  # of both RL stages after the cold start
        cooler=0.7,  # temperature of the second
        # which attempts at how many training problems are imitated, how often, beside how much general text
        cold=dict(
            filter=dict(problems=256, attempts=4, language=0.6, at_least=12, per_problem=1), epochs=4, general=0.0
        ),
        reject=dict(filter=dict(problems=1024, attempts=4, language=1.0), epochs=2, general=0.25),
        distil=dict(filter=dict(problems=1024, attempts=4, language=1.0), epochs=4, general=0.0),
    )
    if arg.short:
        shorten(c)
    return c


def shorten(c):
    """A minute's run of every stage, of an easier task with a base that guesses: something must be right to be imitated."""
    common.shorten(c)
    c.task.options.update(dict(prices=3, max_price=10, jump=1.0))
    c.pretrain.update(dict(steps=250, batch=32, micro_batch=32, length=32, eval_every=250, worked=1.0))
    c.sft.max_new_tokens = c.rl.max_new_tokens = 32
    c.sft.widths = c.rl.widths = ()
    c.recipe.steps = dict.fromkeys(c.recipe.steps, 2)
    c.recipe.small = dict()  # no smaller: what is compiled once serves both
    c.recipe.watch = dict(split="validation", problems=4, attempts=2)
    for how in (c.recipe.cold, c.recipe.reject, c.recipe.distil):
        how.filter.update(dict(problems=64, attempts=8, language=0.0, at_least=0))
        how.epochs = 1
