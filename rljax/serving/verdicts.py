"""What is said of one attempt: right or wrong and why, its answer, its thinking and its behaviours."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rljax.metrics import behaviours
from rljax.rewards.workers import TIMEOUT, make_scorer
from rljax.serving.questions import Question
from rljax.tasks import Attempt, Task, response_text
from rljax.text import StopStrings
from rljax.verifiers import answers
from rljax.verifiers.failures import score_of_verdict


class Verdict(NamedTuple):
    """What is said of one attempt."""

    text: str
    correct: float | None  # 1 right, 0 wrong; None: nobody knows what is right, or the verifier gave no verdict
    answer: str | None
    why: str
    final: int  # characters of the text before the final answer: its thinking
    strategy: str
    marks: list[tuple[int, int, str]]  # (start, end, behaviour), in characters
    attempt: Attempt


Judge = Callable[[Question, Sequence[int], bool, StopStrings | None], Verdict]


def make_judge(task: Task, workers: int) -> Judge:
    """``judge(question, ids, finished, stops) -> Verdict``. One caller at a time.

    A text verifier that is slow, or may hang, works in a process of its own where ``workers`` is not 0.
    """
    score = make_scorer(task, 0 if task.on_device else min(workers, 1), TIMEOUT, (), max_unscored=1.0)
    patterns = behaviours.compile_patterns(task.behaviours)

    def judge(question: Question, ids: Sequence[int], finished: bool, stops: StopStrings | None) -> Verdict:
        text = response_text(task.tokenizer, np.asarray(ids), finished, stops) if len(ids) else ""
        body, correct = text.removesuffix("<eos>"), None
        if question.record is not None:
            found = score([[(text, question.record)]], 1)[0]["correct"]
            correct = None if found != found else float(found)
        elif question.answer:
            grade = answers.grade_many([(task.prefill + body, question.answer)])[0]
            earned = score_of_verdict(grade.correct, finished)
            correct = None if math.isnan(earned) else earned
        attempt = describe(task, question, text)
        final = task.answer_start(text, question.record) if question.record is not None else after_thinking(body)
        marks = [(m.start(), m.end(), name) for name, p in patterns.items() for m in p.finditer(body)]
        why = explain(attempt, correct, finished, len(ids), question.answer)
        return Verdict(
            body, correct, attempt.answer, why, min(final, len(body)), attempt.strategy, sorted(marks), attempt
        )

    return judge


def describe(task: Task, question: Question, text: str) -> Attempt:
    """What a response did; of a question that the task cannot read, its marked answer alone."""
    if question.record is not None:
        return task.describe(text, question.record)
    return Attempt("", answers.extract_answer(task.prefill + text.removesuffix("<eos>")))


def after_thinking(text: str) -> int:
    """Where the answer begins in a text of unknown form: behind its thinking, else at its beginning."""
    end = text.rfind("</think>")
    return end + len("</think>") if end >= 0 else len(text) if "<think>" in text else 0


def explain(attempt: Attempt, correct: float | None, finished: bool, length: int, gold: str) -> str:
    """Why an attempt is right or wrong, in a few words."""
    sums = ""
    if attempt.calculations:
        sums = f"; {sum(attempt.calculations)} of {len(attempt.calculations)} calculations right"
    says = "no final answer" if attempt.answer is None else f"answers {attempt.answer}"
    if not finished:
        return f"cut off after {length} tokens{sums}"
    if correct is None:
        known = "the verifier gave no verdict" if gold else "nobody said what is right"
        return f"{says}; {known}{sums}"
    if correct > 0:
        return f"{says}, which is right{sums}"
    wanted = f" (right is {gold})" if gold else ""
    return f"{says}{'' if attempt.answer is None else ', which is wrong'}{wanted}{sums}"


@functools.lru_cache(maxsize=8)
def judge_of(task: Task, workers: int) -> Judge:
    """One judge for each task, so that its worker is started once."""
    return make_judge(task, workers)


def verdict_fields(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON has it."""
    named = ("correct", "answer", "why", "final", "strategy", "marks")
    return {name: getattr(verdict, name) for name in named}
