"""Answers that a scorer of reasoning-gym must not reward: constants, hostile texts, and right answers with changes."""

import contextlib
import json
import random
import re
from collections.abc import Iterator
from typing import Any

MARK = "zqx918273"  # nothing that is compiled by chance contains this

CONSTANTS = (
    "zzz",
    "0",
    "1",
    "-1",
    "2",
    "yes",
    "no",
    "Yes",
    "True",
    "False",
    "None",
    "A",
    "[]",
    "{}",
    "[[]]",
    '""',
    "null",
    "()",
)
HOSTILE = (
    "",
    " ",
    "nan",
    "-nan",
    "inf",
    "-inf",
    "nanj",
    "nan+nanj",
    "0/0",
    "1/0",
    "1e999",
    "1e9999999",
    "9" * 2_000,
    "9**9**9",
    '{"a": 1}',
    "[[1, 2], [3]]",
    '["a", "b"]',
    '[["a"], 1, null]',
    "[" * 1_900,
    "\u0663\U0001d7d9",
    "a\x00b",
    "z" * 10_000,
    "1 " * 5_000,
    "9" * 10_000,
    MARK,
    f"[{MARK}]",
    f"{MARK} + 1",
    f"'{MARK}'",
    f"['{MARK}', 1]",
    f"({MARK[3:]} + 1) * 2",
    f"{MARK[3:]}",
)
JOINTS = (" or ", ", ", "\n", " ", " and ", "/")
OTHERS = 20  # answers of other problems that are tried on each problem


def make_probes(item: dict[str, Any], answers: list[str], rng: random.Random) -> list[tuple[str, str]]:
    """(kind, answer) of everything that is tried on a problem; ``answers`` are the right ones of all problems."""
    right = item["answer"]
    others = [a for a in answers if normalize_answer(a) != normalize_answer(right)]
    other = rng.sample(others or ["?"], 1)[0]
    probes = [("other", a) for a in rng.sample(answers, min(OTHERS, len(answers)))]
    probes += [("constant", c) for c in CONSTANTS] + [("hostile", h) for h in HOSTILE]
    probes += [("question", item["question"]), ("question", item["question"].strip().splitlines()[-1])]
    probes += [("hedged", f"{right}{j}{other}") for j in JOINTS] + [("hedged", f"{other}{j}{right}") for j in JOINTS]
    probes += [("hedged", j.join([right, *dict.fromkeys(answers)])) for j in JOINTS]
    return probes + [("grown", x) for x in grow_lists(right)] + [("near", x) for x in mutate_answer(right, rng)]


def normalize_answer(answer: str) -> object:
    """A value that is equal for two spellings of one answer."""
    try:
        return float(answer.replace(",", ""))
    except ValueError:
        return re.sub(r"\W", "", answer.casefold()) or answer


def mutate_answer(answer: str, rng: random.Random) -> list[str]:
    """Answers that differ in one place: another digit, another letter, a word less, two words swapped."""
    out = []
    for pattern, alphabet in ((r"[0-9]", "0123456789"), (r"[a-zA-Z]", "abcdefghijklmnopqrstuvwxyz")):
        places = [m.start() for m in re.finditer(pattern, answer)]
        for at in rng.sample(places, min(3, len(places))):
            letter = rng.choice([c for c in alphabet if c != answer[at].lower()])
            out.append(answer[:at] + letter + answer[at + 1 :])
    words = answer.split()
    if len(words) > 1:
        out += [" ".join(words[:-1]), " ".join(words[1:]), " ".join([words[-1], *words[1:-1], words[0]])]
    return out


def grow_lists(answer: str) -> Iterator[str]:
    """An answer that is a JSON list, with more elements."""
    with contextlib.suppress(ValueError):
        held = json.loads(answer)
        if isinstance(held, list) and held:
            yield json.dumps([*held, MARK])
            yield json.dumps([*held, held[0]])
            if isinstance(held[0], list):
                yield json.dumps([[*row, MARK] for row in held])
