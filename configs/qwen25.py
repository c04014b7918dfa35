"""Qwen2.5-0.5B or 1.5B on GSM8K or MATH, R1-Zero-style: RL from a base model, a reward for right answers, nothing else.

    rljax rl --config qwen25:weights=FOLDER --workdir runs/qwen25
    rljax rl --config qwen25:weights=FOLDER,data=math,adapters=32 --workdir runs/qwen25_math

FOLDER holds Qwen/Qwen2.5-0.5B or Qwen/Qwen2.5-1.5B (or their Math or Instruct siblings, or DeepSeek-R1-Distill-Qwen-1.5B)
as Hugging Face has them. All weights learn, unless ``adapters`` names a rank. ``data=countdown,template=r1_zero`` is TinyZero's
experiment, and needs no data set.

Memory, upper bounds by compilation (docs/models.md), on data=gsm8k: 12.5 GB for 0.5B; 35.2 GB for 1.5B, and
18.4 GB with adapters=32. Evaluation samples as many attempts at
once as a rollout has (eval.rows). data=math samples four times as many tokens: lower rl.prompts.

Expected: not run here, for want of the weights and of an accelerator. What was run is this config with the real tokenizer
and ten million random weights, on two CPU cores.
"""

from . import common


def get_config(arg=None):
    arg = common.parse_arg(arg, weights="", data="gsm8k", adapters=0, template="qwen_math", short=False)
    c = common.base()
    common.real_model(c, arg)
    if arg.short:
        common.shorten(c)
    return c
