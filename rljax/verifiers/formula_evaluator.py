r"""Evaluates a formula in LaTeX, where each letter has a value: a recursive descent over its tokens."""

import cmath
import math
import re
from fractions import Fraction

TOKEN = re.compile(r" *(?:([0-9]+(?:\.[0-9]+)?|\.[0-9]+)|(\\[a-zA-Z]+|[a-zA-Z]|\u03c0)|(\\?[{}]|[-+*/^()\[\]!_|]))")
GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta kappa lambda mu nu xi rho sigma tau phi varphi chi "
    "psi omega Gamma Delta Theta Lambda Phi Psi Omega".split()
)
CONSTANTS = {"pi": math.pi, "\u03c0": math.pi, "e": math.e, "i": 1j}
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

COMMAND = re.compile(r"\\(?:begin|end) ?\{[a-z*]+\}|\\[A-Za-z]+|[fgh](?= ?\()")
LETTERS = re.compile(r"[A-Za-z]+")
NAME = re.compile(rf"(?P<keep>{COMMAND.pattern})|[A-Za-z]+")
LETTER_NAMES = "xyzabcnkpqrstuvwABCXYZ"  # without a meaning of their own in the parser
# x_1, a_{12}, v_n, \theta_0; an index of several letters or a sum is no part of a name that is known here
INDEXED = re.compile(
    rf"(?:\\(?P<greek>{'|'.join(sorted(GREEK, key=len, reverse=True))})|(?P<command>\\[A-Za-z]+)|(?P<letter>[A-Za-z]))"
    r"(?: ?_ ?(?:\{ ?(?P<braced>[0-9]{1,3}|[A-Za-z]) ?\}|(?P<index>[0-9A-Za-z])))?"
)


def name_indexed_letters(one: str, other: str) -> tuple[str, str]:
    """Two formulas in which each letter with an index, as x_1, is a letter of its own that neither has: a name is a name.

    Unchanged where there are too few letters, or an index that is more than a number or a letter.
    """
    texts = f"{one} {other}"
    if "_" not in texts:
        return one, other
    found = [m for m in INDEXED.finditer(texts) if not m["command"]]
    key = lambda m: (m["greek"] or m["letter"], m["braced"] or m["index"])
    keys = dict.fromkeys(key(m) for m in found if key(m)[1])
    free = [letter for letter in LETTER_NAMES if letter not in {m["letter"] for m in found if not key(m)[1]}]
    if len(keys) > len(free):
        return one, other
    names = dict(zip(keys, free, strict=False))
    replace = lambda m: f" {names[key(m)]} " if not m["command"] and key(m) in names else m[0]
    out = INDEXED.sub(replace, one).strip(), INDEXED.sub(replace, other).strip()
    return (one, other) if "_" in re.sub(r"\\log ?_", "", " ".join(out)) else out


class UnknownSyntax(Exception):
    """The text is not in the grammar."""


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


def is_letter(token: str) -> bool:
    """True for x and \\theta, false for pi, e, i and functions."""
    name = token.removeprefix("\\")
    return name in GREEK and name != token or (len(token) == 1 and token.isalpha() and name not in CONSTANTS)


def rename_letters(gold: str, answer: str | None) -> tuple[str, str | None]:
    """Two formulas whose letters have the names x, y, z, ... in the order of their appearance.

    The parser gives meanings to some letters (m is a unit, I is imaginary, S is a function of sympy), so a verdict could
    depend on names. e and i keep their meaning, and f, g, h before a parenthesis stay functions. Texts with words stay.
    """
    whole = " ".join(text for text in (gold, answer) if text is not None)
    runs = LETTERS.findall(COMMAND.sub(" ", whole))
    letters = dict.fromkeys(letter for run in runs for letter in run if letter not in "ei")
    if any(len(run) > 2 or run in ("or", "in", "ln", "pi") for run in runs) or len(letters) > len(LETTER_NAMES):
        return gold, answer
    names = str.maketrans(dict(zip(letters, LETTER_NAMES, strict=False)))
    rename = lambda m: m[0] if m["keep"] else m[0].translate(names)
    return NAME.sub(rename, gold), None if answer is None else NAME.sub(rename, answer)
