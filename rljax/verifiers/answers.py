r"""Is the final answer of a response the right one? Mathematics, from integers to intervals and matrices.

    verify("... so it is \boxed{\frac{1}{2}}", "0.5")  ->  True

What a response says is found by ``regions``. Two numbers are compared exactly (``literals``), in microseconds. Where the
right answer is a number, only a number is right: ``70+2`` is not 72 yet. Words are compared as words. All else is
compared by math-verify in processes that are killed when they take too long (``symbolic``); an answer that lists more
things than the right one is wrong before that.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from rljax.errors import UserError
from rljax.verifiers import expressions, literals, regions, symbolic

GARBAGE = frozenset({"", "nan", "none", "null", "n/a", "na", "undefined", "unknown", "?", "-", "."})
WORDS = re.compile(r"[(\"']?[^\W\d_]+(?:[ \-'.,]{1,2}[^\W\d_]+)*[.)\"']*")
CHOICE = re.compile(r"\(?([A-Z])\)?\.?")
THOUSANDS = re.compile(r"(?<![0-9])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])")
RELATION = re.compile(r"[<>=]|\\(?:in|cup|cap|leq?|geq?|neq?|begin|infty|emptyset|pm)(?![a-z])")
SEVERAL = re.compile(r"(?<![A-Za-z])(?:or|and)(?![A-Za-z])")


class Judgement(NamedTuple):
    """What became of a response. ``answer`` is fit for a vote: equal answers, as far as writing tells, are the same."""

    right: bool
    answer: str | None  # None where there is none
    regions: int  # final answers that were claimed; the last one counts


def extract_answer(response: str) -> str | None:
    """The final answer in canonical form ("72", "-3", "1/2", "x^2+1", "east"); None where there is none to be read."""
    region = regions.final_region(regions.conclusion(response))
    return None if region is None else canonical(region)


def verify(response: str, answer: str) -> bool:
    """Is the final answer of ``response`` equal to ``answer``? Raises UserError where ``answer`` cannot be read."""
    return judge_many([(response, answer)])[0].right


def readable(answer: str) -> bool:
    """Can a response be checked against this right answer?"""
    text = plain(answer)
    if not text or len(answer) > literals.LONGEST or text.lower() in GARBAGE or regions.count(answer):
        return False
    return bool(literals.parse(answer) or is_words(text) or CHOICE.fullmatch(text) or symbolic.readable(text))


def judge_many(pairs: Sequence[tuple[str, str]]) -> list[Judgement]:
    """(response, right answer) -> what became of it. Raises UserError where a right answer cannot be read."""
    out: list[Judgement] = []
    hard: dict[int, tuple[str, str]] = {}
    for n, (response, gold) in enumerate(pairs):
        said = regions.conclusion(response)
        region = regions.final_region(said)
        right = compare(gold, region or "")
        if right is None:
            hard[n] = plain(gold), plain(region or "")
        answer = None if region is None else canonical(region)
        out.append(Judgement(bool(right), answer, regions.count(said)))
    for n, right in zip(hard, symbolic.check_many(list(hard.values())), strict=True):
        out[n] = out[n]._replace(right=right)
    return out


def equivalent(one: str, other: str) -> bool:
    """Are two canonical answers the same? For votes: neither is known to be right."""
    right = one == other or compare(one, other)
    return symbolic.equal(plain(one), plain(other)) if right is None else right


def compare(gold: str, region: str) -> bool | None:
    """Is the content of a final region equal to ``gold``? None where it takes algebra to tell."""
    number, said = literals.parse(gold), literals.parse(region)
    if number and said:
        return literals.same(number, said)
    text, other = plain(gold), plain(region)
    if number is None and not readable_form(gold, text):
        raise UserError(
            f"answers: the right answer {gold[:80]!r} cannot be read, so nothing can be checked against it: drop this problem"
        )
    if not other or len(region) > literals.LONGEST or number:
        return False
    if squeezed(text) == squeezed(other):
        return True
    if choice := CHOICE.fullmatch(text):
        found = CHOICE.fullmatch(other)
        return found is not None and found[1] == choice[1]
    if is_words(text) or is_words(other):
        return is_words(text) and words(text) == words(other)
    return compare_formulas(text, other)


def compare_formulas(text: str, other: str) -> bool | None:
    """Are two cleaned expressions equal? Tuples and intervals in order, sets and lists in any."""
    one, two = listed(text), listed(other)
    if one and two:
        if one[0] != two[0] or len(one[1]) != len(two[1]):
            return False
        return compare_in_order(one[1], two[1]) if one[0] != "{}" else compare_sets(one[1], two[1])
    if parts(text) != parts(other):
        return False
    number, said = literals.read(text), literals.read(other)
    if number and said:
        return literals.same(number, said)
    if squeezed(text) == squeezed(other):
        return True
    if RELATION.search(text) and expressions.values(other) is not None:
        return False  # a formula is no interval, no inequality, no matrix
    return expressions.equal(text, other)


def listed(text: str) -> tuple[str, list[str]] | None:
    """(brackets, elements) of a tuple, interval, set or bare list of two things or more; None for anything else."""
    opened, commas, outer = 0, [], 0
    for n, c in enumerate(text):
        opened += (c in "([{") - (c in ")]}")
        outer += opened == 0 and n < len(text) - 1
        if c == "," and opened <= 1:
            commas.append((n, opened))
    wrapped = text[:1] in ("(", "[") and text[-1:] in (")", "]") or text[:2] == "\\{" and text[-2:] == "\\}"
    wrapped = wrapped and outer == (1 if text[0] == "\\" else 0)
    places = [n for n, depth in commas if depth == wrapped]
    if not places or "=" in text or SEVERAL.search(text) or THOUSANDS.search(text):
        return None
    start, end = (2, len(text) - 2) if text[0] == "\\" and wrapped else (int(wrapped), len(text) - int(wrapped))
    edges = [start - 1, *places, end]
    elements = [text[a + 1 : b].strip() for a, b in zip(edges, edges[1:], strict=False)]
    brackets = text[0] + text[-1] if wrapped and text[0] != "\\" else "{}"
    return (brackets, elements) if all(elements) else None


def compare_in_order(one: list[str], two: list[str]) -> bool | None:
    verdicts = [compare_formulas(a, b) for a, b in zip(one, two, strict=True)]
    return False if False in verdicts else None if None in verdicts else True


def compare_sets(one: list[str], two: list[str]) -> bool | None:
    """Every element of each has its equal in the other."""
    if len(one) > 12:
        return None
    table = [[compare_formulas(a, b) for b in two] for a in one]
    rows = [*table, *zip(*table, strict=True)]
    return True if all(True in row for row in rows) else False if any(set(row) == {False} for row in rows) else None


def readable_form(gold: str, text: str) -> bool:
    """What can be told of a right answer without algebra."""
    return bool(text) and len(gold) <= literals.LONGEST and text.lower() not in GARBAGE and not regions.count(gold)


def canonical(region: str) -> str | None:
    """One form for equal answers, as far as writing tells."""
    number = literals.parse(region)
    if number:
        return f"{number.value}%" if number.percent else str(number.value)
    text = plain(region)
    if not text or len(region) > literals.LONGEST:
        return None
    choice = CHOICE.fullmatch(text)
    return choice[1] if choice else words(text) if is_words(text) else squeezed(text)


def plain(text: str) -> str:
    """An expression without its dress: cleaned, and without the units behind it."""
    text = literals.clean(text) if len(text) <= 2 * literals.LONGEST else ""
    text = re.sub(r"\bdegrees\b", "", text)
    return text if is_words(text) else UNITS.sub(r"\1", text).strip()


UNITS = re.compile(r"([0-9})]|\\pi) (?!or\b|and\b|if\b)[A-Za-z]{2,}(?: [A-Za-z]{2,}){0,3}(?: ?\^ ?\{?[23]\}?)?$")


def is_words(text: str) -> bool:
    """Letters, at least two together: neither a formula nor a number."""
    return bool(WORDS.fullmatch(text)) and bool(re.search(r"[^\W\d_]{2}", text)) and "\\" not in text


def words(text: str) -> str:
    return " ".join(re.findall(r"[^\W\d_]+", text.casefold()))


def squeezed(text: str) -> str:
    return text.replace(" ", "")


def parts(text: str) -> tuple[int, int]:
    """(things listed, equations) of an expression: +- is two things, an inequality no equation."""
    text = re.sub(r"\\(?:neq?|[lg]eq?|approx)(?![a-z])|[<>]=|(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", "", text)
    listed = text.count(",") + text.count(";") + len(SEVERAL.findall(text)) + 1
    return listed * 2 ** text.count("\\pm"), text.count("=")
