r"""Splits compound answers (lists, sets, tuples, intervals, matrices, assignments) into their elements.

split_elements("(1, 2]")  ->  ("(]", ["1", "2"])        to_interval("x > 2", "(2,5)")  ->  "(2,\infty)"

All texts must be in the notation of ``number_parsing.normalize_notation``.
"""

import re

from rljax.verifiers import number_parsing, numeric_evaluation

OR_OR_AND = re.compile(r"(?<![A-Za-z])(?:or|and)(?![A-Za-z])")
SEPARATOR = re.compile(r"[,;]? *(?<![A-Za-z])(?:or|and)(?![A-Za-z])|[,;]")
ASSIGNMENT = re.compile(r" *([a-zA-Z])(?:_\{?[a-zA-Z0-9]\}?)? ?= ?([^=]+)")
EQUALS = re.compile(r"(?<![<>!:=])=(?!=)")
INEQUALITY = re.compile(r" ?(<=|>=|<|>|\\leq?(?:slant)?(?![a-z])|\\geq?(?:slant)?(?![a-z])) ?")
MEMBER = re.compile(r"^[a-zA-Z] ?\\in(?![a-z]) ?")
ALL_REALS = re.compile(r"^(?:\\mathbb ?\{? ?R ?\}?|all real numbers)$")
INFINITY, MINUS_INFINITY = r"\infty", r"-\infty"
MATRIX = re.compile(r"\\begin\{pmatrix\}(.*)\\end\{pmatrix\}")
BRACKETED = re.compile(r"[(\[{][^()\[\]{}]*[)\]}]")

STRANGE_CHARACTER = re.compile(r"[#?@$\"`]|[^ -~]")
BROKEN_SYNTAX = re.compile(r"[-+*/^_(\[{]$|^[*/^)\]}!]|[-+*/^][*/^)\]]|\(\)")
LONG_WORD = re.compile(r"(?<![\\\\A-Za-z{])(?!sqrt|sinh|cosh|tanh|sech|csch|coth|arc)[A-Za-z]{4,}")


def split_elements(text: str) -> tuple[str, list[str]] | None:
    """(brackets, elements) of a tuple, interval, set, matrix or list of two or more elements; None for anything else.

    Sets and lists without brackets have the brackets "{}". A matrix has its shape in place of the brackets: "2x3".
    """
    if matrix := MATRIX.fullmatch(text):
        rows = [row.split("&") for row in matrix[1].strip().removesuffix("\\\\").split("\\\\")]
        elements = [cell.strip() for row in rows for cell in row]
        shape = "()" if len(rows[0]) == 1 else f"{len(rows)}x{len(rows[0])}"  # a column vector may equal a tuple
        return (shape, elements) if all(elements) and len({len(row) for row in rows}) == 1 else None
    opened, commas, outer = 0, [], 0
    for n, c in enumerate(text):
        opened += (c in "([{") - (c in ")]}")
        outer += opened == 0 and n < len(text) - 1
        if c == "," and opened <= 1:
            commas.append((n, opened))
    wrapped = text[:1] in ("(", "[") and text[-1:] in (")", "]") or text[:2] == "\\{" and text[-2:] == "\\}"
    wrapped = wrapped and outer == (1 if text[0] == "\\" else 0)
    if not wrapped and OR_OR_AND.search(text) and "\\{" not in text:
        return split_elements(SEPARATOR.sub(",", text))
    places = [n for n, depth in commas if depth == wrapped]
    if not places and not wrapped and text.count("\\pm") == 1:
        return "{}", [text.replace("\\pm", sign) for sign in "+-"]
    if not places or "=" in text or OR_OR_AND.search(text) or number_parsing.THOUSANDS.search(text):
        return None
    start, end = (2, len(text) - 2) if text[0] == "\\" and wrapped else (int(wrapped), len(text) - int(wrapped))
    edges = [start - 1, *places, end]
    elements = [text[a + 1 : b].strip() for a, b in zip(edges, edges[1:], strict=False)]
    brackets = text[0] + text[-1] if wrapped and text[0] != "\\" else "{}"
    if brackets == "{}":
        elements = [e.replace("\\pm", sign) for e in elements for sign in ("+-" if e.count("\\pm") == 1 else "+")]
    return (brackets, elements) if all(elements) else None


def to_interval(text: str, pattern: str) -> str:
    """Inequalities as intervals: 2 \\le x \\le 3 and x \\in [2,3] -> [2,3]; "x<2 or x>3" -> a union of intervals.

    The text stays as it is if ``pattern``, the other answer, has an inequality in another variable.
    """
    text = ALL_REALS.sub(r"(-\\infty,\\infty)", MEMBER.sub("", text))
    unlike = INEQUALITY.search(pattern) and variables_of(pattern) != variables_of(text)
    if unlike or not INEQUALITY.search(text) or "=" in EQUALS.findall(pattern):
        return text
    out, names = [], set()
    for piece in re.split(r"\bor\b|\\cup", text):
        side = [part.strip() for part in INEQUALITY.split(piece)]
        if len(side) == 3:
            side = ["", side[1], *side] if side[0].isalpha() else [*side, side[1], ""]
        up = [order[0] == "<" or order[:2] == "\\l" for order in side[1::2]]
        if len(up) != 2 or up[0] != up[1] or not re.fullmatch("[a-zA-Z]", side[2]):
            return text
        left, first, name, second, right = side if up[0] else reversed(side)
        opening = "[" if left and allows_equality(first) else "("
        closing = "]" if right and allows_equality(second) else ")"
        out.append(f"{opening}{left or MINUS_INFINITY},{right or INFINITY}{closing}")
        names.add(name)
    return "\\cup".join(out) if len(names) == 1 else text


def variables_of(text: str) -> set[str]:
    """The single letters in a text."""
    return set(re.findall(r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z])", text))


def allows_equality(order: str) -> bool:
    """True for \\le, \\ge, <= and >=."""
    return "=" in order or "e" in order


def strip_names(text: str, pattern: str) -> str:
    """Values without the names they are assigned to: "x=2 or x=-2" -> 2,-2; y=2x -> 2x; (x,y)=(3,4) -> (3,4).

    "x=3, y=4" -> (3,4) if ``pattern``, the other answer, is a tuple.
    """
    found = [ASSIGNMENT.fullmatch(piece) for piece in SEPARATOR.split(text)]
    pairs = [(f[1], f[2].strip()) for f in found if f]
    names = [name for name, _ in pairs]
    if len(pairs) == len(found) > 1:
        inside = ",".join(value for _, value in pairs)
        if len(set(names)) == 1:
            return inside
        if pattern.startswith("(") and sorted(set(names)) == names:
            return f"({inside})"
    text = re.sub(r"^\( ?[a-zA-Z](?: ?, ?[a-zA-Z])+ ?\) ?= ?(?=\()", "", text)
    return number_parsing.strip_label(text)


def count_parts(text: str) -> tuple[int, int]:
    """(number of listed elements, number of equations) of an expression. +- counts as two elements."""
    text = re.sub(r"\\(?:neq?|[lg]eq?|approx)(?![a-z])|[<>]=|(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", "", text)
    listed = text.count(",") + text.count(";") + len(OR_OR_AND.findall(text)) + 1
    return listed * 2 ** text.count("\\pm"), text.count("=")


def is_equation_list(sides: list[str]) -> bool:
    """True if these sides of equals signs are of several statements, as of "x = 3, y = 5" and "3, x = 5".

    Not so for "gcd(4, 6) = 2" and "x, y = 3, 5".
    """
    if any(len(split_statements(side)) > 1 for side in sides[1:-1]):
        return True
    first = split_statements(sides[0])
    return len(first) > 1 and any(evaluate_quantity(part) is not None for part in first)


def split_statements(text: str) -> list[str]:
    """The parts between commas, semicolons, "and", "or" and line breaks, without what is in brackets or a matrix."""
    text = MATRIX.sub("", number_parsing.THOUSANDS.sub("1", text))
    while (outside := BRACKETED.sub("", text)) != text:
        text = outside
    return re.split(rf"{SEPARATOR.pattern}|\\\\", text)


def has_non_formula_text(text: str, other: str) -> bool:
    """True if ``other`` has words, broken braces or the like, which are in no formula, so that algebra cannot help."""
    opened = sum((c in "([{") - (c in ")]}") for c in other)
    if opened or BROKEN_SYNTAX.search(other) or STRANGE_CHARACTER.search(other) and not STRANGE_CHARACTER.search(text):
        return True
    return any(word not in text and not set(word) <= set(text) for word in LONG_WORD.findall(other))


def evaluate_quantity(text: str) -> complex | None:
    """The value of a number or of a formula without letters; None for anything else."""
    number = number_parsing.parse_cleaned_number(text.strip())
    return complex(number.value) if number and not number.percent else numeric_evaluation.evaluate_constant(text)
