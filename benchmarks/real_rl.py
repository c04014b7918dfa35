"""SmolLM2-135M learns arithmetic in words by RL on a bare machine with an accelerator: one command of at most nine minutes.

    python -m benchmarks.real_rl --pack FOLDER smollm2.npz            # where the model is: its inputs in one file, under 64 MB
    python -m benchmarks.real_rl smollm2.npz --out DIR                # where the accelerator is

Needs jax, optax, flax, numpy, tokenizers, safetensors and this checkout; it does not need ml_collections, tensorflow-datasets, array_record,
tensorboardX or math-verify, which a machine with JAX alone lacks. So it composes the parts of the library itself, where
``experiments/rl.py`` has a config, checkpoints and loggers. matplotlib draws the picture, where it is installed.

The packed file (``benchmarks.packed_weights``) has 4 bits a weight in the layers, 6 in the embedding, and the first 8,192 tokens of the
vocabulary: 60.3 MB for SmolLM2, whose layers change by 3.4 % (root of the mean square) where they came from a Q4_1 file. It starts
below the model that it was made of; the first evaluation says where. It is widened to bfloat16 in a folder; all weights learn, in float32 with products in bfloat16.

Steps go on until ``--steps`` or ``--seconds`` are over, the last evaluation included. Written into ``--out``, five files: metrics.jsonl (train
and held-out measures, seconds), samples_first.jsonl and samples_last.jsonl (attempts at held-out problems), learning.png, about.json.
This was not run on an accelerator: none was at hand.
"""

import argparse
import functools
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import packed_weights
from rljax import evaluation, learner, pretrained, rewards, sampler, tasks, transformer
from rljax import policy_gradient as pg
from rljax.json_lines import format_json_lines
from rljax.learner.optimizer import OptimizerOptions, make_optimizer
from rljax.structs import Experience, TrainState
from rljax.tasks.curriculum import ProblemOptions, make_asker

Step = Callable[[TrainState], tuple[TrainState, dict[str, Any]]]


def main(arguments: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="benchmarks.real_rl", description=(__doc__ or "").split("\n")[0])
    p.add_argument("packed", type=Path, help="the packed file; with --pack the folder of the model")
    p.add_argument("to", type=Path, nargs="?", help="with --pack: the file to write")
    p.add_argument("--pack", action="store_true")
    p.add_argument(
        "--vocabulary", type=int, default=packed_weights.VOCABULARY, help="with --pack: tokens that are kept"
    )
    p.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "runs/real_rl")))
    p.add_argument("--seconds", type=float, default=480.0, help="in all")
    p.add_argument("--steps", type=int, default=200, help="at most")
    p.add_argument("--eval_every", type=int, default=20)
    p.add_argument("--level", default="2")
    p.add_argument("--examples", type=int, default=3)
    p.add_argument("--prompts", type=int, default=16, help="problems a step")
    p.add_argument("--group", type=int, default=8, help="attempts at each")
    p.add_argument("--tokens", type=int, default=48, help="most tokens of an attempt")
    p.add_argument("--rows", type=int, default=64, help="of a micro-batch")
    p.add_argument("--problems", type=int, default=64, help="held-out problems")
    p.add_argument("--learning_rate", type=float, default=1e-5)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args(arguments)
    if a.pack:
        if a.to is None or a.to.suffix != ".npz":
            p.error("--pack FOLDER OUT.npz: name the .npz file to write")
        print(json.dumps(packed_weights.pack_folder(a.packed, a.to, a.vocabulary)))
        return 0
    a.out.mkdir(parents=True, exist_ok=True)
    train(a)
    return 0


def train(a: argparse.Namespace) -> None:
    """Evaluate, train and write what was measured."""
    began = time.perf_counter()
    elapsed = lambda: round(time.perf_counter() - began, 2)
    with tempfile.TemporaryDirectory() as folder:
        packed_weights.unpack_folder(a.packed, Path(folder))
        computed: dict[str, Any] = dict(weight_dtype="float32", dtype="bfloat16", cache_dtype="bfloat16")
        model, params, tokenizer = pretrained.load(folder, **computed, logprob_chunk=256)
    task = tasks.make_task("fruit_text", tokenizer, level=a.level, examples=a.examples)
    options = evaluation.EvaluationOptions(problems=a.problems, attempts=8, greedy=False)
    evaluate = evaluation.make_evaluator(task, model, options, seed=a.seed, max_new_tokens=a.tokens, workers=0)
    state, step = make_training(a, task, model, params)
    del params
    write_about(a, model)
    records, longest = [], {"step": 0.0, "evaluation": 0.0}

    def measure() -> None:
        at = elapsed()
        metrics, samples = evaluate(state.params)
        longest["evaluation"] = max(longest["evaluation"], elapsed() - at)
        tell({"step": int(state.step), "seconds": elapsed()} | {k: float(v) for k, v in metrics.items()}, "eval/pass@1")
        name = "last" if int(state.step) else "first"
        (a.out / f"samples_{name}.jsonl").write_text(format_json_lines(samples), encoding="utf-8")

    def tell(record: dict[str, Any], shown: str) -> None:
        records.append({"stage": "rl"} | record)
        (a.out / "metrics.jsonl").write_text(format_json_lines(records), encoding="utf-8")
        print(f"step {record['step']:4}  {record['seconds']:6.1f} s  {shown} {record[shown]:.3f}", flush=True)

    measure()
    for number in range(1, a.steps + 1):
        at = elapsed()
        state, metrics = step(state)
        found = {f"train/{k}": float(v) for k, v in jax.device_get(metrics).items()}
        spent = elapsed() - at
        tell({"step": number, "seconds": elapsed(), "step_seconds": round(spent, 3)} | found, "train/reward")
        longest["step"] = max(longest["step"], spent) if number > 1 else 0.0  # the first one compiles
        over = elapsed() + longest["step"] + 2 * longest["evaluation"] > a.seconds
        if over or number == a.steps or number % a.eval_every == 0:
            measure()
        if over:
            print(f"{a.seconds:g} s are over after {number} steps", flush=True)
            break
    draw(records, a.out / "learning.png", a.problems)


def make_training(
    a: argparse.Namespace, task: tasks.Task, model: transformer.Config, params: Any
) -> tuple[TrainState, Step]:
    """(state, step) of Dr. GRPO with AdamW: ``experiments/rl.py`` without a config."""
    known = OptimizerOptions(learning_rate=a.learning_rate, schedule="constant", warmup=5, weight_decay=0.0)
    optimizer = make_optimizer(known, model, a.steps)
    batching = learner.MicroBatching(min(a.rows, a.prompts * a.group))
    sizes = task.prompt_slots, a.tokens, a.group
    policy = learner.PolicyLearner(pg.ALGORITHMS["dr_grpo"], model, optimizer, *sizes, micro_batching=batching)
    sampling = sampler.Sampling(
        group_size=a.group,
        max_new_tokens=a.tokens,
        stop_ids=tuple(task.tokenizer.stop_ids),
        stop_strings=task.stops,
    )
    ask = make_asker(ProblemOptions(prompts=a.prompts), task, a.seed)
    draw_rollout = sampler.make_sampler(sampling, model, to_learn_from=True)
    verify = rewards.make_reward_fn(task, a.group, 0, rewards.parse_reward("correct"), a.tokens)
    compute_advantages = jax.jit(functools.partial(learner.compute_advantages, policy))
    update = jax.jit(functools.partial(learner.update_policy, policy), donate_argnums=0)

    def step(state: TrainState) -> tuple[TrainState, dict[str, Any]]:
        problems = ask(state.cursor)
        rollout = draw_rollout(state.params, problems, state.step_key(), state.step)
        earned = verify(rollout, problems)
        batch, measured = compute_advantages(state, Experience(rollout, earned))
        state, updated = update(state, batch)
        metrics = updated | measured | rewards.summarize_rewards(rollout, earned)
        return state.replace(cursor=state.cursor + a.prompts), metrics

    zero = jnp.zeros((), jnp.int32)
    opt_state = jax.jit(optimizer.init)(params)
    return TrainState(zero, params, opt_state, jax.random.key(a.seed), jnp.copy(zero)), step


def write_about(a: argparse.Namespace, model: transformer.Config) -> None:
    """What was run, and where."""
    device = jax.devices()[0]
    about = {"backend": jax.default_backend(), "device": device.device_kind, "jax": jax.__version__}
    about |= {"python": platform.python_version(), "vocabulary": model.vocab_size, "layers": model.layers}
    about |= {k: str(v) if isinstance(v, Path) else v for k, v in vars(a).items()}
    (a.out / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def draw(records: list[dict[str, Any]], path: Path, questions: int) -> None:
    """Draw both curves, where matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401

        from rljax.report.figures import draw_learning
    except ModuleNotFoundError as e:
        print(f"no picture: it needs the package {e.name}")
        return
    draw_learning({"": [records]}, path, "SmolLM2-135M, packed", questions=questions)


if __name__ == "__main__":
    sys.exit(main())
