"""Attempts on the terminal: right ones green, wrong ones red."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from rljax.structs import Rollout
from rljax.tasks import response_text, responses
from rljax.text import StopStrings, Tokenizer

GREEN, RED, RESET = "\033[32m", "\033[31m", "\033[0m"
Verify = Callable[[str], bool | None]  # text of a finished response -> is it right? None: no verdict


def merge_equal_answers(answers: list[str]) -> list[str]:
    """The answers, with equal ones written like the first of them: ["1/2", "0.5", "7"] -> ["1/2", "1/2", "7"]."""
    merged: list[str] = []
    for answer in answers:
        merged.append(next((known for known in merged if responses.same_answer(known, answer)), answer))
    return merged


def print_attempts(
    tokenizer: Tokenizer, rollout: Rollout, verify: Verify | None, stops: StopStrings | None = None
) -> list[str]:
    """Print the prompt and each attempt at it, marked right or wrong where there is ``verify``. Returns their texts."""
    prompt: Any = np.asarray(rollout.prompt[0])
    print(tokenizer.decode(prompt[np.asarray(rollout.prompt_mask[0])]))
    use_colours, num_right, texts = sys.stdout.isatty() and verify is not None, 0, []
    columns = (np.asarray(x) for x in (rollout.response, rollout.mask, rollout.finished))
    for response, mask, finished in zip(*columns, strict=True):
        text = response_text(tokenizer, response[mask], finished, stops)
        right = None if verify is None else verify(text) if finished else False
        num_right += right is True
        mark = "?" if right is None else "✓" if right else "✗"
        start, end = (GREEN if right else RED, RESET) if use_colours and right is not None else ("", "")
        print(f"{start}{mark} {mask.sum():>4} tokens  {text}{end}")
        texts.append(text.removesuffix("<eos>"))
    verdict = f"{num_right} of {len(texts)} right, " if verify is not None else ""
    print(f"{verdict}{np.asarray(rollout.lengths).mean():.1f} tokens on average")
    return texts
