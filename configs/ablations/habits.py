"""Which habits let RL improve? Countdown with three numbers, SFT on demonstrations of one of Gandhi's four habits, all, or none.

rljax ablate --config ablations/habits --workdir runs/habits --seeds 3

The four habits of arXiv 2503.01307 are demonstrated in the smallest form that a vocabulary of words and numbers allows
(rljax/tasks/countdown_text.py). All arms read the same textbook, and a demonstrator finds the solution in the same share of its attempts.
"""

from .. import common, countdown


def get_config(arg=None):
    arg = common.parse_arg(arg, short=False)
    c = countdown.get_config()
    c.task.options.update(dict(jump=0.0, give_up=0.35, tries=6, habits="all", wrong=False))
    c.model.max_length = 256
    c.pretrain.update(dict(steps=600, batch=20, length=160, micro_batch=5, eval_every=600))
    c.sft.update(dict(steps=300, max_new_tokens=168, micro_batch=8, eval_every=300, distinct=5000))
    c.rl.update(dict(steps=60, max_new_tokens=168, micro_batch=8, eval_every=15))
    c.rl.optimizer.schedule = "constant"
    c.eval.problems = 64
    c.checkpoint.keep_best = 0
    if arg.short:
        common.shorten(c)
    return c


def get_ablation():
    habits = "task.options.habits={}".format
    return dict(
        question="Which habits let RL improve?",
        hypothesis="RL improves what goes back: backtracking and verification together, and less either alone, since a verdict "
        "without a second attempt changes nothing, and a second attempt without a verdict does not know when to end. Subgoals and "
        "backward chaining alone gain little. With all habits and only wrong answers RL improves as with right ones "
        "(arXiv 2503.01307); without habits it does not.",
        arms=(
            ("all four", habits("all")),
            ("none", habits("none")),
            ("verification", habits("verification")),
            ("backtracking", habits("backtracking")),
            ("subgoals", habits("subgoals")),
            ("backward chaining", habits("backward_chaining")),
            ("verification and backtracking", habits("verification+backtracking")),
            ("all four, wrong answers", habits("all"), "task.options.wrong=True"),
        ),
        claims=(
            "pass@1: all four > none",
            "pass@1: all four > verification",
            "pass@1: all four > backtracking",
            "pass@1: all four > subgoals",
            "pass@1: all four > backward chaining",
            "pass@1: verification and backtracking > backtracking",
            "pass@1: all four, wrong answers ~ all four [0.05]",
            "length: all four > before",
        ),
        measures=("pass@1", "length", "truncated"),
    )
