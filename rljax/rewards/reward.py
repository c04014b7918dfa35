"""Verifying attempts: one signature, on the device or on the host.

    reward_fn(rollout, problems) -> (correct [B, G] float32, info {name: [B, G] or []})

``on_device`` is jnp and may stand inside a jit; ``on_host`` decodes the rows and asks a text verifier in worker
processes. What is learned from is a weighted sum, written as one: ``"correct + 0.5*format + overlong(share=0.2)"``. The
default is correctness and nothing else: no term sees the length.
"""

import ast
import functools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from rljax.distributed import sharding
from rljax.errors import UserError
from rljax.policy_gradient import choices
from rljax.structs import Array, Problems, Rollout
from rljax.tasks import Record, Task
from rljax.text import SymbolTokenizer, Tokenizer
from rljax.verifiers import tag_format, text_rewards

RewardFn = Callable[[Rollout, Problems], tuple[Array, dict[str, Array]]]
PATIENCE = 60.0  # seconds for a batch, beyond what a verifier that limits each response may take
A_RESPONSE = 10.0  # seconds for each of those


def by_group(x: Array, group_size: int) -> Array:
    """[N, ...] -> [B, G, ...]."""
    return x.reshape(-1, group_size, *x.shape[1:])


def mixed(reward: Array) -> Array:
    """[B] bool: the attempts at this prompt did not all earn the same, so that there is something to compare."""
    return reward.max(-1) > reward.min(-1)


# What a reward may be made of


def correct() -> None:
    """1 for a response whose final answer is right, and that ended by itself; else 0. The verifier says so."""


def overlong(lengths: Array, max_length: int, *, share: float = 0.2) -> Array:
    """The soft overlong punishment over the last ``share`` of the window."""
    return soft_overlong(lengths, max_length, share * max_length)


def soft_overlong(lengths: Array, max_length: int, cache: Array | float) -> Array:
    """What a response near the limit loses (DAPO, arXiv 2503.14476, eq. 13), float32 like ``lengths``.

    0 up to ``max_length - cache`` tokens, then down a straight line to -1 at ``max_length``, -1 beyond.
    """
    return jnp.clip((max_length - cache - lengths) / jnp.maximum(cache, 1e-9), -1.0, 0.0)


OF_TEXT = {
    "format": tag_format.format_reward,
    "language": text_rewards.language_consistency,
    "repetition": text_rewards.repetition_penalty,
}
TERMS = {"correct": correct, "overlong": overlong} | OF_TEXT
WORDS = {
    ("format", "tags"): tuple(tag_format.TAG_SEQUENCES),
    ("language", "target"): tuple(text_rewards.LANGUAGE_SCRIPTS),
}


class Term(NamedTuple):
    """A part of the reward, and its weight."""

    weight: float
    choice: choices.Choice

    @property
    def name(self) -> str:
        return self.choice.name


CORRECT = (Term(1.0, choices.Choice("correct", {})),)


def parse(text: str) -> tuple[Term, ...]:
    """``"correct + 0.5*format - 0.1*language(target=zh)"`` -> terms. Raises UserError for anything else."""
    try:
        found = tuple(terms(ast.parse(text.strip(), mode="eval").body, 1.0))
    except (SyntaxError, ValueError, TypeError):
        raise UserError(f"rl.reward={text!r}: write a sum such as correct + 0.5*format(tags=think)") from None
    names = [t.name for t in found]
    if twice := [n for n in names if names.count(n) > 1]:
        raise UserError(f"rl.reward={text!r} names {twice[0]!r} twice")
    for term in found:
        for option, value in term.choice.options.items():
            known = WORDS.get((term.name, option))
            if known and value not in known:
                raise UserError(f"rl.reward={text!r}: {option}={value!r}, choose from {known}")
    return found


def terms(node: ast.expr, sign: float) -> Iterator[Term]:
    """The terms of a sum. ValueError for what is none."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        yield from terms(node.left, sign)
        yield from terms(node.right, sign if isinstance(node.op, ast.Add) else -sign)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield from terms(node.operand, -sign)
    else:
        weight = 1.0
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            weight, node = float(ast.literal_eval(node.left)), node.right
        yield Term(sign * weight, choices.parse(ast.unparse(node), TERMS, "rl.reward"))


def of_text(parts: Sequence[Term]) -> tuple[Term, ...]:
    """The terms that read the response's text."""
    return tuple(t for t in parts if t.name in OF_TEXT)


def on_symbols(task: Task, term: Term) -> bool:
    """Whether a term that reads text can be counted on ids: language, where each word is one symbol and all are thought."""
    alone = isinstance(task.tokenizer, SymbolTokenizer) and not {"<think>", "</think>"} & {*task.tokenizer.table}
    return term.name == "language" and alone and not task.prefill


def language_on_symbols(tokenizer: Tokenizer, response: Array, mask: Array, **options: Any) -> Array:
    """``shaping.language`` of responses [B, G, T] of symbols, in jnp: [B, G] float32."""
    counts = np.asarray(
        [text_rewards.count_language_words(tokenizer.decode([i]), **options) for i in range(tokenizer.size)], np.float32
    )
    counts[list(tokenizer.stop_ids)] = 0  # the name of what ends a response is no word of it
    good, words = jnp.moveaxis(jnp.sum(jnp.asarray(counts)[response] * mask[..., None], -2), -1, 0)
    return good / jnp.maximum(words, 1)


def weighted(parts: Sequence[Term], correct: Array, info: dict[str, Array], rollout: Rollout, max_length: int) -> Array:
    """Each term times its weight, [B, G, R]: their sum is what is learned from."""
    lengths = by_group(rollout.lengths, correct.shape[-1])

    def value(term: Term) -> Array:
        if term.name == "correct":
            return correct
        if term.name == "overlong":
            return overlong(lengths, max_length, **term.choice.options)
        return info[f"reward/{term.name}"]

    return jnp.stack([t.weight * value(t) for t in parts], -1)


# Verifiers


def on_device(task: Task, group_size: int, parts: Sequence[Term] = CORRECT) -> RewardFn:
    """The task's verifier in jnp, and the terms of ``parts`` that can be counted on symbols."""
    assert task.score is not None, f"task {task.name} has no device verifier"
    score = task.score

    def reward(rollout: Rollout, problems: Problems) -> tuple[Array, dict[str, Array]]:
        response, mask, finished = (by_group(x, group_size) for x in (rollout.response, rollout.mask, rollout.finished))
        info = {
            f"reward/{t.name}": language_on_symbols(task.tokenizer, response, mask, **t.choice.options)
            for t in of_text(parts)
        }
        return score(response, mask, finished, problems.facts), info

    return reward


Scores = dict[str, float]
Pairs = list[tuple[str, Record]]


def on_host(
    task: Task, group_size: int, workers: int = 1, timeout: float = PATIENCE, parts: Sequence[Term] = CORRECT
) -> RewardFn:
    """The task's text verifier, in ``workers`` processes (0: in this one), and the terms of ``parts`` that read text.

    A verifier that raises, dies or takes longer than ``timeout`` seconds for its share of the batch scores 0, is counted
    in ``info["verifier_error"]``, and is replaced: a hostile response costs its reward, never the run. A UserError, which
    only a problem or the machine can provoke, ends the run.
    """
    pool: list[Executor] = []
    names = ("correct", "verifier_error", *task.notes, *(f"reward/{t.name}" for t in of_text(parts)))
    score = functools.partial(score_some, task.verify, task.judge, task.prefill, of_text(parts))

    def score_all(pairs: Pairs) -> list[Scores]:
        if not workers:
            return score(pairs)
        if not pool:
            pool.append(ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")))
        share = -(-len(pairs) // workers)
        shares = [pairs[i : i + share] for i in range(0, len(pairs), share)]
        futures = [pool[0].submit(score, some) for some in shares]
        out: list[Scores] = []
        for some, future in zip(shares, futures, strict=True):
            try:
                out += future.result(timeout + (A_RESPONSE * len(some) if task.judge else 0.0))
            except (TimeoutError, BrokenProcessPool, CancelledError):
                out += [{"correct": 0.0, "verifier_error": 1.0}] * len(some)
                stop_workers(pool)
        return out

    def reward(rollout: Rollout, problems: Problems) -> tuple[Array, dict[str, Array]]:
        (mine, response), (_, mask), (_, ended) = map(
            sharding.owned, (rollout.response, rollout.mask, rollout.finished)
        )
        texts = [read(task.tokenizer, row[live], end) for row, live, end in zip(response, mask, ended, strict=True)]
        records = task.records(sharding.fetch(problems.facts))
        found = score_all([(text, records[n // group_size]) for text, n in zip(texts, mine, strict=True)])
        scores = np.asarray([[s.get(n, 0.0) for n in names] for s in found], np.float32).reshape(-1, len(names))
        scores = sharding.collected(mine, scores, rollout.mask.shape[0]).reshape(-1, group_size, len(names))
        info = {n: jnp.asarray(scores[..., i]) for i, n in enumerate(names)}
        return info.pop("correct"), info

    return reward


def read(tokenizer: Tokenizer, ids: np.ndarray, finished: bool) -> str:
    """The text of a response. "<eos>" at its end says that it was finished, whatever the stop token is called.

    One that was cut off does not end in it, even where it spells its name.
    """
    text = tokenizer.decode(ids)
    if finished:
        return text.removesuffix(tokenizer.decode(ids[-1:])) + "<eos>"
    while text.endswith("<eos>"):
        text = text.removesuffix("<eos>")
    return text


def score_some(
    verify: Callable[[str, Record], bool],
    judge: Callable[[Pairs], list[Scores]] | None,
    prefill: str,
    parts: Sequence[Term],
    pairs: Pairs,
) -> list[Scores]:
    """What each (response, record) scores, by name; ``verifier_error`` says whether its verifier raised."""
    one = lambda pair: judge([pair])[0] if judge else {"correct": float(verify(*pair))}
    try:
        out = judge(pairs) if judge else [guarded(one, pair) for pair in pairs]
    except UserError:
        raise
    except Exception:  # one of them did it: the others keep their scores
        out = [guarded(one, pair) for pair in pairs]
    for scores, (text, _) in zip(out, pairs, strict=True):
        whole = prefill + text.removesuffix("<eos>")
        for term in parts:
            scores[f"reward/{term.name}"] = OF_TEXT[term.name](whole, **term.choice.options)
    return [{"verifier_error": 0.0} | scores for scores in out]


def guarded(one: Callable[[tuple[str, Record]], Scores], pair: tuple[str, Record]) -> Scores:
    try:
        return one(pair)
    except UserError:  # of the problem or the machine, never of a response: no reward can be trusted then
        raise
    except Exception:  # whatever a policy's text provokes is a wrong answer, and is counted
        return {"correct": 0.0, "verifier_error": 1.0}


def stop_workers(pool: list[Executor]) -> None:
    """Kill a pool whose workers may hang; the next batch starts a fresh one."""
    for executor in pool:
        for process in list(getattr(executor, "_processes", {}).values()):
            process.kill()
        executor.shutdown(wait=False, cancel_futures=True)
    pool.clear()


def needs_host(task: Task, parts: Sequence[Term] = CORRECT) -> bool:
    """Whether verifying has to read text."""
    return not task.on_device or not all(on_symbols(task, t) for t in of_text(parts))


def verifier(task: Task, group_size: int, workers: int, parts: Sequence[Term] = CORRECT) -> RewardFn:
    """The device verifier where the task has one and no term has to read text, else the text verifier."""
    if needs_host(task, parts):
        return on_host(task, group_size, workers, parts=parts)
    return on_device(task, group_size, parts)


def summary(rollout: Rollout, correct: Array, parts: Array, info: dict[str, Array]) -> dict[str, Array]:
    """What the log says of a rollout: mean reward, of all terms [B, G, R] together; lengths in tokens; how groups came out.

    A reward of several terms is logged term by term too, unweighted, as ``reward/NAME``.
    """
    lengths = rollout.lengths
    best, worst = correct.max(-1) > 0, correct.min(-1) > 0
    out = {
        "reward": parts.sum(-1).mean(),
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
    if parts.shape[-1] > 1:
        out["reward/correct"] = correct.mean()
    return out | {name: value.mean() for name, value in info.items()}
