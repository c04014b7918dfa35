"""Which formulas are hopeless for sympy: they would take too long or too much memory."""

import re

INTRACTABLE = re.compile(
    r"\^ ?\{[^{}]*\^|\^ ?[0-9a-zA-Z]+ ?\^"  # a power of a power
    r"|\^ ?\{?-?[0-9]{6,}|[)}\]a-zA-Z] ?\^ ?\{?-?[0-9]{3,}"  # huge exponents of a number, large ones of an expression
    r"|[0-9]{5,} ?!|[)}\]!] ?!|binom ?\{? ?[0-9]{5,}|[0-9]{60,}"
    r"|\\(?:i*int|sum|prod|lim|Gamma|zeta)|\*\*|\^ ?\{ ?\("
)

POWER = re.compile(r"[)}\]] ?\^ ?\{?([0-9]{1,6})")  # of sums and functions, which are long when expanded


def is_tractable(text: str) -> bool:
    """False for expressions that take too long: towers of powers, huge factorials, deep nesting."""
    depth = deepest = 0
    for c in text:
        depth += (c in "({[") - (c in ")}]")
        deepest = max(deepest, depth)
    powers = sum(int(n) for n in POWER.findall(text))
    return (
        deepest <= 10
        and powers <= 60
        and text.count("^") <= 16
        and text.count("!") <= 3
        and not INTRACTABLE.search(text)
    )
