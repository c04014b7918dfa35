"""On-policy distillation beside RL and beside SFT on the teacher's samples: the same small student, as many attempts for each.

rljax distill --config distillation --workdir runs/distillation --seeds 3
"""

from . import common
from .ablations import small


def get_config(arg=None):
    arg = common.parse_arg(arg, short=False)
    c = small.get_config()
    c.workers = 0
    c.distillation = dict(
        student=dict(width=32, head_width=16, ff_width=128),  # a quarter of the teacher's weights
        teacher_steps=150,  # RL of the teacher, after the same pretraining and SFT as the student
        problems=800,  # that the teacher answers for SFT, each as often as a group of RL has attempts
        epochs=(1, 4),  # passes of SFT over the right ones of its attempts
    )
    if arg.short:
        common.shorten(c)
        c.distillation.update(dict(teacher_steps=2, problems=64, epochs=(1,)))
        c.sft.steps = c.sft.eval_every = 120  # something must be right to be imitated
        c.task.options.jump_right = 1.0
    return c
