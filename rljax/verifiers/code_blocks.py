"""The program that a response ends in: the last fenced block of code after its thoughts, or what its answer tags hold."""

import re

from rljax.verifiers import answer_regions

FENCE = re.compile(r"```[ \t]*([A-Za-z0-9_+-]*)[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)


def program(response: str) -> str | None:
    """The source; None where there is none."""
    said = answer_regions.conclusion(response)
    fenced = FENCE.findall(said)
    if fenced:
        return fenced[-1][1]
    tagged = answer_regions.last_tagged(said)
    return tagged[1].strip() if tagged and tagged[1].strip() else None


def start(text: str) -> int:
    """Where the last program of a text without thoughts begins, its fence or tag included; the length: there is none."""
    fences = [m.start() for m in FENCE.finditer(text)]
    tagged = answer_regions.last_tagged(text)
    return fences[-1] if fences else tagged[0] if tagged else len(text)


def count(response: str) -> int:
    """How many programs a response offers."""
    return len(FENCE.findall(answer_regions.conclusion(response)))


def complete(source: str, head: str) -> str:
    """A program behind what it was given: below the head of a function where it is a body alone, else after it."""
    head = head.rstrip()
    if source[:1] in (" ", "\t") and head.endswith(('"""', "'''", ":")):
        return f"{head}\n{source}"
    return f"{head} pass\n\n{source}" if head.endswith(":") else f"{head}\n\n{source}" if head else source
