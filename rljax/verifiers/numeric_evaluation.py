r"""Compares two formulas by their values at random points, in microseconds where algebra takes milliseconds.

``formula_evaluator`` has the grammar: numbers, letters, pi, + - * / ^ !, fractions, roots and the usual functions. Two
formulas that agree at all points to ten digits are equal (Schwartz-Zippel lemma: an agreement by chance is improbable). Two formulas that
differ by more than a millionth at one point are not equal. In all other cases the result is None, and sympy has to
decide: for differences in between, for terms that are tiny beside others (x+10^{-11} does not equal x), and for unknown
syntax.

What is equal. A letter is any real number, whatever its name: the values are given in the order in which the letters
appear. Only pi, e and i have values of their own. All letters are positive at a point, or one is negative: with more of
them, \\sqrt{a/b} would not be \\sqrt{ab}/b. A root or a logarithm of a negative number that depends on letters is not
real, and an odd root is.

* Where both formulas are real, they must agree: \\sqrt{x^2} is |x|, and not x.
* Where only one is real, their complex values must agree: \\log(x^2) is not 2\\log x, but (\\sqrt x)^2 is x.
* Where none is real, the point says nothing: \\sqrt{a/b} is \\sqrt a/\\sqrt b, and \\ln a + \\ln b is \\ln(ab).

If they are never both real, the complex values decide.
"""

import cmath
import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

from rljax.verifiers.formula_evaluator import MIN_ARGUMENT, FormulaEvaluator, UnknownSyntax, is_letter, tokenize

SIZES = (  # of the letters at three points, in the order of their appearance
    (1.3717, 0.6173, 2.2391, 0.8617, 1.7231, 0.4339, 1.1193, 2.6417),
    (0.5923, 1.9171, 0.7411, 1.4867, 0.3571, 2.1283, 0.9437, 1.6129),
    (2.4679, 1.2203, 0.4561, 1.8713, 0.9839, 1.5187, 0.6781, 0.3217),
)
LONG_INTEGER = re.compile(r"[0-9]{5,}")
LONG_DECIMAL = re.compile(r"\.[0-9]{7}")


class Value(NamedTuple):
    """The value of a formula at one point. ``real_domain``: no root or logarithm of a negative number was taken."""

    value: complex
    real_domain: bool


def formulas_equal(one: str, other: str) -> bool | None:
    """True if two cleaned formulas are equal; None if their values cannot decide."""
    letters = letters_of(one, other)
    a, b = evaluate(one, letters), evaluate(other, letters)
    if a is None or b is None:
        return None
    if () in (a, b):
        return False if a != b else None
    verdicts = compare_values(a, b)
    if False in verdicts or verdicts == {True} and bool(LONG_DECIMAL.search(one)) != bool(LONG_DECIMAL.search(other)):
        return False  # the first ten decimals of a root do not equal the root
    strange = set(LONG_INTEGER.findall(one)) != set(LONG_INTEGER.findall(other))  # such as 312689/99532 for pi
    return True if verdicts == {True} and not strange else None


def compare_values(one: Sequence[Value], other: Sequence[Value]) -> set[bool | None]:
    """The verdicts at the points that count, as the head of this file says."""
    rows = list(zip(one, other, strict=True))
    if not any(a.real_domain and b.real_domain for a, b in rows):
        verdicts = {values_agree(a.value, b.value) for a, b in rows}
        return {None} if False in verdicts else verdicts
    return {values_agree(a.value, b.value) for a, b in rows if a.real_domain or b.real_domain}


def equations_equivalent(one: str, other: str) -> bool | None:
    """True if two equations l=r are equivalent: l-r of one is a multiple of l-r of the other. None if undecided."""
    sides = [text.split("=") for text in (one, other)]
    if any(len(s) != 2 or not all(x.strip() for x in s) for s in sides):
        return None
    letters = letters_of(one, other)
    a, b = (evaluate(f"({left})-({right})", letters) for left, right in sides)
    pairs = [(x.value, y.value) for x, y in zip(a or (), b or (), strict=False) if x.real_domain and y.real_domain]
    if not pairs or any(0 in pair for pair in pairs):
        return None
    ratios = [x / y for x, y in pairs]
    # otherwise there are no letters, and 1=2 would be equivalent to 3=5
    varies = max(abs(x - pairs[0][0]) for x, _ in pairs) > MIN_ARGUMENT
    return True if varies and all(values_agree(r, ratios[0]) for r in ratios) else None


def satisfies_equation(name: str, formula: str, equation: str) -> bool | None:
    """True if an equation holds when ``formula`` is substituted for the letter ``name``; None if undecided."""
    substitute = lambda side: re.sub(rf"\\[A-Za-z]+|{name}", lambda m: f"({formula})" if m[0] == name else m[0], side)
    sides = [substitute(side) for side in equation.split("=")]
    if len(sides) != 2:
        return None
    letters = letters_of(*sides)
    values = [evaluate(side, letters) for side in sides]
    if not values[0] or not values[1]:
        return None
    return False not in compare_values(values[0], values[1])


def evaluate_constant(text: str) -> complex | None:
    """The value of a formula that does not depend on its letters; None for any other formula."""
    found = evaluate_at_points(text)
    return found[0] if found and len(set(found)) == 1 else None


def values_agree(x: complex, y: complex) -> bool | None:
    """True if two values are equal; None if floats are too coarse to decide."""
    difference, size = abs(x - y), max(abs(x), abs(y))
    if difference > 1e-6 * max(1.0, size):
        return False
    return True if difference <= 1e-10 * size and size <= 1e5 else None


def evaluate_at_points(text: str) -> tuple[complex, ...] | None:
    """The value of a formula at each point; () if one is too large for a float; None if it cannot be parsed."""
    found = evaluate(text, letters_of(text))
    return None if found is None else tuple(x.value for x in found)


def letters_of(*texts: str) -> tuple[str, ...]:
    """The letters of formulas in the order of their first appearance; none for unknown syntax."""
    try:
        return tuple(dict.fromkeys(t for text in texts for t in tokenize(text.replace("=", "-")) if is_letter(t)))
    except UnknownSyntax:
        return ()


@functools.lru_cache(maxsize=64)
def points(num_letters: int) -> tuple[tuple[float, ...], ...]:
    """The values of the letters at each point: all are positive at three points, and each is negative at two."""
    size = lambda n, sizes: sizes[n % len(sizes)] + n // len(sizes) * 0.0917
    out = [tuple(size(n, sizes) for n in range(num_letters)) for sizes in SIZES]
    signs = [[-1 if n == negative else 1 for n in range(num_letters)] for negative in range(num_letters)]
    out += [tuple(sign * x for sign, x in zip(row, point, strict=True)) for row in signs for point in out[:2]]
    return tuple(out)


@functools.lru_cache(maxsize=1 << 14)
def evaluate(text: str, letters: tuple[str, ...]) -> tuple[Value, ...] | None:
    """The value of a formula at each point; () if one is too large for a float; None if it cannot be parsed."""
    out = []
    try:
        tokens = tokenize(text)
        for point in points(len(letters)):
            evaluator = FormulaEvaluator(tokens, dict(zip(letters, point, strict=True)))
            out.append(Value(complex(evaluator.evaluate()), evaluator.real_domain))
    except OverflowError:
        return ()
    except (UnknownSyntax, ArithmeticError, ValueError, RecursionError):
        return None
    return tuple(out) if all(cmath.isfinite(x.value) for x in out) else ()
