"""Countdown: does an expression reach a target from given numbers, each used once? Exact, without eval or floats.

Only + - * / and parentheses over whole numbers are accepted. ``2**3``, ``7//2``, ``-3``, ``1.5``, and ``12`` made of 1
and 2 are rejected. Division is exact.
"""

import ast
import operator
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

MAX_LENGTH = 200  # characters
OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
ASCII_SIGNS = str.maketrans({"\u00d7": "*", "\u00f7": "/", "\u2212": "-", "\u00b7": "*", "[": "(", "]": ")"})


def reaches_target(expression: str, numbers: Sequence[int], target: int) -> bool:
    """True if the expression uses exactly these numbers and has the value ``target``. It may end in "= target"."""
    if len(expression) > MAX_LENGTH:
        return False
    expression, equals, said = expression.translate(ASCII_SIGNS).strip().strip("$").partition("=")
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
