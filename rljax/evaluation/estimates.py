"""The numbers of an evaluation: pass@k, cons@k, lengths, strategies, behaviours, and the skills behind them."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from rljax import metrics
from rljax.metrics import behaviours
from rljax.tasks import Attempt, Task


def estimate_metrics(
    reward: np.ndarray,
    rows: dict[str, np.ndarray],
    texts: list[list[str]],
    attempts: list[list[Attempt]],
    records: list[Any],
    task: Task,
) -> dict[str, float]:
    """Every number of an evaluation; reward [Q, n]."""
    count, length = reward.shape[1], rows["mask"].sum(-1)
    by_question = reward.mean(1)
    out = {"eval/pass@1": by_question.mean(), "eval/pass@1/se": metrics.standard_error(by_question)}
    doubled = [2**i for i in range(1, count.bit_length())]
    out |= {f"eval/pass@{k}": metrics.pass_at_k(reward, k).mean() for k in doubled}
    votes, gold = count_votes(attempts, reward, task.same_answer)
    for k in sorted({*doubled, count}):
        cons = metrics.cons_at_k(votes, gold, k)
        out |= {f"eval/cons@{k}": cons.mean(), f"eval/cons@{k}/se": metrics.standard_error(cons)}
    out |= {f"eval/response_length/{k}": v for k, v in metrics.lengths(length).items()}
    for name, chosen in (("correct", reward > 0), ("wrong", reward <= 0)):
        if chosen.any():
            out[f"eval/response_length/{name}"] = length[chosen].mean()
    out["eval/truncated"] = 1 - rows["finished"].mean()
    out |= pass_rates_by_part(by_question, records)
    out |= {f"eval/{name[6:]}": value.mean() for name, value in rows.items() if name.startswith("noted/")}
    flat, words = [a for row in attempts for a in row], [t for row in texts for t in row]
    for strategy in task.strategies:
        out[f"eval/strategy/{strategy}"] = np.mean([a.strategy == strategy for a in flat])
    for name, rates in behaviours.behaviour_rates(
        words, length.reshape(-1).tolist(), behaviours.compile_patterns(task.behaviours)
    ).items():
        key = f"eval/behaviour/{name}"
        out |= {key: rates.share, f"{key}/per_response": rates.per_response, f"{key}/per_1k": rates.per_1k}
    return {k: float(v) for k, v in (out | skill_rates(flat)).items()}


def pass_rates_by_part(by_question: np.ndarray, records: list[Any]) -> dict[str, float]:
    """pass@1 of each level and of each data set, where the records have several; ``/questions`` says of how many."""
    out = {}
    for field in ("level", "dataset"):
        of = np.array([str(r.get(field, "")) for r in records])
        for value in sorted(set(of) - {""}) if len(set(of)) > 1 else ():
            here, key = by_question[of == value], f"eval/{field}/{value}"
            out |= {f"{key}/pass@1": here.mean(), f"{key}/pass@1/se": metrics.standard_error(here)}
            out[f"{key}/questions"] = len(here)
    return out


def count_votes(
    attempts: list[list[Attempt]], reward: np.ndarray, same: Callable[[str, str], bool] = operator.eq
) -> tuple[list[list[str | None]], list[str]]:
    """Answers to vote with, equal ones under one name, and the answer that is right: any that was rewarded."""
    votes = []
    for row, rewarded in zip(attempts, reward, strict=True):
        right = {a.answer for a, r in zip(row, rewarded, strict=True) if r > 0 and a.answer is not None}
        names: dict[str, str] = dict.fromkeys(right, "right")
        for answer in dict.fromkeys(a.answer for a in row if a.answer is not None and a.answer not in right):
            wrong = [known for known, name in names.items() if name == known]
            names[answer] = next((known for known in wrong if same(known, answer)), answer)
        votes.append([None if a.answer is None else names[a.answer] for a in row])
    return votes, ["right"] * len(votes)


def skill_rates(attempts: list[Attempt]) -> dict[str, float]:
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
