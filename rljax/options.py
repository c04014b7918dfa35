"""How a setting is declared: its default, its help text and its range stand in the dataclass of the room that uses it.

@dataclasses.dataclass(frozen=True)
class Sampling:
    top_p: float = option(1.0, "nucleus sampling: keep the likeliest tokens of this total mass", above=0, high=1)

defaults(Sampling)                        ->  {"top_p": 1.0}
build(Sampling, {"top_p": 0.9}, "rl.")    ->  Sampling(top_p=0.9)
build(Sampling, {"top_p": 1.5}, "rl.")    ->  UserError: rl.top_p=1.5: must be above 0 and at most 1
"""

import dataclasses
import hashlib
import importlib.util
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from rljax.errors import UserError

T = TypeVar("T")


# Bounds of every setting. A declaration may be narrower
MAX_INT = 2**31 - 1  # numbers of steps, rows and tokens are int32 on the devices
MAX_FLOAT = 1e30  # a float is 0, or 1 / MAX_FLOAT to MAX_FLOAT in size: it and its reciprocal are finite in float32
MAX_ITEMS = 4096  # characters of a text, and items of a tuple
SHOWN = 60  # characters of a value that an error message repeats


class Declared(NamedTuple):
    """What is known of a setting beside its default. The bounds of a tuple are those of its items."""

    help: str
    kind: type  # bool, int, float, str or tuple
    optional: bool = False  # whether None is a value too
    low: float | None = None  # at least
    high: float | None = None  # at most
    above: float | None = None  # more than
    choices: Sequence[Any] = ()
    items: type | None = None  # the kind of a tuple's items; None: any

    def range(self) -> str:
        """The values that are allowed, in words; "" where the type says all."""
        each = "each item " if self.kind is tuple else ""
        if self.choices:
            return f"{each}must be one of {', '.join(map(repr, self.choices))}"
        bounds = [("at least", self.low), ("above", self.above), ("at most", self.high)]
        words = " and ".join(f"{name} {format_number(bound)}" for name, bound in bounds if bound is not None)
        return f"{each}must be {words}" if words else ""

    def problem(self, value: Any) -> str:
        """What is wrong with a value, in words; "" where it is allowed."""
        if value is None:
            return "" if self.optional else f"must be {NAMES[self.kind]}"
        if not is_of_kind(value, self.kind):
            return f"must be {NAMES[self.kind]}"
        if self.kind is tuple:
            return self.problem_of_items(value)
        if self.choices and value not in self.choices:
            return self.range()
        if self.kind is str:
            return problem_of_text(value)
        return "" if self.kind is bool else self.problem_of_number(value)

    def problem_of_number(self, value: float) -> str:
        """What is wrong with a number of the right kind."""
        if value != value or value in (math.inf, -math.inf):
            return "must be a finite number"
        if self.low is not None and value < self.low or self.above is not None and value <= self.above:
            return self.range()
        if self.high is not None and value > self.high:
            return self.range()
        if self.kind is int and abs(value) > MAX_INT:
            return self._replace(high=MAX_INT).range()
        if self.kind is float and value and not 1 / MAX_FLOAT <= abs(value) <= MAX_FLOAT:
            return f"must be {1 / MAX_FLOAT:g} to {MAX_FLOAT:g} in size, or 0: it is used in float32"
        return ""

    def problem_of_items(self, values: Sequence[Any]) -> str:
        """What is wrong with the items of a tuple."""
        if len(values) > MAX_ITEMS:
            return f"must have at most {MAX_ITEMS:,} items, not {len(values):,}"
        if self.items is None:
            return ""
        each = self._replace(kind=self.items, optional=False)
        problems = (each.problem(value) for value in values)
        first = next(filter(None, problems), "")
        return f"each item {first}" if first else ""


def problem_of_text(value: str) -> str:
    """What is wrong with a text: it stands in files and messages, which are UTF-8."""
    if len(value) > MAX_ITEMS:
        return f"must be text of at most {MAX_ITEMS:,} characters"
    if "\0" in value:
        return "must be text without a NUL character"
    alone = any("\ud800" <= character <= "\udfff" for character in value)
    return "must be text that UTF-8 can hold" if alone else ""


NAMES = {bool: "True or False", int: "a whole number", float: "a number", str: "text", tuple: "a tuple"}


def is_of_kind(value: Any, kind: type) -> bool:
    """Whether a config may give this value to a setting of this kind: a list is a tuple there, and 1 a float."""
    if kind is float or kind is int:
        return isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
    return isinstance(value, (tuple, list) if kind is tuple else kind)


def format_number(x: float) -> str:
    """A bound in an error message: 1,048,576 or 0.5 or 1e+30."""
    return f"{x:,}" if isinstance(x, int) else f"{x:g}"


def format_value(value: Any) -> str:
    """A value in an error message, cut to one short line."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        text = f"a number of {value.bit_length():,} bits"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def option(default: Any, help: str, *, kind: type | None = None, **bounds: Any) -> Any:
    """A dataclass field that a config may set. ``kind`` is needed where the default is None.

    ``bounds``: low, high, above (numbers), choices (a sequence of values), items (the kind of a tuple's items). The bounds of a
    tuple are those of its items.
    """
    declared = Declared(help, kind or type(default), default is None, **bounds)
    return dataclasses.field(default=default, metadata={"option": declared})


def declared(cls: type) -> dict[str, Declared]:
    """{name: declaration} of the fields of a dataclass that a config may set."""
    return {f.name: f.metadata["option"] for f in dataclasses.fields(cls) if "option" in f.metadata}


def defaults(cls: type) -> dict[str, Any]:
    """{name: default} of the fields of a dataclass that a config may set."""
    return {f.name: f.default for f in dataclasses.fields(cls) if "option" in f.metadata}


def build(cls: type[T], values: Mapping[str, Any], where: str = "", **others: Any) -> T:
    """An object of ``cls`` from the values of a config section; ``others`` are its fields that no config sets.

    Values of other names are left alone: a section may hold the settings of several rooms. Raises UserError, naming the
    key after ``where``, for a value outside its range.
    """
    found = {}
    for name, known in declared(cls).items():
        value = values[name]
        check(known, value, f"{where}{name}")
        found[name] = tuple(value) if known.kind is tuple and value is not None else value
    return cls(**found, **others)


def check(known: Declared, value: Any, key: str) -> None:
    """Raise UserError where a setting does not allow this value."""
    if problem := known.problem(value):
        raise UserError(f"{key}={format_value(value)}: {problem}")


# Plug-ins: files of the user's own, imported by the run and by its worker processes

PLUGIN_PACKAGE = "rljax_plugin_"


def load_plugin(path: str) -> ModuleType:
    """Import a Python file, once. It adds entries to the tables of the library: ``TASKS``, ``ADVANTAGE``, ``TEXT_TERMS`` ...

    Raises UserError where the file is missing or fails.
    """
    file = Path(path).expanduser().resolve()
    name = f"{PLUGIN_PACKAGE}{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file) if os.path.isfile(file) else None
    if spec is None or spec.loader is None:
        raise UserError(f"plug-in {path}: there is no such Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as e:
        del sys.modules[name]
        raise UserError(f"plug-in {path}: {type(e).__name__}: {e}") from e
    return module


def load_plugins(paths: Sequence[str]) -> None:
    """Import several plug-ins."""
    for path in paths:
        load_plugin(path)


def loaded_plugins() -> list[str]:
    """The files of the plug-ins that this process has imported, for its worker processes."""
    return [str(m.__file__) for name, m in sys.modules.items() if name.startswith(PLUGIN_PACKAGE)]


def load_function(path: str, name: str, where: str) -> Callable[..., Any]:
    """The function of this name in a file. Raises UserError, beginning with ``where``, where there is none."""
    function = getattr(load_plugin(path), name, None)
    if not callable(function):
        raise UserError(f"{where}: {path} has no function {name!r}")
    return function
