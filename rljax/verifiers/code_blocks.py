"""Finds the program in a response: the last fenced block after the thoughts, or the content of the answer tags."""

import re

from rljax.verifiers import answer_extraction

OPENING = re.compile(r"(?<!`)(`{3,}+)[ \t]*+[A-Za-z0-9_+-]*+[ \t]*+\r?\n")
# What can stand before a closing fence: comments, strings in one line, and the quotes that open a longer string
CODE_TOKEN = re.compile(
    r"""(?P<long>\'\'\'|\"\"\")|\#[^\n]*|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|(?P<fence>`{3,})""", re.DOTALL
)
LONG_STRING_END = {q: re.compile(rf"(?:\\.|[^\\])*?{q}", re.DOTALL) for q in ("'" * 3, '"' * 3)}
FENCE = re.compile("`{3,}")
MAX_SCANNED = 1_000_000  # characters of a response that are read again because a string was never closed


def find_blocks(text: str) -> list[tuple[int, str]]:
    """(start, source code) of each fenced block. A fence within a string or a comment of the program does not end it."""
    blocks, place, budget = [], 0, MAX_SCANNED
    while opening := OPENING.search(text, place):
        close = find_closing_fence(text, opening) if budget > 0 else None
        if close is None:  # a string that is never closed: the next fence counts
            budget -= len(text) - opening.end()
            close = next((f for f in FENCE.finditer(text, opening.end()) if len(f[0]) >= len(opening[1])), None)
        if close is None:
            break
        body = text[opening.end() : close.start()].rstrip(" \t")
        blocks.append((opening.start(), body.removesuffix("\n")))
        place = close.end()
    return blocks


def find_closing_fence(text: str, opening: re.Match[str]) -> re.Match[str] | None:
    """The first fence after ``opening`` that is outside of the strings and comments of the code; None without one."""
    place = opening.end()
    while token := CODE_TOKEN.search(text, place):
        place = token.end()
        if token["fence"] and len(token["fence"]) >= len(opening[1]):
            return token
        if quotes := token["long"]:
            end = LONG_STRING_END[quotes].match(text, place)
            if end is None:
                return None
            place = end.end()
    return None


def extract_program(response: str) -> str | None:
    """The source code; None if there is none."""
    said = answer_extraction.text_after_thinking(response)
    if blocks := find_blocks(said):
        return blocks[-1][1]
    tagged = answer_extraction.find_last_tagged(said)
    return tagged[1].strip() if tagged and tagged[1].strip() else None


def answer_start(text: str) -> int:
    """The index at which the last program of a text without thoughts begins, its fence or tag included.

    The length of the text if there is none.
    """
    blocks = find_blocks(text)
    tagged = answer_extraction.find_last_tagged(text)
    return blocks[-1][0] if blocks else tagged[0] if tagged else len(text)


def count_programs(response: str) -> int:
    """The number of fenced programs after the thoughts of a response."""
    return len(find_blocks(answer_extraction.text_after_thinking(response)))


def complete_program(source: str, head: str) -> str:
    """A program joined to the code of its prompt: below the head of a function if it is only a body, else after it."""
    head = head.rstrip()
    if source[:1] in (" ", "\t") and head.endswith(('"""', "'''", ":")):
        return f"{head}\n{source}"
    return f"{head} pass\n\n{source}" if head.endswith(":") else f"{head}\n\n{source}" if head else source
