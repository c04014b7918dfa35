"""Sampling and verifying with a slow text verifier: one after the other, or verified in parts while the rest is sampled.

    python -m benchmarks.verify_parts [wait programs] [--parts 1,2,4,8] [--workers 2] [--milliseconds 10] [--repeats 5]

32 prompts, groups of 8, at most 256 tokens, the model of 1M parameters with random weights, lengths as in ``benchmarks.slots``.
"wait": the verifier of each response waits for so many milliseconds, as for a judge on another machine. "programs": it runs a
program in its jail, on the same cores. The forms take turns in one process. One JSON line a verifier: median wall seconds from the
prompts to the rewards, and of sampling alone.
"""

import argparse
import dataclasses
import functools
import json
import os
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.packing import MODELS
from benchmarks.slots import SIZES
from rljax import rewards, sampler, tasks, transformer
from rljax.structs import Problems

Pairs = list[tuple[str, Any]]


def wait(milliseconds: float, pairs: Pairs) -> list[dict[str, float]]:
    """The verdicts of a judge that takes its time."""
    time.sleep(milliseconds / 1000 * len(pairs))
    return [{"correct": float(len(text) % 2)} for text, _ in pairs]


def run_demonstrations(pairs: Pairs) -> list[dict[str, float]]:
    """The verdicts on the demonstration of each problem, whatever the response is."""
    task, draw = tasks.make_task("programs"), np.random.default_rng(0)
    judge = task.verify_batch
    assert judge is not None
    return judge([(task.demonstration(record, draw) + "<eos>", record) for _, record in pairs])


def measure(kind: str, args: argparse.Namespace) -> dict:
    """One line: every number of parts, in turn."""
    model, s = MODELS["1M"], SIZES["1M"]
    params = jax.jit(transformer.init, static_argnums=0)(model, jax.random.key(0))
    task = tasks.make_task("programs")
    facts = tuple(task.records(task.problems(0, jnp.arange(s.prompts), "train").facts))
    prompt = jax.random.randint(jax.random.key(1), (s.prompts, s.prompt_slots), s.stops, model.vocab_size)
    problems = Problems(prompt, jnp.ones(prompt.shape, bool), facts)
    judge = run_demonstrations if kind == "programs" else functools.partial(wait, args.milliseconds)
    judged = dataclasses.replace(task, verify_batch=judge, records=list)
    verify = rewards.make_verifier(judged, s.group, args.workers)
    settings = sampler.Sampling(group_size=s.group, max_new_tokens=s.longest, stop_ids=tuple(range(s.stops)))
    counts = [int(n) for n in args.parts.split(",")]
    draws = {n: sampler.make_sampler(settings, model, parts=n) for n in counts}
    key, seconds, alone = jax.random.key(2), {}, []
    for _ in range(args.repeats + 1):  # the first one compiles, and starts the workers
        for n, draw in draws.items():
            start = time.perf_counter()
            rollout = draw(params, problems, key)
            correct, _ = verify(rollout, problems)
            np.asarray(correct)
            seconds.setdefault(n, []).append(time.perf_counter() - start)
        start = time.perf_counter()
        rollout = jax.block_until_ready(draws[counts[0]](params, problems, key))
        alone.append(time.perf_counter() - start)
    return {
        "benchmark": "verify_parts",
        "verifier": kind,
        "rows": s.prompts * s.group,
        "mean_length": round(float(np.asarray(rollout.lengths).mean()), 1),
        "seconds_of_sampling": round(statistics.median(alone[1:]), 2),
        "seconds": {str(n): round(statistics.median(values[1:]), 2) for n, values in seconds.items()},
        "workers": args.workers,
        "cores": os.cpu_count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("verifiers", nargs="*", default=["wait", "programs"])
    parser.add_argument("--parts", default="1,2,4,8")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--milliseconds", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    for kind in args.verifiers:
        print(json.dumps(measure(kind, args)), flush=True)


if __name__ == "__main__":
    main()
