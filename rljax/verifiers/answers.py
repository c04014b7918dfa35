r"""Verifier of mathematical answers, from integers to intervals and matrices: is a final answer correct?

    verify("... so it is \boxed{\frac{1}{2}}", "0.5")  ->  True

The steps, from the fastest to the slowest:

1. ``answer_extraction`` finds the final answer in the response.
2. ``number_parsing`` compares two numbers exactly, in microseconds. If the right answer is a number, only a number is
   correct: ``70+2`` is wrong, and ``70+2 = 72`` is correct. Words are compared as words.
3. ``compound_answers`` splits lists, tuples, intervals and matrices, which are compared element by element.
4. ``numeric_evaluation`` compares formulas by their values at random points.
5. ``symbolic`` gives the rest to math-verify, in processes that are killed when they take too long.

In this module, ``gold`` is the right answer of a problem, and ``said`` or ``other`` is what a response says.
"""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

from rljax.errors import UserError
from rljax.verifiers import (
    answer_extraction,
    compound_answers,
    formula_evaluator,
    number_parsing,
    numeric_evaluation,
    symbolic,
)
from rljax.verifiers.failures import VerifierFailed, known_verdict

NO_ANSWER = frozenset({"", "nan", "none", "null", "n/a", "na", "undefined", "unknown", "?", "-", "."})
CHOICE = re.compile(r"\(?([A-Z])\)?[.,]?")
CHOICE_WITH_TEXT = re.compile(r"\(([A-Z])\):? (?=.)(?!.*\([A-Z]\))")  # "(C) 12", if no other choice follows
NOT_IN_WORDS = re.compile(r"[0-9\\\\=<>]")
RELATION = re.compile(r"[<>=]|\\(?:in|cup|cap|leq?|geq?|neq?|begin|infty|emptyset|pm|setminus)(?![a-z])")


class Grade(NamedTuple):
    """The result of the verifier for one response."""

    correct: bool | None  # None: the machine kept the verifier from judging, see ``symbolic``
    answer: str | None  # the final answer in canonical form, for majority votes; None if there is none
    num_answers: int  # final answers that the response marks; the last one counts


def extract_answer(response: str) -> str | None:
    """The final answer in canonical form ("72", "-3", "1/2", "x^2+1", "east"); None if there is none."""
    region = answer_extraction.extract_final_region(answer_extraction.text_after_thinking(response))
    return None if region is None else canonicalize(region)


def verify(response: str, answer: str) -> bool:
    """True if the final answer of ``response`` equals ``answer``.

    Raises UserError if ``answer`` cannot be parsed, and VerifierFailed where there is no verdict.
    """
    return known_verdict(grade_many([(response, answer)])[0].correct)


def is_readable(answer: str) -> bool:
    """True if a response can be compared with this right answer. Raises VerifierFailed where algebra gave no verdict."""
    text = number_parsing.strip_decoration(answer)
    if not has_readable_form(answer, text):
        return False
    return number_parsing.parse_number(answer) is not None or is_readable_text(text)


def readable_or_unknown(answer: str) -> bool | None:
    """``is_readable``; None where there is no verdict."""
    try:
        return is_readable(answer)
    except VerifierFailed:
        return None


@functools.lru_cache(maxsize=1 << 14)
def is_readable_text(text: str) -> bool:
    """True if a cleaned answer has a meaning: words, a choice, a time, a formula, or elements that have one."""
    known = (
        number_parsing.parse_cleaned_number(text)
        or number_parsing.is_words(text)
        or CHOICE.fullmatch(text)
        or number_parsing.match_clock_time(text)
        or number_parsing.BASE.fullmatch(text)
        or numeric_evaluation.evaluate_at_points(formula_evaluator.name_indexed_letters(text, "")[0])
    )
    if known:
        return True
    parts = compound_answers.split_elements(text)
    if parts and all(map(is_readable_text, parts[1])):
        return True
    return symbolic.is_readable(text)


def grade_many(pairs: Sequence[tuple[str, str]]) -> list[Grade]:
    """Grades of pairs (response, right answer).

    A right answer that cannot be parsed makes no response correct. Raises UserError if that is seen without algebra. A grade
    is neither right nor wrong (None) where algebra had to decide and gave no verdict.
    """
    out: list[Grade] = []
    undecided: dict[int, tuple[str, str]] = {}
    for n, (response, gold) in enumerate(pairs):
        said = answer_extraction.text_after_thinking(response)
        region = answer_extraction.extract_final_region(said)
        right = compare(gold, region or "")
        if right and number_parsing.parse_number(gold) is None:
            right = readable_or_unknown(gold)  # "((" equals itself, but it is no answer
        if right is None:
            undecided[n] = number_parsing.strip_decoration(gold), number_parsing.strip_decoration(region or "")
        answer = None if region is None else canonicalize(region)
        out.append(Grade(bool(right), answer, answer_extraction.count_marked_answers(said)))
    for n, right in zip(undecided, symbolic.check_many(list(undecided.values())), strict=True):
        out[n] = out[n]._replace(correct=right)
    return out


def equivalent(one: str, other: str) -> bool:
    """True if two canonical answers are equal. For majority votes: neither is known to be correct.

    Answers of which nobody knows whether they are equal are two answers.
    """
    if one == other or not has_readable_form(one, number_parsing.strip_decoration(one)):
        return one == other
    right = compare(one, other)
    if right is None:
        pair = number_parsing.strip_decoration(one), number_parsing.strip_decoration(other)
        right = symbolic.check_many([pair])[0]
    return right is True


def compare(gold: str, region: str) -> bool | None:
    """True if the content of a final region equals ``gold``; None if only algebra can decide."""
    number, said = number_parsing.parse_number(gold), number_parsing.parse_number(region, powers=True)
    if number and said and "=" not in gold:
        return number_parsing.numbers_equal(number, said)
    text = number_parsing.strip_decoration(gold)
    if number is None and not has_readable_form(gold, text):
        raise UserError(
            f"answers: the right answer {gold[:80]!r} cannot be parsed, so no response can be compared with it: "
            "drop this problem from the data"
        )
    if region.strip() == gold.strip():
        return True
    other = number_parsing.strip_decoration(region) if len(region) <= number_parsing.MAX_LENGTH else ""
    if not other:
        return False
    verdict = compare_texts(text, other)
    return bool(verdict) if number else verdict  # numbers are never left to algebra


def has_readable_form(gold: str, text: str) -> bool:
    """False if a right answer cannot be parsed for sure, which is decided without algebra. ``text`` is cleaned."""
    return (
        bool(text)
        and len(gold) <= number_parsing.MAX_LENGTH
        and text.lower() not in NO_ANSWER
        and not answer_extraction.count_marked_answers(gold)
    )


def compare_texts(text: str, other: str) -> bool | None:
    """True if ``other``, which the response says, equals the right answer ``text``. Both are cleaned."""
    number, said = (number_parsing.parse_cleaned_number(t, powers=True) for t in (text, other))
    if number and said:
        return number_parsing.numbers_equal(number, said)
    as_listed = "," in text and bool(number) != bool(said)  # "1, 234" is two numbers, and "1,234" is one
    if not as_listed and number_parsing.remove_spaces(text) == number_parsing.remove_spaces(other):
        return True
    number = number_parsing.parse_cleaned_number(text)  # beside 10^6, other formulas may be right too
    if choice := CHOICE.fullmatch(text):
        found = CHOICE.fullmatch(other) or CHOICE_WITH_TEXT.match(other)
        return found is not None and found[1] == choice[1]
    if number_parsing.match_clock_time(text) or number_parsing.match_clock_time(other):
        return number_parsing.clock_times_equal(text, other)
    if number_parsing.BASE.fullmatch(text) or number_parsing.BASE.fullmatch(other):
        return number_parsing.based_numbers_equal(text, other)
    if number_parsing.is_words(text) or number_parsing.is_words(other):
        if number_parsing.is_words(text):
            return not NOT_IN_WORDS.search(other) and number_parsing.normalize_words(
                text
            ) == number_parsing.normalize_words(other)
        return len(text) > 1 and text == other.casefold()
    if "\\approx" in other and "\\approx" not in text:
        return compare_rounded(text, *other.split("\\approx", 1))
    if number and re.search(r"\bor\b", other):  # "9/2 or 4.5": one number in two notations
        return all(compare_texts(text, one.strip()) is True for one in re.split(r"\bor\b", other))
    text, other = formula_evaluator.name_indexed_letters(*drop_unshared_names(text, other))
    if compound_answers.EQUALS.search(other) and "=" not in text:
        return compare_chain(text, [side.strip() for side in compound_answers.EQUALS.split(other)])
    if "=" in text and "=" in other:
        return compare_equations(text, other)
    said = number_parsing.parse_cleaned_number(CHOICE_WITH_TEXT.sub("", other), powers=True)
    number = number_parsing.parse_cleaned_number(text, powers=said is not None)
    return (
        number_parsing.numbers_equal(number, said)
        if number and said
        else False
        if number
        else compare_formulas(text, other)
    )


def compare_rounded(text: str, exact: str, rounded: str) -> bool | None:
    r"""For "\frac59 \approx 0.556": True if one of the two is correct, and the second is the first one rounded."""
    exact, rounded = exact.strip(), rounded.strip()
    if not exact:
        return compare_texts(text, rounded)
    number, value = (
        number_parsing.parse_cleaned_number(rounded),
        compound_answers.evaluate_quantity(compound_answers.EQUALS.split(exact)[-1]),
    )
    if number is None or value is None or value.imag:
        return False
    digits = len(rounded.partition(".")[2].partition(" ")[0])
    if abs(value.real - float(number.value)) > 0.5000001 * 10**-digits:
        return False
    return compare_texts(text, rounded) or compare_texts(text, exact)


def compare_chain(text: str, sides: list[str]) -> bool | None:
    """For "a+b = 70+2 = 72": the last side is the answer, and no other side may have another value."""
    values = [compound_answers.evaluate_quantity(side) for side in sides]
    if (
        compound_answers.is_equation_list(sides)  # "x = 3, y = 5" says several values, and equals none of them
        or (values[-1] is None and compound_answers.evaluate_quantity(text) is not None)
        or any(v is not None and values[-1] is None for v in values)
    ):
        return False
    if any(v is not None and numeric_evaluation.values_agree(v, values[-1] or 0) is False for v in values):
        return False
    return compare_texts(text, sides[-1])


def compare_equations(text: str, other: str) -> bool | None:
    """True if two equations define the same name equally, or if one is a multiple of the other: y=2x+3, 2x-y+3=0."""
    labels = [number_parsing.LABEL.match(t) if t.count("=") == 1 else None for t in (text, other)]
    if labels[0] and labels[1]:
        names = [label.group().rstrip("= ") for label in labels if label]
        if names[0] == names[1] or any("(" in name for name in names):
            return compare_texts(text[labels[0].end() :], other[labels[1].end() :])
        if compound_answers.evaluate_quantity(text[labels[0].end() :]) is not None:
            return False  # x=3 does not equal y=3
    name = text[0] if labels[0] and re.fullmatch("[a-zA-Z] ?= ?", labels[0].group()) else ""
    if labels[0] and name and numeric_evaluation.satisfies_equation(name, text[labels[0].end() :], other) is False:
        return False
    return numeric_evaluation.equations_equivalent(text, other) or compare_formulas(text, other)


def drop_unshared_names(text: str, other: str) -> tuple[str, str]:
    """Two answers, without the names that only one of them has: ("x=2", "3") -> ("2", "3")."""
    if "=" in text and "=" not in other:
        return compound_answers.strip_names(text, other), other
    return (text, compound_answers.strip_names(other, text)) if "=" in other and "=" not in text else (text, other)


def compare_formulas(text: str, other: str) -> bool | None:
    """True if two cleaned expressions are equal; None if only algebra can decide.

    The order counts in tuples, intervals and matrices, but not in sets and lists.
    """
    text, other = compound_answers.to_interval(text, other), compound_answers.to_interval(other, text)
    if number_parsing.remove_spaces(text) == number_parsing.remove_spaces(other):
        return True
    one, two = compound_answers.split_elements(text), compound_answers.split_elements(other)
    if one and two:
        if one[0] != two[0] or len(one[1]) != len(two[1]):
            return False
        return compare_in_order(one[1], two[1]) if one[0] != "{}" else compare_sets(one[1], two[1])
    joined = "\\cup" in text + other or "\\setminus" in text + other
    if joined and compare_sets(text.split("\\cup"), other.split("\\cup")):
        return True
    if compound_answers.count_parts(text) != compound_answers.count_parts(other) and not joined:
        return False
    number, said = (number_parsing.parse_cleaned_number(t, powers=True) for t in (text, other))
    if number and said:
        return number_parsing.numbers_equal(number, said)
    if RELATION.search(text) and numeric_evaluation.evaluate_at_points(other) is not None:
        return False  # a formula never equals an interval, an inequality or a matrix
    verdict = numeric_evaluation.formulas_equal(text, other)
    return False if verdict is None and compound_answers.has_non_formula_text(text, other) else verdict


def compare_in_order(one: list[str], two: list[str]) -> bool | None:
    """True if the elements of two lists are equal pair by pair; None if only algebra can decide."""
    verdicts = [compare_formulas(a.strip(), b.strip()) for a, b in zip(one, two, strict=True)]
    return False if False in verdicts else None if None in verdicts else True


def compare_sets(one: list[str], two: list[str]) -> bool | None:
    """True if each element of one list equals an element of its own in the other; None if only algebra can decide."""
    if not 1 < len(one) <= 12 or len(one) != len(two):
        return None
    table = [[compare_formulas(a.strip(), b.strip()) for b in two] for a in one]
    if any(set(row) == {False} for row in [*table, *zip(*table, strict=True)]):
        return False
    free = set(range(len(two)))
    for row in table:  # the first free match is enough, as equality is transitive
        match = next((n for n in free if row[n]), None)
        if match is None:
            return None if any(None in row for row in table) else False
        free.remove(match)
    return True


def canonicalize(region: str) -> str | None:
    """The canonical form of an answer: equal answers that differ only in notation have the same form; None if empty."""
    number = number_parsing.parse_number(region, powers=True)
    if number:
        return f"{number.value}%" if number.percent else str(number.value)
    text = number_parsing.strip_label(number_parsing.strip_decoration(region))
    if not text or len(region) > number_parsing.MAX_LENGTH:
        return None
    if choice := CHOICE.fullmatch(text):
        return choice[1]
    if number_parsing.is_words(text):
        return number_parsing.normalize_words(text)
    short = number_parsing.remove_spaces(text)
    return text if "," in short and number_parsing.parse_number(short) else short  # "1, 234" is no number
