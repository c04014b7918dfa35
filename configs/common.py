"""Every setting there is, with its default. A config is a short file that starts from ``base()`` and changes a few.

A file's ``get_config(arg)`` may take ``configs/name.py:key=value,key=value`` for choices that change several settings;
``--config.key=value`` on the command line changes one.
"""

from types import SimpleNamespace

from ml_collections import ConfigDict, config_dict


def optimizer(learning_rate: float, **changes) -> ConfigDict:
    """adamw | muon | sgd; schedule constant | linear | cosine, down to ``final`` times the peak."""
    return ConfigDict(
        dict(
            name="adamw",
            learning_rate=learning_rate,
            schedule="cosine",
            warmup=20,
            final=0.1,
            b1=0.9,
            b2=0.95,
            eps=1e-8,
            weight_decay=0.01,
            clip_norm=1.0,  # of the whole gradient; 0: none
            moment_dtype="",  # of adamw's first moment: "" as the weights, or "bfloat16"
            offload=False,  # whether moments lie in host memory between updates
        )
        | changes
    )


def base() -> ConfigDict:
    c = ConfigDict()
    c.seed = 0
    c.weights = ""  # a Hugging Face folder: its architecture and tokenizer, and what a stage may start from
    c.stages = ("pretrain", "sft", "rl")  # what reproduce runs
    c.workers = 1  # processes that verify text; 0: verify in the main one
    c.task = dict(name="shop", options=dict())
    c.mesh = dict(
        data=-1, fsdp=1, tensor=1, expert=1, context=1
    )  # devices along each axis; -1: all that the others leave
    c.mesh.actors = 0  # so many more devices only sample, one step ahead of the others; 0: all sample, and all learn
    # which axes of the mesh each logical axis is split over, in the update and while sampling: docs/scaling.md
    split = dict.fromkeys(("vocab", "heads", "kv_heads", "ff"), "tensor") | dict(expert="expert")
    c.mesh.learn = dict(rows="data fsdp expert", columns="context", embed="fsdp", **split)
    c.mesh.sample = dict(rows="data fsdp expert context", drawn="data fsdp expert context tensor", columns="", embed="")
    c.mesh.sample.update(split)
    c.checkpoint = dict(keep_latest=2, keep_best=1)
    c.model = dict(
        layers=2,
        width=64,
        heads=2,
        kv_heads=2,
        head_width=32,
        ff_width=256,
        max_length=512,
        activation="silu",
        norm_eps=1e-6,
        norm_plus_one=False,
        post_norms=False,
        qk_norm=False,
        qkv_bias=False,
        out_bias=False,
        mlp_bias=False,
        rope_base=10_000.0,
        rope_base_sliding=config_dict.placeholder(float),
        rope_scaling=(),
        window=config_dict.placeholder(int),
        sliding=(),
        attention_scale=config_dict.placeholder(float),
        attention_softcap=config_dict.placeholder(float),
        logit_softcap=config_dict.placeholder(float),
        tied_head=False,
        scale_embedding=False,
        latent=0,
        query_latent=0,
        rope_width=0,
        value_width=0,
        experts=0,
        experts_per_token=2,
        expert_width=0,
        shared_width=0,
        routed=(),
        router="softmax",
        router_normalise=True,
        router_scale=1.0,
        router_groups=1,
        router_top_groups=1,
        weight_dtype="float32",
        dtype="float32",
        cache_dtype="float32",
        remat="none",  # none, dots or layer: what the backward pass makes again
        scan_layers=False,
        logprob_chunk=0,
        attention="own",  # or a kernel of the devices: cudnn (GPU), splash (TPU)
        attention_chunk=0,  # queries whose scores exist at once; 0: all
        expert_chunk=0,  # tokens that a device sends through its experts at once; 0: all
    )
    # LoRA: rank > 0 learns a low-rank change of these matrices, or of all, and leaves the weights alone
    adapters = dict(rank=0, alpha=32.0, targets=())
    stage = dict(log_every=10, eval_every=500, max_skipped=10, micro_batch=16, widths=(), lora=adapters)
    c.pretrain = stage | dict(
        start="",  # "": random weights; "weights": those of the folder
        steps=1000,
        batch=32,  # pages a step
        length=96,  # tokens a page
        text_file="",  # a UTF-8 file to learn from instead of the task's own pages
        worked=0.0,  # share of pages that are worked training problems: RL may then start from here
        optimizer=optimizer(3e-3),
    )
    c.sft = stage | dict(
        start="pretrain",  # the stage to start from, also DIR:stage of another run; "weights": the folder; "": random
        steps=1000,
        file="",  # a .jsonl of samples to imitate in place of demonstrations, as experiments.collect writes them
        general=0.0,  # share of rows that are textbook pages in their place
        batch=64,  # demonstrations a step
        distinct=20_000,  # different training problems; 0: never the same twice
        max_new_tokens=144,
        optimizer=optimizer(2e-3),
    )
    c.rl = (
        stage
        | dict(
            start="sft",
            steps=200,
            prompts=16,  # B, problems a step
            levels=dict(
                low=0, high=0, rise=0
            ),  # of the problems, 0: the task's own; the highest opens over ``rise`` steps
            group_size=16,  # G, attempts at each
            max_new_tokens=144,  # T
            limit=dict(
                tokens=0, until=0
            ),  # until this step responses end after so many tokens; R1-Zero raised it at 8.2k
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            sampler_weights="",  # how the sampler keeps the matrices: as they are, "bfloat16" or "int8"; see train/sampler_gap
            reward="correct",  # a sum: "correct + 0.5*format(tags=think) + overlong(share=0.2)", also language, repetition
            algorithm="dr_grpo",
            row=dict(  # changes to the algorithm's row, each "name" or "name(option=value, ...)": docs/algorithms.md
                advantage=config_dict.placeholder(str),
                surrogate=config_dict.placeholder(str),
                aggregation=config_dict.placeholder(str),
                kl=config_dict.placeholder(str),
                entropy=config_dict.placeholder(str),
                correction=config_dict.placeholder(str),
                tokens=config_dict.placeholder(str),
                groups=config_dict.placeholder(str),
                truncated=config_dict.placeholder(str),
                sign=config_dict.placeholder(str),
                off_policy_mask=config_dict.placeholder(float),
                positive_nll=config_dict.placeholder(float),
            ),
            updates=1,  # optimiser steps in one pass over a rollout, on disjoint random parts of it
            epochs=1,  # passes over each rollout
            refresh_reference=0,  # move the reference every so many optimiser steps; 0: never
            mix_reference=1.0,  # to this mixture of the policy and itself; 1: a copy of the policy
            critic=dict(  # for an algorithm that has one
                trunk="own",  # a transformer of its own, or a head on the "policy"'s layers
                clip=0.2,  # values stay this near those before the first update; 0: no clipping
                coef=1.0,  # weight of the value loss in layers that are shared
                warmup=0,  # rollouts on which only the critic learns
                optimizer=optimizer(1e-3, schedule="constant", warmup=5, weight_decay=0.0),
            ),
            optimizer=optimizer(4e-4, schedule="constant", warmup=5, weight_decay=0.0),
        )
    )
    c.rl.eval_every, c.rl.log_every = 20, 1
    c.selection = dict(rules=(), steps=60)  # what reproduce also trains from the same start, and how long
    c.eval = dict(split="test", problems=128, attempts=16, temperature=1.0, top_k=0, top_p=1.0, greedy=True)
    # what the report looks for, no number of the run: the first evaluation from which on this share shows the behaviour
    c.report = dict(aha=dict(behaviour="wait", share=0.5))
    return c


def questions(**changes) -> dict:
    """Options of the task ``questions``, all of them, so that each can be set on the command line."""
    return (
        dict(
            datasets="gsm8k",  # to train on, "math + 0.5*gsm8k": gsm8k, math, mbpp, countdown, gym/TASK, a .jsonl file
            test="",  # to evaluate on, "math500 + aime24"; "": what it trains on
            path="",  # folder of the files; "": downloaded once
            data_dir="",  # where prepared sets are kept
            template="plain",  # r1_zero, r1_zero_dot, oat, qwen_math, chat, none, a text with {question}, or own
            instruction="Please reason step by step, and put your final answer within \\boxed{}.",  # template own:
            system="",  # ... said after the question, by the system ("": as the template says), and ...
            thinking=True,  # ... think first, where the template knows that
            prompt_slots=512,
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


def real_model(c: ConfigDict, arg) -> None:
    """R1-Zero-style RL on a Hugging Face folder.

    ``arg`` has weights, data (gsm8k, math or countdown), adapters (a rank, or 0) and template.
    """
    c.weights, c.stages, c.workers = arg.weights, ("rl",), 4
    c.task.name = "questions"
    tests = {"gsm8k": "gsm8k", "math": "math500", "countdown": "countdown"}
    if arg.data not in tests:
        raise ValueError(f"data={arg.data!r}: choose from {sorted(tests)}")
    c.task.options = questions(datasets=arg.data, test=tests[arg.data], template=arg.template, prompt_slots=512)
    c.task.options.max_response = 2048  # no demonstration is shown in RL: leave none out
    # weights in float32 where they learn, in bfloat16 where only adapters do; products in bfloat16
    c.model.update(
        dict(weight_dtype="bfloat16" if arg.adapters else "float32", dtype="bfloat16", cache_dtype="bfloat16")
    )
    c.model.update(dict(remat="layer", scan_layers=True, logprob_chunk=128))
    c.rl.update(dict(start="weights", steps=200, prompts=32, group_size=8, eval_every=20))
    c.rl.max_new_tokens = {"gsm8k": 512, "math": 2048, "countdown": 1024}[arg.data]
    c.rl.micro_batch, c.rl.widths = 4, ()
    c.rl.lora.rank = arg.adapters
    # adapters want about ten times the rate of whole weights
    c.rl.optimizer = optimizer(2e-5 if arg.adapters else 1e-6, schedule="constant", warmup=10, weight_decay=0.0)
    c.eval.update(dict(problems=256, attempts=4, greedy=True))


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
        setattr(out, key, (value or "true").lower() in ("true", "1") if kind is bool else kind(value))
    return out
