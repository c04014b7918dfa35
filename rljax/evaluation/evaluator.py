"""Evaluate a policy on held-out problems.

Every evaluation of a run uses the same problems and the same random numbers: attempt n at problem q always has the same key,
however many attempts are sampled in one call (``EvaluationOptions.rows``).
A truncated response counts as wrong. The share of truncated responses is a metric.
A response that could not be scored (reward NaN) counts neither as right nor as wrong.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax import rewards, transformer
from rljax.distributed import sharding
from rljax.errors import UserError
from rljax.evaluation.budget import Budget, BudgetOptions, make_budget, make_budget_sampler
from rljax.evaluation.estimates import estimate_metrics
from rljax.evaluation.samples import Sample, decode_attempts, make_reward_samples, make_samples
from rljax.metrics import mean_known
from rljax.options import option
from rljax.sampler import Sampling, make_sampler
from rljax.structs import KeyTag, Problems, Rollout
from rljax.tasks import Task, select_facts
from rljax.tasks.batches import problem_fn

Evaluation = tuple[dict[str, float], list[Sample]]  # (metrics {"eval/...": number}, samples)
Evaluate = Callable[[Any], Evaluation]  # evaluate(params) of one run
EvaluateRuns = Callable[[Any], list[Evaluation]]  # evaluate(params) of R runs, with a leading axis [R] where R > 1
VmapRuns = Callable[[Callable], Callable]  # a function of one run -> of R runs, every array with a leading axis [R]
Columns = dict[str, np.ndarray]  # arrays [Q, n, ...] over problems and attempts
ROWS_PER_KEY = 1024  # attempts whose random numbers come from one key


class Parts(NamedTuple):
    """How the attempts of an evaluation are divided into calls of the sampler."""

    block: int  # problems whose attempts share a random key; no call has problems of two blocks
    problems: int  # in one call
    attempts: int  # at each of them, in one call


class HeldOut(NamedTuple):
    """The held-out problems of one run."""

    problems: Problems
    records: list[Any]  # one for each problem


@dataclasses.dataclass(frozen=True)
class EvaluationOptions:
    """How a policy is evaluated: the section ``eval`` of a config."""

    split: str = option("test", "the split that has the problems", choices=("train", "validation", "test"))
    problems: int = option(128, "number of problems", low=1)
    attempts: int = option(
        16, "attempts at each problem; pass@k and cons@k are reported for k = 1, 2, 4, ... up to this", low=1
    )
    temperature: float = option(1.0, "sampling temperature; 0: the likeliest token", low=0.0)
    top_k: int = option(0, "keep the k likeliest tokens; 0: all", low=0)
    top_p: float = option(1.0, "keep the likeliest tokens of this total probability; 1: all", above=0.0, high=1.0)
    greedy: bool = option(True, "whether each problem also gets one greedy attempt")
    rows: int = option(0, "attempts sampled at once; 0: as many as in a rollout of training", low=0)
    budget: BudgetOptions = BudgetOptions()


def make_evaluator(
    task: Task, model: transformer.Config, options: EvaluationOptions, *, seed: int, **settings: Any
) -> Evaluate:
    """``evaluate(params) -> (metrics, samples)`` of one run. ``settings`` are those of ``make_evaluators``."""
    evaluate = make_evaluators(task, model, options, seeds=[seed], vmap_runs=None, **settings)
    return lambda params: evaluate(params)[0]


def make_evaluators(
    task: Task,
    model: transformer.Config,
    options: EvaluationOptions,
    *,
    seeds: Sequence[int],
    vmap_runs: VmapRuns | None,
    max_new_tokens: int,
    slots: int = 0,
    full_problems: int = 16,
    short_samples: bool = False,
    workers: int = 1,
    max_unscored: float = rewards.MAX_UNSCORED,
) -> EvaluateRuns:
    """``evaluate(params) -> [(metrics, samples)]``, one for each run, on the first problems of a split.

    ``seeds`` are those of the runs: they decide the problems and the random numbers. Without ``vmap_runs`` there is one run.
    With it, ``params`` have a leading axis of R runs, which are sampled and verified by one vmapped function. The task then
    needs a verifier on the device.

    Samples are the attempts at the first ``full_problems`` problems. With ``short_samples`` the reward and length of the
    attempts at the other problems follow.
    """
    # made at the first evaluation: a run that starts from a finished stage may need none
    get_held_out = functools.cache(lambda: [make_held_out(task, options, seed) for seed in seeds])
    parts = divide_attempts(options, options.attempts, model.layout)
    greedy_parts = divide_greedy(options, task.prompt_slots, max_new_tokens, model.layout)
    sampling = Sampling(
        group_size=parts.attempts,
        max_new_tokens=max_new_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        stop_ids=task.tokenizer.stop_ids,
        stop_strings=task.stops,
        slots=slots,
    )
    verifiers = {n: rewards.make_verifier(task, n, workers, max_unscored=max_unscored) for n in {parts.attempts, 1}}
    budget = make_budget(options.budget, task, model, max_new_tokens) if options.budget.is_on else None
    if budget and vmap_runs:
        raise UserError("eval.budget: runs that are computed together have no budget: leave limit and minimum at 0")
    draw_all = make_attempts_fn(model, sampling, verifiers[parts.attempts], vmap_runs, budget=budget)
    draw_greedy = make_attempts_fn(model, sampling, verifiers[1], vmap_runs, greedy=True, budget=budget)
    run_batches = functools.partial(attempt_in_batches, layout=model.layout, vmapped=vmap_runs is not None)

    def summarize(columns: Columns, run: HeldOut) -> Evaluation:
        """The metrics and samples of one run."""
        reward = columns["reward"]
        texts, attempts = decode_attempts(task, columns, run.records)
        metrics = estimate_metrics(reward, columns, texts, attempts, run.records, task)
        samples = make_samples(task, run.problems, run.records, reward, columns, texts, attempts, full_problems)
        return metrics, samples + (make_reward_samples(reward, columns, full_problems) if short_samples else [])

    def evaluate(params: Any) -> list[Evaluation]:
        """The metrics and samples of each run."""
        runs = get_held_out()
        columns = run_batches(draw_all, params, runs, seeds, parts, options.attempts)
        evaluations = [summarize(c, run) for c, run in zip(columns, runs, strict=True)]
        if options.greedy:
            greedy = run_batches(draw_greedy, params, runs, seeds, greedy_parts, 1)
            for (metrics, _), c in zip(evaluations, greedy, strict=True):
                metrics["eval/greedy"] = float(mean_known(c["reward"]))
        return evaluations

    return evaluate


def make_held_out(task: Task, options: EvaluationOptions, seed: int) -> HeldOut:
    """The first problems of the split, as a run of this seed has them, with their records."""
    problems = problem_fn(task)(seed, jnp.arange(options.problems), options.split)
    return HeldOut(problems, task.records(problems.facts))


def divide_attempts(options: EvaluationOptions, attempts: int, layout: transformer.Layout) -> Parts:
    """Calls of at most ``options.rows`` rows (0: of a whole block), all of one shape, of this many attempts at each problem.

    A call has at least one attempt for each row shard, whatever ``rows`` says.
    """
    block, shards = max(1, min(options.problems, ROWS_PER_KEY // options.attempts)), layout.num_shards("rows")
    rows = options.rows or block * attempts
    at_each = divide_evenly(attempts, max(rows // shards, 1))
    problems = divide_evenly(block, max(rows // at_each, 1))
    return Parts(block, -(-problems // shards) * shards, at_each)


def divide_greedy(options: EvaluationOptions, prompt_slots: int, longest: int, layout: transformer.Layout) -> Parts:
    """Calls for the greedy attempts, which hold no more columns of prompts and responses than a call for the others.

    As many rows would hold more: each has a prompt of its own.
    """
    others = divide_attempts(options, options.attempts, layout)
    columns = others.problems * (prompt_slots + others.attempts * longest)
    rows = max(1, columns // (prompt_slots + longest))
    return divide_attempts(dataclasses.replace(options, rows=min(options.rows or rows, rows)), 1, layout)


def divide_evenly(count: int, largest: int) -> int:
    """The size of equal parts of ``count``, as few as parts of at most ``largest`` allow."""
    return -(-count // -(-count // largest))


def make_attempts_fn(
    model: transformer.Config,
    sampling: Sampling,
    verify: rewards.Verifier,
    vmap_runs: VmapRuns | None,
    greedy: bool = False,
    budget: Budget | None = None,
) -> Callable[[Any, Problems, jax.Array, jax.Array], dict[str, jax.Array]]:
    """``attempt(params, problems, key, row_numbers)``: n attempts at each of B problems, sampled and verified; [B, n, ...].

    They are reward, response, mask, finished, logprobs and "info/NAME" for each metric of the verifier, and of the budget
    that there may be. n is the group size of ``sampling``, and 1 with ``greedy``. With ``vmap_runs`` it is jitted, and all arrays have a leading axis [R].
    """
    unforced = make_sampler(sampling, model, greedy=greedy)
    draw = make_budget_sampler(budget, sampling, model, greedy=greedy) if budget else lambda *a: (unforced(*a), {})
    group_size = 1 if greedy else sampling.group_size

    def attempt(params: Any, problems: Problems, key: jax.Array, row_numbers: jax.Array) -> dict[str, jax.Array]:
        """The attempts of one run."""
        rollout, measured = draw(params, problems, key, 0, row_numbers)
        correct, info = verify(rollout, problems)
        info = info | {name: rewards.by_group(x, group_size) for name, x in measured.items()}
        columns = dict(
            response=rollout.response, mask=rollout.mask, finished=rollout.finished, logprobs=rollout.logprobs
        )
        by_group = {name: rewards.by_group(x, group_size) for name, x in columns.items()}
        return {"reward": correct} | {f"info/{name}": value for name, value in info.items()} | by_group

    return jax.jit(vmap_runs(attempt)) if vmap_runs else attempt


def attempt_in_batches(
    attempt: Callable[[Any, Any, Any, Any], dict[str, jax.Array]],
    params: Any,
    runs: Sequence[HeldOut],
    seeds: Sequence[int],
    parts: Parts,
    attempts: int,
    *,
    layout: transformer.Layout,
    vmapped: bool,
) -> list[Columns]:
    """``attempts`` attempts of each run at all its problems, computed in ``parts``: arrays [Q, attempts, ...]."""
    join = stack_runs if vmapped else lambda trees: trees[0]
    with_run_axis = np.asarray if vmapped else lambda x: np.asarray(x)[None]
    keys = [jax.random.fold_in(jax.random.key(seed), KeyTag.EVALUATION) for seed in seeds]
    count, batches = len(runs[0].records), []
    for block in range(0, count, parts.block):
        end = min(block + parts.block, count)
        block_keys = join([jax.random.fold_in(key, block) for key in keys])
        for start in range(block, end, parts.problems):
            chosen = [sharding.shard_rows(take_problems(run.problems, start, parts.problems), layout) for run in runs]
            groups = []
            for first in range(0, attempts, parts.attempts):
                numbers = (start - block + np.arange(parts.problems))[:, None] * attempts + first
                numbers = jnp.asarray((numbers + np.arange(parts.attempts)).reshape(-1), jnp.int32)
                columns = attempt(params, join(chosen), block_keys, join([numbers for _ in runs]))
                groups.append({k: with_run_axis(x) for k, x in sharding.gather_to_host(columns).items()})
            num_valid = min(parts.problems, end - start)  # without the repeated problems at the end
            batches.append({k: np.concatenate([g[k] for g in groups], 2)[:, :num_valid, :attempts] for k in groups[0]})
    merged = {name: np.concatenate([batch[name] for batch in batches], 1) for name in batches[0]}
    return [{name: x[r] for name, x in merged.items()} for r in range(len(runs))]


def sample_in_parts(
    sampling: Sampling, model: transformer.Config, params: Any, problems: Problems, key: jax.Array, rows: int
) -> Rollout:
    """``sampling.group_size`` attempts at one problem, at most ``rows`` in a call of the sampler: numpy arrays [attempts, ...].

    Every attempt has the random numbers that it has in one call of all.
    """
    attempts = sampling.group_size
    size = divide_evenly(attempts, max(rows, 1))
    draw = make_sampler(dataclasses.replace(sampling, group_size=size), model)
    numbers = [jnp.arange(first, first + size, dtype=jnp.int32) for first in range(0, attempts, size)]
    found = [sharding.gather_to_host(draw(params, problems, key, row_numbers=n)) for n in numbers]
    return jax.tree.map(lambda *x: np.concatenate(x)[:attempts], *found)


def stack_runs(runs: Sequence[Any]) -> Any:
    """One pytree with a leading axis [R] from R pytrees of equal shapes."""
    return jax.tree.map(lambda *x: jnp.stack(x), *runs)


def take_problems(problems: Problems, start: int, count: int) -> Problems:
    """``count`` problems from ``start`` on. The last problem is repeated at the end, so that every call has one shape."""
    index = np.minimum(np.arange(start, start + count), problems.prompt.shape[0] - 1)
    facts = select_facts(problems.facts, index)
    return Problems(prompt=problems.prompt[index], prompt_mask=problems.prompt_mask[index], facts=facts)
