r"""Where a response says its final answer. Plain Python, linear time on any text.

The final answer stands after ``</think>`` where there is one, in the last region that is marked as one:

    #### 72          \boxed{72}          <answer>72</answer>

The region that starts last counts even where it cannot be read: a good answer followed by a broken one is no answer.
Where nothing is marked, the last line counts if it is a claim from its beginning, or from that of its last sentence:

    # Answer         A: 72         So the answer is 72.         The final answer is $72$. I hope it is correct.
    72

A number in passing is no answer, neither is "I doubt that the answer is 72".
"""

import re

LONGEST_LINE = 1000
BRACES = re.compile(r"\\f?boxed *\{|\\?\{|\\?\}")
LAST_LINE = re.compile(
    r"(?:^|\n)[ *]*(?:#{1,4} *(?:final )?answer:?[ *]*\n\s*(?P<below>[^\n]*)"
    r"|(?:#{1,4} )?(?:A|(?:final )?answer)[ *]*:[ *]*(?P<beside>[^\n]*))\s*\Z",
    re.IGNORECASE,
)
SENTENCE = re.compile(
    r"\A(?P<before>.*[.:!?,;*] *)?"
    r"(?:(?:so|thus|therefore|hence|finally|then|consequently|and|we conclude|we get|which means)\b,? *){0,3}(?:that )?"
    r"(?:the|our|my) (?:final |correct )?answer (?:to (?:the|this) (?:problem|question) )?is\b[ *]*:?(?P<claim>.*)\Z",
    re.IGNORECASE,
)
HEADING = re.compile(
    r"[ *]*(?:(?:step|part|case|solution|conclusion|summary|explanation|verification|calculation)s?\b"
    r"|(?:final )?answer[:* ]*(?:\n|\Z))",
    re.IGNORECASE,
)
HOPE = re.compile(r"\.? *I hope it is correct\.?[ *]*\Z")


def conclusion(response: str) -> str:
    """What was said after thinking; thoughts that never end conclude nothing."""
    return response.rpartition("</think>")[2].partition("<think>")[0]


def final_region(text: str) -> str | None:
    """The content of the marked region that starts last, so that the inner one of two counts; or of the last line."""
    return final(text)[1]


def start(text: str) -> int:
    """Where that region begins in a text without thoughts, its mark included; the length of the text: there is none."""
    return final(text)[0]


def final(text: str) -> tuple[int, str | None]:
    found = [r for r in (last_hashes(text), last_boxed(text), last_tagged(text)) if r is not None]
    return max(found) if found else last_line(text) or (len(text), None)


def count(text: str) -> int:
    """How many final answers a text claims to have."""
    return text.count("####") + text.count("\\boxed") + text.count("</answer>")


def last_hashes(text: str) -> tuple[int, str] | None:
    """(start, content) of the last "#### x": its line, up to any tag. "##### x" and "#### Step" are headings."""
    end = len(text)
    while (start := text.rfind("####", 0, end)) >= 0:
        if "#" not in text[max(start - 1, 0) : start] + text[start + 4 : start + 5] and not HEADING.match(
            text, start + 4
        ):
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
    """(start, claim) of a last line "A: x" or "So the answer is x.", or what stands below a last heading "# Answer"."""
    skipped = max(len(text) - LONGEST_LINE, 0)
    tail = text[skipped:].rstrip()
    if found := LAST_LINE.search(tail) if ":" in tail or "#" in tail else None:
        space = len(found[0]) - len(found[0].lstrip())
        return skipped + found.start() + space, HOPE.sub("", until_tag(found["below"] or found["beside"] or ""))
    begin = tail.rfind("\n") + 1
    if found := SENTENCE.search(tail[begin:]) if "nswer" in tail[begin:] else None:
        before = len(found["before"] or "")
        return skipped + begin + before, HOPE.sub("", until_tag(found["claim"]))
    return None


def until_tag(line: str) -> str:
    """A line up to the first tag or special token that begins in it."""
    return re.split(r"<(?=[/|A-Za-z])", line, maxsplit=1)[0]
