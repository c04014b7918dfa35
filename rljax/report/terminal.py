"""Attempts in the terminal: right ones green, wrong ones red."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from rljax.structs import Rollout
from rljax.tasks import response_text, responses
from rljax.text import Tokenizer

GREEN, RED, PLAIN = "\033[32m", "\033[31m", "\033[0m"
Judge = Callable[[str], bool]


def merge_equal_answers(found: list[str]) -> list[str]:
    """Answers, equal ones under the name of the first."""
    names: list[str] = []
    return [next((n for n in names if responses.same_answer(n, a)), None) or names.append(a) or a for a in found]


def show_attempts(tokenizer: Tokenizer, rollout: Rollout, right: Judge | None) -> list[str]:
    """Print the prompt and each attempt, judged where it can be; returns their texts."""
    first: Any = np.asarray(rollout.prompt[0])
    print(tokenizer.decode(first[np.asarray(rollout.prompt_mask[0])]))
    colours, good, texts = sys.stdout.isatty(), 0, []
    columns = (np.asarray(x) for x in (rollout.response, rollout.mask, rollout.finished))
    for row, live, finished in zip(*columns, strict=True):
        text = response_text(tokenizer, row[live], finished)
        won = finished and right is not None and right(text)
        good += won
        mark = "?" if right is None else "✓" if won else "✗"
        on, off = (GREEN if won else RED, PLAIN) if colours and right is not None else ("", "")
        print(f"{on}{mark} {live.sum():>4} tokens  {text}{off}")
        texts.append(text.removesuffix("<eos>"))
    verdict = f"{good} of {len(texts)} right, " if right is not None else ""
    print(f"{verdict}{np.asarray(rollout.lengths).mean():.1f} tokens on average")
    return texts
