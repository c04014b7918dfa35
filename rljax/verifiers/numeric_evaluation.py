r"""Compares two formulas by their values at random points, in microseconds where algebra takes milliseconds.

The grammar has numbers, letters, pi, + - * / ^ !, fractions, roots and the usual functions. Two formulas that agree at
four points to ten digits are equal (Schwartz-Zippel lemma: an agreement by chance is improbable). Two formulas that
differ by more than a millionth at one point are not equal. In all other cases the result is None, and sympy has to
decide: for differences in between, for terms that are tiny beside others (x+10^{-11} does not equal x), and for unknown
syntax.
"""

import cmath
import functools
import math
import re

TOKEN = re.compile(r" *(?:([0-9]+(?:\.[0-9]+)?|\.[0-9]+)|(\\[a-zA-Z]+|[a-zA-Z]|\u03c0)|(\\?[{}]|[-+*/^()\[\]!_|]))")
POINTS = (
    (1.37, -0.61),
    (-2.18, 0.83),
    (0.59, 1.91),
    (-0.44, -1.26),
)  # the value of each letter is computed from one of these pairs
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


def formulas_equal(one: str, other: str) -> bool | None:
    """True if two cleaned formulas are equal; None if their values cannot decide."""
    a, b = evaluate_at_points(one), evaluate_at_points(other)
    if a is None or b is None:
        return None
    if () in (a, b):
        return False if a != b else None
    verdicts = {values_agree(x, y) for x, y in zip(a, b, strict=True)}
    if False in verdicts or verdicts == {True} and bool(LONG_DECIMAL.search(one)) != bool(LONG_DECIMAL.search(other)):
        return False  # the first ten decimals of a root do not equal the root
    strange = set(LONG_INTEGER.findall(one)) != set(LONG_INTEGER.findall(other))  # such as 312689/99532 for pi
    return True if verdicts == {True} and not strange else None


def equations_equivalent(one: str, other: str) -> bool | None:
    """True if two equations l=r are equivalent: l-r of one is a multiple of l-r of the other. None if undecided."""
    sides = [text.split("=") for text in (one, other)]
    if any(len(s) != 2 or not all(x.strip() for x in s) for s in sides):
        return None
    a, b = (evaluate_at_points(f"({left})-({right})") for left, right in sides)
    if not a or not b or 0 in a or 0 in b:
        return None
    ratios = [x / y for x, y in zip(a, b, strict=True)]
    varies = (
        max(abs(x - a[0]) for x in a) > MIN_ARGUMENT
    )  # otherwise there are no letters, and 1=2 would be equivalent to 3=5
    return True if varies and all(values_agree(r, ratios[0]) for r in ratios) else None


def satisfies_equation(name: str, formula: str, equation: str) -> bool | None:
    """True if an equation holds when ``formula`` is substituted for the letter ``name``; None if undecided."""
    substitute = lambda side: re.sub(rf"\\[A-Za-z]+|{name}", lambda m: f"({formula})" if m[0] == name else m[0], side)
    sides = [evaluate_at_points(substitute(side)) for side in equation.split("=")]
    if len(sides) != 2 or not sides[0] or not sides[1]:
        return None
    return not any(values_agree(x, y) is False for x, y in zip(*sides, strict=True))


def evaluate_constant(text: str) -> complex | None:
    """The value of a formula without letters; None for any other formula."""
    found = evaluate_at_points(text)
    return found[0] if found and len(set(found)) == 1 else None


def values_agree(x: complex, y: complex) -> bool | None:
    """True if two values are equal; None if floats are too coarse to decide."""
    difference, size = abs(x - y), max(abs(x), abs(y))
    if difference > 1e-6 * max(1.0, size):
        return False
    return True if difference <= 1e-10 * size and size <= 1e5 else None


@functools.lru_cache(maxsize=1 << 14)
def evaluate_at_points(text: str) -> tuple[complex, ...] | None:
    """The value of a formula at each of ``POINTS``; () if one is too large for a float; None if it cannot be parsed."""
    try:
        tokens = tokenize(text)
        out = tuple(complex(FormulaEvaluator(tokens, point).evaluate()) for point in POINTS)
    except OverflowError:
        return ()
    except (UnknownSyntax, ArithmeticError, ValueError, RecursionError):
        return None
    return out if all(map(cmath.isfinite, out)) else ()


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

    def __init__(self, tokens: list[str], point: tuple[float, float]):
        self.tokens, self.place, self.point = tokens, 0, point
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

    def power(self) -> complex:
        base = self.atom()
        while self.peek() == "!":
            self.take()
            if base != int(base.real) or not 0 <= base.real:
                raise UnknownSyntax
            base = math.gamma(base.real + 1)
        return complex(base) ** self.exponent() if self.peek() == "^" else base

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
        argument = self.power() if simple else self.monomial()
        if 0 < abs(argument) < MIN_ARGUMENT or abs(argument) > MAX_ARGUMENT and name in ("exp", "sinh", "cosh", "tanh"):
            raise UnknownSyntax
        value = cmath.log(argument) / cmath.log(base) if name == "log" else FUNCTIONS[name](argument)
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
