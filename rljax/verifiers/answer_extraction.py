r"""Finds the final answer in the text of a response. Plain Python, linear time on any text.

Only the text after ``</think>`` is read, where there is a thought. Three marks make a region of text the final answer:

    #### 72          \boxed{72}          <answer>72</answer>

The region that starts last counts, even if its content cannot be parsed: a correct answer that is followed by a broken
one is not an answer. If nothing is marked, the last line counts if it, or its last sentence, begins with a claim:

    # Answer         A: 72         So the answer is 72.         The final answer is $72$. I hope it is correct.
    72

A number that is only mentioned is not an answer. "I doubt that the answer is 72" is not an answer either.
"""

import re

MAX_CLAIM_LENGTH = 1000  # characters at the end of a text in which an unmarked claim is searched
BRACES = re.compile(r"\\f?boxed *\{|\\?\{|\\?\}")
LABELLED_LINE = re.compile(
    r"(?:^|\n)[ *]*(?:#{1,4} *(?:final )?answer:?[ *]*\n\s*(?P<below>[^\n]*)"
    r"|(?:#{1,4} )?(?:A|(?:final )?answer)[ *]*:[ *]*(?P<beside>[^\n]*))\s*\Z",
    re.IGNORECASE,
)
CLAIM_SENTENCE = re.compile(
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
HOPE_PHRASE = re.compile(r"\.? *I hope it is correct\.?[ *]*\Z")  # Minerva's prompt ends answers with it


def text_after_thinking(response: str) -> str:
    """The text after the last ``</think>``; without what a thought that never ends says."""
    return response.rpartition("</think>")[2].partition("<think>")[0]


def extract_final_region(text: str) -> str | None:
    """The content of the final answer in a text without thoughts; None if there is none.

    Of nested regions, the inner one counts.
    """
    return find_final_region(text)[1]


def answer_start(text: str) -> int:
    """The index at which the final answer begins, its mark included; the length of the text if there is none."""
    return find_final_region(text)[0]


def find_final_region(text: str) -> tuple[int, str | None]:
    """(start, content) of the marked region that starts last, or of a claim in the last line."""
    found = [r for r in (find_last_hashes(text), find_last_boxed(text), find_last_tagged(text)) if r is not None]
    return max(found) if found else find_last_line_claim(text) or (len(text), None)


def count_marked_answers(text: str) -> int:
    """The number of final answers that a text marks."""
    return text.count("####") + text.count("\\boxed") + text.count("</answer>")


def find_last_hashes(text: str) -> tuple[int, str] | None:
    """(start, content) of the last "#### x": the rest of its line, up to any tag. "#### Step" is only a heading."""
    end = len(text)
    while (start := text.rfind("####", 0, end)) >= 0:
        if "#" not in text[max(start - 1, 0) : start] + text[start + 4 : start + 5] and not HEADING.match(
            text, start + 4
        ):
            return start, cut_at_tag(text[start + 4 :].partition("\n")[0])
        end = start + 3
    return None


def find_last_boxed(text: str) -> tuple[int, str] | None:
    r"""(start, content) of the last \boxed{x} with balanced braces, in one pass; \{ and \} must balance as well."""
    opened, last, first = [], None, text.find("boxed")
    for brace in BRACES.finditer(text, max(first - 2, 0)) if first >= 0 else ():
        if brace.group().endswith("{"):
            opened.append(brace)
        elif opened:
            box = opened.pop()
            if "boxed" in box.group() and (last is None or box.start() > last[0].start()):
                last = box, brace
    return None if last is None else (last[0].start(), text[last[0].end() : last[1].start()])


def find_last_tagged(text: str) -> tuple[int, str] | None:
    """(start, content) of the last <answer>x</answer>."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    return None if start < 0 else (start, text[start + len("<answer>") : end])


def find_last_line_claim(text: str) -> tuple[int, str] | None:
    """(start, claim) of a last line "A: x" or "So the answer is x.", or of the line below a last heading "# Answer"."""
    skipped = max(len(text) - MAX_CLAIM_LENGTH, 0)
    tail = text[skipped:].rstrip()
    if found := LABELLED_LINE.search(tail) if ":" in tail or "#" in tail else None:
        space = len(found[0]) - len(found[0].lstrip())
        claim = cut_at_tag(found["below"] or found["beside"] or "")
        return skipped + found.start() + space, HOPE_PHRASE.sub("", claim)
    begin = tail.rfind("\n") + 1
    if found := CLAIM_SENTENCE.search(tail[begin:]) if "nswer" in tail[begin:] else None:
        before = len(found["before"] or "")
        return skipped + begin + before, HOPE_PHRASE.sub("", cut_at_tag(found["claim"]))
    return None


def cut_at_tag(line: str) -> str:
    """The part of a line before the first tag or special token."""
    return re.split(r"<(?=[/|A-Za-z])", line, maxsplit=1)[0]
