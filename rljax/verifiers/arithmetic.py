"""Countdown: does an expression reach a target from given numbers, each used once? Exact, without eval or floats.

Only + - * / and parentheses over whole numbers are accepted. ``2**3``, ``7//2``, ``-3``, ``1.5``, and ``12`` made of 1
and 2 are rejected. Division is exact. The expression may be in LaTeX, with \\times, \\cdot, \\div and \\frac, in a box,
between dollar signs; ``3 x 4`` is a product too.
"""

import ast
import operator
import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

MAX_LENGTH = 200  # characters
OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
SIGNS = str.maketrans(
    dict.fromkeys("\u00d7\u22c5\u00b7\u2217\u2219\u2715\u2a09", "*")
    | dict.fromkeys("\u00f7\u2215\u2044", "/")
    | dict.fromkeys("\u2212\u2010\u2011\u2013", "-")
    | {"\u00a0": " ", "\u2009": " ", "\u202f": " ", "[": "(", "]": ")"}
)
BOX = re.compile(r"\\(?:boxed|fbox|framebox) ?\{([^=]*)\}( *=[^{}]*)?|\\(?:boxed|fbox|framebox) ?\{(.*)\}", re.DOTALL)
FRACTION = re.compile(r"\\[dtc]?frac *\{([^{}]*)\} *\{([^{}]*)\}|\\[dtc]?frac *([0-9]) *([0-9])")
LATEX_SIGNS = (
    (re.compile(r"\\(?:times|cdot|ast)(?![A-Za-z])|(?<=[0-9)]) [xX] (?=[0-9(])"), "*"),
    (re.compile(r"\\div(?![A-Za-z])"), "/"),
    (re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])|\\[()\[\]]|\$"), ""),
    (re.compile(r"\\[,;:! ]|\\q?quad|\\lbrace|\\rbrace|~"), " "),
)


def normalize_expression(text: str) -> str:
    """An expression in the notation of Python, without the box around it."""
    text = text.strip().strip("$*` ").strip()
    if box := BOX.fullmatch(text):
        text = box[3] or box[1] + (box[2] or "")
    for pattern, sign in LATEX_SIGNS:
        text = pattern.sub(sign, text)
    for _ in range(text.count("\\")):  # nested fractions, from the inside
        text = FRACTION.sub(lambda m: f"(({m[1] or m[3]})/({m[2] or m[4]}))", text)
    text = text.replace("{", "(").replace("}", ")") if "\\" not in text else text
    return text.translate(SIGNS).strip().removesuffix(".").strip()


def reaches_target(expression: str, numbers: Sequence[int], target: int) -> bool:
    """True if the expression uses exactly these numbers and has the value ``target``. It may end in "= target"."""
    if len(expression) > MAX_LENGTH:
        return False
    expression, equals, said = normalize_expression(expression).partition("=")
    if equals and said.strip() != str(target):
        return False
    try:
        used: list[int] = []
        value = evaluate(ast.parse(expression.strip(), mode="eval").body, used, expression.strip())
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return False
    return value == target and Counter(used) == Counter(numbers)


def evaluate(node: ast.expr, used: list[int], text: str) -> Fraction:
    """The value of a syntax tree of ``text``; its whole numbers are appended to ``used``.

    Raises ValueError for anything but + - * / of decimal digits.
    """
    if isinstance(node, ast.Constant) and type(node.value) is int:
        if not (ast.get_source_segment(text, node) or "").isdecimal():  # such as 0x10 or 1_000
            raise ValueError
        used.append(node.value)
        return Fraction(node.value)
    if not isinstance(node, ast.BinOp) or type(node.op) not in OPERATIONS:
        raise ValueError
    return OPERATIONS[type(node.op)](evaluate(node.left, used, text), evaluate(node.right, used, text))
