"""Verifying attempts: one signature, on the device or on the host.

    reward_fn(rollout, problems) -> (reward [B, G] float32, info {name: [B, G] or []})

``on_device`` is jnp and may stand inside a jit; ``on_host`` decodes the rows and asks a text verifier in worker
processes. The default reward is correctness and nothing else: no term sees the length.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import jax.numpy as jnp
import numpy as np

from rljax.structs import Array, Problems, Rollout
from rljax.tasks import Record, Task

RewardFn = Callable[[Rollout, Problems], tuple[Array, dict[str, Array]]]


def by_group(x: Array, group_size: int) -> Array:
    """[N, ...] -> [B, G, ...]."""
    return x.reshape(-1, group_size, *x.shape[1:])


def mixed(reward: Array) -> Array:
    """[B] bool: the attempts at this prompt did not all earn the same, so that there is something to compare."""
    return reward.max(-1) > reward.min(-1)


def soft_overlong(lengths: Array, max_length: int, cache: float) -> Array:
    """What a response near the limit loses (DAPO, arXiv 2503.14476, eq. 13), float32 like ``lengths``.

    0 up to ``max_length - cache`` tokens, then down a straight line to -1 at ``max_length``, -1 beyond.
    """
    return jnp.clip((max_length - cache - lengths) / max(cache, 1e-9), -1.0, 0.0)


def on_device(task: Task, group_size: int) -> RewardFn:
    """The task's verifier in jnp."""
    assert task.score is not None, f"task {task.name} has no device verifier"
    score = task.score

    def reward(rollout: Rollout, problems: Problems) -> tuple[Array, dict[str, Array]]:
        response, mask, finished = (by_group(x, group_size) for x in (rollout.response, rollout.mask, rollout.finished))
        return score(response, mask, finished, problems.facts), {}

    return reward


def on_host(task: Task, group_size: int, workers: int = 1, timeout: float = 60.0) -> RewardFn:
    """The task's text verifier, in ``workers`` processes (0: in this one).

    A verifier that raises, dies or takes longer than ``timeout`` seconds for its share of the batch scores 0, is counted
    in ``info["verifier_error"]``, and is replaced: a hostile response costs its reward, never the run.
    """
    pool: list[Executor] = []

    def verify_all(texts: list[str], records: list[Record]) -> list[tuple[float, bool]]:
        if not workers:
            return verify_some(task.verify, list(zip(texts, records, strict=True)))
        if not pool:
            pool.append(ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")))
        pairs = list(zip(texts, records, strict=True))
        share = -(-len(pairs) // workers)
        parts = [pairs[i : i + share] for i in range(0, len(pairs), share)]
        futures = [pool[0].submit(verify_some, task.verify, part) for part in parts]
        out: list[tuple[float, bool]] = []
        for part, future in zip(parts, futures, strict=True):
            try:
                out += future.result(timeout)
            except (TimeoutError, BrokenProcessPool, CancelledError):
                out += [(0.0, True)] * len(part)
                stop_workers(pool)
        return out

    def reward(rollout: Rollout, problems: Problems) -> tuple[Array, dict[str, Array]]:
        response, mask = np.asarray(rollout.response), np.asarray(rollout.mask)
        texts = [task.tokenizer.decode(row[live]) for row, live in zip(response, mask, strict=True)]
        records = [r for r in task.records(problems.facts) for _ in range(group_size)]
        out = np.asarray(verify_all(texts, records), np.float32).reshape(-1, group_size, 2)
        return jnp.asarray(out[..., 0]), {"verifier_error": jnp.asarray(out[..., 1])}

    return reward


def verify_some(verify: Callable[[str, Record], bool], pairs: list[tuple[str, Record]]) -> list[tuple[float, bool]]:
    """(reward, did the verifier raise?) of each (response, record)."""
    out = []
    for text, record in pairs:
        try:
            out.append((float(verify(text, record)), False))
        except Exception:  # whatever a policy's text provokes is a wrong answer, and is counted
            out.append((0.0, True))
    return out


def stop_workers(pool: list[Executor]) -> None:
    """Kill a pool whose workers may hang; the next batch starts a fresh one."""
    for executor in pool:
        for process in list(getattr(executor, "_processes", {}).values()):
            process.kill()
        executor.shutdown(wait=False, cancel_futures=True)
    pool.clear()


def verifier(task: Task, group_size: int, workers: int) -> RewardFn:
    """The device verifier where the task has one, else the text verifier."""
    return on_device(task, group_size) if task.on_device else on_host(task, group_size, workers)


def summary(rollout: Rollout, reward: Array, info: dict[str, Array]) -> dict[str, Array]:
    """What the log says of a rollout with rewards [B, G]: means, lengths in tokens, how groups came out."""
    lengths, share = rollout.lengths, reward.mean(-1)
    best, worst = reward.max(-1) > 0, reward.min(-1) > 0
    out = {
        "reward": share.mean(),
        "truncated": 1 - rollout.finished.mean(),
        "response_length/mean": lengths.mean(),
        "response_length/median": jnp.median(lengths),
        "response_length/p95": jnp.percentile(lengths, 95),
        "response_length/max": lengths.max(),
        "groups/all_wrong": jnp.mean(~best),
        "groups/mixed": jnp.mean(best & ~worst),
        "groups/all_right": jnp.mean(worst),
        "tokens": lengths.sum(),
    }
    return out | {name: value.mean() for name, value in info.items()}
