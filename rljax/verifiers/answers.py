r"""Is the final number of a response the right one? Plain Python, exact arithmetic, linear time.

The final answer stands after ``</think>`` where there is one, in the last region of one of these forms:

    #### 72            \boxed{72}            <answer>72</answer>

The last region counts even where it cannot be read: a good answer followed by a broken one is no answer. A number in
passing is none either. Numbers are integers, decimals or simple fractions, compared as fractions: 7.0 is 7, 0.5 is 1/2.
"""

import re
from fractions import Fraction

from rljax.errors import UserError

LONGEST = 300  # characters of an answer: a longer one is not a number that anybody asked for
BRACES = re.compile(r"\\boxed\{|\{|\}")
# No exponents: Fraction("1e999999999") would fill the memory. ASCII digits only.
NUMBER = re.compile(r"([+-]?\$?|\$[+-])([0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)?(\.[0-9]+)?\$?")
RATIO = re.compile(r"([+-]?[0-9]+)\s*/\s*([0-9]+)|([+-]?)\\[dt]?frac\{([+-]?[0-9]+)\}\{([0-9]+)\}")


def extract_answer(response: str) -> str | None:
    """The final answer in canonical form ("72", "-3", "1/2"), fit for a vote; None where none can be read."""
    region = final_region(conclusion(response))
    number = None if region is None else parse(region)
    return None if number is None else str(number)


def verify(response: str, answer: str) -> bool:
    """Is the final answer of ``response`` equal to ``answer``? Raises UserError where ``answer`` is not a number."""
    gold = parse(answer)
    if gold is None:
        raise UserError(
            f"answers: the right answer {answer[:80]!r} is not a number, so nothing can be checked against it"
        )
    region = final_region(conclusion(response))
    return region is not None and parse(region) == gold


def conclusion(response: str) -> str:
    """What was said after thinking; thoughts that never end conclude nothing."""
    return response.rpartition("</think>")[2].partition("<think>")[0]


def final_region(text: str) -> str | None:
    """The content of the region that starts last, so that the inner one of two nested regions counts."""
    found = [r for r in (last_hashes(text), last_boxed(text), last_tagged(text)) if r is not None]
    return max(found)[1] if found else None


def last_hashes(text: str) -> tuple[int, str] | None:
    """(start, content) of the last "#### x": the rest of its line, up to any tag or special token."""
    start = text.rfind("####")
    if start < 0:
        return None
    return start, re.split(r"[\n<]", text[start + 4 :], maxsplit=1)[0]


def last_boxed(text: str) -> tuple[int, str] | None:
    r"""(start, content) of the last \boxed{x} whose braces balance, in one pass."""
    opened, last, first = [], None, text.find("\\boxed{")
    for brace in BRACES.finditer(text, first) if first >= 0 else ():
        if brace.group() != "}":
            opened.append(brace)
        elif opened:
            box = opened.pop()
            if box.group() != "{" and (last is None or box.start() > last[0].start()):
                last = box, brace
    return None if last is None else (last[0].start(), text[last[0].end() : last[1].start()])


def last_tagged(text: str) -> tuple[int, str] | None:
    """(start, content) of the last <answer>x</answer>."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    return None if start < 0 else (start, text[start + len("<answer>") : end])


def parse(text: str) -> Fraction | None:
    """The number that a short text is; None where it is anything else."""
    text = text.strip()
    if len(text) > LONGEST:
        return None
    text = text.removesuffix(".").replace("\u2212", "-").replace("\\$", "$").strip()
    if number := NUMBER.fullmatch(text):
        sign, whole, decimals = number.groups(default="")
        return Fraction(sign.replace("$", "") + whole.replace(",", "") + decimals) if whole or decimals else None
    if ratio := RATIO.fullmatch(text.strip("$").strip()):
        plain_top, plain_bottom, sign, top, bottom = ratio.groups(default="")
        above, below = int(plain_top or top), int(plain_bottom or bottom)
        return None if below == 0 else Fraction(-above if sign == "-" else above, below)
    return None
