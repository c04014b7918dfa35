"""The metrics of an evaluation: pass@k, cons@k, lengths, strategies, behaviours and skills."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from rljax import metrics
from rljax.metrics import behaviours
from rljax.tasks import Attempt, Task


def estimate_metrics(
    reward: np.ndarray,
    columns: dict[str, np.ndarray],
    texts: list[list[str]],
    attempts: list[list[Attempt]],
    records: list[Any],
    task: Task,
) -> dict[str, float]:
    """{"eval/...": number} of n attempts at each of Q questions.

    ``reward`` is [Q, n], ``columns`` are arrays [Q, n, ...] ("mask", "finished", "info/NAME"), ``texts`` and ``attempts`` are
    lists ``[Q][n]``, ``records`` has one record for each question.
    """
    # Accuracy
    count, length = reward.shape[1], columns["mask"].sum(-1)
    by_question = metrics.success_rates(reward)
    out: dict[str, Any] = {
        "eval/pass@1": metrics.mean_known(by_question),
        "eval/pass@1/se": metrics.standard_error(by_question),
    }
    powers = [2**i for i in range(1, count.bit_length())]
    out |= {f"eval/pass@{k}": metrics.mean_known(metrics.pass_at_k(reward, k)) for k in powers}
    votes, gold = canonicalize_answers(attempts, reward, task.same_answer)
    for k in sorted({*powers, count}):
        cons = metrics.cons_at_k(votes, gold, k)
        out |= {f"eval/cons@{k}": cons.mean(), f"eval/cons@{k}/se": metrics.standard_error(cons)}

    # Lengths
    out |= {f"eval/response_length/{k}": v for k, v in metrics.length_statistics(length).items()}
    for name, chosen in (("correct", reward > 0), ("wrong", reward <= 0)):
        if chosen.any():
            out[f"eval/response_length/{name}"] = length[chosen].mean()
    out["eval/truncated"] = 1 - columns["finished"].mean()

    # Parts of the questions, and metrics of the verifier
    out |= pass_rates_by_field(by_question, records) | lengths_by_level(length, reward, records)
    out |= {
        f"eval/{name.removeprefix('info/')}": metrics.mean_known(value)
        for name, value in columns.items()
        if name.startswith("info/")
    }

    # What the responses do
    flat, flat_texts = [a for row in attempts for a in row], [t for row in texts for t in row]
    for strategy in task.strategies:
        out[f"eval/strategy/{strategy}"] = np.mean([a.strategy == strategy for a in flat])
    for name, rates in behaviours.behaviour_rates(
        flat_texts, length.reshape(-1).tolist(), behaviours.compile_patterns(task.behaviours)
    ).items():
        key = f"eval/behaviour/{name}"
        out |= {key: rates.share, f"{key}/per_response": rates.per_response, f"{key}/per_1k": rates.per_1k}
    return {k: float(v) for k, v in (out | skill_rates(flat) | search_statistics(flat, length)).items()}


def pass_rates_by_field(by_question: np.ndarray, records: list[Any]) -> dict[str, float]:
    """pass@1 of each level and of each data set, its standard error ("/se") and number of questions ("/questions").

    ``by_question`` [Q] is the pass rate of each question. Empty where the records have one level and one data set.
    """
    out = {}
    for field in ("level", "dataset"):
        values = np.array([str(r.get(field, "")) for r in records])
        for value in sorted(set(values) - {""}) if len(set(values)) > 1 else ():
            rates, key = by_question[values == value], f"eval/{field}/{value}"
            out |= {f"{key}/pass@1": metrics.mean_known(rates), f"{key}/pass@1/se": metrics.standard_error(rates)}
            out[f"{key}/questions"] = len(rates)
    return out


def lengths_by_level(length: np.ndarray, reward: np.ndarray, records: list[Any]) -> dict[str, float]:
    """Mean length at each level of difficulty, of all attempts and of right and of wrong ones; empty where there is one level.

    ``length`` and ``reward`` are [Q, n]. A key is left out where there is no such attempt.
    """
    out = {}
    levels = np.array([str(r.get("level", "")) for r in records])
    for level in sorted(set(levels) - {""}) if len(set(levels)) > 1 else ():
        here, key = (levels == level)[:, None], f"eval/level/{level}/response_length"
        for name, chosen in (
            (key, here),
            (f"{key}/correct", here & (reward > 0)),
            (f"{key}/wrong", here & (reward <= 0)),
        ):
            if np.any(chosen := np.broadcast_to(chosen, length.shape)):
                out[name] = length[chosen].mean()
    return out


def search_statistics(attempts: list[Attempt], length: np.ndarray) -> dict[str, float]:
    """What the searches of N attempts consist of; {} where the task tells no candidates apart. ``length`` has N numbers.

    tries: candidates an attempt. repeated: share of them that the attempt had tried before. wasted: tokens an attempt behind its
    first right candidate, and their share of all tokens.
    """
    tried = [a.tried for a in attempts if a.tried is not None]
    if not tried:
        return {}
    count, wasted = sum(map(len, tried)), sum(a.wasted for a in attempts)
    return {
        "eval/tries": count / len(tried),
        "eval/repeated": (count - sum(len(set(t)) for t in tried)) / max(count, 1),
        "eval/wasted": wasted / len(attempts),
        "eval/wasted/share": wasted / max(float(np.sum(length)), 1.0),
    }


def canonicalize_answers(
    attempts: list[list[Attempt]], reward: np.ndarray, same_answer: Callable[[str, str], bool] = operator.eq
) -> tuple[list[list[str | None]], list[str]]:
    """``(votes [Q][n], gold [Q])`` for ``metrics.cons_at_k``: each attempt's answer, with one name for equal answers.

    Every rewarded answer is named "right", which is also the gold answer. An attempt without an answer has None.
    """
    votes = []
    for row, rewarded in zip(attempts, reward, strict=True):
        right = {a.answer for a, r in zip(row, rewarded, strict=True) if r > 0 and a.answer is not None}
        names: dict[str, str] = dict.fromkeys(right, "right")
        for answer in dict.fromkeys(a.answer for a in row if a.answer is not None and a.answer not in right):
            wrong = [known for known, name in names.items() if name == known]
            names[answer] = next((known for known in wrong if same_answer(known, answer)), answer)
        votes.append([None if a.answer is None else names[a.answer] for a in row])
    return votes, ["right"] * len(votes)


def skill_rates(attempts: list[Attempt]) -> dict[str, float]:
    """The skills of a search: right calculations, right verdicts (also by number of the try), and wrong "yes" verdicts.

    All are shares. A key is left out where nothing was counted.
    """
    calculations = [f for a in attempts for f in a.calculations]
    verdicts = [v for a in attempts for v in a.verdicts]
    out = {}
    if calculations:
        out["eval/facts_right"] = np.mean(calculations)
    if verdicts:
        out["eval/verdicts_right"] = np.mean([right for right, _, _ in verdicts])
        yes_verdicts = [right for right, yes, _ in verdicts if yes]
        out["eval/false_yes"] = 1 - np.mean(yes_verdicts) if yes_verdicts else 0.0
        for number in range(min(9, max(n for _, _, n in verdicts) + 1)):
            of_try = [right for right, _, n in verdicts if n == number]
            if of_try:
                out[f"eval/verdicts_right/try_{number + 1}"] = np.mean(of_try)
    return out
