"""Does an expression reach a target from given numbers, each used once? Countdown, exactly: no eval, no floats.

Only + - * / and parentheses over whole numbers: ``2**3``, ``7//2``, ``-3``, ``1.5`` and ``12`` made of 1 and 2 are no
expressions here. Division is exact.
"""

import ast
import operator
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

LONGEST = 200  # characters
OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
DRESS = str.maketrans({"\u00d7": "*", "\u00f7": "/", "\u2212": "-", "\u00b7": "*", "[": "(", "]": ")"})


def reaches(expression: str, numbers: Sequence[int], target: int) -> bool:
    """Is this an expression of exactly these numbers with this value? A final "= target" may stand behind it."""
    if len(expression) > LONGEST:
        return False
    expression, equals, said = expression.translate(DRESS).strip().strip("$").partition("=")
    if equals and said.strip() != str(target):
        return False
    try:
        used: list[int] = []
        value = evaluate(ast.parse(expression.strip(), mode="eval").body, used, expression.strip())
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return False
    return value == target and Counter(used) == Counter(numbers)


def evaluate(node: ast.expr, used: list[int], text: str) -> Fraction:
    """The value; whole numbers are noted in ``used``. ValueError for anything but + - * / of digits."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        if not (ast.get_source_segment(text, node) or "").isdecimal():  # 0x10, 1_000
            raise ValueError
        used.append(node.value)
        return Fraction(node.value)
    if not isinstance(node, ast.BinOp) or type(node.op) not in OPERATIONS:
        raise ValueError
    return OPERATIONS[type(node.op)](evaluate(node.left, used, text), evaluate(node.right, used, text))
