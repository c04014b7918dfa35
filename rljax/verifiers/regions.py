r"""Where a response says its final answer. Plain Python, linear time on any text.

The final answer stands after ``</think>`` where there is one, in the last region of one of these forms:

    #### 72          \boxed{72}          <answer>72</answer>          # Answer          A: 72
                                                                      72

The last two must be the last thing said: a heading with everything below it, or the last line. The region that starts
last counts even where it cannot be read: a good answer followed by a broken one is no answer. A number in passing is
none either.
"""

import re

BRACES = re.compile(r"\\f?boxed *\{|\\?\{|\\?\}")
LAST_LINE = re.compile(
    r"(?:^|\n)[ *]*(?:#{1,3} *(?:final )?answer:?[ *]*\n\s*(?P<below>[^\n]*)"
    r"|(?:A|(?:final )?answer) *:[ *]*(?P<beside>[^\n]*))\s*\Z",
    re.IGNORECASE,
)


def conclusion(response: str) -> str:
    """What was said after thinking; thoughts that never end conclude nothing."""
    return response.rpartition("</think>")[2].partition("<think>")[0]


def final_region(text: str) -> str | None:
    """The content of the region that starts last, so that the inner one of two nested regions counts."""
    found = [r for r in (last_hashes(text), last_boxed(text), last_tagged(text), last_line(text)) if r is not None]
    return max(found)[1] if found else None


def count(text: str) -> int:
    """How many final answers a text claims to have."""
    return text.count("####") + text.count("\\boxed") + text.count("</answer>")


def last_hashes(text: str) -> tuple[int, str] | None:
    """(start, content) of the last "#### x": the rest of its line, up to any tag. Five hashes are a heading."""
    end = len(text)
    while (start := text.rfind("####", 0, end)) >= 0:
        if "#" not in text[max(start - 1, 0) : start] + text[start + 4 : start + 5]:
            return start, until_tag(text[start + 4 :].partition("\n")[0])
        end = start + 3
    return None


def last_boxed(text: str) -> tuple[int, str] | None:
    r"""(start, content) of the last \boxed{x} whose braces balance, in one pass; \{ and \} count only as a pair."""
    opened, last, first = [], None, text.find("boxed")
    for brace in BRACES.finditer(text, max(first - 2, 0)) if first >= 0 else ():
        if brace.group().endswith("{"):
            opened.append(brace)
        elif opened:
            box = opened.pop()
            if "boxed" in box.group() and (last is None or box.start() > last[0].start()):
                last = box, brace
    return None if last is None else (last[0].start(), text[last[0].end() : last[1].start()])


def last_tagged(text: str) -> tuple[int, str] | None:
    """(start, content) of the last <answer>x</answer>."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    return None if start < 0 else (start, text[start + len("<answer>") : end])


def last_line(text: str) -> tuple[int, str] | None:
    """(start, content) of a last line "A: x" or "Answer: x", or of what stands below a last heading "# Answer"."""
    tail = text[-1000:]
    found = LAST_LINE.search(tail) if ":" in tail or "#" in tail else None
    if found is None:
        return None
    return len(text) - len(tail) + found.start(), until_tag(found["below"] or found["beside"] or "")


def until_tag(line: str) -> str:
    """A line up to the first tag or special token that begins in it."""
    return re.split(r"<(?=[/|A-Za-z])", line, maxsplit=1)[0]
