r"""Parses numbers: 1,234.5, -3/4, \frac12, 3\frac12, 1.5\times10^3, 50\%, $20, 72 clips. Exact fractions, no sympy.

``normalize_notation`` brings LaTeX and plain text to one notation, ``parse_number`` parses a number or returns None,
and ``numbers_equal`` compares two. Words, times of day and numbers in other bases are compared here as well.
"""

import functools
import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

MAX_LENGTH = 300  # characters of an answer; a longer one is rejected

NUMBER = re.compile(r"[+-]?(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)(?:\.[0-9]+)?")  # the common cases, for speed
RATIO = re.compile(r"([+-]?)\\[dt]?frac\{([0-9]+)\}\{([0-9]*[1-9])\}")
DIGITS = r"[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+"
SHORT_UNITS = (  # units that may follow a number without a space
    "cm|mm|km|kg|mg|ml|ft|in|yd|mi|lb|lbs|oz|hr|hrs|min|mins|sec|mph|sq|"
    "cents?|dollars?|units?|inches|feet|meters?|miles?"
)
UNIT_LINK = r" (?:of|in|at|on|by|to|an?)\b"  # only with a unit after it: "72 a day" is a number, "72 a" is not
SQUARED = r"(?: ?\^ ?\{?[23]\}?)?"
WORD = rf"(?: ?(?:{SHORT_UNITS})\b|(?: [mghsL]\b)| ?(?<![0-9])[A-Za-z]{{3,}}+)\.?"
NUMBER_WITH_UNIT = re.compile(
    rf"(?P<sign>[+-]?)(?:(?P<whole>{DIGITS})?"
    rf"(?:(?P<decimals>\.[0-9]+)|\.(?P<before>[0-9]{{0,30}})\\overline\{{(?P<again>[0-9]{{1,30}})\}})?"
    rf"(?:(?:[eE]|\*10\^)(?P<power>[+-]?[0-9]{{1,3}}))?"
    rf"|(?:(?P<mixed>[0-9]{{1,9}}) ?)?\\frac\{{(?P<above>[+-]?(?:{DIGITS}))\}}\{{(?P<below>{DIGITS})\}}"
    rf"|(?:(?P<also>[0-9]{{1,9}}) )?(?P<top>{DIGITS}) ?/ ?(?P<bottom>{DIGITS}))"
    rf"(?P<percent> ?(?:%|percent\b))?"
    rf"(?P<unit>(?:{UNIT_LINK})?{WORD}{SQUARED}(?:(?:{UNIT_LINK}|{WORD}){SQUARED}){{0,7}}+(?: ?/{WORD})?)? ?"
)
POWER_OF_TEN = re.compile(
    r"^([+-]?)10 ?\^ ?(?:(?=[0-9])|(?=\{ ?[+-]?[0-9]+ ?\}))\{? ?([+-]?[0-9]{1,3})(?![0-9])(?: ?\}|(?!\.))"
)
# Words that are not units, as they change the number before them or add another one: "72 thousand", "72 or more"
NOT_UNITS = frozenset(
    "and not nor but minus plus times divided over maybe isn was are than then wait about approximately hundred "
    "hundreds thousand thousands million millions billion billions trillion trillions dozen dozens half halves "
    "third thirds quarter quarters one two three four five six seven eight nine ten eleven twelve more less most "
    "least nan mod base squared cubed root sqrt factorial wrong right perhaps either sin cos tan log gcd lcm max "
    "min actually correction false true except without instead rather unless minimum maximum".split()
)
DECORATION = re.compile(
    r"(?<![0-9])\$|\$(?![0-9])|\\\(|\\\)|\\\[|\\\]|\\left(?![a-z])|\\right(?![a-z])|\\displaystyle|\\!|\*\*|^ *\\quad"
    r"|[\u00a2\u00a3\u20ac`]|\\pounds|\\textcent"
)
# Groups of three digits, as in 1'000'000 and 1_000_000. A plain space may also stand between two numbers of a list.
THIN_SPACES = "\u00a0\u2007\u2008\u2009\u200a\u202f~"
NOT_BEFORE_GROUPS = rf"(?<![0-9A-Za-z.^_'\u2019])(?<![0-9][ {THIN_SPACES}_])"
GROUPED = re.compile(
    rf"{NOT_BEFORE_GROUPS}[1-9][0-9]{{0,2}}"
    rf"(?P<separator>[{THIN_SPACES}'\u2019_]|\\_|\{{?\\[,:;]\}}?|\{{,\}})[0-9]{{3}}"
    rf"(?:(?P=separator)[0-9]{{3}})*(?![0-9]|[ {THIN_SPACES}'\u2019_]\{{?[0-9])"
)
SPACED = re.compile(
    rf"{NOT_BEFORE_GROUPS}[1-9][0-9]{{0,2}}(?P<separator> |\\ )(?:[0-9]{{3}}(?P=separator))*0[0-9]{{2}}"
    rf"(?:(?P=separator)[0-9]{{3}})*(?![0-9]|\\? \{{?[0-9])"
)
THIN_SPACE = re.compile(r"\\thinspace(?![A-Za-z]) ?")
THOUSANDS = re.compile(r"(?<![0-9])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])")
NOT_ONE_FORMULA = re.compile(r"[,;()\[\]]|\\\{|\\begin")
NOT_DIGIT = re.compile("[^0-9]+")
UNICODE_TO_LATEX = str.maketrans(
    dict.fromkeys("\u2212\u2010\u2011\u2013\ufe63\uff0d", "-")
    | dict.fromkeys("\u00d7\u22c5\u00b7\u2217\u2219", "*")
    | dict.fromkeys("\u2044\u2215\u00f7", "/")
    | dict.fromkeys(
        "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000", " "
    )
    | {
        "\u00b0": " degrees ",
        "\u221a": r"\sqrt ",
        "\u221e": r"\infty ",
        "\u2205": r"\emptyset ",
        "\u211d": r"\mathbb{R} ",
    }
    | {"\u00b1": r"\pm ", "\u222a": r"\cup ", "\u2229": r"\cap ", "\u2208": r"\in ", "\u2260": r"\neq "}
    | {"\u2264": r"\le ", "\u2265": r"\ge ", "\u2248": r"\approx "}
    | {
        chr(0x3B1 + n): rf"\{name} "
        for n, name in enumerate(
            "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho varsigma sigma tau "
            "upsilon phi chi psi omega".split()
        )
    }
)
RAISED = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b\u207d\u207e\u207f\u2071"
LOWERED = "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089"
PLAIN = str.maketrans(RAISED + LOWERED, "0123456789+-()ni" + "0123456789")
RAISED_FRACTION = re.compile(f"([{RAISED}]+)[\u2044/]([{LOWERED}]+)")  # a half, written with three characters
RAISED_POWER = re.compile(f"(?<=[^ ])[{RAISED}]+")
LOWERED_INDEX = re.compile(f"[{LOWERED}]+")
FRACTION_CHARACTER = re.compile("[\u00bc-\u00be\u2150-\u215e\u2189]")
PROGRAM_POWER = re.compile(r"(?<=[0-9A-Za-z)\]}])\*\*(?=[-+(0-9A-Za-z])")  # 10**6, where it is not bold text
TIMES_TEN = re.compile(r"(?<=[0-9]) ?[xX] ?(?=10 ?\^)")  # 3.2 x 10^5
PROGRAM_NOTATION = re.compile(
    r"(?<![\\A-Za-z])(sqrt(?= ?\()|(?:pi|infty)(?![A-Za-z]))"
)  # sqrt(2)/2, 3pi/4: the notation of programs
ONE_CHARACTER = r"(\\pi(?![a-z])|[0-9A-Za-z])"
LATEX_REWRITES = (
    (re.compile(r"\\[dtc]frac"), r"\\frac"),
    (re.compile(rf"\\frac ?{ONE_CHARACTER} ?{ONE_CHARACTER}(?![0-9])"), r"\\frac{\1}{\2}"),
    (re.compile(rf"\\frac ?\{{([^{{}}]*)\}} ?{ONE_CHARACTER}(?![0-9])"), r"\\frac{\1}{\2}"),
    (re.compile(rf"\\frac ?{ONE_CHARACTER} ?\{{"), r"\\frac{\1}{"),
    (re.compile(r"\} *\{"), "}{"),
    (re.compile(r"\{,\}|(?<=[0-9]),\\ ?(?=[0-9]{3})|(?<=[0-9]),? ?\\, ?(?=[0-9]{3}(?![0-9]))"), ","),
    (
        re.compile(r"\\(?:text|mathrm|textrm|textbf|mathbf|mbox|textit|textsf|operatorname|rm)\*? ?\{([^{}]*)\}"),
        r" \1 ",
    ),
    (re.compile(r"\^ ?(?:\{ ?\\circ ?\}|\\circ)|\\degree"), " degrees "),
    (re.compile(r"(?<!\\)\\[,;: ]|\\q?quad"), " "),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\times|\\cdot"), "*"),
    (re.compile(r"\\bar ?\{"), r"\\overline{"),
    (re.compile(r"\\varnothing|\\\{ *\\\}"), r"\\emptyset"),
    (re.compile(r"\\dbinom|\\tbinom"), r"\\binom"),
    (re.compile(r"\\begin\{bmatrix\}"), r"\\begin{pmatrix}"),
    (re.compile(r"\\end\{bmatrix\}"), r"\\end{pmatrix}"),
    (re.compile(r"\\phantom ?(?:\{[^{}]*\}|-)"), ""),
    (re.compile(r"\\langle"), "("),
    (re.compile(r"\\rangle"), ")"),
    (re.compile(r"\\(simeq|approxeq)(?![a-z])"), r"\\approx"),
    (re.compile(r"\\l[vV]ert|\\r[vV]ert|\\[lr]?vert"), "|"),
    (re.compile(r"\+ ?\\infty"), r"\\infty"),
    (re.compile(r" *\* *10 *\^ *\{? *([+-]?[0-9]+) *\}?"), r"*10^\1"),
    (re.compile(r"\s+"), " "),
)
ORDINAL = re.compile(r"(?<=[0-9]) ?(?:\^ ?\{? ?)?(?:st|nd|rd|th)\b(?: ?\})?")
AM_PM = re.compile(r"([ap])\. ?m\b\.?|([AP])\.? ?M\b\.?")
LABEL = re.compile(r"(?:\\?[A-Za-z]+(?:_\{?[A-Za-z0-9]{1,3}\}?)?'?|[A-Za-z](?:\^\{-1\})?\([A-Za-z]\)) ?= ?(?=[^=])")

WORDS = re.compile(r"[(\"']?[^\W\d_]+(?:[ \-'.,]{1,2}[^\W\d_]+)*[.)\"']*")
LETTER_PRODUCT = re.compile(
    r"(?!yes|no|odd|one|two|six|ten|red)[a-z]{2,3}"
)  # ab, xyz: a product of letters, not a word
ARTICLE = re.compile(r"^(?:the|an?) (?=[^\W\d_]{2})")
CLAIM = re.compile(r"^(?:so,? )?(?:the |my )?(?:final |correct )?answer(?: is)?\b[:* ]+", re.IGNORECASE)
CLOCK = re.compile(r"0?([0-9]{1,2})(?::([0-9]{2}))?(:[0-9]{2})? ?([ap]m)?(?: sharp)?")
BASE = re.compile(r"\(?([0-9A-Z]+(?:\.[0-9A-Z]+)?)\)?_ ?\{? ?([0-9]+|[a-z]+) ?\}?")
SPACE = re.compile(r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])")
BASES: dict[str, str] = dict(
    zip(
        "two three four five six seven eight nine ten eleven twelve sixteen".split(),
        "2 3 4 5 6 7 8 9 10 11 12 16".split(),
        strict=True,
    )
)
UNITS = re.compile(
    rf"(?<=[0-9)}}])(?<!\\}}) ?(?:(?:{SHORT_UNITS})\b|(?<= )[A-Za-z]{{3,}})\.?"
    rf"(?: [A-Za-z]{{2,}}\.?){{0,4}}{SQUARED}(?: ?/ ?[A-Za-z]+)?$"
)


class ParsedNumber(NamedTuple):
    """A number, and whether it has a percent sign. The value of "50%" is 50."""

    value: Fraction
    percent: bool = False


@functools.lru_cache(maxsize=1 << 12)
def normalize_notation(text: str) -> str:
    r"""A text in one notation: no dollar signs, no spacing commands, \frac with braces, \text{...} as plain words."""
    text = text.replace("\\$", "").strip()
    if "**" in text and not text.startswith("**"):
        text = PROGRAM_POWER.sub("^", text)
    text = DECORATION.sub("", join_groups(text)).replace("~", " ")
    if not text.isascii():
        text = unicode_to_latex(text)
    if "10" in text and ("x" in text or "X" in text):
        text = TIMES_TEN.sub("*", text)
    if "sqrt" in text or "pi" in text or "inf" in text:
        text = PROGRAM_NOTATION.sub(r"\\\1", text)
    if "\\" in text or "  " in text or "*" in text or "{" in text or "\n" in text:
        for pattern, replacement in LATEX_REWRITES:
            text = pattern.sub(replacement, text)
    if "M" in text or "m" in text:
        text = AM_PM.sub(lambda found: f"{found[1] or found[2].lower()}m", text)
    return ORDINAL.sub("", text.strip()).removesuffix(".").strip()


def join_groups(text: str) -> str:
    r"""Numbers without what separates their groups of three digits: 1'000'000, 1\,000\,000, 1_000_000 -> 1000000.

    The separator is the same throughout. A plain space is one only where a later group begins with 0, which no number of a
    list does: "1 000 000" is a number, and "100 200 300" may be three. Groups with commas stay as they are.
    """
    together = lambda found: NOT_DIGIT.sub("", found[0])
    return SPACED.sub(together, GROUPED.sub(together, THIN_SPACE.sub(r"\\,", text)))


def join_thousands(text: str) -> str:
    r"""A formula without commas, where they are all in numbers of groups: 1,000\pi -> 1000\pi. (1,000) may be a pair, and stays."""
    joined = THOUSANDS.sub(lambda found: found[0].replace(",", ""), text)
    return text if NOT_ONE_FORMULA.search(joined) else joined


def unicode_to_latex(text: str) -> str:
    r"""Powers, indices, fractions and signs of Unicode in the notation of LaTeX: 2 raised by U+2074 -> 2^4."""
    text = RAISED_FRACTION.sub(lambda m: rf"\frac{{{m[1].translate(PLAIN)}}}{{{m[2].translate(PLAIN)}}}", text)
    text = FRACTION_CHARACTER.sub(fraction_to_latex, text)
    text = RAISED_POWER.sub(
        lambda m: f"^{m[0].translate(PLAIN)}" if len(m[0]) == 1 else f"^{{{m[0].translate(PLAIN)}}}", text
    )
    text = LOWERED_INDEX.sub(
        lambda m: f"_{m[0].translate(PLAIN)}" if len(m[0]) == 1 else f"_{{{m[0].translate(PLAIN)}}}", text
    )
    return text.translate(UNICODE_TO_LATEX)


def fraction_to_latex(found: re.Match[str]) -> str:
    above, _, below = unicodedata.normalize("NFKC", found[0]).partition("\u2044")
    return rf"\frac{{{above}}}{{{below}}}"


def strip_label(text: str) -> str:
    """The text without a label such as "x =", if there is only one equals sign: "x = 5" -> "5"."""
    label = LABEL.match(text) if text.count("=") == 1 else None
    return text[label.end() :] if label else text


def parse_number(text: str, powers: bool = False) -> ParsedNumber | None:
    """The number that a short text consists of; None for anything else, such as two numbers.

    With ``powers``, a power of ten such as 10^6 is a number too.
    """
    text = text.strip()
    if len(text) <= 40:
        if NUMBER.fullmatch(text):
            return ParsedNumber(Fraction(text.replace(",", "")))
        if ratio := RATIO.fullmatch(text):
            return ParsedNumber(Fraction(int(ratio[1] + ratio[2]), int(ratio[3])))
    return parse_cleaned_number(strip_label(normalize_notation(text)), powers) if len(text) <= MAX_LENGTH else None


def parse_cleaned_number(text: str, powers: bool = False) -> ParsedNumber | None:
    """The number that a text in normal notation consists of; None for anything else. ``powers``: see parse_number."""
    if powers and POWER_OF_TEN.match(text):
        text = POWER_OF_TEN.sub(r"\g<1>1*10^\2", text)
    found = NUMBER_WITH_UNIT.fullmatch(text)
    if found is None:
        return None
    part = found.groupdict(default="")
    if not is_unit(part["unit"]):
        return None
    digits = lambda name: int(part[name].replace(",", "") or 0)
    if part["above"] or part["top"]:
        below = digits("below") or digits("bottom")
        if below == 0 or (part["mixed"] and part["above"][0] in "+-"):
            return None
        value = digits("mixed") + digits("also") + Fraction(digits("above") + digits("top"), below)
    elif part["again"]:
        shift = 10 ** len(part["before"])
        value = digits("whole") + Fraction(digits("before"), shift)
        value = (value + Fraction(digits("again"), shift * (10 ** len(part["again"]) - 1))) * Fraction(10) ** digits(
            "power"
        )
    elif part["whole"] or part["decimals"]:
        value = Fraction((part["whole"].replace(",", "") or "0") + part["decimals"]) * Fraction(10) ** digits("power")
    else:
        return None
    return ParsedNumber(-value if part["sign"] == "-" else value, bool(part["percent"]))


def is_unit(unit: str) -> bool:
    """True if these words after a number are its unit or what it counts."""
    first, *more = re.findall(r"[a-z]+", unit.lower()) or [""]
    return first not in NOT_UNITS and NOT_UNITS.isdisjoint(word for word in more if word != "and")


def numbers_equal(gold: ParsedNumber, answer: ParsedNumber) -> bool:
    """True if two numbers are equal. If only one has a percent sign, "50%" equals both 50 and 0.5."""
    if gold.value == answer.value:
        return True
    percent, number = (answer, gold) if answer.percent else (gold, answer)
    return gold.percent != answer.percent and percent.value == 100 * number.value


@functools.lru_cache(maxsize=1 << 12)
def strip_decoration(text: str) -> str:
    """An expression in normal notation, without "the answer is" before it and without units after it."""
    text = join_thousands(normalize_notation(text)) if len(text) <= 2 * MAX_LENGTH else ""
    text = CLAIM.sub("", re.sub(r"\bdegrees\b", "", text)).removeprefix("\\approx").strip()
    units = None if is_words(text) else UNITS.search(text.replace("\\pi ", "(pi) "))
    return text if units is None or not is_unit(units.group()) else text[: len(text) - len(units.group())].strip()


def is_words(text: str) -> bool:
    """True if a text consists of words: it is neither a formula nor a number."""
    if "\\" in text or not WORDS.fullmatch(text):
        return False
    return bool(re.search(r"[^\W\d_]{2}", text)) and not LETTER_PRODUCT.fullmatch(text)


def normalize_words(text: str) -> str:
    """The words of a text in lower case, without punctuation and without a leading article."""
    return ARTICLE.sub("", " ".join(re.findall(r"[^\W\d_]+", text.casefold())))


def remove_spaces(text: str) -> str:
    """A text without spaces, except between two letters or digits: "1 0" does not equal "10"."""
    return SPACE.sub("", text)


def match_clock_time(text: str) -> re.Match[str] | None:
    """The match of a time of day: 3:45, 3:45 pm, 9 am; None for anything else."""
    found = CLOCK.fullmatch(text)
    return found if found and (found[2] or found[4]) else None


def clock_times_equal(gold: str, answer: str) -> bool:
    """True if two times of day are equal. One of them may leave out am or pm."""
    a, b = CLOCK.fullmatch(gold), CLOCK.fullmatch(answer)
    if not a or not b:
        return False
    same = a[1] == b[1] and (a[2] or "00") == (b[2] or "00") and (a[3] or ":00") == (b[3] or ":00")
    return same and (a[4] == b[4] or None in (a[4], b[4]))


def based_numbers_equal(gold: str, answer: str) -> bool:
    """True if two numbers have equal digits and bases: 1001_2 equals 1001_{two}, and also 1001 without a base."""
    a, b = (BASE.fullmatch(t) or BASE.fullmatch(t.replace(",", "") + "_0") for t in (gold, answer))
    if not a or not b or a[1] != b[1]:
        return False
    bases = {BASES.get(found[2], found[2]) for found in (a, b)} - {"0"}
    return len(bases) == 1
