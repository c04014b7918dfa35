"""Fields of a request's JSON, each with its type and its range. What is wrong is said in one line that names the field."""

import json
from collections.abc import Mapping
from typing import Any

from rljax.errors import UserError

MAX_BODY = 1 << 20  # bytes of a request
MAX_TEXT = 100_000  # characters of a text in it
COLDEST = 1e-3  # a temperature

Fields = Mapping[str, Any]


class FieldError(UserError):
    """A field of a request is wrong. ``field`` is its name."""

    def __init__(self, field: str, said: str):
        super().__init__(f"{field}: {said}")
        self.field = field


def read_body(raw: bytes) -> dict[str, Any]:
    """The JSON object of a request. Raises FieldError for anything else."""
    try:
        found = json.loads(raw.decode("utf-8"), parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        raise FieldError("body", "must be a JSON object") from None
    if not isinstance(found, dict):
        raise FieldError("body", "must be a JSON object")
    return found


def refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def check_known(fields: Fields, known: frozenset[str]) -> None:
    """Raise FieldError for a field that nobody would read."""
    if unknown := sorted(fields.keys() - known):
        raise FieldError(unknown[0][:80], f"unknown field, choose from {', '.join(sorted(known))}")


def read_number(fields: Fields, name: str, default: float, low: float, high: float) -> float:
    """A number between ``low`` and ``high``."""
    value = fields.get(name)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise FieldError(name, f"must be a number, from {low:g} to {high:g}")
    if not low <= value <= high:
        raise FieldError(name, f"{shorten(value)} must be from {low:g} to {high:g}")
    return float(value)


def shorten(value: float) -> str:
    """A number as a person reads it, also a whole number of many digits, which no float holds."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."


def read_temperature(fields: Fields) -> float:
    """The temperature of sampling. One that is hardly above 0 means 0, the likeliest token: logits divided by it have no room."""
    value = read_number(fields, "temperature", 1.0, 0.0, 10.0)
    return value if value >= COLDEST else 0.0


def read_whole(fields: Fields, name: str, default: int, low: int, high: int) -> int:
    """A whole number between ``low`` and ``high``."""
    value = fields.get(name)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int):
        raise FieldError(name, f"must be a whole number, from {low} to {high}")
    if not low <= value <= high:
        raise FieldError(name, f"{shorten(value)} must be from {low} to {high}")
    return value


def read_flag(fields: Fields, name: str, default: bool = False) -> bool:
    """True or false."""
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise FieldError(name, "must be true or false")
    return value


def read_text(fields: Fields, name: str, default: str = "", longest: int = MAX_TEXT) -> str:
    """A text that is valid Unicode and not too long."""
    value = fields.get(name)
    value = default if value is None else value
    if not isinstance(value, str):
        raise FieldError(name, "must be a text")
    if len(value) > longest:
        raise FieldError(name, f"has {len(value)} characters, at most {longest}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise FieldError(name, "has half a character")
    return value


def read_texts(fields: Fields, name: str, most: int) -> tuple[str, ...]:
    """A text or a list of at most ``most`` texts, none of them empty; () for none."""
    value = fields.get(name)
    texts = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or len(texts) > most:
        raise FieldError(name, f"must be a text or a list of at most {most}")
    if not all(isinstance(text, str) and text for text in texts):
        raise FieldError(name, "must be a list of texts, none of them empty")
    return tuple(read_text({name: text}, name, longest=200) for text in texts)
