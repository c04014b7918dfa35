"""The program that a response ends in: the last fenced block of code after its thoughts, or what its answer tags hold."""

import re

from rljax.verifiers import regions

FENCE = re.compile(r"```[ \t]*([A-Za-z0-9_+-]*)[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)


def program(response: str) -> str | None:
    """The source; None where there is none."""
    said = regions.conclusion(response)
    fenced = FENCE.findall(said)
    if fenced:
        return fenced[-1][1]
    tagged = regions.last_tagged(said)
    return tagged[1].strip() if tagged and tagged[1].strip() else None


def count(response: str) -> int:
    """How many programs a response offers."""
    return len(FENCE.findall(regions.conclusion(response)))


def complete(source: str, head: str) -> str:
    """A program for a function whose ``head`` was given: a body alone is put below it."""
    body_alone = source[:1] in (" ", "\t") and head.rstrip().endswith(('"""', "'''", ":"))
    return f"{head.rstrip()}\n{source}" if body_alone else f"{head}\n    pass\n\n{source}" if head else source
