"""Verifying attempts: on the device, or on the host by worker processes that read text.

    verifier(rollout, problems) -> (correct [B, G] float32, info {name: [B, G] or []})

``correct`` is NaN where an attempt could not be scored. That is never 0: nothing is learned from such an attempt.

The device verifier is jnp and may stand inside a jit. The host verifier decodes the rows and has a text verifier read them.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import jax.numpy as jnp
import numpy as np

from rljax.distributed import sharding
from rljax.rewards.scoring import Pairs, Scores
from rljax.rewards.terms import (
    CORRECT,
    Term,
    by_group,
    language_on_symbols,
    on_symbols,
    reward_values,
    text_terms,
)
from rljax.rewards.workers import MAX_UNSCORED, TIMEOUT, make_scorer
from rljax.structs import Array, EndedRows, Problems, Rewards, Rollout
from rljax.tasks import Task, response_text

Verifier = Callable[[Rollout, Problems], tuple[Array, dict[str, Array]]]


def device_verifier(task: Task, group_size: int, terms: Sequence[Term] = CORRECT) -> Verifier:
    """The task's verifier in jnp, with the terms that can be counted on token ids."""
    assert task.verify_on_device is not None, f"task {task.name} has no device verifier"
    score = task.verify_on_device

    def verify(rollout: Rollout, problems: Problems) -> tuple[Array, dict[str, Array]]:
        response, mask, finished = (by_group(x, group_size) for x in (rollout.response, rollout.mask, rollout.finished))
        info = {
            f"reward/{t.name}": language_on_symbols(task.tokenizer, response, mask, **t.choice.options)
            for t in text_terms(terms)
        }
        return score(response, mask, finished, problems.facts), info

    return verify


def host_verifier(
    task: Task,
    group_size: int,
    workers: int = 1,
    timeout: float = TIMEOUT,
    terms: Sequence[Term] = CORRECT,
    max_unscored: float = MAX_UNSCORED,
) -> Verifier:
    """The task's text verifier, in ``workers`` processes (0: in this one), with the terms that read text.

    A response on which the verifier raises scores 0, and is counted in ``info["verifier_error"]``. Where a process dies, or
    takes longer than ``timeout`` seconds for its share of the batch, each response of the share is asked again alone. One on
    which it dies or hangs again is unscored: NaN in everything, counted in ``info["verifier_unscored"]``. The first of each kind
    is printed.

    Raises UserError where the verifier raises for every response of the first batch, where more than the share
    ``max_unscored`` of a batch is unscored, and where the verifier does: only a problem or the machine can provoke that.
    """
    names = (
        "correct",
        "verifier_error",
        "verifier_unscored",
        *task.verifier_metrics,
        *(f"reward/{t.name}" for t in text_terms(terms)),
    )
    score = make_scorer(task, workers, timeout, text_terms(terms), max_unscored)

    def verify(rollout: Rollout, problems: Problems) -> tuple[Array, dict[str, Array]]:
        records, order = task.records(sharding.gather_to_host(problems.facts)), []

        def read_parts() -> Iterator[Pairs]:
            """The responses of this process's rows in the order in which they end: the host waits here for the device."""
            for numbers, texts in read_texts(task, rollout):
                order.extend(numbers)
                yield [(text, records[n // group_size]) for n, text in zip(numbers, texts, strict=True)]

        rows = sharding.row_numbers_of_this_process(rollout.mask)
        found = score(read_parts(), len(rows))
        found = [found[place] for place in np.argsort(order)]
        scores = np.asarray([[score_of(s, n) for n in names] for s in found], np.float32).reshape(-1, len(names))
        scores = sharding.gather_rows(rows, scores, rollout.mask.shape[0]).reshape(-1, group_size, len(names))
        info = {n: jnp.asarray(scores[..., i]) for i, n in enumerate(names)}
        return info.pop("correct"), info

    return verify


def read_texts(task: Task, rollout: Rollout) -> Iterator[tuple[list[int], list[str]]]:
    """(numbers, texts) of this process's rows: of those that had ended at each moment of ``rollout.earlier``, then of the rest.

    A row comes once.
    """
    seen = np.zeros(rollout.mask.shape[0], bool)
    for moment in (*(rollout.earlier or ()), rollout):
        arrays = moment.response, moment.mask, moment.finished
        (rows, response), (_, mask), (_, finished) = map(sharding.rows_of_this_process, arrays)
        ended = np.ones(len(rows), bool)
        if isinstance(moment, EndedRows):
            _, ended = sharding.rows_of_this_process(moment.ended)
        new = np.flatnonzero(ended & ~seen[rows])
        seen[rows[new]] = True
        texts = [response_text(task.tokenizer, response[i][mask[i]], finished[i], task.stops) for i in new]
        yield rows[new].tolist(), texts


def score_of(scores: Scores, name: str) -> float:
    """The score of this name. One that is missing is NaN where the response is unscored, else 0."""
    unscored = scores.get("verifier_unscored") and not name.startswith("verifier_")
    return scores.get(name, math.nan if unscored else 0.0)


def needs_host(task: Task, terms: Sequence[Term] = CORRECT) -> bool:
    """Whether verifying has to read text."""
    return not task.on_device or not all(on_symbols(task, t) for t in text_terms(terms))


def make_verifier(
    task: Task, group_size: int, workers: int, terms: Sequence[Term] = CORRECT, max_unscored: float = MAX_UNSCORED
) -> Verifier:
    """The device verifier where the task has one and no term has to read text, else the host verifier."""
    if needs_host(task, terms):
        return host_verifier(task, group_size, workers, terms=terms, max_unscored=max_unscored)
    return device_verifier(task, group_size, terms)


def make_reward_fn(
    task: Task,
    group_size: int,
    workers: int,
    terms: Sequence[Term],
    max_new_tokens: int,
    max_unscored: float = MAX_UNSCORED,
) -> Callable[[Rollout, Problems], Rewards]:
    """``verify(rollout, problems) -> Rewards``: correctness, every term of the reward, and those of greedy responses."""
    check, check_greedy = (make_verifier(task, n, workers, terms, max_unscored) for n in (group_size, 1))

    def verify(rollout: Rollout, problems: Problems) -> Rewards:
        correct, info = check(rollout, problems)
        values, greedy = reward_values(terms, correct, info, rollout, max_new_tokens), None
        if rollout.greedy is not None:
            found = check_greedy(rollout.greedy, problems)
            greedy = reward_values(terms, *found, rollout.greedy, max_new_tokens).sum(-1)[:, 0]
        return Rewards(correct, values, info, greedy)

    return verify


def summarize_rewards(rollout: Rollout, rewards: Rewards) -> dict[str, Array]:
    """The metrics of a rollout: mean reward, response lengths in tokens, shares of groups by outcome.

    A reward of several terms is logged term by term too, unweighted, as ``reward/NAME``. Attempts that could not be scored
    (NaN) are left out of these means, and so are groups in which none could.
    """
    lengths, correct = rollout.lengths, rewards.correct
    best, worst = jnp.nanmax(correct, -1), jnp.nanmin(correct, -1)
    share = lambda groups: jnp.sum(groups) / jnp.maximum(jnp.sum(~jnp.isnan(best)), 1)
    out = {
        "reward": jnp.nanmean(rewards.terms.sum(-1)),
        "truncated": 1 - rollout.finished.mean(),
        "response_length/mean": lengths.mean(),
        "response_length/median": jnp.median(lengths),
        "response_length/p95": jnp.percentile(lengths, 95),
        "response_length/max": lengths.max(),
        "groups/all_wrong": share(best <= 0),
        "groups/mixed": share((best > 0) & (worst <= 0)),
        "groups/all_right": share(worst > 0),
        "tokens": lengths.sum(),
    }
    if rewards.terms.shape[-1] > 1:
        out["reward/correct"] = jnp.nanmean(correct)
    out |= {name: jnp.nanmean(value) for name, value in rewards.info.items()}
    return out if rewards.greedy is None else out | {"greedy": jnp.nanmean(rewards.greedy)}
