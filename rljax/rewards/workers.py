"""Text verifiers in worker processes: a hostile or broken response costs its reward, never the run."""

import functools
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from rljax.errors import UserError
from rljax.options import load_plugins, loaded_plugins
from rljax.rewards.terms import Term
from rljax.tasks import Record, Task

Scores = dict[str, Any]  # {name: number}; "exception" holds what the verifier raised, as text
Pairs = list[tuple[str, Record]]  # (response, record of its problem)
TIMEOUT = 60.0  # seconds for a batch, beyond what a verifier that limits each response may take
RESPONSE_TIMEOUT = 10.0  # seconds for each of those
FAILED = {"correct": 0.0, "verifier_error": 1.0}


def make_scorer(task: Task, workers: int, timeout: float, terms: Sequence[Term]) -> Callable[[Pairs], list[Scores]]:
    """``score(pairs) -> [{name: number}]`` of responses, in ``workers`` processes (0: in this one).

    Workers are started with the first batch and replaced where they die or hang. See ``host_verifier`` for the errors.
    """
    pool: list[Executor] = []
    batches = 0
    score = functools.partial(score_pairs, task.verify, task.verify_batch, task.prefill, terms)

    def in_workers(pairs: Pairs) -> list[Scores]:
        if not pool:
            context = multiprocessing.get_context("spawn")
            pool.append(ProcessPoolExecutor(workers, context, initializer=load_plugins, initargs=(loaded_plugins(),)))
        share = -(-len(pairs) // workers)
        shares = [pairs[i : i + share] for i in range(0, len(pairs), share)]
        futures = [pool[0].submit(score, some) for some in shares]
        out: list[Scores] = []
        for some, future in zip(shares, futures, strict=True):
            try:
                out += future.result(timeout + (RESPONSE_TIMEOUT * len(some) if task.verify_batch else 0.0))
            except (TimeoutError, BrokenProcessPool, CancelledError):
                out += [dict(FAILED)] * len(some)
                stop_workers(pool)
        return out

    def score_batch(pairs: Pairs) -> list[Scores]:
        nonlocal batches
        out = in_workers(pairs) if workers else score(pairs)
        raised = [s["exception"] for s in out if "exception" in s]
        if raised and not batches and len(raised) == len(out) > 1:
            raise UserError(
                f"task {task.name}: its verifier raised an exception for all {len(out)} responses of the first batch: "
                f"{raised[0]}"
            )
        if raised and not any_raised:
            any_raised.append(raised[0])
            print(
                f"task {task.name}: a verifier raised {raised[0]}; such responses score 0", file=sys.stderr, flush=True
            )
        batches += 1
        return out

    any_raised: list[str] = []
    return score_batch


def score_pairs(
    verify: Callable[[str, Record], bool],
    verify_batch: Callable[[Pairs], list[Scores]] | None,
    prefill: str,
    terms: Sequence[Term],
    pairs: Pairs,
) -> list[Scores]:
    """What each (response, record) scores, by name. ``verifier_error`` is 1 where its verifier or a term raised."""
    score = lambda pair: verify_batch([pair])[0] if verify_batch else {"correct": float(verify(*pair))}
    try:
        out = verify_batch(pairs) if verify_batch else [score_guarded(score, pair) for pair in pairs]
    except UserError:
        raise
    except Exception:  # one response did it: the others keep their scores
        out = [score_guarded(score, pair) for pair in pairs]
    texts = [prefill + text.removesuffix("<eos>") for text, _ in pairs]
    for term in terms:
        for scores, value in zip(out, term_values(term, texts), strict=True):
            scores |= value
    return [{"verifier_error": 0.0} | scores for scores in out]


def term_values(term: Term, texts: list[str]) -> list[Scores]:
    """``reward/NAME`` of each text, by the term's own function."""
    options, name = term.choice.options, f"reward/{term.name}"
    if getattr(term.function, "batched", False):
        return [{name: float(value)} for value in term.function(texts, **options)]
    value = lambda text: {name: float(term.function(text, **options))}
    return [score_guarded(value, text, {name: 0.0, "verifier_error": 1.0}) for text in texts]


def score_guarded(score: Callable[[Any], Scores], pair: Any, failed: Scores | None = None) -> Scores:
    """``score(pair)``; where that raises, ``failed`` with the exception's text."""
    try:
        return score(pair)
    except UserError:  # of the problem or the machine, never of a response: no reward can be trusted then
        raise
    except Exception as e:  # whatever a policy's text provokes is a wrong answer, and is counted
        return dict(failed or FAILED) | {"exception": f"{type(e).__name__}: {e}"[:300]}


def stop_workers(pool: list[Executor]) -> None:
    """Kill a pool whose workers may hang. The next batch starts a fresh one."""
    for executor in pool:
        for process in list(getattr(executor, "_processes", {}).values()):
            process.kill()
        executor.shutdown(wait=False, cancel_futures=True)
    pool.clear()
