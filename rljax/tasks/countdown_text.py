"""Steps of countdown as text, and the demonstrations of countdown's four habits.

A habit is one of the cognitive behaviours that Gandhi et al. (arXiv 2503.01307) find in models that RL improves:

    verification        try 2 + 3 = 5 , 5 * 4 = 20 vs 14 more                      the result is compared with the target
    backtracking        try 2 + 3 = 5 , 5 * 4 = 20 wait 3 + 4 = 7 , 7 * 2 = 14     an attempt is given up for another one
    subgoals            try aim 7 3 + 4 = 7 , 7 * 2 = 14                           the result of the first steps is said beforehand
    backward_chaining   try back 14 / 2 = 7 3 + 4 = 7 , 7 * 2 = 14                 the last step is undone, from the target

Each can be shown alone or with others. A demonstrator who does not go back makes one attempt. All find the solution in the same
share of their attempts; the others they end with an answer that they know nothing of.
"""

import numpy as np

from rljax.tasks.task import Record

OPERATIONS = ("+", "-", "*", "/")
VERDICTS = ("less", "more", "same")
HABITS = ("verification", "backtracking", "subgoals", "backward_chaining")
HABIT_WORDS = ("aim", "back")  # of the last two
Step = tuple[int, str, int, int]  # a, operation, b, result


def calculate(a: int, operation: str, b: int, limit: int) -> int | None:
    """The result of a step; None where it is no integer within 0 .. limit."""
    if operation == "/" and (b == 0 or a % b):
        return None
    c = {"+": a + b, "-": a - b, "*": a * b, "/": a // max(b, 1)}[operation]
    return c if 0 <= c <= limit else None


def compare(a: int, b: int) -> str:
    """The verdict on a against b: less, more or same."""
    return VERDICTS[(a >= b) + (a == b)]


def steps_text(steps: list[Step]) -> str:
    """ "3 + 4 = 7 , 7 * 2 = 14"."""
    return " , ".join(f"{a} {operation} {b} = {c}" for a, operation, b, c in steps)


def compared_text(steps: list[Step], target: int) -> str:
    """Steps, and the last result compared with the target."""
    return f"{steps_text(steps)} vs {target} {compare(steps[-1][3], target)}"


def random_steps(numbers: list[int], limit: int, rng: np.random.Generator, aim: int | None = None) -> list[Step]:
    """Random legal steps that use all the numbers. With ``aim`` the last operation is the one whose result is nearest to it."""
    left, steps = list(numbers), []
    while len(left) > 1:
        left = [left[i] for i in rng.permutation(len(left))]
        a, b, *rest = left
        legal = lambda a, b: [(a, x, b, c) for x in OPERATIONS if (c := calculate(a, x, b, limit)) is not None]
        choices = legal(a, b) or legal(b, a)  # one of the two differences is always legal
        if aim is not None and not rest:
            choices = [min(choices, key=lambda step: abs(step[3] - aim))]
        steps.append(choices[rng.integers(len(choices))])
        left = [*rest, steps[-1][3]]
    return steps


# Habits


def parse_habits(said: str) -> tuple[str, ...]:
    """ "verification + backtracking", "all" or "none" -> names of ``HABITS``. Raises ValueError for an unknown name."""
    names = {"all": HABITS, "none": ()}.get(said, tuple(name.strip() for name in said.split("+")))
    if unknown := [name for name in names if name not in HABITS]:
        raise ValueError(unknown[0])
    return names


def habit_demonstration(
    record: Record, habits: tuple[str, ...], tries: int, give_up: float, wrong: bool, rng: np.random.Generator
) -> str:
    """A response with these habits and no others; without any, an answer alone.

    The known solution is one of the first ``tries`` attempts, if the search lasts so long; with ``wrong`` no attempt, and no answer,
    reaches the target. ``give_up`` is the chance to stop after each failed attempt, for a demonstrator who goes back.
    """
    target = record["target"]
    known, attempts = rng.integers(tries), []
    for n in range(tries if "backtracking" in habits else 1):
        if wrong:
            steps = missing_steps(record, rng)
        else:
            steps = record["solution"] if n == known else random_steps(record["numbers"], record["limit"], rng)
        attempts.append(steps)
        if steps[-1][3] == target or rng.random() < give_up:
            break
    reached = attempts[-1][-1][3] == target
    answer = attempts[-1]
    if "backtracking" in habits and not reached:  # given up: any other one
        answer = missing_steps(record, rng) if wrong else random_steps(record["numbers"], record["limit"], rng)
    if not habits:
        return f"answer {steps_text(answer)}"
    return f"try {' wait '.join(attempt_text(a, record, habits) for a in attempts)} answer {steps_text(answer)}"


def missing_steps(record: Record, rng: np.random.Generator) -> list[Step]:
    """Random legal steps that do not reach the target."""
    while (steps := random_steps(record["numbers"], record["limit"], rng))[-1][3] == record["target"]:
        pass
    return steps


def attempt_text(steps: list[Step], record: Record, habits: tuple[str, ...]) -> str:
    """One attempt, with the habits that show within it."""
    target, parts = record["target"], []
    if "backward_chaining" in habits and (undone := undo_last(steps, target, record["limit"])):
        parts.append(f"back {undone}")
    if "subgoals" in habits:
        parts.append(f"aim {steps[-2][3]}")
    parts.append(compared_text(steps, target) if "verification" in habits else steps_text(steps))
    return " ".join(parts)


def undo_last(steps: list[Step], target: int, limit: int) -> str:
    """The last operation undone from the target, "14 / 2 = 7" of 7 * 2 = 14; "" where the target has no such inverse.

    An attempt that misses the target undoes the operation that it will use, and so aims at another number than it reaches.
    """
    before, (a, operation, b, _) = steps[-2][3], steps[-1]
    inverse = {"+": "-", "*": "/", "-": "+", "/": "*"}[operation]
    first, second = (target, b) if a == before else (target, a)  # what is left to reach is the other operand
    if a != before and operation in "-/":  # a - x = target: x = a - target
        inverse, first, second = operation, a, target
    result = calculate(first, inverse, second, limit)
    return "" if result is None else f"{first} {inverse} {second} = {result}"
