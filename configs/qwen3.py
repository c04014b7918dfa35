"""Qwen3-0.6B or 1.7B on GSM8K or MATH, R1-Zero-style: a reward for right answers, nothing else.

    rljax rl --config qwen3:weights=FOLDER --workdir runs/qwen3
    rljax rl --config qwen3:weights=FOLDER,template=r1_zero,data=math --workdir runs/qwen3_math

FOLDER holds Qwen/Qwen3-0.6B or Qwen/Qwen3-1.7B (asked in their own chat template, thinking first), or their -Base siblings
(``template=r1_zero``), as Hugging Face has them. All weights learn, unless ``adapters`` names a rank.

Memory, upper bounds by compilation (docs/models.md), on data=gsm8k: 44.5 GB for 0.6B and 60.4 GB for 1.7B.
Nearly all of it is the sampler's cache, 114 kB a token: with rl.prompts=8 the cache is a quarter. Evaluation samples as
many attempts at once as a rollout has (eval.rows).

Expected: not run here, for want of the weights and of an accelerator.
"""

from . import common


def get_config(arg=None):
    arg = common.parse_arg(arg, weights="", data="gsm8k", adapters=0, template="own", short=False)
    c = common.base()
    common.real_model(c, arg)
    c.rl.max_new_tokens = max(c.rl.max_new_tokens, 1024)  # they think at length from the start
    c.rl.widths = common.response_widths(c.rl.max_new_tokens)
    if arg.short:
        common.shorten(c)
    return c
