"""Real grade-school questions, byte by byte, with a model of two million parameters: the whole path, on a CPU.

    rljax reproduce --config gsm8k_tiny:path=FOLDER --workdir runs/gsm8k

Expected, seed 0: held-out loss of SFT 1.33 nats a byte, pass@1 .008 before and after 10 RL steps on 32 test questions (4
attempts each), i.e. one right answer in 128; 94 % of the attempts write "####", 84 % a number behind it. This model can
not do the arithmetic; the config shows that the path from real text to RL works.

FOLDER holds train.jsonl and test.jsonl; without ``path`` TensorFlow Datasets downloads them. Other questions, mixtures,
difficulty and curriculum are options of the task: ``--config.task.options.datasets="math + 0.5*gsm8k"``.
"""

from . import common


def get_config(arg=None):
    arg = common.parse_arg(arg, datasets="gsm8k", path="", short=False)
    c = common.base()
    c.task.name = "questions"
    c.task.options = common.questions(datasets=arg.datasets, path=arg.path, prompt_slots=256, max_response=256)
    c.model.layers, c.model.width, c.model.ff_width = 4, 192, 512
    c.model.heads = c.model.kv_heads = 6
    c.model.max_length = 512
    c.pretrain.update(dict(steps=100, batch=16, length=256, eval_every=50, micro_batch=4))
    c.pretrain.optimizer = common.optimizer(0.01, name="muon", warmup=10)
    c.sft.update(
        dict(steps=100, batch=16, max_new_tokens=256, eval_every=100, micro_batch=4, packing=-1, widths=(96, 160))
    )
    c.sft.distinct = 0
    c.sft.optimizer = common.optimizer(0.005, name="muon", warmup=10)
    c.rl.update(dict(steps=10, prompts=4, group_size=8, max_new_tokens=256, eval_every=10, micro_batch=4))
    c.rl.packing, c.rl.widths = -1, (96, 160)
    c.rl.optimizer.learning_rate = 1e-4
    c.eval.problems, c.eval.attempts = 32, 4
    if arg.short:
        common.shorten(c)
    return c
