r"""Finds the final answer in the text of a response. Plain Python, linear time on any text.

Only the text after ``</think>`` is read, where there is a thought. Three marks make a region of text the final answer:

    #### 72          \boxed{72}          <answer>72</answer>

The region that starts last counts, even if its content cannot be parsed: a correct answer that is followed by a broken
one is not an answer. If nothing is marked, the last line counts if it, or its last sentence, begins with a claim:

    # Answer         A: 72         So the answer is 72.         The final answer is $72$. I hope it is correct.
    72

    - **Final Answer:** 72         ✅ Answer: **72**         **Final Answer**
                                                             72

    The answer is:           Final Answer: `72`
    ```
    72
    ```

Boxes are read as TeX reads them: ``\boxed{72}``, ``\boxed {72}``, ``\boxed 7`` (one token without braces), ``\fbox{72}``,
``\framebox[2cm]{72}``, ``\fcolorbox{red}{white}{72}``, ``\Aboxed{72}``, ``\bbox[5px]{72}`` and those of fancybox. For
``\boxed 72`` TeX draws a box around the 7 alone, so the answer is broken. Boxes that only commas, semicolons, "and" or
"or" separate are one list: ``\boxed{3}, \boxed{5} and \boxed{7}`` says "3, 5, 7" and not 7. With other words between
them, the last box counts.

A number that is only mentioned is not an answer. "I doubt that the answer is 72" is not an answer either.
"""

import re

MAX_CLAIM_LENGTH = 1000  # characters at the end of a text in which an unmarked claim is searched
GAP = r"(?:\s|%[^\n]{0,80}\n){0,20}"  # what TeX skips before an argument
BOX_COMMAND = r"\\(?:boxed|fbox|framebox|Aboxed|bbox|shadowbox|doublebox|[oO]valbox)(?![A-Za-z])"
BOX_OPENING = (
    rf"{BOX_COMMAND}{GAP}(?:\[[^\[\]{{}}]{{0,40}}\]{GAP}){{0,2}}\{{"
    rf"|\\fcolorbox{GAP}(?:\{{[^{{}}]{{0,40}}\}}{GAP}){{2}}\{{"
)
BRACES = re.compile(
    rf"(?P<box>{BOX_OPENING})"
    rf"|{BOX_COMMAND}{GAP}(?P<token>[0-9A-Za-z](?![A-Za-z])|[-+.](?=[0-9])|\\[A-Za-z]+)(?P<more>[0-9A-Za-z^_{{(]|[.,][0-9])?"
    r"|(?P<open>\\?\{)|\\?\}"
)
BOX_MARK = re.compile(rf"{BOX_COMMAND}|\\fcolorbox(?![A-Za-z])")
BETWEEN_BOXES = re.compile(
    r"(?:[\s$&,;]|\\[,;:! ()\[\]]|\\q?quad|(?:\\(?:text|textrm|mathrm)\s*\{)?\s*,?\s*\b(?P<word>and|or)\b\s*\}?)*"
)
GROUP = re.compile(r"\A\s*\{([^{},\\]*)\}\s*\Z")  # \boxed{{5}}
MAX_BETWEEN_BOXES = 40  # characters
# Signs before a label and after a claim. Signs that doubt or deny are not among them: "❌ Answer: 72"
SYMBOL = (
    r"(?:(?![\u2715-\u2718\u274c\u274e\u2753-\u2755\u26a0\u26d4\U0001f6ab\U0001f44e\U0001f914])"
    r"[\u2022\u2190-\u21ff\u2234\u25a0-\u2bff\ufe0f\u200d\U0001f300-\U0001faff])"
)
SYMBOLS = re.compile(rf"\A(?: |{SYMBOL})+")
APPROVAL = " \u2705\u2713\u2714\u2611\ufe0f\U0001f389\U0001f3af\U0001f3c1\u2b50\U0001f31f\U0001f44d\U0001f3c6"
DRESSING = rf"(?:[ \t*_>\u00b7+`-]|{SYMBOL}|[0-9]{{1,2}}[.)] ){{0,12}}"  # bullets, quotes, bold, emoji
LINE_START = re.compile(rf"\A{DRESSING}")
LABEL = rf"{DRESSING}(?P<hashes>#{{1,6}} *)?{DRESSING}(?P<label>A|(?:the )?(?:final )?answer)"
LABEL_BESIDE = re.compile(rf"{LABEL}[ *_]*:[ *_]*(?P<beside>[^\n]*)", re.IGNORECASE)
LABEL_ABOVE = re.compile(
    rf"{DRESSING}(?:#{{1,6}}{DRESSING}(?:final )?answer|\*\*{DRESSING}(?:final )?answer(?=[ :]*\*\*)"
    rf"|(?:final )?answer(?=[ *_]*:))[ :*_]*(?:{SYMBOL})*",
    re.IGNORECASE,
)
CLAIM_SENTENCE = re.compile(
    r"\A(?P<before>.*[.:!?,;*] *)?"
    r"(?:(?:so|thus|therefore|hence|finally|then|consequently|and|we conclude|we get|which means)\b,? *){0,3}(?:that )?"
    r"(?:the|our|my) (?:final |correct )?answer (?:to (?:the|this) (?:problem|question) )?is\b[ *]*:?(?P<claim>.*)\Z",
    re.IGNORECASE,
)
HEADING = re.compile(
    rf"(?:[ *]|{SYMBOL})*(?:(?:step|part|case|solution|conclusion|summary|explanation|verification|calculation)s?\b"
    r"|(?:final )?answer[:* ]*(?:\n|\Z))",
    re.IGNORECASE,
)
FENCE = re.compile(r"[ \t>]*(`{3,}|~{3,})[ \t]*")  # the line that ends a block of code, also in a list or a quote
LINE_QUOTE = re.compile(r"^[ \t>]+", re.MULTILINE)
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
    return text.count("####") + text.count("</answer>") + sum(1 for _ in BOX_MARK.finditer(text))


def find_last_hashes(text: str) -> tuple[int, str] | None:
    """(start, content) of the last "#### x": the rest of its line, up to any tag. "#### Step" is only a heading."""
    end = len(text)
    while (start := text.rfind("####", 0, end)) >= 0:
        if "#" not in text[max(start - 1, 0) : start] + text[start + 4 : start + 5] and not HEADING.match(
            text, start + 4
        ):
            line = cut_at_tag(text[start + 4 :].partition("\n")[0])
            return start, SYMBOLS.sub("", line)
        end = start + 3
    return None


def find_last_boxed(text: str) -> tuple[int, str] | None:
    r"""(start, content) of the last box, or of the list of boxes that ends with it; \{ and \} must balance as well."""
    opened, boxes, first = [], [], text.find("box")
    for brace in BRACES.finditer(text, max(first - len("\\fcolor"), 0)) if first >= 0 else ():
        if brace["box"] or brace["open"]:
            opened.append(brace)
        elif token := brace["token"]:
            broken = brace["more"] or token in "-+."
            boxes.append((brace.start(), brace.end("token"), brace.start("token") + len(token) * bool(broken)))
        elif opened:
            box = opened.pop()
            if box["box"]:
                boxes.append((box.start(), brace.end(), box.end()))
    return join_boxes(text, boxes) if boxes else None


def join_boxes(text: str, boxes: list[tuple[int, int, int]]) -> tuple[int, str]:
    """(start, content) of the box that starts last, with those before it in the same list.

    A box is (start, end, start of its content).
    """
    content_of = lambda inside, end: text[inside : end - (text[end - 1] == "}")].strip()
    boxes = sorted(boxes)
    start, end, inside = boxes.pop()
    content = last = content_of(inside, end)
    while boxes:
        before, end, inside = boxes.pop()
        gap = text[end:start] if end <= start <= end + MAX_BETWEEN_BOXES else ""
        found = BETWEEN_BOXES.fullmatch(gap)
        if not found or not (found["word"] or "," in gap or ";" in gap):
            break
        start, item = before, content_of(inside, end)
        if (item, content) != (last, last):  # the same answer twice is one answer
            content = f"{item} or {content}" if found["word"] == "or" else f"{item}, {content}"
    return start, GROUP.sub(r"\1", content)


def find_last_tagged(text: str) -> tuple[int, str] | None:
    """(start, content) of the last <answer>x</answer>."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    return None if start < 0 else (start, text[start + len("<answer>") : end])


def find_last_line_claim(text: str) -> tuple[int, str] | None:
    """(start, claim) of a last line "A: x" or "So the answer is x.", or of what stands below a last line "# Answer"."""
    skipped = max(len(text) - MAX_CLAIM_LENGTH, 0)
    tail = text[skipped:].rstrip()
    found = find_claim_at_end(tail)
    inside, _, last = tail.rpartition("\n")
    if not found and FENCE.fullmatch(cut_at_tag(last)):  # the claim itself stands in the block
        found = find_claim_at_end(inside.rstrip())
    return found and (skipped + found[0], found[1])


def find_claim_at_end(tail: str) -> tuple[int, str] | None:
    """(start, claim) of the claim that ends a text."""
    begin = tail.rfind("\n") + 1
    if found := LABEL_BESIDE.fullmatch(tail, begin):
        return begin + count_leading_spaces(found[0]), clean_claim(found["beside"])
    if above := find_claim_above(*take_last_value(tail)):
        return above
    sentence = match_sentence(tail)
    return sentence and (sentence[0], clean_claim(sentence[1]))


def find_claim_above(value: str, above: str) -> tuple[int, str] | None:
    """(start, value) where the last line above a value is "# Answer", "**Answer:**" or "So the answer is:"."""
    begin = above.rfind("\n") + 1
    if "nswer" not in above[begin:].lower():
        return None
    if found := LABEL_ABOVE.fullmatch(above, begin):
        return begin + count_leading_spaces(found[0]), clean_claim(value.lstrip("> "))
    if (found := match_sentence(above)) and ":" in above[found[0] :] and not found[1].strip(" *_"):
        return found[0], clean_claim(value.lstrip("> "))
    return None


def match_sentence(text: str) -> tuple[int, str] | None:
    """(start, claim) of "So the answer is x." at the end of a text."""
    begin = text.rfind("\n") + 1
    begin = len(text) - len(LINE_START.sub("", text[begin:]))
    found = CLAIM_SENTENCE.search(text[begin:]) if "nswer" in text[begin:] else None
    return found and (begin + len(found["before"] or ""), found["claim"])


def take_last_value(tail: str) -> tuple[str, str]:
    """(value, text above it): the last line, or what stands in the last lines between $$ and $$ or between fences of code."""
    above, _, value = tail.rpartition("\n")
    last = cut_at_tag(value).strip()
    if fence := FENCE.fullmatch(last):
        opening = re.compile(rf"^[ \t>]*{fence[1]}[^\n`]*$", re.MULTILINE)
        if found := max(opening.finditer(above), key=re.Match.start, default=None):
            return LINE_QUOTE.sub("", above[found.end() :]).strip(), above[: found.start()].rstrip(" \t\r\n>")
    if opening := {"$$": "$$", "\\]": "\\["}.get(last):
        above, _, value = above.rpartition(opening)
    return value, above.rstrip()


def count_leading_spaces(line: str) -> int:
    return len(line) - len(line.lstrip())


def clean_claim(claim: str) -> str:
    """A claim without tags, without signs of approval after it, and without the hope that it is correct."""
    return HOPE_PHRASE.sub("", cut_at_tag(claim).rstrip(APPROVAL))


def cut_at_tag(line: str) -> str:
    """The part of a line before the first tag or special token."""
    return re.split(r"<(?=[/|A-Za-z])", line, maxsplit=1)[0]
