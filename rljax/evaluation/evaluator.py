"""Evaluate a policy on problems that it never trained on.

Every evaluation of a run asks the same problems with the same random numbers: attempt n at problem q always has the same
key. A truncated response counts as wrong and is reported.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax import rewards, transformer
from rljax.distributed import sharding
from rljax.evaluation.estimates import estimate_metrics
from rljax.evaluation.samples import Sample, read_attempts, write_rewards, write_samples
from rljax.options import option
from rljax.sampler import Sampling, make_sampler
from rljax.structs import KeyTag, Problems
from rljax.tasks import Task, select_facts
from rljax.tasks.batches import problem_fn

Evaluation = tuple[dict[str, float], list[Sample]]  # {"eval/...": number}, and what was said
Evaluate = Callable[[Any], Evaluation]
EvaluateRuns = Callable[[Any], list[Evaluation]]
Lift = Callable[[Callable], Callable]  # a function of one run -> of all, every array with a leading axis [R]
ROWS_AT_ONCE = 1024  # rows sampled together


@dataclasses.dataclass(frozen=True)
class EvaluationOptions:
    """How a policy is evaluated."""

    split: str = option("test", "problems to ask", choices=("train", "validation", "test"))
    problems: int = option(128, "problems to ask", low=1)
    attempts: int = option(
        16, "attempts at each; pass@k and cons@k are reported for k = 1, 2, 4, ... up to this", low=1
    )
    temperature: float = option(1.0, "sampling temperature", above=0.0)
    top_k: int = option(0, "keep the k likeliest tokens; 0: all", low=0)
    top_p: float = option(1.0, "keep the likeliest tokens of this total probability; 1: all", above=0.0, high=1.0)
    greedy: bool = option(True, "whether each problem also gets one greedy attempt")


def make_evaluator(
    task: Task, model: transformer.Config, options: EvaluationOptions, *, seed: int, **settings: Any
) -> Evaluate:
    """``evaluate(params) -> (metrics {"eval/...": number}, samples)`` of one run; ``settings`` as ``make_evaluators``'."""
    evaluate = make_evaluators(task, model, options, seeds=[seed], lift=None, **settings)
    return lambda params: evaluate(params)[0]


def make_evaluators(
    task: Task,
    model: transformer.Config,
    options: EvaluationOptions,
    *,
    seeds: Sequence[int],
    lift: Lift | None,
    max_new_tokens: int,
    keep: int = 16,
    brief: bool = False,
    workers: int = 1,
) -> EvaluateRuns:
    """``evaluate(params) -> [(metrics, samples)]``, one a run, over the first problems of a split, drawn by the run's seed.

    ``lift`` None is a single run. Else ``params`` have a leading axis of R runs, and their attempts are sampled and verified by
    the one function that ``lift`` makes of a run's: only for a task whose verifier is on the device.

    The samples are all attempts at the first ``keep`` problems. ``brief`` adds the reward and length of each attempt at the
    others.
    """
    problems, attempts = options.problems, options.attempts

    @functools.cache  # made at the first evaluation: a run that starts from a known one begins sooner
    def ask() -> list[tuple[Problems, list[Any]]]:
        problems_of = problem_fn(task)
        asked = [problems_of(seed, jnp.arange(problems), options.split) for seed in seeds]
        return [(a, task.records(a.facts)) for a in asked]

    shards = model.layout.num_shards("rows")
    at_once = -(-max(1, min(problems, ROWS_AT_ONCE // attempts)) // shards) * shards
    sampling = Sampling(
        group_size=attempts,
        max_new_tokens=max_new_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        stop_ids=task.tokenizer.stop_ids,
    )
    keys = [jax.random.fold_in(jax.random.key(seed), KeyTag.EVALUATION) for seed in seeds]
    verifiers = {n: rewards.make_verifier(task, n, workers) for n in {attempts, 1}}

    def make_attempt(n: int, greedy: bool) -> Callable[[Any, Problems, jax.Array], dict[str, jax.Array]]:
        """Sample and verify n attempts of one run at some problems."""
        draw = make_sampler(sampling, model, greedy=greedy)

        def attempt(params: Any, part: Problems, key: jax.Array) -> dict[str, jax.Array]:
            rows = draw(params, part, key)
            correct, noted = verifiers[n](rows, part)
            columns = dict(response=rows.response, mask=rows.mask, finished=rows.finished, logprobs=rows.logprobs)
            by_group = {k: rewards.by_group(v, n) for k, v in columns.items()}
            return {"reward": correct} | {f"noted/{name}": value for name, value in noted.items()} | by_group

        return jax.jit(lift(attempt)) if lift else attempt

    sample_attempts, sample_greedy = make_attempt(attempts, False), make_attempt(1, True)
    join = stack_runs if lift else lambda runs: runs[0]
    by_run = np.asarray if lift else lambda x: np.asarray(x)[None]

    def attempt_all(attempt: Callable, params: Any) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """(reward [Q, n], everything else that ``attempt`` returns of the Q problems) of each run."""
        parts = []
        for start in range(0, problems, at_once):
            part = join([sharding.shard_rows(take_problems(asked, start, at_once), model.layout) for asked, _ in ask()])
            done = sharding.gather_to_host(
                attempt(params, part, join([jax.random.fold_in(key, start) for key in keys]))
            )
            live = min(at_once, problems - start)
            parts.append({k: by_run(v)[:, :live] for k, v in done.items()})
        merged = {k: np.concatenate([p[k] for p in parts], 1) for k in parts[0]}
        reward = merged.pop("reward")
        return [(reward[r], {k: v[r] for k, v in merged.items()}) for r in range(len(seeds))]

    def read(reward: np.ndarray, rows: dict[str, np.ndarray], asked: Problems, records: list[Any]) -> Evaluation:
        texts, described = read_attempts(task, rows, records)
        found = estimate_metrics(reward, rows, texts, described, records, task)
        kept = write_samples(task, asked, records, reward, rows, texts, described, keep)
        return found, kept + (write_rewards(reward, rows, keep) if brief else [])

    def evaluate(params: Any) -> list[Evaluation]:
        found = [read(*done, *of) for done, of in zip(attempt_all(sample_attempts, params), ask(), strict=True)]
        if options.greedy:
            for (out, _), (reward, _) in zip(found, attempt_all(sample_greedy, params), strict=True):
                out["eval/greedy"] = float(reward.mean())
        return found

    return evaluate


def stack_runs(runs: Sequence[Any]) -> Any:
    """Pytrees of equal shapes -> one with a leading axis."""
    return jax.tree.map(lambda *x: jnp.stack(x), *runs)


def take_problems(problems: Problems, start: int, count: int) -> Problems:
    """``count`` problems from ``start``, the last one repeated where they run out: every call has the same shape."""
    index = np.minimum(np.arange(start, start + count), problems.prompt.shape[0] - 1)
    facts = problems.facts
    picked = select_facts(facts, index)
    return Problems(prompt=problems.prompt[index], prompt_mask=problems.prompt_mask[index], facts=picked)
