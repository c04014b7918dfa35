"""Word problems as text: their wordings by kind, names and things, and reading a problem back from its text."""

import functools
import re

import numpy as np

Numbers = dict[str, int]  # {field of a wording: number}
NUMBERS = "abcdtu"  # the fields that are numbers

NAMES = (
    *("Emily", "Ben", "Ada", "Omar", "Mia", "Leo", "Zoe", "Ravi", "Anna", "Tom", "Lily", "Sam", "Nina", "Max", "Eva"),
    *("Paul", "Sara", "Jack", "Lucy", "Noah", "Rosa", "Adam", "Kate", "Hugo"),
)
THINGS = {  # one -> many
    **{x: x + "s" for x in ("apple", "orange", "pear", "plum", "lemon", "lime", "melon", "fig", "banana")},
    **{
        x: x + "s" for x in ("pen", "pencil", "book", "cup", "card", "cake", "cookie", "egg", "onion", "ticket", "ball")
    },
    **{"peach": "peaches", "mango": "mangoes", "sandwich": "sandwiches", "box": "boxes"},
}

# Fields: {n} {m} names; {s} {o} {ao} many of a thing, one, and "a" or "an" with one; {s2} {o2} {ao2} another thing; numbers
WORDINGS: dict[str, tuple[str, ...]] = {
    "sum": (
        "{n} has {a} {s} and buys {b} more. How many {s} does {n} have now?",
        "{n} picks {a} {s} in the morning and {b} in the afternoon. How many {s} does {n} pick in all?",
        "There are {a} {s} in a basket. {n} puts in {b} more. How many {s} are in the basket now?",
        "{n} has {a} {s} and {m} has {b} {s}. How many {s} do they have together?",
        "A shop sells {a} {s} on Monday and {b} on Tuesday. How many {s} does it sell on both days?",
        "{n} pays ${a} for {s} and ${b} for {s2}. How much does {n} pay in total?",
        "{m} gives {n} {a} {s}, and then {b} more. How many {s} does {m} give to {n}?",
    ),
    "difference": (
        "{n} has {a} {s} and gives {b} of them to {m}. How many {s} does {n} have left?",
        "There are {a} {s} on a table. {n} takes {b} of them. How many {s} are still on the table?",
        "{n} has {a} {s}. {m} has {b} fewer. How many {s} does {m} have?",
        "{n} has ${a} and spends ${b} on {s}. How much money is left?",
        "{n} buys {a} {s}, but {b} of them are bad. How many good {s} does {n} have?",
        "{n} needs {a} {s} and already has {b}. How many more {s} does {n} need?",
        "{n} has {a} {s} and {m} has {b} {s}. How many more {s} does {n} have than {m}?",
    ),
    "product": (
        "{n} buys {a} {s} at ${b} each. How much does {n} pay?",
        "One {o} costs ${b}. How much do {a} {s} cost?",
        "Each {o} costs ${b}. {n} buys {a} {s}. What is the total cost?",
        "{n} fills {a} bags. Each bag holds {b} {s}. How many {s} are there in all?",
        "{n} pays ${b} for each of {a} {s}. How many dollars is that?",
        "There are {a} bags with {b} {s} in each. How many {s} are there in total?",
        "{n} sells {a} {s} for ${b} each. How much money does {n} get?",
    ),
    "chain": (
        "{n} has {a} {s}, buys {b} more and gives {c} to {m}. How many {s} does {n} have left?",
        "There are {a} {s} on a table. {n} brings {b} more, and {m} takes {c} away. How many {s} are on the table now?",
        "{n} has ${a} and gets ${b} from {m}. Then {n} spends ${c} on {s}. How much money does {n} have now?",
        "{n} picks {a} {s} and {m} picks {b}. They sell {c} of them. How many {s} are left?",
        "A shop has {a} {s}. It gets {b} more and sells {c}. How many {s} does it have now?",
        "{n} finds {a} {s}, then {b} more, and loses {c}. How many {s} does {n} have?",
    ),
    "two_products": (
        "{n} buys {a} {s} at ${b} each and {c} {s2} at ${d} each. How much does {n} pay in total?",
        "One {o} costs ${b} and one {o2} costs ${d}. How much do {a} {s} and {c} {s2} cost together?",
        "{n} buys {a} {s} and {c} {s2}. Each {o} costs ${b} and each {o2} costs ${d}. What is the total cost?",
        "{n} sells {a} {s} for ${b} each and {c} {s2} for ${d} each. How much money does {n} get?",
        "{n} pays ${b} for each of {a} {s} and ${d} for each of {c} {s2}. How much is that in all?",
        "{n} has {a} bags with {b} {s} in each and {c} bags with {d} {s} in each. How many {s} does {n} have?",
    ),
    "unknown_price": (
        "{n} buys {a} {s} and {b} {s2}. Each {o2} costs ${c}. The total is ${t}. What is the cost of {ao}?",
        "{n} buys {a} {s} and {b} {s2}. Each {o2} costs ${c}. The total cost is ${t}. What does each {o} cost?",
        "{n} pays ${t} for {a} {s} and {b} {s2}. One {o2} costs ${c}. How much does one {o} cost?",
        "{a} {s} and {b} {s2} cost ${t} together. One {o2} costs ${c}. What is the price of one {o}?",
        "One {o2} costs ${c}. {n} buys {b} {s2} and {a} {s} and pays ${t}. What is the price of {ao}?",
        "{n} spends ${t} on {b} {s2} at ${c} each and on {a} {s}. How much is each {o}?",
        "A bag with {a} {s} and {b} {s2} costs ${t}. The price of {ao2} is ${c}. What is the price of {ao}?",
    ),
    "two_unknowns": (
        "{n} buys {a} {s} and {b} {s2} for ${t}. {m} buys {c} {s} and {d} {s2} for ${u}. What is the cost of {ao}?",
        "{a} {s} and {b} {s2} cost ${t}. {c} {s} and {d} {s2} cost ${u}. What does one {o} cost?",
        "{n} pays ${t} for {a} {s} and {b} {s2}. At the same prices {m} pays ${u} for {c} {s} and {d} {s2}. "
        "How much is one {o}?",
        "{n} buys {a} {s} and {b} {s2} for ${t} on Monday, and {c} {s} and {d} {s2} for ${u} on Tuesday. "
        "What is the price of one {o}?",
        "A bag with {a} {s} and {b} {s2} costs ${t}, and a bag with {c} {s} and {d} {s2} costs ${u}. "
        "What is the price of {ao}?",
        "A shop sells {a} {s} and {b} {s2} for ${t}, or {c} {s} and {d} {s2} for ${u}. How much does each {o} cost?",
    ),
}


def add_article(thing: str) -> str:
    """ "an apple"."""
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"


def fill_wording(wording: str, numbers: Numbers, names: tuple[str, str], things: tuple[str, str]) -> str:
    """The text of a problem."""
    (n, m), (o, o2) = names, things
    words = dict(n=n, m=m, o=o, o2=o2, s=THINGS[o], s2=THINGS[o2], ao=add_article(o), ao2=add_article(o2))
    return wording.format(**words, **numbers)


def word_problem(kind: str, numbers: Numbers, rng: np.random.Generator) -> str:
    """The text of a problem in random words."""
    wording, things = WORDINGS[kind][rng.integers(len(WORDINGS[kind]))], tuple(THINGS)
    n, m = rng.choice(len(NAMES), 2, replace=False)
    o, o2 = rng.choice(len(things), 2, replace=False)
    return fill_wording(wording, numbers, (NAMES[n], NAMES[m]), (things[o], things[o2]))


@functools.cache
def wording_pattern(wording: str) -> re.Pattern[str]:
    """An expression for the texts of a wording, with a group for each field."""
    seen: set[str] = set()

    def expression(part: str) -> str:
        if not part.startswith("{"):
            return re.escape(part)
        field = part[1:-1]
        if field in seen:
            return f"(?P={field})"
        seen.add(field)
        words = "an? [a-z]+" if field.startswith("ao") else "[A-Za-z]+"
        return f"(?P<{field}>{'[0-9]{1,6}' if field in NUMBERS else words})"

    return re.compile("".join(map(expression, re.split(r"(\{\w+\})", wording))))


def read_wording(text: str) -> tuple[str, Numbers] | None:
    """(kind, numbers) of the last problem in a text; None where there is no wording of a known kind."""
    found = [
        (match.end(), -match.start(), kind, {k: int(x) for k, x in match.groupdict().items() if k in NUMBERS})
        for kind, wordings in WORDINGS.items()
        for wording in wordings
        for match in wording_pattern(wording).finditer(text)
    ]
    return max(found, key=lambda one: one[:2])[2:] if found else None
