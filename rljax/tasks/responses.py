"""What a response to a question did: its strategy, its final answer, and the calculations that it wrote."""

import math
import re

from rljax.tasks.task import Attempt, Record
from rljax.verifiers import answer_extraction, answers, code_blocks

# Numbers joined by operations, and their claimed result. Atomic groups (?>...) never try a shorter match: a long hostile
# text takes linear time, and "2+3+4=9" is not read as "3+4=9". A result must end there: not in "2*3 = 3+3" or "1 1/2".
VALUE = r"\$?(?>[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?|\.[0-9]+)"
RUN = re.compile(
    rf"((?>-?{VALUE}(?: ?[-+*/x×÷] ?{VALUE})*))(?: ?= ?({VALUE})(?! ?[-+*/x×÷%] ?[.$0-9(]| ?[0-9]|[%A-Za-z]))?"
)
PARTS = re.compile(r"(-?\$?[0-9.][0-9,.]*) ?([-+*/x×÷]) ?(\$?[0-9.][0-9,.]*)")
ENDS = {*"0123456789)%+*/x×÷-"}  # characters before a match that is the end of a longer expression
GOES_BACK = re.compile(r"\b(?:wait|let me (?:check|try)|try again|that's not right|mistake)\b", re.IGNORECASE)


def describe(response: str, record: Record) -> Attempt:
    """The attempt; its strategy is "jump" (only an answer), "retry" (it goes back) or "steps" (anything else)."""
    said = record["prefill"] + response.removesuffix("<eos>")
    reasoning = reasoning_text(said, record["kind"])
    strategy = "retry" if GOES_BACK.search(reasoning) else "steps" if re.search(r"\w", reasoning) else "jump"
    return Attempt(strategy, extract_final_answer(said, record["kind"]), tuple(check_calculations(reasoning)))


def extract_final_answer(said: str, kind: str) -> str | None:
    """The final answer of a text to a question of this kind; None where there is none."""
    if kind == "math":
        return answers.extract_answer(said)
    region = (
        code_blocks.extract_program(said)
        if kind == "code"
        else answer_extraction.extract_final_region(answer_extraction.text_after_thinking(said))
    )
    return region.strip() or None if region else None


def reasoning_text(said: str, kind: str) -> str:
    """The text before the final answer, without tags; the whole text where there is no answer."""
    conclusion = answer_extraction.text_after_thinking(said)
    start = find_answer_start(conclusion, kind)
    begin = len(said) - len(said.rpartition("</think>")[2])
    end = begin + start if start < len(conclusion) else len(said)
    return re.sub(r"</?(?:think|answer)>", " ", said[:end])


def find_answer_start(text: str, kind: str) -> int:
    """Where the final answer begins in a text without thoughts, whatever marks it; the length of the text without one."""
    return (code_blocks if kind == "code" else answer_extraction).answer_start(text)


def answer_start(response: str, record: Record) -> int:
    """Where the final answer of a response begins, in characters: after </think>, or at the mark of the answer."""
    said = record["prefill"] + response.removesuffix("<eos>")
    end = said.rfind("</think>")
    if end >= 0:
        start = end + len("</think>")
    elif "<think>" in said:  # reasoning that never ends has no answer
        start = len(said)
    else:
        start = find_answer_start(said, record["kind"])
    return max(start - len(record["prefill"]), 0)


def same_answer(first: str, second: str) -> bool:
    """Whether two final answers count as one in a majority vote."""
    return first == second or answers.equivalent(first, second)


def check_calculations(text: str) -> list[bool]:
    """For each "a op b = c" in a text, whether it is right. c may be rounded to the decimals that it shows."""
    out = []
    for run in RUN.finditer(text):
        before = text[max(run.start() - 2, 0) : run.start()].rstrip()[-1:]
        pair = PARTS.fullmatch(run[1])
        if run[2] is None or pair is None or before in ENDS:
            continue
        a, b, c = (float(x.replace("$", "").replace(",", "")) for x in (pair[1], pair[3], run[2]))
        decimals = len(run[2].partition(".")[2])
        match pair[2]:
            case "+":
                exact = a + b
            case "-":
                exact = a - b
            case "*" | "x" | "×":
                exact = a * b
            case _:
                exact = a / b if b else math.nan
        slack = 0.5001 * 10.0**-decimals if decimals else 1e-9 * max(1.0, abs(c))
        out.append(abs(exact - c) <= slack < math.inf)
    return out
