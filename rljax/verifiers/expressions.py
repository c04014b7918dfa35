r"""Are two formulas equal? Decided by evaluating both at random points: microseconds where algebra takes milliseconds.

Two formulas of numbers, letters, pi, + - * / ^ !, fractions, roots and the usual functions that agree
at four points to ten digits are equal (Schwartz-Zippel: by chance they would not); those that differ by more than a
millionth anywhere are not. For all between, for numbers too large or too small beside others (x+10^{-11} is not x), and
for anything that the small grammar does not know, the verdict is None and sympy has to say.
"""

import cmath
import functools
import math
import re

TOKEN = re.compile(r" *(?:([0-9]+(?:\.[0-9]+)?|\.[0-9]+)|(\\[a-zA-Z]+|[a-zA-Z]|\u03c0)|(\\?[{}]|[-+*/^()\[\]!_|]))")
POINTS = ((1.37, -0.61), (-2.18, 0.83), (0.59, 1.91), (-0.44, -1.26))  # each letter gets its own, from two of these
CONSTANTS = {"pi": math.pi, "\u03c0": math.pi, "e": math.e, "i": 1j}
LONG = re.compile(r"[0-9]{5,}")
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
SMALL, LARGE = 1e-4, 30.0  # cos(10^{-6}) would pass for 1, and so would tanh 50
ABSORBED = 1e-8  # of a sum: a term that is smaller could hide below the tolerance


class Unknown(Exception):
    """Not in the grammar: somebody else has to read it."""


def equal(one: str, other: str) -> bool | None:
    """Are two cleaned formulas equal? None where this cannot tell."""
    a, b = values(one), values(other)
    if a is None or b is None:
        return None
    if () in (a, b):
        return False if a != b else None
    verdicts = {agree(x, y) for x, y in zip(a, b, strict=True)}
    if False in verdicts or verdicts == {True} and bool(LONG_DECIMAL.search(one)) != bool(LONG_DECIMAL.search(other)):
        return False  # a root is not its first ten decimals
    strange = set(LONG.findall(one)) != set(LONG.findall(other))  # nor is 312689/99532 pi
    return True if verdicts == {True} and not strange else None


def same_equation(one: str, other: str) -> bool | None:
    """Do two equations l=r say the same: is l-r of one a multiple of l-r of the other? None for "who knows"."""
    sides = [text.split("=") for text in (one, other)]
    if any(len(s) != 2 or not all(x.strip() for x in s) for s in sides):
        return None
    a, b = (values(f"({left})-({right})") for left, right in sides)
    if not a or not b or 0 in a or 0 in b:
        return None
    ratios = [x / y for x, y in zip(a, b, strict=True)]
    varies = max(abs(x - a[0]) for x in a) > SMALL  # else it has no letters: 1=2 is 3=5
    return True if varies and all(agree(r, ratios[0]) for r in ratios) else None


def satisfies(name: str, formula: str, equation: str) -> bool | None:
    """Does an equation hold where the letter ``name`` is equal to ``formula``? None where this cannot tell."""
    put = lambda side: re.sub(rf"\\[A-Za-z]+|{name}", lambda m: f"({formula})" if m[0] == name else m[0], side)
    sides = [values(put(side)) for side in equation.split("=")]
    if len(sides) != 2 or not sides[0] or not sides[1]:
        return None
    return not any(agree(x, y) is False for x, y in zip(*sides, strict=True))


def constant(text: str) -> complex | None:
    """The value of a formula without letters; None for any other."""
    found = values(text)
    return found[0] if found and len(set(found)) == 1 else None


def agree(x: complex, y: complex) -> bool | None:
    """Are two values the same? None where floats are too coarse to tell."""
    difference, size = abs(x - y), max(abs(x), abs(y))
    if difference > 1e-6 * max(1.0, size):
        return False
    return True if difference <= 1e-10 * size and size <= 1e5 else None


@functools.lru_cache(maxsize=1 << 14)
def values(text: str) -> tuple[complex, ...] | None:
    """The value of a formula at each of the points; () where one is beyond all floats; None where it cannot be read."""
    try:
        tokens = tokenize(text)
        out = tuple(complex(Reader(tokens, point).whole()) for point in POINTS)
    except OverflowError:
        return ()
    except (Unknown, ArithmeticError, ValueError, RecursionError):
        return None
    return out if all(map(cmath.isfinite, out)) else ()


def tokenize(text: str) -> list[str]:
    out, place = [], 0
    text = text.strip()
    while place < len(text):
        found = TOKEN.match(text, place)
        if not found:
            raise Unknown
        out.append(found[1] or found[2] or found[3])
        place = found.end()
    return out


class Reader:
    """Evaluates a formula while reading it, one token of foresight: sums of products of powers of atoms."""

    def __init__(self, tokens: list[str], point: tuple[float, float]):
        self.tokens, self.place, self.point = tokens, 0, point
        self.inside = False  # of |...|: there, a bar closes

    def next(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self) -> str:
        self.place += 1
        return self.tokens[self.place - 1] if self.place <= len(self.tokens) else ""

    def expect(self, token: str) -> None:
        if self.take() != token:
            raise Unknown

    def whole(self) -> complex:
        out = self.sum()
        if self.next():
            raise Unknown
        return out

    def sum(self) -> complex:
        out = self.product()
        while self.next() in ("+", "-"):
            sign, term = self.take(), self.product()
            small, large = sorted((abs(out), abs(term)))
            if 0 < small < ABSORBED * large:
                raise Unknown
            out = out + term if sign == "+" else out - term
        return out

    def product(self) -> complex:
        if self.next() in ("+", "-"):
            return self.product() if self.take() == "+" else -self.product()
        out = self.power()
        while True:
            token, before = self.next(), self.tokens[self.place - 1]
            if token in ("*", "/"):
                out = out * self.power() if self.take() == "*" else out / self.power()
            elif token == "|" and self.inside:
                return out
            elif token in ("(", "|") or token[:1] == "\\" and token[1:].isalpha() or token.isalpha():
                if token == "\\frac" and before.isdigit():
                    raise Unknown  # 3\frac12: three and a half, or three halves?
                out = out * self.power()
            else:
                return out

    def power(self) -> complex:
        base = self.atom()
        while self.next() == "!":
            self.take()
            if base != int(base.real) or not 0 <= base.real:
                raise Unknown
            base = math.gamma(base.real + 1)
        return complex(base) ** self.exponent() if self.next() == "^" else base

    def exponent(self) -> complex:
        self.expect("^")
        out = self.group() if self.next() == "{" else self.atom()
        if self.next() == "^" or 0 < abs(out) < SMALL:
            raise Unknown
        return out

    def group(self) -> complex:
        self.expect("{")
        out = self.sum()
        self.expect("}")
        return out

    def argument(self) -> complex:
        """Of \\frac and \\sqrt: a group, or one character; \\sqrt 23 might be the root of 23 or that of 2, times 3."""
        if self.next() == "{":
            return self.group()
        if self.next().isdigit() and len(self.next()) > 1:
            raise Unknown
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
            if self.next() == "[":
                self.take()
                degree = float(self.take())
                self.expect("]")
            inside = self.argument()
            real = inside.imag == 0 and inside.real >= 0
            return inside.real ** (1 / degree) if real else self.complex_root(inside, degree)
        name = token.removeprefix("\\")
        if token == "\\log" or name in FUNCTIONS:
            return self.function(name)
        if name in CONSTANTS:
            return CONSTANTS[name]
        if len(token) == 1 and token.isalpha() and token.isascii():
            return math.cos(self.point[0] * ord(token)) * 2 + self.point[1]
        raise Unknown

    def function(self, name: str) -> complex:
        """\\sin^2 x, \\log_2 (x+1), \\ln x: the argument is one group or power; \\sin x + 1 is read as one expects."""
        base = 10.0
        if name == "log" and self.next() == "_":
            self.take()
            base = self.group() if self.next() == "{" else float(self.take())
        exponent = self.exponent() if self.next() == "^" else 1
        if exponent.real < 0:
            raise Unknown  # \\sin^{-1}: inverse or reciprocal?
        simple = self.next() in ("(", "{", "\\frac", "\\sqrt")
        argument = self.power() if simple else self.monomial()
        if 0 < abs(argument) < SMALL or abs(argument) > LARGE and name in ("exp", "sinh", "cosh", "tanh"):
            raise Unknown
        value = cmath.log(argument) / cmath.log(base) if name == "log" else FUNCTIONS[name](argument)
        return value**exponent

    def monomial(self) -> complex:
        """2x, pi, x^2: what an argument without parentheses goes to."""
        out = self.power()
        while len(self.next()) == 1 and self.next().isalpha() or self.next() == "\\pi":
            out = out * self.power()
        return out

    def complex_root(self, inside: complex, degree: float) -> complex:
        if degree != 2:
            raise Unknown  # the real or the principal root?
        return cmath.sqrt(inside)
