r"""Numbers as people write them: 1,234.5, -3/4, \frac12, 3\frac12, 1.5\times10^3, 50\%, $20, 72 clips. Exact, no sympy.

``clean`` brings LaTeX and plain writing to one form; ``parse`` reads a number or says None; ``same`` compares two.
"""

import re
from fractions import Fraction
from typing import NamedTuple

LONGEST = 300  # characters of an answer: nobody asked for a longer one

NUMBER = re.compile(r"[+-]?(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)(?:\.[0-9]+)?")  # the common cases, in one match each
RATIO = re.compile(r"([+-]?)\\[dt]?frac\{([0-9]+)\}\{([0-9]*[1-9])\}")
DIGITS = r"[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+"
SHORT = "cm|mm|km|kg|mg|ml|ft|in|yd|mi|lb|lbs|oz|hr|hrs|min|mins|sec|mph|am|pm"  # units that touch their number
WORD = rf"(?: ?(?:{SHORT})\b|(?: [mghsL]\b)| ?(?<![0-9])[A-Za-z]{{3,}}+)"
VALUE = re.compile(
    rf"(?P<sign>[+-]?)(?:(?P<whole>{DIGITS})?(?P<decimals>\.[0-9]+)?(?:(?:[eE]|\*10\^)(?P<power>[+-]?[0-9]{{1,3}}))?"
    rf"|(?:(?P<mixed>[0-9]{{1,9}}) ?)?\\frac\{{(?P<above>[+-]?(?:{DIGITS}))\}}\{{(?P<below>{DIGITS})\}}"
    rf"|(?:(?P<also>[0-9]{{1,9}}) )?(?P<top>{DIGITS}) ?/ ?(?P<bottom>{DIGITS}))"
    rf"(?P<percent> ?(?:%|percent\b))?(?P<unit>(?:{WORD}\.?(?: ?\^ ?\{{?[23]\}}?)?){{1,4}}+(?: ?/{WORD})?)? ?"
)
# Words that make of "72 ..." another number, or several, or none: what follows a number must be what it counts.
NOT_UNITS = frozenset(
    "and not nor but minus plus times divided over maybe isn was are than then wait about approximately hundred hundreds "
    "thousand thousands million millions billion billions trillion trillions dozen dozens half halves third thirds quarter "
    "quarters one two three four five six seven eight nine ten eleven twelve more less most least nan mod base squared cubed "
    "root sqrt factorial wrong right perhaps either sin cos tan log mod gcd lcm max".split()
)
BARE = re.compile(
    r"(?<![0-9])\$|\$(?![0-9])|\\\(|\\\)|\\\[|\\\]|\\left(?![a-z])|\\right(?![a-z])|\\displaystyle|\\!|\*\*|^ *\\quad|~"
)
FORMS = (
    (re.compile(r"\\[dtc]frac"), r"\\frac"),
    (re.compile(r"\\frac ?([0-9]) ?([0-9])(?![0-9])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac ?\{([^{}]*)\} ?([0-9])(?![0-9])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac ?([0-9]) ?\{"), r"\\frac{\1}{"),
    (re.compile(r"\} *\{"), "}{"),
    (re.compile(r"\{,\}|(?<=[0-9]),\\ ?(?=[0-9]{3})|(?<=[0-9])\\,(?=[0-9]{3})"), ","),
    (re.compile(r"\\(?:text|mathrm|textrm|textbf|mathbf|mbox|textit|operatorname|rm)\*? ?\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\^ ?(?:\{ ?\\circ ?\}|\\circ)|°|\\degree"), " degrees "),
    (re.compile(r"(?<!\\)\\[,;: ]|\\q?quad|\u00a0"), " "),
    (re.compile(r"\\%"), "%"),
    (re.compile("\u2212|\u2013"), "-"),
    (re.compile(r"\\times|\\cdot|\u00d7"), "*"),
    (re.compile(r" *\* *10 *\^ *\{? *([+-]?[0-9]+) *\}?"), r"*10^\1"),
    (re.compile(r" +"), " "),
)
LABEL = re.compile(r"(?:[A-Za-z]|[a-z]\([a-z]\)|[A-Za-z]_\{?[A-Za-z0-9]{1,3}\}?) ?= ?(?=[^=])")


class Literal(NamedTuple):
    """A number, and whether it is said in percent (its value is then the number that is written)."""

    value: Fraction
    percent: bool = False


def clean(text: str) -> str:
    r"""One way of writing for many: no dollars, no spacing commands, \frac with braces, text as words."""
    text = BARE.sub("", text.replace("\\$", "").strip())
    if not text.isascii() or "\\" in text or "  " in text or "*" in text or "{" in text:
        for pattern, replacement in FORMS:
            text = pattern.sub(replacement, text)
    text = text.strip().removesuffix(".").strip()
    label = LABEL.match(text) if text.count("=") == 1 else None
    return text[label.end() :] if label else text


def parse(text: str) -> Literal | None:
    """The number that a short text is; None where it is anything else, several numbers among them."""
    text = text.strip()
    if len(text) <= 40:
        if NUMBER.fullmatch(text):
            return Literal(Fraction(text.replace(",", "")))
        if ratio := RATIO.fullmatch(text):
            return Literal(Fraction(int(ratio[1] + ratio[2]), int(ratio[3])))
    return read(clean(text)) if len(text) <= LONGEST else None


def read(text: str) -> Literal | None:
    """The number that a cleaned text is."""
    found = VALUE.fullmatch(text)
    if found is None:
        return None
    part = found.groupdict(default="")
    if part["unit"] and not NOT_UNITS.isdisjoint(re.split(r"[^a-z]+", part["unit"].lower())):
        return None
    digits = lambda name: int(part[name].replace(",", "") or 0)
    if part["above"] or part["top"]:
        below = digits("below") or digits("bottom")
        if below == 0 or (part["mixed"] and part["above"][0] in "+-"):
            return None
        value = digits("mixed") + digits("also") + Fraction(digits("above") + digits("top"), below)
    elif part["whole"] or part["decimals"]:
        value = Fraction((part["whole"].replace(",", "") or "0") + part["decimals"]) * Fraction(10) ** digits("power")
    else:
        return None
    return Literal(-value if part["sign"] == "-" else value, bool(part["percent"]))


def same(gold: Literal, answer: Literal) -> bool:
    """Are these equal? Where just one is in percent, "50%" is as good as 50, and as 0.5."""
    if gold.value == answer.value:
        return True
    percent, plain = (answer, gold) if answer.percent else (gold, answer)
    return gold.percent != answer.percent and percent.value == 100 * plain.value
