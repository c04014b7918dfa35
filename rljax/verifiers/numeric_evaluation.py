r"""Compares two formulas by their values at random points, in microseconds where algebra takes milliseconds.

The grammar has numbers, letters, pi, + - * / ^ !, fractions, roots and the usual functions. Two formulas that agree at
all points to ten digits are equal (Schwartz-Zippel lemma: an agreement by chance is improbable). Two formulas that
differ by more than a millionth at one point are not equal. In all other cases the result is None, and sympy has to
decide: for differences in between, for terms that are tiny beside others (x+10^{-11} does not equal x), and for unknown
syntax.

What is equal. A letter is any real number, whatever its name: the values are given in the order in which the letters
appear. Only pi, e and i have values of their own. The points have letters of both signs. A root or a logarithm of a
negative number that depends on letters is not real.

* Where both formulas are real, they must agree: \\sqrt{x^2} is |x|, and not x.
* Where one of them is real, and at most one letter is negative, their complex values must agree: \\log(x^2) is not
  2\\log x, but (\\sqrt x)^2 is x.
* All other points say nothing: \\sqrt{a/b} is \\sqrt a/\\sqrt b, and \\ln a + \\ln b is \\ln(ab).

If they are never both real, the complex values decide. An odd root of a negative number is real.
"""

import cmath
import functools
import itertools
import math
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

TOKEN = re.compile(r" *(?:([0-9]+(?:\.[0-9]+)?|\.[0-9]+)|(\\[a-zA-Z]+|[a-zA-Z]|\u03c0)|(\\?[{}]|[-+*/^()\[\]!_|]))")
SIZES = (  # the sizes of the letters at two points, in the order of their appearance; more letters get larger ones
    (1.3717, 0.6173, 2.2391, 0.8617, 1.7231, 0.4339, 1.1193, 2.6417),
    (0.5923, 1.9171, 0.7411, 1.4867, 0.3571, 2.1283, 0.9437, 1.6129),
)
SIZES += ((2.4679, 1.2203, 0.4561, 1.8713, 0.9839, 1.5187, 0.6781, 0.3217),)
MAX_ALL_SIGNS = 3  # letters; with more of them, only points with none, one or all negative are tried
GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta kappa lambda mu nu xi rho sigma tau phi varphi chi "
    "psi omega Gamma Delta Theta Lambda Phi Psi Omega".split()
)
CONSTANTS = {"pi": math.pi, "\u03c0": math.pi, "e": math.e, "i": 1j}
LONG_INTEGER = re.compile(r"[0-9]{5,}")
LONG_DECIMAL = re.compile(r"\.[0-9]{7}")
FUNCTIONS = {name: getattr(cmath, name) for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "exp")} | {
    "ln": cmath.log,
    "sec": lambda x: 1 / cmath.cos(x),
    "csc": lambda x: 1 / cmath.sin(x),
    "cot": lambda x: 1 / cmath.tan(x),
    "arcsin": cmath.asin,
    "arccos": cmath.acos,
    "arctan": cmath.atan,
}
# Beyond these bounds, floats would take cos(10^{-6}) and tanh 50 for 1
MIN_ARGUMENT, MAX_ARGUMENT = 1e-4, 30.0
MIN_RELATIVE_TERM = 1e-8  # a smaller term of a sum could be hidden by the tolerance


class UnknownSyntax(Exception):
    """The text is not in the grammar."""


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
    verdicts = compare_values(a, b, len(letters))
    if False in verdicts or verdicts == {True} and bool(LONG_DECIMAL.search(one)) != bool(LONG_DECIMAL.search(other)):
        return False  # the first ten decimals of a root do not equal the root
    strange = set(LONG_INTEGER.findall(one)) != set(LONG_INTEGER.findall(other))  # such as 312689/99532 for pi
    return True if verdicts == {True} and not strange else None


def compare_values(one: Sequence[Value], other: Sequence[Value], num_letters: int) -> set[bool | None]:
    """The verdicts at the points that count, as the head of this file says."""
    rows = list(zip(points(num_letters), one, other, strict=True))
    if not any(a.real_domain and b.real_domain for _, a, b in rows):
        verdicts = {values_agree(a.value, b.value) for _, a, b in rows}
        return {None} if False in verdicts else verdicts
    return {
        values_agree(a.value, b.value)
        for point, a, b in rows
        if a.real_domain and b.real_domain or (a.real_domain != b.real_domain and sum(x < 0 for x in point) < 2)
    }


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
    return False not in compare_values(values[0], values[1], len(letters))


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


def is_letter(token: str) -> bool:
    """True for x and \\theta, false for pi, e, i and functions."""
    name = token.removeprefix("\\")
    return name in GREEK and name != token or (len(token) == 1 and token.isalpha() and name not in CONSTANTS)


@functools.lru_cache(maxsize=64)
def points(num_letters: int) -> tuple[tuple[float, ...], ...]:
    """The values of the letters at each point: all signs positive, one negative, and more of them negative."""
    numbers = range(num_letters)
    some = num_letters if num_letters <= MAX_ALL_SIGNS else 1
    negative = [set(chosen) for count in range(some + 1) for chosen in itertools.combinations(numbers, count)]
    negative += [set(numbers)] * (num_letters > MAX_ALL_SIGNS)
    out = []
    for chosen in negative:
        for sizes in SIZES if not chosen else SIZES[:2]:
            size = lambda n, sizes=sizes: sizes[n % len(sizes)] + n // len(sizes) * 0.0917
            out.append(tuple(-size(n) if n in chosen else size(n) for n in numbers))
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


def tokenize(text: str) -> list[str]:
    """The tokens of a formula; raises UnknownSyntax for a character that starts none."""
    out, place = [], 0
    text = text.strip()
    while place < len(text):
        found = TOKEN.match(text, place)
        if not found:
            raise UnknownSyntax
        out.append(found[1] or found[2] or found[3])
        place = found.end()
    return out


class FormulaEvaluator:
    """Recursive descent evaluator with one token of lookahead: sums of products of powers of atoms.

    Every method that returns a complex number consumes tokens, and raises UnknownSyntax if they are not in the grammar.
    """

    def __init__(self, tokens: list[str], values: dict[str, float]):
        self.tokens, self.place, self.values = tokens, 0, values
        self.real_domain = True
        self.inside = False  # inside |...|, where a bar closes

    def peek(self) -> str:
        """The next token; "" at the end."""
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self) -> str:
        """The next token, which is consumed; "" at the end."""
        self.place += 1
        return self.tokens[self.place - 1] if self.place <= len(self.tokens) else ""

    def expect(self, token: str) -> None:
        if self.take() != token:
            raise UnknownSyntax

    def evaluate(self) -> complex:
        out = self.sum()
        if self.peek():
            raise UnknownSyntax
        return out

    def sum(self) -> complex:
        out = self.product()
        while self.peek() in ("+", "-"):
            sign, term = self.take(), self.product()
            small, large = sorted((abs(out), abs(term)))
            if 0 < small < MIN_RELATIVE_TERM * large:
                raise UnknownSyntax
            out = out + term if sign == "+" else out - term
        return out

    def product(self) -> complex:
        if self.peek() in ("+", "-"):
            return self.product() if self.take() == "+" else -self.product()
        out = self.power()
        while True:
            token, before = self.peek(), self.tokens[self.place - 1]
            if token in ("*", "/"):
                out = out * self.power() if self.take() == "*" else out / self.power()
            elif token == "|" and self.inside:
                return out
            elif token in ("(", "|") or token[:1] == "\\" and token[1:].isalpha() or token.isalpha():
                if token == "\\frac" and before.isdigit():
                    raise UnknownSyntax  # 3\frac12 is ambiguous: three and a half, or three halves
                out = out * self.power()
            else:
                return out

    def has_letters(self, start: int) -> bool:
        """True if the tokens from ``start`` to the place of the evaluator have a letter."""
        return any(token in self.values for token in self.tokens[start : self.place])

    def power(self) -> complex:
        start = self.place
        base = self.atom()
        while self.peek() == "!":
            self.take()
            if base != int(base.real) or not 0 <= base.real:
                raise UnknownSyntax
            base = math.gamma(base.real + 1)
        return self.raise_to_power(complex(base), start) if self.peek() == "^" else base

    def raise_to_power(self, base: complex, start: int) -> complex:
        """A power, whose base begins at the token ``start``."""
        varies, exponent = self.has_letters(start), self.exponent()
        negative = base.imag == 0 and base.real < 0 and exponent.imag == 0
        if not (varies and negative) or exponent.real == int(exponent.real):
            return base**exponent
        share = Fraction(exponent.real).limit_denominator(99)
        if abs(share - exponent.real) < 1e-12 and share.denominator % 2:  # x^{1/3}
            return (-1) ** (share.numerator % 2) * (-base) ** exponent
        self.real_domain = False
        return base**exponent

    def exponent(self) -> complex:
        self.expect("^")
        out = self.group() if self.peek() == "{" else self.atom()
        if self.peek() == "^" or 0 < abs(out) < MIN_ARGUMENT:
            raise UnknownSyntax
        return out

    def group(self) -> complex:
        self.expect("{")
        out = self.sum()
        self.expect("}")
        return out

    def argument(self) -> complex:
        """The argument of \\frac and \\sqrt: a group, or one character. \\sqrt 23 is ambiguous."""
        if self.peek() == "{":
            return self.group()
        if self.peek().isdigit() and len(self.peek()) > 1:
            raise UnknownSyntax
        return self.atom()

    def atom(self) -> complex:
        token = self.take()
        if token[:1].isdigit() or token[:1] == ".":
            return float(token)
        if token in ("(", "{"):
            out = self.sum()
            self.expect(")" if token == "(" else "}")
            return out
        if token == "|" and not self.inside:
            self.inside = True
            out = self.sum()
            self.expect("|")
            self.inside = False
            return abs(out)
        if token == "\\frac":
            above = self.argument()
            return above / self.argument()
        if token == "\\sqrt":
            degree = 2.0
            if self.peek() == "[":
                self.take()
                degree = float(self.take())
                self.expect("]")
            start = self.place
            inside = self.argument()
            if inside.imag == 0 and inside.real < 0 and self.has_letters(start):
                if degree % 2:
                    return -((-inside.real) ** (1 / degree))
                self.real_domain = False
            real = inside.imag == 0 and inside.real >= 0
            return inside.real ** (1 / degree) if real else self.complex_root(inside, degree)
        name = token.removeprefix("\\")
        if token == "\\log" or name in FUNCTIONS:
            return self.function(name)
        if name in CONSTANTS:
            return CONSTANTS[name]
        if token in self.values:
            return self.values[token]
        raise UnknownSyntax

    def function(self, name: str) -> complex:
        """\\sin^2 x, \\log_2 (x+1), \\ln x. The argument is one group or monomial: \\sin x + 1 is (\\sin x) + 1."""
        base = 10.0
        if name == "log" and self.peek() == "_":
            self.take()
            base = self.group() if self.peek() == "{" else float(self.take())
        exponent = self.exponent() if self.peek() == "^" else 1
        if exponent.real < 0:
            raise UnknownSyntax  # \\sin^{-1} is ambiguous: inverse or reciprocal
        simple = self.peek() in ("(", "{", "\\frac", "\\sqrt")
        start = self.place
        argument = self.power() if simple else self.monomial()
        if 0 < abs(argument) < MIN_ARGUMENT or abs(argument) > MAX_ARGUMENT and name in ("exp", "sinh", "cosh", "tanh"):
            raise UnknownSyntax
        value = cmath.log(argument) / cmath.log(base) if name == "log" else FUNCTIONS[name](argument)
        if complex(argument).imag == 0 and complex(value).imag != 0 and self.has_letters(start):
            self.real_domain = False
        return value**exponent

    def monomial(self) -> complex:
        """An argument without parentheses: 2x, pi, x^2."""
        out = self.power()
        while len(self.peek()) == 1 and self.peek().isalpha() or self.peek() == "\\pi":
            out = out * self.power()
        return out

    def complex_root(self, inside: complex, degree: float) -> complex:
        if degree != 2:
            raise UnknownSyntax  # ambiguous: the real or the principal root
        return cmath.sqrt(inside)
