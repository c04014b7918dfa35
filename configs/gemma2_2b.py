"""Gemma 2 2B (the lecture's demonstration) on GSM8K or MATH, R1-Zero-style: a reward for right answers, nothing else.

    rljax rl --config gemma2_2b:weights=FOLDER --workdir runs/gemma
    rljax rl --config gemma2_2b:weights=FOLDER,data=math,adapters=0 --workdir runs/gemma_math

FOLDER holds google/gemma-2-2b-it as Hugging Face has it: config.json, safetensors, tokenizer.json. By default adapters of
rank 32 learn beside frozen bfloat16 weights; ``adapters=0`` learns all weights in float32.

Memory, upper bounds by compilation (docs/models.md), on data=gsm8k: 20.5 GB, and 60.1 GB with adapters=0.
Evaluation samples as many attempts at once as a rollout has (eval.rows). data=math
samples four times as many tokens: halve rl.prompts.

Expected: not run here, for want of the weights and of an accelerator. What was run is a model of this shape and size with
random weights: loaded, sampled from, one RL step, on two CPU cores.
"""

from . import common


def get_config(arg=None):
    arg = common.parse_arg(arg, weights="", data="gsm8k", adapters=32, template="own", short=False)
    c = common.base()
    common.real_model(c, arg)
    c.rl.prompts, c.rl.micro_batch = 16, 2  # a vocabulary of 256,000 is what fills the memory
    if arg.short:
        common.shorten(c)
    return c
