r"""How an answer is built: what a list, an interval, a matrix or a row of assignments consists of. Of cleaned texts.

listed("(1, 2]")  ->  ("(]", ["1", "2"])        interval("x > 2", "(2,5)")  ->  "(2,\infty)"
"""

import re

from rljax.verifiers import number_forms

THOUSANDS = re.compile(r"(?<![0-9])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])")
SEVERAL = re.compile(r"(?<![A-Za-z])(?:or|and)(?![A-Za-z])")
SEPARATOR = re.compile(r"[,;]? *(?<![A-Za-z])(?:or|and)(?![A-Za-z])|[,;]")
ASSIGNMENT = re.compile(r" *([a-zA-Z])(?:_\{?[a-zA-Z0-9]\}?)? ?= ?([^=]+)")
EQUALS = re.compile(r"(?<![<>!:=])=(?!=)")
ORDER = re.compile(r" ?(<=|>=|<|>|\\leq?(?:slant)?(?![a-z])|\\geq?(?:slant)?(?![a-z])) ?")
MEMBER = re.compile(r"^[a-zA-Z] ?\\in(?![a-z]) ?")
ALL = re.compile(r"^(?:\\mathbb ?\{? ?R ?\}?|all real numbers)$")
INFINITY, MINUS_INFINITY = r"\infty", r"-\infty"
MATRIX = re.compile(r"\\begin\{pmatrix\}(.*)\\end\{pmatrix\}")


def listed(text: str) -> tuple[str, list[str]] | None:
    """(brackets, elements) of a tuple, interval, set, matrix or bare list of two or more; None for anything else."""
    if matrix := MATRIX.fullmatch(text):
        rows = [row.split("&") for row in matrix[1].strip().removesuffix("\\\\").split("\\\\")]
        elements = [cell.strip() for row in rows for cell in row]
        shape = "()" if len(rows[0]) == 1 else f"{len(rows)}x{len(rows[0])}"  # a column is as good as a tuple
        return (shape, elements) if all(elements) and len({len(row) for row in rows}) == 1 else None
    opened, commas, outer = 0, [], 0
    for n, c in enumerate(text):
        opened += (c in "([{") - (c in ")]}")
        outer += opened == 0 and n < len(text) - 1
        if c == "," and opened <= 1:
            commas.append((n, opened))
    wrapped = text[:1] in ("(", "[") and text[-1:] in (")", "]") or text[:2] == "\\{" and text[-2:] == "\\}"
    wrapped = wrapped and outer == (1 if text[0] == "\\" else 0)
    if not wrapped and SEVERAL.search(text) and "\\{" not in text:
        return listed(SEPARATOR.sub(",", text))
    places = [n for n, depth in commas if depth == wrapped]
    if not places and not wrapped and text.count("\\pm") == 1:
        return "{}", [text.replace("\\pm", sign) for sign in "+-"]
    if not places or "=" in text or SEVERAL.search(text) or THOUSANDS.search(text):
        return None
    start, end = (2, len(text) - 2) if text[0] == "\\" and wrapped else (int(wrapped), len(text) - int(wrapped))
    edges = [start - 1, *places, end]
    elements = [text[a + 1 : b].strip() for a, b in zip(edges, edges[1:], strict=False)]
    brackets = text[0] + text[-1] if wrapped and text[0] != "\\" else "{}"
    if brackets == "{}":
        elements = [e.replace("\\pm", sign) for e in elements for sign in ("+-" if e.count("\\pm") == 1 else "+")]
    return (brackets, elements) if all(elements) else None


def interval(text: str, pattern: str) -> str:
    """x \\in [2,3] and 2 \\le x \\le 3 -> [2,3]; x<2 or x>3 -> their union; but not where the pattern speaks of y."""
    text = ALL.sub(r"(-\\infty,\\infty)", MEMBER.sub("", text))
    unlike = ORDER.search(pattern) and letters(pattern) != letters(text)
    if unlike or not ORDER.search(text) or "=" in EQUALS.findall(pattern):
        return text
    out, names = [], set()
    for piece in re.split(r"\bor\b|\\cup", text):
        side = [part.strip() for part in ORDER.split(piece)]
        if len(side) == 3:
            side = ["", side[1], *side] if side[0].isalpha() else [*side, side[1], ""]
        up = [order[0] == "<" or order[:2] == "\\l" for order in side[1::2]]
        if len(up) != 2 or up[0] != up[1] or not re.fullmatch("[a-zA-Z]", side[2]):
            return text
        left, first, name, second, right = side if up[0] else reversed(side)
        opening = "[" if left and closed(first) else "("
        closing = "]" if right and closed(second) else ")"
        out.append(f"{opening}{left or MINUS_INFINITY},{right or INFINITY}{closing}")
        names.add(name)
    return "\\cup".join(out) if len(names) == 1 else text


def letters(text: str) -> set[str]:
    return set(re.findall(r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z])", text))


def closed(order: str) -> bool:
    """Does this inequality allow equality?"""
    return "=" in order or "e" in order


def unnamed(text: str, pattern: str) -> str:
    """x=2 or x=-2 -> 2,-2; x=3, y=4 -> (3,4) where that is the pattern; y=2x -> 2x; (x,y)=(3,4) -> (3,4)."""
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
    return number_forms.unlabelled(text)


def parts(text: str) -> tuple[int, int]:
    """(things listed, equations) of an expression: +- is two things, an inequality no equation."""
    text = re.sub(r"\\(?:neq?|[lg]eq?|approx)(?![a-z])|[<>]=|(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", "", text)
    listed = text.count(",") + text.count(";") + len(SEVERAL.findall(text)) + 1
    return listed * 2 ** text.count("\\pm"), text.count("=")
