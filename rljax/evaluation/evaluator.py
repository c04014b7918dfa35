"""Look at a policy on problems it never trained on: pass@k, cons@k, lengths, strategies, and the attempts themselves.

Every evaluation of a run asks the same problems with the same noise: number q and attempt n always share a key. A
truncated response counts as wrong and is reported.
"""

import bisect
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax import metrics, rewards, sampler, transformer
from rljax.distributed import sharding
from rljax.metrics import behaviours
from rljax.structs import Problems
from rljax.tasks import Attempt, Task, batches, select_facts
from rljax.text import Tokenizer

Sample = dict[str, Any]
Look = tuple[dict[str, float], list[Sample]]  # {"eval/...": number}, and what was said
Evaluate = Callable[[Any], Look]
EvaluateRuns = Callable[[Any], list[Look]]
Lift = Callable[[Callable], Callable]  # a function of one run -> of all, every array with a leading axis [R]
ASKED_AT_ONCE = 1024  # rows sampled together


def make(task: Task, model: transformer.Config, *, seed: int, **asked: Any) -> Evaluate:
    """``evaluate(params) -> (metrics {"eval/...": number}, samples)`` of one run, asked what ``of_runs`` says."""
    look = of_runs(task, model, seeds=[seed], lift=None, **asked)
    return lambda params: look(params)[0]


def of_runs(
    task: Task,
    model: transformer.Config,
    *,
    seeds: Sequence[int],
    lift: Lift | None,
    split: str,
    problems: int,
    attempts: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    greedy: bool = True,
    keep: int = 16,
    brief: bool = False,
    workers: int = 1,
) -> EvaluateRuns:
    """``evaluate(params) -> [(metrics, samples)]``, one a run, over the first ``problems`` of a held-out split, drawn by its seed.

    ``lift`` None is a single run. Else ``params`` have a leading axis of R runs, and what they do is sampled and verified as
    the one function that ``lift`` makes of a run's: only for a task whose verifier is on the device.

    ``attempts`` n a problem; pass@k and cons@k for k = 1, 2, 4, ... n; ``greedy`` adds one greedy attempt a problem.
    The samples are all attempts at the first ``keep`` problems; ``brief`` adds what those at the others earned.
    """

    @functools.cache  # made when first looked at: a run that starts from a known evaluation begins sooner
    def questions() -> list[tuple[Problems, list[Any]]]:
        ask = batches.problem_fn(task)
        asked = [ask(seed, jnp.arange(problems), split) for seed in seeds]
        return [(a, task.records(a.facts)) for a in asked]

    at_once, parts = max(1, min(problems, ASKED_AT_ONCE // attempts)), model.layout.ways("rows")
    at_once = -(-at_once // parts) * parts
    draw = functools.partial(
        sampler.sample,
        config=model,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        stop_ids=task.tokenizer.stop_ids,
    )
    keys = [jax.random.fold_in(jax.random.key(seed), 0x5EED) for seed in seeds]
    judges = {n: rewards.verifier(task, n, workers) for n in {attempts, 1}}

    def attempt(n: int, greedy: bool) -> Callable[[Any, Problems, jax.Array], dict[str, jax.Array]]:
        """What one run does, and earns, at some problems."""

        def one(params: Any, part: Problems, key: jax.Array) -> dict[str, jax.Array]:
            asked = dict(prompt=part.prompt, prompt_mask=part.prompt_mask)
            rows = draw(params, **asked, key=key, group_size=n, greedy=greedy)
            reward, noted = judges[n](rows, part)
            columns = dict(response=rows.response, mask=rows.mask, finished=rows.finished, logprobs=rows.logprobs)
            by_group = {k: rewards.by_group(v, n) for k, v in columns.items()}
            return {"reward": reward} | {f"noted/{name}": value for name, value in noted.items()} | by_group

        return jax.jit(lift(one)) if lift else one

    tries, likeliest = attempt(attempts, False), attempt(1, True)
    joined = stacked if lift else lambda runs: runs[0]
    by_run = np.asarray if lift else lambda x: np.asarray(x)[None]

    def at_all(act: Callable, params: Any) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """(reward [Q, n], everything else that ``act`` says of its attempts) of each run."""
        parts = []
        for start in range(0, problems, at_once):
            part = joined([sharding.place_rows(take(asked, start, at_once), model.layout) for asked, _ in questions()])
            did = sharding.fetch(act(params, part, joined([jax.random.fold_in(key, start) for key in keys])))
            live = min(at_once, problems - start)
            parts.append({k: by_run(v)[:, :live] for k, v in did.items()})
        merged = {k: np.concatenate([p[k] for p in parts], 1) for k in parts[0]}
        reward = merged.pop("reward")
        return [(reward[r], {k: v[r] for k, v in merged.items()}) for r in range(len(seeds))]

    def read(reward: np.ndarray, rows: dict[str, np.ndarray], asked: Problems, records: list[Any]) -> Look:
        texts, done = read_attempts(task, rows, records)
        out = estimates(reward, rows, texts, done, records, task)
        kept = samples(task, asked, records, reward, rows, texts, done, keep)
        return out, kept + (earnings(reward, rows, keep) if brief else [])

    def evaluate(params: Any) -> list[Look]:
        found = [read(*did, *of) for did, of in zip(at_all(tries, params), questions(), strict=True)]
        if greedy:
            for (out, _), (reward, _) in zip(found, at_all(likeliest, params), strict=True):
                out["eval/greedy"] = float(reward.mean())
        return found

    return evaluate


def stacked(runs: Sequence[Any]) -> Any:
    """Pytrees of equal shapes -> one with a leading axis."""
    return jax.tree.map(lambda *x: jnp.stack(x), *runs)


def take(problems: Problems, start: int, count: int) -> Problems:
    """``count`` problems from ``start``, the last one repeated where they run out: every call has the same shape."""
    index = np.minimum(np.arange(start, start + count), problems.prompt.shape[0] - 1)
    facts = problems.facts
    picked = select_facts(facts, index)
    return Problems(prompt=problems.prompt[index], prompt_mask=problems.prompt_mask[index], facts=picked)


def read_attempts(
    task: Task, rows: dict[str, np.ndarray], records: list[Any]
) -> tuple[list[list[str]], list[list[Attempt]]]:
    """The text of each response, and what it did: both [Q][n]."""
    lengths = rows["mask"].sum(-1)
    decode = lambda q, n: rewards.read(
        task.tokenizer, rows["response"][q, n, : lengths[q, n]], bool(rows["finished"][q, n])
    )
    texts = [[decode(q, n) for n in range(lengths.shape[1])] for q in range(len(records))]
    return texts, [[task.describe(t, r) for t in row] for row, r in zip(texts, records, strict=True)]


def estimates(
    reward: np.ndarray,
    rows: dict[str, np.ndarray],
    texts: list[list[str]],
    read: list[list[Attempt]],
    records: list[Any],
    task: Task,
) -> dict[str, float]:
    """Every number of an evaluation; reward [Q, n]."""
    attempts, length = reward.shape[1], rows["mask"].sum(-1)
    by_question = reward.mean(1)
    out = {"eval/pass@1": by_question.mean(), "eval/pass@1/se": metrics.standard_error(by_question)}
    doubled = [2**i for i in range(1, attempts.bit_length())]
    out |= {f"eval/pass@{k}": metrics.pass_at_k(reward, k).mean() for k in doubled}
    votes, gold = votes_of(read, reward, task.same_answer)
    for k in sorted({*doubled, attempts}):
        cons = metrics.cons_at_k(votes, gold, k)
        out |= {f"eval/cons@{k}": cons.mean(), f"eval/cons@{k}/se": metrics.standard_error(cons)}
    out |= {f"eval/response_length/{k}": v for k, v in metrics.lengths(length).items()}
    for name, chosen in (("correct", reward > 0), ("wrong", reward <= 0)):
        if chosen.any():
            out[f"eval/response_length/{name}"] = length[chosen].mean()
    out["eval/truncated"] = 1 - rows["finished"].mean()
    out |= parts_of(by_question, records)
    out |= {f"eval/{name[6:]}": value.mean() for name, value in rows.items() if name.startswith("noted/")}
    flat, words = [a for row in read for a in row], [t for row in texts for t in row]
    for strategy in task.strategies:
        out[f"eval/strategy/{strategy}"] = np.mean([a.strategy == strategy for a in flat])
    for name, rates in behaviours.behaviour_rates(
        words, length.reshape(-1).tolist(), behaviours.compile_patterns(task.behaviours)
    ).items():
        key = f"eval/behaviour/{name}"
        out |= {key: rates.share, f"{key}/per_response": rates.per_response, f"{key}/per_1k": rates.per_1k}
    return {k: float(v) for k, v in (out | skills(flat)).items()}


def parts_of(by_question: np.ndarray, records: list[Any]) -> dict[str, float]:
    """pass@1 of each level and of each data set, where the records have several; ``/questions`` says of how many."""
    out = {}
    for field in ("level", "dataset"):
        of = np.array([str(r.get(field, "")) for r in records])
        for value in sorted(set(of) - {""}) if len(set(of)) > 1 else ():
            here, key = by_question[of == value], f"eval/{field}/{value}"
            out |= {f"{key}/pass@1": here.mean(), f"{key}/pass@1/se": metrics.standard_error(here)}
            out[f"{key}/questions"] = len(here)
    return out


def votes_of(
    read: list[list[Attempt]], reward: np.ndarray, same: Callable[[str, str], bool] = operator.eq
) -> tuple[list[list[str | None]], list[str]]:
    """Answers to vote with, equal ones under one name, and the answer that is right: any that was rewarded."""
    votes = []
    for row, rewarded in zip(read, reward, strict=True):
        right = {a.answer for a, r in zip(row, rewarded, strict=True) if r > 0 and a.answer is not None}
        names: dict[str, str] = dict.fromkeys(right, "right")
        for answer in dict.fromkeys(a.answer for a in row if a.answer is not None and a.answer not in right):
            wrong = [known for known, name in names.items() if name == known]
            names[answer] = next((known for known in wrong if same(known, answer)), answer)
        votes.append([None if a.answer is None else names[a.answer] for a in row])
    return votes, ["right"] * len(votes)


def skills(attempts: list[Attempt]) -> dict[str, float]:
    """Shares of calculations and verdicts that are right, verdicts by number of the try, and of "same" that are false."""
    facts = [f for a in attempts for f in a.calculations]
    verdicts = [v for a in attempts for v in a.verdicts]
    out = {}
    if facts:
        out["eval/facts_right"] = np.mean(facts)
    if verdicts:
        out["eval/verdicts_right"] = np.mean([right for right, _, _ in verdicts])
        said_yes = [right for right, yes, _ in verdicts if yes]
        out["eval/false_yes"] = 1 - np.mean(said_yes) if said_yes else 0.0
        for number in range(min(9, max(n for _, _, n in verdicts) + 1)):
            here = [right for right, _, n in verdicts if n == number]
            if here:
                out[f"eval/verdicts_right/try_{number + 1}"] = np.mean(here)
    return out


def samples(
    task: Task,
    asked: Problems,
    records: list[Any],
    reward: np.ndarray,
    rows: dict[str, np.ndarray],
    texts: list[list[str]],
    read: list[list[Attempt]],
    keep: int,
) -> list[Sample]:
    """One line an attempt at each of the first ``keep`` problems.

    ``final`` is where its final answer begins, in characters, and ``think_tokens`` how many tokens stand before that.
    """
    out, lengths = [], rows["mask"].sum(-1)
    for q in range(min(keep, len(texts))):
        prompt = task.tokenizer.decode(np.asarray(asked.prompt[q])[np.asarray(asked.prompt_mask[q])])
        for n, text in enumerate(texts[q]):
            tokens = rows["response"][q, n, : lengths[q, n]].tolist()
            final = min(task.answer_start(text, records[q]), len(text.removesuffix("<eos>")))
            out.append(
                {
                    "problem": q,
                    **{name: records[q][name] for name in ("dataset", "level") if records[q].get(name)},
                    "prompt": prompt,
                    "response": text,
                    "final": final,
                    "think_tokens": tokens_in(task.tokenizer, tokens, text[:final]),
                    "answer": read[q][n].answer,
                    "reward": float(reward[q, n]),
                    "strategy": read[q][n].strategy,
                    "length": len(tokens),
                    "tokens": tokens,
                    "pieces": [task.tokenizer.decode([t]) for t in tokens],
                    "logprobs": [round(float(x), 4) for x in rows["logprobs"][q, n, : lengths[q, n]]],
                }
            )
    return out


def tokens_in(tokenizer: Tokenizer, tokens: list[int], beginning: str) -> int:
    """How many of a response's tokens make up the beginning of its text; spaces at its end do not count."""
    length = lambda count: len(tokenizer.decode(tokens[:count]).rstrip())
    return bisect.bisect_right(range(len(tokens) + 1), len(beginning.rstrip()), key=length) - 1


def earnings(reward: np.ndarray, rows: dict[str, np.ndarray], first: int) -> list[Sample]:
    """One short line an attempt at each problem from number ``first`` on."""
    lengths = rows["mask"].sum(-1)
    numbers = [(q, n) for q in range(first, len(reward)) for n in range(reward.shape[1])]
    return [{"problem": q, "reward": float(reward[q, n]), "length": int(lengths[q, n])} for q, n in numbers]
