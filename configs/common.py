"""What configs share. A config is a short file that starts from ``base()``, every setting with its default, and changes a few.

A file's ``get_config(arg)`` may take ``configs/name.py:key=value,key=value`` for choices that change several settings;
``--config.key=value`` on the command line changes one. Every setting is declared, with its default, its help text and its
range, in the part of rljax that uses it: ``rljax config NAME --grep WORD`` finds it.
"""

from types import SimpleNamespace

from ml_collections import ConfigDict

from rljax.learner.optimizer import OptimizerOptions
from rljax.options import defaults
from rljax.training.schema import default_config


def base() -> ConfigDict:
    """Every setting with its default."""
    return default_config()


# How the documented results with Muon were measured: one norm for all weights, no decay of the embedding and the head
MEASURED_MUON = dict(clip_scope="all", decay_embeddings=False)


# What budget forcing says in the worlds whose attempts are searches: `rljax evaluate --budget 16,32`
SEARCH_BUDGET = dict(wait="wait", end="answer", answer="answer")


def optimizer(learning_rate: float, **changes) -> ConfigDict:
    """The settings of an optimizer (adamw unless ``name`` says otherwise), with some changed."""
    measured = MEASURED_MUON if changes.get("name") == "muon" else {}
    return ConfigDict(defaults(OptimizerOptions) | dict(learning_rate=learning_rate) | measured | changes)


def questions(**changes) -> dict:
    """Options of the task ``questions``, all of them, so that each can be set on the command line."""
    return (
        dict(
            datasets="gsm8k",  # to train on, "math + 0.5*gsm8k": gsm8k, math, mbpp, countdown, gym/TASK, a .jsonl file
            test="",  # to evaluate on, "math500 + aime24"; "": what it trains on
            path="",  # folder of the files; "": downloaded once
            data_dir="",  # where prepared sets are kept; "": the default of TensorFlow Datasets
            own_data_dir="",  # where those made from files of your own are kept; "": in the workdir
            template="plain",  # qa, r1_zero, r1_zero_dot, oat, qwen_math, chat, none, a text with {question}, or own
            instruction="Please reason step by step, and put your final answer within \\boxed{}.",  # template own:
            system="",  # ... said after the question, by the system ("": as the template says), and ...
            thinking=True,  # ... think first, where the template knows that
            stop_strings=(),  # texts that end a response, ("\n\n", "Question:"); a stop token ends it too
            prompt_slots=512,  # 0: as many as the longest question needs
            max_response=400,
            decontaminate=10,  # words in a row that no training question may share with a test question; 0: any
            pass_rates="",  # file of pass rates by experiments.evaluate --split train
            min_pass_rate=0.0,
            max_pass_rate=1.0,
            curriculum="",  # level, pass_rate or length: from easy to hard
            curriculum_over=10_000,
            allow_unsafe=False,  # run programs where the kernel cannot jail them
        )
        | changes
    )


def fruit_text(**changes) -> dict:
    """Options of the task ``fruit_text``, all of them, so that each can be set on the command line."""
    return (
        dict(
            level="5",  # 1 to 6, several as "1-3", or with weights as "1-3 + 0.5*5"
            max_number=12,  # the largest number in a problem of levels 1 to 3
            max_count=6,  # things bought of one kind, levels 4 to 6
            max_price=6,  # of one thing, levels 4 to 6
            examples=3,  # worked examples in the prompt; 0: the question alone
            in_steps=1.0,  # share of the examples that answer in steps; the others answer at once
            fixed_examples=False,  # all problems of a level have the same examples
            template="qa",  # another of rljax.text.templates, a text with {question}, or own
            instruction="Please reason step by step, and put your final answer within \\boxed{}.",  # template own:
            system="",  # ... said after the question, by the system ("": as the template says), and ...
            thinking=True,  # ... think first, where the template knows that
            stop_strings=("\n",),  # texts that end a response; a stop token ends it too
            prompt_slots=0,  # as many as the longest prompt needs
            jump=0.0,  # share of the demonstrations that answer at once
        )
        | changes
    )


# Put to the model before and after RL, whatever levels it learns
LECTURE_QUESTION = (
    "Emily buys 3 apples and 2 oranges. Each orange costs $2. The total is $13. What is the cost of an apple?"
)


def parse_word_problems(arg: str | None, weights: str) -> SimpleNamespace:
    """The arguments of a config of ``word_problems``, with the model that it names where none is given."""
    return parse_arg(
        arg,
        weights=weights,
        level="1-2",
        examples=3,
        in_steps=1.0,
        tokens=48,
        adapters=0,
        cold=False,
        short=False,
    )


def word_problems(c: ConfigDict, arg) -> None:
    """RL of a small pretrained model on arithmetic in words, on a CPU: from prompts with worked examples, or after a cold start.

    ``arg`` has weights, level, examples, in_steps (the share of them that answer in steps), tokens (the longest response),
    adapters (a rank, or 0) and cold (whether SFT on the model's own right attempts comes first, so that prompts need no examples).
    """
    c.weights, c.workers = arg.weights, 0  # the verifier takes microseconds: no processes for it
    c.stages = ("sft", "rl") if arg.cold else ("rl",)
    c.task.name = "fruit_text"
    c.task.options = fruit_text(level=arg.level, examples=0 if arg.cold else arg.examples, in_steps=arg.in_steps)
    c.rl.update(dict(start="sft" if arg.cold else "weights", steps=60, prompts=8, group_size=8, eval_every=20))
    c.sft.update(dict(start="weights", batch=16, eval_every=1000))
    # packed sequences compute no padding, and the prompt of a group once; each has room for about one group
    room = 4 * arg.tokens + 80 * (0 if arg.cold else arg.examples) + 64
    for stage in (c.sft, c.rl):
        stage.update(dict(max_new_tokens=arg.tokens, packing=room, micro_batch=4))
    c.model.update(dict(dtype="bfloat16", cache_dtype="bfloat16"))  # of products; weights that learn are float32
    c.model.logprob_chunk = 256  # columns of logits in memory at once: the vocabulary is large
    c.rl.lora.rank = arg.adapters
    # at 3e-5 SmolLM2 learns products in ten steps, at 1e-5 in thirty; adapters want several times the rate of whole weights
    rate = 1e-4 if arg.adapters else 3e-5
    c.rl.optimizer = optimizer(rate, schedule="constant", warmup=5, weight_decay=0.0)
    c.sft.optimizer = optimizer(1e-5, schedule="constant", warmup=5, weight_decay=0.0)
    c.eval.update(dict(problems=64, attempts=8, greedy=False))
    c.report.question = LECTURE_QUESTION


def real_model(c: ConfigDict, arg) -> None:
    """R1-Zero-style RL on a Hugging Face folder.

    ``arg`` has weights, data (gsm8k, math, countdown, or a FILE.jsonl with a test split of its own), adapters (a rank, or 0) and
    template.
    """
    c.weights, c.stages, c.workers = arg.weights, ("rl",), 4
    c.task.name = "questions"
    tests = {"gsm8k": "gsm8k", "math": "math500", "countdown": "countdown"}
    if arg.data not in tests and not arg.data.endswith(".jsonl"):
        raise ValueError(f"data={arg.data!r}: choose from {sorted(tests)}, or name a FILE.jsonl of your own")
    c.task.options = questions(datasets=arg.data, test=tests.get(arg.data, ""), template=arg.template, prompt_slots=0)
    c.task.options.max_response = 2048  # no demonstration is shown in RL: leave none out
    # weights in float32 where they learn, in bfloat16 where only adapters do; products in bfloat16
    c.model.update(
        dict(weight_dtype="bfloat16" if arg.adapters else "float32", dtype="bfloat16", cache_dtype="bfloat16")
    )
    c.model.update(dict(remat="layer", scan_layers=True, logprob_chunk=128))
    c.rl.update(dict(start="weights", steps=200, prompts=32, group_size=8, eval_every=20))
    c.rl.max_new_tokens = {"math": 2048, "countdown": 1024}.get(arg.data, 512)
    c.rl.micro_batch, c.rl.widths = 4, response_widths(c.rl.max_new_tokens)
    c.rl.lora.rank = arg.adapters
    # adapters want about ten times the rate of whole weights
    c.rl.optimizer = optimizer(2e-5 if arg.adapters else 1e-6, schedule="constant", warmup=10, weight_decay=0.0)
    c.eval.update(dict(problems=256, attempts=4, greedy=True))


def response_widths(max_new_tokens: int) -> tuple[int, ...]:
    """Widths of micro-batches: a quarter and a half of the longest response. Most responses are shorter than they may be."""
    return max_new_tokens // 4, max_new_tokens // 2


def shorten(c: ConfigDict) -> None:
    """A minute's run of every stage, to see that all is well; it learns next to nothing."""
    c.pretrain.steps, c.sft.steps, c.rl.steps, c.selection.steps = 20, 20, 4, 2
    c.pretrain.eval_every = c.sft.eval_every = 10
    c.rl.eval_every, c.rl.prompts, c.rl.group_size = 2, 4, 4
    c.eval.problems, c.eval.attempts = 8, 4


def parse_arg(arg: str | None, **defaults):
    """``"items=6,fast"`` with defaults -> a namespace; types follow the defaults, a bare name means True."""
    out = SimpleNamespace(**defaults)
    for part in filter(None, (arg or "").split(",")):
        key, _, value = part.partition("=")
        if key not in defaults:
            raise ValueError(f"config argument {key!r} is unknown, choose from {sorted(defaults)}")
        kind = type(defaults[key])
        try:
            setattr(out, key, (value or "true").lower() in ("true", "1") if kind is bool else kind(value))
        except ValueError:
            number = "a whole number" if kind is int else "a number"
            raise ValueError(f"config argument {key}={value}: {key} must be {number}") from None
    return out
