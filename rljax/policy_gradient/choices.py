"""Choices written as calls: ``"ppo_clip(low=0.2, high=0.28)"`` names a function of a table and sets its options.

A function's positional parameters are the data it looks at, its keyword-only parameters the options a person may set.
"""

import ast
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rljax.errors import UserError
from rljax.options import Declared, format_value

# Ranges of numeric options, which mean the same in every function that has them
RANGES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("low", "high", "clip", "lo", "eps", "alpha", "w_min", "cap"), dict(low=0.0)),
    **dict.fromkeys(("hi", "delta", "w_max", "tau_pos", "tau_neg"), dict(above=0.0)),
    **dict.fromkeys(("share", "gamma", "lam", "lam_critic"), dict(low=0.0, high=1.0)),
    "dual_clip": dict(above=1.0),
    "ddof": dict(low=0, high=1),
    "rounds": dict(low=1),
}


class Choice(NamedTuple):
    """A function of a table, by name, and the options that differ from its defaults."""

    name: str
    options: dict[str, Any]

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        options = ", ".join(f"{k}={v}" for k, v in self.options.items())
        return f"{self.name}({options})" if options else self.name


def parse(text: str | Choice, table: Mapping[str, Callable], what: str) -> Choice:
    """``"name"`` or ``"name(option=value, ...)"`` -> Choice. Raises UserError for whatever the table does not know.

    A value is a Python literal or a bare word; a ``Choice`` passes through, so that options may also be traced arrays.
    """
    choice = text if isinstance(text, Choice) else read(text, what)
    if choice.name not in table:
        raise UserError(f"{what}={choice.name!r} is unknown, choose from {sorted(table)}")
    for option in choice.options:
        if option not in options(table[choice.name]):
            known = sorted(options(table[choice.name])) or "none"
            raise UserError(f"{what}={choice} has no option {option!r}, its options are {known}")
    for option, value in choice.options.items():
        words = allowed_words(table[choice.name], option)
        if isinstance(value, str) and not words and not is_text(table[choice.name], option):
            raise UserError(f"{what}={choice}: {option} is a number, not {value!r}")
        if words and value is not None and value not in words:
            raise UserError(f"{what}={choice}: {option} must be one of {words}")
        function = table[choice.name]
        problem = problem_of_literal(value) or problem_of_kind(function, option, value)
        if problem := problem or problem_of_range(function, option, value):
            raise UserError(f"{what}: {choice.name}({option}={format_value(value)}): {problem}")
    missing = [k for k, v in options(table[choice.name]).items() if v is inspect.Parameter.empty]
    if missing := [k for k in missing if k not in choice.options]:
        raise UserError(f"{what}={choice} needs {missing[0]}, write {choice.name}({missing[0]}=...)")
    return choice


def read(text: str, what: str) -> Choice:
    """The call that a text spells, unchecked."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if isinstance(call, ast.Name):
            return Choice(call.id, {})
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError
        return Choice(call.func.id, {k.arg: literal(k.value) for k in call.keywords if k.arg})
    except (SyntaxError, ValueError, AttributeError, TypeError, MemoryError, RecursionError) as e:
        raise UserError(f"{what}={format_value(text)} is not of the form name or name(option=value, ...)") from e


def literal(node: ast.expr) -> Any:
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


def problem_of_literal(value: Any) -> str:
    """What is wrong with an option's value: a number that float32 cannot hold, or no plain value; "" where it is allowed."""
    if isinstance(value, (tuple, list)):
        return next(filter(None, map(problem_of_literal, value)), "")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Declared("", float).problem(value)
    return "must be a number, a word or a tuple of them" if isinstance(value, (bytes, complex, dict, set)) else ""


def problem_of_kind(function: Callable, option: str, value: Any) -> str:
    """What is wrong with a plain value where the option is annotated as a whole number, a number or a switch; else ""."""
    kinds = kinds_of(function, option)
    if isinstance(value, bool):
        return "" if bool in kinds or not {int, float} & kinds else "must be a number, not True or False"
    if isinstance(value, (int, float)) and kinds and not {int, float} & kinds:
        return "must be True or False" if bool in kinds else "must be a tuple" if tuple in kinds else ""
    return "must be a whole number" if isinstance(value, float) and int in kinds and float not in kinds else ""


def problem_of_range(function: Callable, option: str, value: Any) -> str:
    """What is wrong with the size of a number, where the option is one of ours; a plug-in's may mean something else."""
    ours = function.__module__.startswith(f"{__package__}.")
    if not ours or option not in RANGES or isinstance(value, bool) or not isinstance(value, (int, float)):
        return ""
    return Declared("", float, **RANGES[option]).problem(value)


def kinds_of(function: Callable, option: str) -> set[Any]:
    """The types that an option is annotated with: {int, NoneType} of ``int | None``; {} where it has no annotation."""
    try:
        kind = typing.get_type_hints(function).get(option)
    except (NameError, TypeError, AttributeError):  # an annotation for a type checker alone
        return set()
    if kind is None or typing.get_origin(kind) is tuple:
        return set() if kind is None else {tuple}
    return set(typing.get_args(kind)) or {kind}


def options(function: Callable) -> dict[str, Any]:
    """Keyword-only parameters of a function, with their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def is_text(function: Callable, option: str) -> bool:
    """Whether an option is annotated as text."""
    kind = inspect.signature(function).parameters[option].annotation
    return kind is str or str in typing.get_args(kind)


def allowed_words(function: Callable, option: str) -> tuple[str, ...]:
    """The words that an option may be, where it is annotated as a ``Literal`` (or that or None); else ()."""
    kind = inspect.signature(function).parameters[option].annotation
    kinds = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    return tuple(word for k in kinds if typing.get_origin(k) is typing.Literal for word in typing.get_args(k))


def float_options(function: Callable) -> list[str]:
    """Options annotated ``float`` (or ``Array | float``) that may not be None."""
    parameters = inspect.signature(function).parameters.values()
    is_union = lambda p: typing.get_origin(p.annotation) in (types.UnionType, typing.Union)
    kinds = lambda p: typing.get_args(p.annotation) if is_union(p) else (p.annotation,)
    of_float = lambda p: float in kinds(p) and types.NoneType not in kinds(p)
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and of_float(p)]


def inputs(function: Callable) -> tuple[str, ...]:
    """Names of the data that a function looks at."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)


def call(choice: Choice, table: Mapping[str, Callable], data: Mapping[str, Any]) -> Any:
    """The chosen function of the data it looks at."""
    function = table[choice.name]
    return function(*(data[name] for name in inputs(function)), **choice.options)


def value(choice: Choice, table: Mapping[str, Callable], option: str) -> Any:
    """An option as it was set, or its default; None where the function has no such option."""
    return choice.options.get(option, options(table[choice.name]).get(option))
