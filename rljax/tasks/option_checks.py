"""Options of a world: each value has the kind that its field declares. What sizes fit together is the world's own check."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rljax.errors import UserError
from rljax.options import NAMES, Declared, check

LARGEST = 999  # sizes of the small worlds: their problems are counted, and their numbers are words of a vocabulary


def check_kinds(cls: type, given: Mapping[str, Any]) -> None:
    """Raise UserError where a value is not of its field's kind, such as 2.5 for a whole number."""
    for field in dataclasses.fields(cls):
        if field.name in given and isinstance(field.type, type) and field.type in NAMES:
            check(Declared("", field.type), given[field.name], f"task.options.{field.name}")


def check_shares(name: str, options: Any) -> None:
    """Raise UserError where a number with a fraction, a share in every small world, is not between 0 and 1."""
    for field in dataclasses.fields(options):
        if field.type is float and not 0 <= (value := getattr(options, field.name)) <= 1:
            raise UserError(f"task {name}: {field.name}={value} must be between 0 and 1")
