"""DeepSeek-R1-Zero's own setting (arXiv 2501.12948): 32 questions a step, 16 attempts at each, up to 32,768 tokens an attempt.

    rljax plan --config r1_zero --model qwen25_32b --mesh fsdp=16,tensor=8 --chip h100
    rljax rl --config r1_zero:weights=FOLDER --workdir runs/r1_zero --config.mesh.fsdp=16 ...

The paper samples 8,192 attempts at a time and makes 16 updates of 512 from them: ``rollout=512`` (questions). Our
sampler reserves room for every attempt to grow to the limit, so that by default a rollout is one update of 512 attempts,
on-policy. The model is DeepSeek-V3-Base there (learning rate 3e-6), or Qwen2.5-32B (2e-6, and the
limit stays at 32,768; R1-Zero's is 65,536 from step 8,200 on). Its clip range is not published: .2 here.

Expected: not run; docs/plans.md has what it would need, on DeepSeek-V3 too.
"""

from . import common


def get_config(arg=None):
    arg = common.parse_arg(arg, weights="", data="math", rollout=32, tokens=32_768, learning_rate=3e-6, short=False)
    arg.adapters, arg.template = 0, "r1_zero"
    c = common.base()
    common.real_model(c, arg)
    c.model.attention_chunk = 512
    c.rl.update(dict(steps=10_400, prompts=arg.rollout, group_size=16, updates=max(arg.rollout // 32, 1)))
    c.rl.update(dict(algorithm="r1_zero", refresh_reference=400, max_new_tokens=arg.tokens, micro_batch=16))
    c.rl.widths = common.response_widths(arg.tokens)
    c.rl.optimizer.learning_rate = arg.learning_rate
    if arg.short:
        common.shorten(c)
    return c
