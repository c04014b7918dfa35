r"""Is the final answer of a response the right one? Mathematics, from integers to intervals and matrices.

    verify("... so it is \boxed{\frac{1}{2}}", "0.5")  ->  True

What a response says is found by ``regions``. Two numbers are compared exactly (``literals``), in microseconds. Where
the right answer is a number, only a number is right: ``70+2`` is not 72 yet, but ``70+2 = 72`` is. Words are compared
as words; lists, tuples, intervals and matrices element by element; formulas by their values (``expressions``). All else
is compared by math-verify in processes that are killed when they take too long (``symbolic``); an answer that lists
more things than the right one is wrong before that.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from rljax.errors import UserError
from rljax.verifiers import answer_regions, expressions, number_forms, structures, symbolic

GARBAGE = frozenset({"", "nan", "none", "null", "n/a", "na", "undefined", "unknown", "?", "-", "."})
CHOICE = re.compile(r"\(?([A-Z])\)?[.,]?")
CHOSEN = re.compile(r"\(([A-Z])\):? (?=.)(?!.*\([A-Z]\))")  # (C) 12, with no other choice behind it
NO_WORDS = re.compile(r"[0-9\\\\=<>]")
STRANGE = re.compile(r"[#?@$\"`]|[^ -~]")
BROKEN = re.compile(r"[-+*/^_(\[{]$|^[*/^)\]}!]|[-+*/^][*/^)\]]|\(\)")
LONG_WORD = re.compile(r"(?<![\\\\A-Za-z{])(?!sqrt|sinh|cosh|tanh|sech|csch|coth|arc)[A-Za-z]{4,}")
RELATION = re.compile(r"[<>=]|\\(?:in|cup|cap|leq?|geq?|neq?|begin|infty|emptyset|pm|setminus)(?![a-z])")


class Judgement(NamedTuple):
    """What became of a response. ``answer`` is fit for a vote: equal answers, as far as writing tells, are the same."""

    right: bool
    answer: str | None  # None where there is none
    regions: int  # final answers that were claimed; the last one counts


def extract_answer(response: str) -> str | None:
    """The final answer in canonical form ("72", "-3", "1/2", "x^2+1", "east"); None where there is none to be read."""
    region = answer_regions.final_region(answer_regions.conclusion(response))
    return None if region is None else canonical(region)


def verify(response: str, answer: str) -> bool:
    """Is the final answer of ``response`` equal to ``answer``? Raises UserError where ``answer`` cannot be read."""
    return judge_many([(response, answer)])[0].right


def readable(answer: str) -> bool:
    """Can a response be checked against this right answer?"""
    text = number_forms.plain(answer)
    if not readable_form(answer, text):
        return False
    known = (
        number_forms.parse(answer)
        or number_forms.is_words(text)
        or CHOICE.fullmatch(text)
        or number_forms.clock(text)
        or number_forms.BASE.fullmatch(text)
    )
    return bool(known or expressions.values(text) or symbolic.readable(text))


def judge_many(pairs: Sequence[tuple[str, str]]) -> list[Judgement]:
    """(response, right answer) -> what became of it. Raises UserError where a right answer cannot be read."""
    out: list[Judgement] = []
    hard: dict[int, tuple[str, str]] = {}
    for n, (response, gold) in enumerate(pairs):
        said = answer_regions.conclusion(response)
        region = answer_regions.final_region(said)
        right = compare(gold, region or "")
        if right is None:
            hard[n] = number_forms.plain(gold), number_forms.plain(region or "")
        answer = None if region is None else canonical(region)
        out.append(Judgement(bool(right), answer, answer_regions.count(said)))
    for n, right in zip(hard, symbolic.check_many(list(hard.values())), strict=True):
        out[n] = out[n]._replace(right=right)
    return out


def equivalent(one: str, other: str) -> bool:
    """Are two canonical answers the same? For votes: neither is known to be right."""
    if one == other or not readable_form(one, number_forms.plain(one)):
        return one == other
    right = compare(one, other)
    return symbolic.equal(number_forms.plain(one), number_forms.plain(other)) if right is None else right


def compare(gold: str, region: str) -> bool | None:
    """Is the content of a final region equal to ``gold``? None where it takes algebra to tell."""
    number, said = number_forms.parse(gold), number_forms.parse(region)
    if number and said and "=" not in gold:
        return number_forms.same(number, said)
    text = number_forms.plain(gold)
    if number is None and not readable_form(gold, text):
        raise UserError(
            f"answers: the right answer {gold[:80]!r} cannot be read, so nothing can be checked against it: "
            "drop this problem"
        )
    if region.strip() == gold.strip():
        return True
    other = number_forms.plain(region) if len(region) <= number_forms.LONGEST else ""
    if not other:
        return False
    verdict = compare_texts(text, other)
    return bool(verdict) if number else verdict  # a number takes no algebra


def readable_form(gold: str, text: str) -> bool:
    """What can be told of a right answer without algebra."""
    return (
        bool(text)
        and len(gold) <= number_forms.LONGEST
        and text.lower() not in GARBAGE
        and not answer_regions.count(gold)
    )


def compare_texts(text: str, other: str) -> bool | None:
    """Is what was said, ``other``, equal to the right answer? Both are cleaned."""
    if number_forms.squeezed(text) == number_forms.squeezed(other):
        return True
    number, said = number_forms.read(text), number_forms.read(other)
    if number and said:
        return number_forms.same(number, said)
    if choice := CHOICE.fullmatch(text):
        found = CHOICE.fullmatch(other) or CHOSEN.match(other)
        return found is not None and found[1] == choice[1]
    if number_forms.clock(text) or number_forms.clock(other):
        return number_forms.same_time(text, other)
    if number_forms.BASE.fullmatch(text) or number_forms.BASE.fullmatch(other):
        return number_forms.same_base(text, other)
    if number_forms.is_words(text) or number_forms.is_words(other):
        if number_forms.is_words(text):
            return not NO_WORDS.search(other) and number_forms.words(text) == number_forms.words(other)
        return len(text) > 1 and text == other.casefold()
    if "\\approx" in other and "\\approx" not in text:
        return compare_rounded(text, *other.split("\\approx", 1))
    if number and re.search(r"\bor\b", other):  # 9/2 or 4.5: the same twice
        return all(compare_texts(text, one.strip()) is True for one in re.split(r"\bor\b", other))
    text, other = named_alike(text, other)
    if structures.EQUALS.search(other) and "=" not in text:
        return compare_chain(text, [side.strip() for side in structures.EQUALS.split(other)])
    if "=" in text and "=" in other:
        return compare_equations(text, other)
    number, said = number_forms.read(text), number_forms.read(CHOSEN.sub("", other))
    return number_forms.same(number, said) if number and said else False if number else compare_formulas(text, other)


def compare_rounded(text: str, exact: str, rounded: str) -> bool | None:
    r"""\frac59 \approx 0.556: one of them is right, and the second is the first, rounded."""
    exact, rounded = exact.strip(), rounded.strip()
    if not exact:
        return compare_texts(text, rounded)
    number, value = number_forms.read(rounded), quantity(structures.EQUALS.split(exact)[-1])
    if number is None or value is None or value.imag:
        return False
    digits = len(rounded.partition(".")[2].partition(" ")[0])
    if abs(value.real - float(number.value)) > 0.5000001 * 10**-digits:
        return False
    return compare_texts(text, rounded) or compare_texts(text, exact)


def compare_chain(text: str, sides: list[str]) -> bool | None:
    """a+b = 70+2 = 72: the last side is what is said; no side may be another number."""
    values = [quantity(side) for side in sides]
    if values[-1] is None and quantity(text) is not None or any(v is not None and values[-1] is None for v in values):
        return False
    if any(v is not None and expressions.agree(v, values[-1] or 0) is False for v in values):
        return False
    return compare_texts(text, sides[-1])


def compare_equations(text: str, other: str) -> bool | None:
    """y=2x+3 and 2x-y+3=0: both name what they are about, or one is a multiple of the other."""
    labels = [number_forms.LABEL.match(t) if t.count("=") == 1 else None for t in (text, other)]
    if labels[0] and labels[1]:
        names = [label.group().rstrip("= ") for label in labels if label]
        if names[0] == names[1] or any("(" in name for name in names):
            return compare_texts(text[labels[0].end() :], other[labels[1].end() :])
        if quantity(text[labels[0].end() :]) is not None:
            return False  # x=3 is not y=3
    name = text[0] if labels[0] and re.fullmatch("[a-zA-Z] ?= ?", labels[0].group()) else ""
    if labels[0] and name and expressions.satisfies(name, text[labels[0].end() :], other) is False:
        return False
    return expressions.same_equation(text, other) or compare_formulas(text, other)


def named_alike(text: str, other: str) -> tuple[str, str]:
    """Two answers of which one has names that the other does without, both without them."""
    if "=" in text and "=" not in other:
        return structures.unnamed(text, other), other
    return (text, structures.unnamed(other, text)) if "=" in other and "=" not in text else (text, other)


def compare_formulas(text: str, other: str) -> bool | None:
    """Are two cleaned expressions equal? Tuples, intervals and matrices in order, sets and lists in any."""
    text, other = structures.interval(text, other), structures.interval(other, text)
    if number_forms.squeezed(text) == number_forms.squeezed(other):
        return True
    one, two = structures.listed(text), structures.listed(other)
    if one and two:
        if one[0] != two[0] or len(one[1]) != len(two[1]):
            return False
        return compare_in_order(one[1], two[1]) if one[0] != "{}" else compare_sets(one[1], two[1])
    joined = "\\cup" in text + other or "\\setminus" in text + other
    if joined and compare_sets(text.split("\\cup"), other.split("\\cup")):
        return True
    if structures.parts(text) != structures.parts(other) and not joined:
        return False
    number, said = number_forms.read(text), number_forms.read(other)
    if number and said:
        return number_forms.same(number, said)
    if RELATION.search(text) and expressions.values(other) is not None:
        return False  # a formula is no interval, no inequality, no matrix
    verdict = expressions.equal(text, other)
    return False if verdict is None and foreign(text, other) else verdict


def foreign(text: str, other: str) -> bool:
    """Is there anything in ``other`` that no formula has, words and broken braces among them? Algebra will not help."""
    opened = sum((c in "([{") - (c in ")]}") for c in other)
    if opened or BROKEN.search(other) or STRANGE.search(other) and not STRANGE.search(text):
        return True
    return any(word not in text and not set(word) <= set(text) for word in LONG_WORD.findall(other))


def compare_in_order(one: list[str], two: list[str]) -> bool | None:
    verdicts = [compare_formulas(a.strip(), b.strip()) for a, b in zip(one, two, strict=True)]
    return False if False in verdicts else None if None in verdicts else True


def compare_sets(one: list[str], two: list[str]) -> bool | None:
    """Each element has its own equal in the other."""
    if not 1 < len(one) <= 12 or len(one) != len(two):
        return None
    table = [[compare_formulas(a.strip(), b.strip()) for b in two] for a in one]
    if any(set(row) == {False} for row in [*table, *zip(*table, strict=True)]):
        return False
    free = set(range(len(two)))
    for row in table:  # the first that is free will do: what is equal to the same is equal
        match = next((n for n in free if row[n]), None)
        if match is None:
            return None if any(None in row for row in table) else False
        free.remove(match)
    return True


def quantity(text: str) -> complex | None:
    """The value of a number or of a formula without letters."""
    number = number_forms.read(text.strip())
    return complex(number.value) if number and not number.percent else expressions.constant(text)


def canonical(region: str) -> str | None:
    """One form for equal answers, as far as writing tells."""
    number = number_forms.parse(region)
    if number:
        return f"{number.value}%" if number.percent else str(number.value)
    text = number_forms.unlabelled(number_forms.plain(region))
    if not text or len(region) > number_forms.LONGEST:
        return None
    choice = CHOICE.fullmatch(text)
    return (
        choice[1]
        if choice
        else number_forms.words(text)
        if number_forms.is_words(text)
        else number_forms.squeezed(text)
    )
