"""Arithmetic in words, in six levels: how the numbers of each kind of problem are drawn, and how it is worked out.

    1  Ada has 7 pens and buys 4 more. How many pens does Ada have now?                          sums and differences
    2  Each pear costs $3. Leo buys 5 pears. What is the total cost?                             products
    3  A shop has 8 plums. It gets 5 more and sells 4. How many plums does it have now?          a sum, then a difference
    4  Mia buys 2 pens at $3 each and 4 books at $5 each. How much does Mia pay in total?        two products and their sum
    5  Emily buys 3 apples and 2 oranges. Each orange costs $2. The total is $13. What is the cost of an apple?
    6  2 figs and 3 limes cost $13. 4 figs and 2 limes cost $14. What does one fig cost?         two unknowns

A problem is a kind and its numbers. The answer is the result of the last of its calculations, which are those that a person
would write down. Its content is what makes two problems the same to a solver: 3 pens at $4 and 4 plums at $3 are one product.
The content decides the split.
"""

import hashlib
from collections.abc import Callable, Container
from typing import Any, NamedTuple

import numpy as np

from rljax.errors import UserError
from rljax.tasks import wordings
from rljax.tasks.task import Record
from rljax.tasks.wordings import Numbers

Calculation = tuple[int, str, int, int]  # a, operation, b, result
SPLIT_TENTHS = {"train": (0, 6), "validation": (6, 8), "test": (8, 10)}  # of all contents; the easy levels have few
MAX_DRAWS = 10_000  # of numbers, before there is said to be no such problem


class Sizes(NamedTuple):
    """The largest numbers of problems. The smallest is 2."""

    number: int  # levels 1 to 3
    count: int  # of things bought, levels 4 to 6
    price: int  # of one thing, levels 4 to 6


class Kind(NamedTuple):
    """A kind of problem."""

    level: int
    draw: Callable[[np.random.Generator, Sizes], Numbers | None]  # None: no such problem, draw again
    work_out: Callable[[Numbers], list[tuple[int, str, int]] | None]  # a, operation, b; None: no whole positive answer
    content: Callable[[Numbers], Any]


# Numbers


def draw_from(rng: np.random.Generator, **largest: int) -> Numbers:
    """A number from 2 to its largest for each field."""
    return {name: int(rng.integers(2, high + 1)) for name, high in largest.items()}


def draw_difference(rng: np.random.Generator, sizes: Sizes) -> Numbers | None:
    found = draw_from(rng, a=sizes.number, b=sizes.number)
    return found if found["a"] > found["b"] else None


def draw_chain(rng: np.random.Generator, sizes: Sizes) -> Numbers | None:
    found = draw_from(rng, a=sizes.number, b=sizes.number, c=sizes.number)
    return found if found["c"] < found["a"] + found["b"] else None


def draw_unknown_price(rng: np.random.Generator, sizes: Sizes) -> Numbers:
    found = draw_from(rng, a=sizes.count, b=sizes.count, c=sizes.price, price=sizes.price)
    return found | {"t": found["a"] * found.pop("price") + found["b"] * found["c"]}


def draw_two_unknowns(rng: np.random.Generator, sizes: Sizes) -> Numbers | None:
    found = draw_from(rng, a=sizes.count, b=sizes.count, c=sizes.count, d=sizes.count, x=sizes.price, y=sizes.price)
    x, y = found.pop("x"), found.pop("y")
    if found["a"] * found["d"] == found["b"] * found["c"]:
        return None  # the two purchases say the same
    return found | {"t": found["a"] * x + found["b"] * y, "u": found["c"] * x + found["d"] * y}


# Calculations


def work_out_unknown_price(v: Numbers) -> list[tuple[int, str, int]] | None:
    known = v["b"] * v["c"]
    rest = v["t"] - known
    if not v["a"] or rest <= 0 or rest % v["a"]:
        return None
    return [(v["b"], "*", v["c"]), (v["t"], "-", known), (rest, "/", v["a"])]


def work_out_two_unknowns(v: Numbers) -> list[tuple[int, str, int]] | None:
    """Both purchases with as many of the second thing. Their difference then has the first thing alone."""
    (a, b, t), (c, d, u) = (v["a"], v["b"], v["t"]), (v["c"], v["d"], v["u"])
    if a * d < c * b:
        (a, b, t), (c, d, u) = (c, d, u), (a, b, t)
    steps: list[tuple[int, str, int]] = []
    if b != d:
        steps = [(t, "*", d), (u, "*", b), (a, "*", d), (c, "*", b)]
        a, t, c, u = a * d, t * d, c * b, u * b
    things, cost = a - c, t - u
    if things <= 0 or cost <= 0 or cost % things:
        return None
    steps += [(a, "-", c), (t, "-", u)]
    return steps if things == 1 else [*steps, (cost, "/", things)]


def sort_pairs(*pairs: tuple[int, int]) -> list[list[int]]:
    """Pairs of numbers, each in ascending order, in ascending order."""
    return sorted(sorted(pair) for pair in pairs)


KINDS: dict[str, Kind] = {
    "sum": Kind(
        1,
        lambda rng, sizes: draw_from(rng, a=sizes.number, b=sizes.number),
        lambda v: [(v["a"], "+", v["b"])],
        lambda v: sorted([v["a"], v["b"]]),
    ),
    "difference": Kind(
        1,
        draw_difference,
        lambda v: [(v["a"], "-", v["b"])] if v["a"] > v["b"] else None,
        lambda v: [v["a"], v["b"]],
    ),
    "product": Kind(
        2,
        lambda rng, sizes: draw_from(rng, a=sizes.number, b=sizes.number),
        lambda v: [(v["a"], "*", v["b"])],
        lambda v: sorted([v["a"], v["b"]]),
    ),
    "chain": Kind(
        3,
        draw_chain,
        lambda v: [(v["a"], "+", v["b"]), (v["a"] + v["b"], "-", v["c"])] if v["c"] < v["a"] + v["b"] else None,
        lambda v: [sorted([v["a"], v["b"]]), v["c"]],
    ),
    "two_products": Kind(
        4,
        lambda rng, sizes: draw_from(rng, a=sizes.count, b=sizes.price, c=sizes.count, d=sizes.price),
        lambda v: [(v["a"], "*", v["b"]), (v["c"], "*", v["d"]), (v["a"] * v["b"], "+", v["c"] * v["d"])],
        lambda v: sort_pairs((v["a"], v["b"]), (v["c"], v["d"])),
    ),
    "unknown_price": Kind(
        5,
        draw_unknown_price,
        work_out_unknown_price,
        lambda v: [v["a"], sorted([v["b"], v["c"]]), v["t"]],
    ),
    "two_unknowns": Kind(
        6,
        draw_two_unknowns,
        work_out_two_unknowns,
        lambda v: sorted([[v["a"], v["b"], v["t"]], [v["c"], v["d"], v["u"]]]),
    ),
}
LEVELS = {level: [name for name, kind in KINDS.items() if kind.level == level] for level in range(1, 7)}
RESULT: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b,
}


def draw_numbers(kind: str, rng: np.random.Generator, sizes: Sizes) -> Numbers:
    """The numbers of a problem of this kind."""
    while (found := KINDS[kind].draw(rng, sizes)) is None:
        pass
    return found


def calculate(kind: str, numbers: Numbers) -> list[Calculation] | None:
    """The calculations of a problem, the last with its answer; None where there is no whole positive answer."""
    steps = KINDS[kind].work_out(numbers)
    return None if steps is None else [(a, op, b, RESULT[op](a, b)) for a, op, b in steps]


def content(kind: str, numbers: Numbers) -> str:
    """What makes two problems the same to a solver, whatever the words: the kind, and the numbers without their order."""
    return f"{kind} {KINDS[kind].content(numbers)}"


def in_split(content: str, split: str) -> bool:
    """Whether problems of this content belong to the split. It is the same on every machine."""
    low, high = SPLIT_TENTHS[split]
    return low <= int(hashlib.sha256(content.encode()).hexdigest(), 16) % 10 < high


# Records


def make_record(kind: str, numbers: Numbers) -> Record:
    """What is known of a problem without its words. It is read as any question is whose answer is a number (``kind`` "math")."""
    steps = calculate(kind, numbers)
    assert steps is not None, (kind, numbers)
    return {
        "kind": "math",
        "prefill": "",
        "level": KINDS[kind].level,
        "problem": kind,
        "numbers": numbers,
        "solution": " ".join(f"{a} {op} {b} = {c}." for a, op, b, c in steps),
        "answer": str(steps[-1][3]),
    }


def record_content(record: Record) -> str:
    """The content of a record."""
    return content(record["problem"], record["numbers"])


def draw_record(kind: str, split: str, sizes: Sizes, rng: np.random.Generator, without: Container[str] = ()) -> Record:
    """A problem of this kind in random words, of a split, whose content is not in ``without``. Raises UserError where there is none."""
    for _ in range(MAX_DRAWS):
        numbers = draw_numbers(kind, rng, sizes)
        if in_split(found := content(kind, numbers), split) and found not in without:
            return {"question": wordings.word_problem(kind, numbers, rng)} | make_record(kind, numbers)
    largest = ", ".join(f"max_{name}={size}" for name, size in sizes._asdict().items())
    raise UserError(
        f"task fruit_text: {largest} leave too few {split} problems of level {KINDS[kind].level}: raise them, or ask for fewer "
        "examples"
    )
