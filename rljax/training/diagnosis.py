"""Diagnosis before training: what a policy does at held-out problems with exactly the settings of RL, and what a step costs.

    attempts = sample_attempts(run, state, 64)     rollouts as RL would sample and reward them, of another split
    measures(run, attempts)                        {"eval/pass@1": ..., "eval/groups/mixed": ...}
    time_train_step(train_step, state, 1)          seconds and memory of real train steps
    find_obstacles(run, measured)                  one sentence for each reason why RL cannot work as set

``rljax check`` composes them; ``diagnosis_report`` puts them into words.
"""

import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax import metrics, policy_gradient, rewards, tasks
from rljax.distributed import sharding
from rljax.errors import UserError
from rljax.evaluation import decode_attempts, estimate_metrics
from rljax.metrics.alarms import Alarm, find_alarms
from rljax.structs import KeyTag, Rewards, Rollout, TrainState
from rljax.tasks.curriculum import make_asker
from rljax.training.rl_steps import TrainStep, is_hosted, make_draw, make_verify
from rljax.training.run import Run
from rljax.transformer import lora


class Attempts(NamedTuple):
    """G attempts at each of Q problems, on the host."""

    rollout: Rollout  # [Q G, ...], without what only learning needs
    correct: np.ndarray  # [Q, G] float32, NaN where an attempt could not be scored
    terms: np.ndarray  # [Q, G, R] float32, the terms of the reward times their weights
    info: dict[str, np.ndarray]  # {name: [Q, G]}, what the verifier noted
    records: list[tasks.Record]  # one for each problem
    texts: list[list[str]]  # [Q][G], of the responses
    described: list[list[tasks.Attempt]]  # [Q][G]

    def columns(self) -> dict[str, np.ndarray]:
        """The arrays [Q, G, ...] that ``estimate_metrics`` reads."""
        named = {name: getattr(self.rollout, name) for name in ("response", "mask", "finished", "logprobs")}
        by_group = {name: np.asarray(rewards.by_group(x, self.correct.shape[1])) for name, x in named.items()}
        return by_group | {f"info/{name}": value for name, value in self.info.items()}


class StepCost(NamedTuple):
    """What train steps took."""

    first_seconds: float  # of the first step, compilation included
    seconds: float  # of a later step, the median
    memory: float  # bytes, the largest so far
    memory_of: str  # what they were measured of


def sample_attempts(run: Run, state: TrainState, count: int, split: str = "validation") -> Attempts:
    """Whole rollouts at ``count`` problems of a split or a few more, sampled and rewarded as the first step of RL would.

    A split of fewer problems is asked once. Raises UserError where it is empty.
    """
    task, prompts, size = run.task, run.rl.problems.prompts, run.task.num_questions(split)
    if size == 0:
        raise UserError(f"--split={split}: task {task.name} has no problem there; --split=train asks those of training")
    ask, draw, verify = make_asker(run.rl.problems, task, run.seed, split), make_draw(run), make_verify(run)
    if task.on_device:
        ask = jax.jit(ask)
    if not is_hosted(run):
        verify = jax.jit(verify)
    policy = lora.policy_params(state.params, state.frozen)
    if run.mesh.actors:
        policy = sharding.reshard_params(policy, run.sampler_model)
    key, found, records = jax.random.fold_in(jax.random.key(run.seed), KeyTag.EVALUATION), [], []
    for number in range(-(-min(count, size or count) // prompts)):
        problems = sharding.shard_rows(ask(jnp.int32(number * prompts)), run.sampler_model.layout)
        rollout = draw(policy, problems, jax.random.fold_in(key, number), 0)
        earned = verify(rollout, problems)
        info = {name: x for name, x in earned.info.items() if x.ndim == 2}
        kept = rollout.replace(greedy=None, sampling_mask=None, earlier=None)  # they may be large
        found.append(sharding.gather_to_host((kept, earned.correct, earned.terms, info)))
        records += task.records(sharding.gather_to_host(problems.facts))
    asked, group = min(len(records), size or len(records)), run.rl.sampling.group_size
    whole = jax.tree.map(lambda *x: np.concatenate(x), *found)
    rollout = jax.tree.map(lambda x: x[: asked * group], whole[0])
    correct, terms, info = jax.tree.map(lambda x: x[:asked], whole[1:])
    attempts = Attempts(rollout, correct, terms, info, records[:asked], [], [])
    texts, described = decode_attempts(task, attempts.columns(), attempts.records)
    return attempts._replace(texts=texts, described=described)


def measures(run: Run, attempts: Attempts) -> dict[str, float]:
    """The metrics of an evaluation on these attempts, and "eval/..." what only a diagnosis measures.

    That is pass@G, the mean reward, the entropy (nats a token, at the sampling temperature), the share of responses without an
    answer, and the shares of groups by outcome ("eval/groups/...", left out where G is 1).
    """
    correct, columns = attempts.correct, attempts.columns()
    group, total = correct.shape[1], attempts.terms.sum(-1)
    out = estimate_metrics(correct, columns, attempts.texts, attempts.described, attempts.records, run.task)
    unread = [one.answer is None for row in attempts.described for one in row]
    extra = {
        f"eval/pass@{group}": metrics.mean_known(metrics.pass_at_k(correct, group)),
        "eval/reward": metrics.mean_known(total),
        "eval/entropy": -columns["logprobs"].sum() / max(columns["mask"].sum(), 1),
        "eval/answers/none": out.get("eval/answers/none", np.mean(unread)),
    }
    if group > 1:
        earned = Rewards(jnp.asarray(correct), jnp.asarray(attempts.terms), {})
        summary = rewards.summarize_rewards(attempts.rollout, earned)
        extra |= {f"eval/{name}": value for name, value in summary.items() if name.startswith("groups/")}
        extra["eval/groups/equal_reward"] = 1 - rewards.mixed(total).mean()
    return out | {name: float(value) for name, value in extra.items()}


def compares_within_groups(run: Run) -> bool:
    """Whether a group whose attempts all earn the same gives no gradient."""
    return run.rl.algorithm.name("advantage") in policy_gradient.NEEDS_GROUP


def find_obstacles(run: Run, measured: dict[str, float]) -> list[Alarm]:
    """Why RL cannot work as set: one sentence for each reason, in the order in which they are best mended."""
    left_out = "eval/groups/" if not compares_within_groups(run) else "\0"
    known = {name: value for name, value in measured.items() if not name.startswith(left_out)}
    return find_alarms([{"stage": "rl", "step": 0} | known])


def time_train_step(
    train_step: TrainStep, state: TrainState, steps: int, clock: Callable[[], float] = time.perf_counter
) -> StepCost:
    """The cost of a train step, from one with compilation and ``steps`` more. The state is gone afterwards."""
    seconds = []
    for _ in range(steps + 1):
        begun = clock()
        state, _ = jax.block_until_ready(train_step(state))
        seconds.append(clock() - begun)
    return StepCost(seconds[0], statistics.median(seconds[1:]), *peak_memory())


def peak_memory() -> tuple[float, str]:
    """(bytes, of what): the most that a device of this process has held so far, or on a CPU the process itself."""
    held = [(device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.local_devices()]
    if any(held):
        return float(max(held)), "a device"
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit), "the process"


def choose_attempts(attempts: Attempts, count: int = 3) -> list[tuple[int, int]]:
    """(problem, attempt) of ``count`` attempts to read.

    A right one, a wrong one that ended and one that was cut off, where there are such, then others; each at another problem as
    far as possible.
    """
    finished, chosen = attempts.columns()["finished"], []
    kinds = [attempts.correct > 0, (attempts.correct <= 0) & finished, ~finished]
    for kind in [*kinds, *[np.ones_like(finished)] * count]:
        left = [(q, n) for q, n in np.argwhere(kind).tolist() if (q, n) not in chosen]
        asked = {problem for problem, _ in chosen}
        chosen += ([place for place in left if place[0] not in asked] or left)[:1]
    return chosen[:count]
