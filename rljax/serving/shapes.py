"""Few shapes, so that few programs are compiled: rows, prompts and responses are padded to powers of two."""

from typing import NamedTuple

from rljax.errors import UserError

SMALLEST = 16  # columns of a prompt or of responses
STATES = 8  # of the automaton of stop strings


class Shape(NamedTuple):
    """The shape of a program that samples."""

    rows: int  # attempts
    prompt: int  # columns
    response: int  # columns


def choose_shape(rows: int, prompt: int, response: int, window: int) -> Shape:
    """The shape for so many attempts, prompt tokens and response tokens in a model's window.

    Raises UserError where they do not fit.
    """
    check_window(prompt, response, window)
    room, prompt_columns = window - response, power_of_two(prompt, SMALLEST)
    if prompt_columns > room:  # of what fits, few sizes too
        prompt_columns = max(prompt, room - room % SMALLEST)
    return Shape(power_of_two(rows), prompt_columns, min(power_of_two(response, SMALLEST), window - prompt_columns))


def check_window(prompt: int, response: int, window: int) -> None:
    """Raise UserError where a prompt and a response do not fit in the window."""
    if prompt + response > window:
        raise UserError(
            f"a prompt of {prompt} tokens and a response of {response} are {prompt + response} tokens, and the policy's "
            f"window has {window}: ask for fewer"
        )


def power_of_two(n: int, smallest: int = 1) -> int:
    """The smallest power of two that is at least ``n`` and ``smallest``."""
    return max(smallest, 1 << max(n - 1, 0).bit_length())
