"""Finds the program in a response: the last fenced block after the thoughts, or the content of the answer tags."""

import re

from rljax.verifiers import answer_extraction

FENCE = re.compile(r"```[ \t]*([A-Za-z0-9_+-]*)[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)


def extract_program(response: str) -> str | None:
    """The source code; None if there is none."""
    said = answer_extraction.text_after_thinking(response)
    fenced = FENCE.findall(said)
    if fenced:
        return fenced[-1][1]
    tagged = answer_extraction.find_last_tagged(said)
    return tagged[1].strip() if tagged and tagged[1].strip() else None


def answer_start(text: str) -> int:
    """The index at which the last program of a text without thoughts begins, its fence or tag included.

    The length of the text if there is none.
    """
    fences = [m.start() for m in FENCE.finditer(text)]
    tagged = answer_extraction.find_last_tagged(text)
    return fences[-1] if fences else tagged[0] if tagged else len(text)


def count_programs(response: str) -> int:
    """The number of fenced programs after the thoughts of a response."""
    return len(FENCE.findall(answer_extraction.text_after_thinking(response)))


def complete_program(source: str, head: str) -> str:
    """A program joined to the code of its prompt: below the head of a function if it is only a body, else after it."""
    head = head.rstrip()
    if source[:1] in (" ", "\t") and head.endswith(('"""', "'''", ":")):
        return f"{head}\n{source}"
    return f"{head} pass\n\n{source}" if head.endswith(":") else f"{head}\n\n{source}" if head else source
