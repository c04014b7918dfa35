"""Files of JSON lines: one JSON value on each line. Every reader and writer of such files in rljax is here.

A line ends at "\\n" and nowhere else. ``str.splitlines`` would also end it at U+2028, U+2029 or U+0085, which a string in JSON
may hold as they are.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rljax.errors import UserError

HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # how JSON spells a character beyond U+FFFF, by two of these


class Line(NamedTuple):
    """One line of a file: its number from 1, its value, and its bytes as they are in the file, with the line's end."""

    number: int
    value: Any
    raw: bytes


def read_json_lines(path: str | Path, what: str = "") -> list[Any]:
    """The values of all lines of a file. Lines of white space are passed over.

    A last line without "\\n" at its end that is not JSON is left out: whoever wrote it was killed while writing. ``what``
    is said before the path in errors. Raises UserError, with the file and the line, for any other line that is no JSON.
    """
    return [value for _, value in number_json_lines(path, what)]


def number_json_lines(path: str | Path, what: str = "") -> Iterator[tuple[int, Any]]:
    """(number of the line from 1, value) of each line, as ``read_json_lines`` reads them."""
    for line in read_raw_lines(path, what):
        yield line.number, line.value


def read_raw_lines(path: str | Path, what: str = "", blank: bool = True) -> Iterator[Line]:
    """The lines of a file with their bytes, as ``read_json_lines`` reads them. ``blank`` False: a blank line is damage too.

    Joined, the bytes are those of the file without its torn last line. A whole last line gets the end that it lacks.
    """
    path = Path(path).expanduser()
    try:
        *lines, last = path.read_bytes().split(b"\n")
    except OSError as e:
        raise UserError(f"{what}cannot read {path}: {e.strerror or e}") from None
    for number, line in enumerate([*lines, last], 1):
        is_last = number > len(lines)
        if not line.strip() and (blank or is_last):
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as e:  # UnicodeDecodeError is a ValueError
            if is_last:
                return
            raise UserError(damaged_line(path, number, f"it is not JSON ({str(e)[:100]})", what)) from None
        if HALF.search(line) and not is_storable(value):
            raise UserError(
                damaged_line(path, number, "a text in it has half of a character (\\ud800 to \\udfff)", what)
            )
        yield Line(number, value, line + b"\n")


def is_storable(value: Any) -> bool:
    """Whether UTF-8 can hold the texts of a JSON value: not where one has a surrogate without its other half."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def damaged_line(path: str | Path, number: int, reason: str, what: str = "") -> str:
    """The message about a line that is not what it should be."""
    return f"{what}line {number} of {path} is damaged: {reason}. Bring back the file, or remove this line"


def format_json_lines(values: Iterable[Any]) -> str:
    """The text of a file with these values. Characters are written as they are; NaN and infinity become null."""
    return "".join(f"{format_json(value)}\n" for value in values)


def format_json(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    """One JSON value. NaN and infinity, which JSON does not have, become null."""
    return json.dumps(replace_non_finite(value), ensure_ascii=ensure_ascii, indent=indent, allow_nan=False)


def shorten_float(x: float, digits: int = 6) -> float:
    """x with so many significant digits, which keep a small number what it is: -4e-6 nats are not 0."""
    return float(f"{float(x):.{digits}g}")


def replace_non_finite(value: Any) -> Any:
    """A JSON value with None for each float that is not finite."""
    if isinstance(value, dict):
        return {key: replace_non_finite(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [replace_non_finite(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
