"""Test cases of programs: what may be given as one, what a test asks of a program, and what becomes of it.

    Case(stdin="2 3", stdout="5")                                     the program reads and prints
    Case(test="assert add(2, 3) == 5")                                as MBPP writes tests
    Case(test="def check(candidate): ...", setup=prompt, entry="add") as HumanEval does

A test takes from the program each name that it uses and that neither it, nor its setup, nor Python defines. Whatever
else a test needs belongs into ``setup``, or the program would supply it.
"""

import ast
import builtins
import functools
import symtable
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

from rljax.errors import UserError


@dataclass(frozen=True)
class Case:
    """One test: ``stdin`` and ``stdout``, or ``test``."""

    stdin: str = ""
    stdout: str | None = None
    test: str | None = None
    setup: str = ""  # of a test: code that the program and the test both see, such as helpers of the prompt
    entry: str = ""  # the function under test, where a test has only ``check(candidate)`` or the name is a builtin's

    def __post_init__(self):
        if (self.stdout is None) == (self.test is None):
            raise UserError("a test case has either stdout (what the program is to print) or test (code with asserts)")
        if self.test is None and (self.setup or self.entry):
            raise UserError("setup and entry belong to a test case with test, not to one with stdout")
        if self.entry and not self.entry.isidentifier():
            raise UserError(f"entry is the name of a function, not {self.entry!r}")


class Limits(NamedTuple):
    """What a program may use up, each time that it runs. Sizes are in bytes."""

    cpu_seconds: float = 2.0
    wall_seconds: float = 10.0  # only for programs that wait: generous, so that a busy machine does not matter
    memory: int = 256 << 20
    output: int = 64 << 10  # of stdout and stderr; more where more is expected
    folder: int = 4 << 20  # all files together
    files: int = 64
    source: int = 1 << 20  # of the text itself


class Outcome(NamedTuple):
    """What became of one test case.

    verdict: "passed"; "wrong": not what was expected; "error": an exception, a bad exit status, or the program was gone
    before it had answered; "timeout"; "memory"; "output": it wrote too much, to stdout or to files; "killed": by the jail;
    "refused": too long to be run; "skipped": an earlier case failed, and ``until_failure`` was asked for.
    """

    passed: bool
    verdict: str
    output: str = ""  # what the program printed
    seconds: float = 0.0  # of CPU time
    error: str = ""  # the end of what it wrote to stderr; never from the test


Given = Case | Mapping[str, str] | str | tuple[str, str]
OTHER_NAMES = {"input": "stdin", "output": "stdout"}
NAMES = {f.name for f in fields(Case)}


def case(given: Given) -> Case:
    """A case from what data sets have: a text with asserts, a pair (stdin, stdout), or a mapping with the names above."""
    if isinstance(given, Case):
        return given
    if isinstance(given, str):
        return Case(test=given)
    if isinstance(given, Mapping):
        named = {OTHER_NAMES.get(key, key): value for key, value in given.items()}
        if unknown := set(named) - NAMES:
            raise UserError(f"a test case has no {sorted(unknown)[0]!r}; it has {', '.join(sorted(NAMES))}")
        return case_of_texts(named)
    if len(given) != 2:
        raise UserError(f"a test case given as a tuple is (stdin, stdout), not {len(given)} things")
    return case_of_texts({"stdin": given[0], "stdout": given[1]})


def case_of_texts(named: Mapping[str, str]) -> Case:
    for name, value in named.items():
        if not isinstance(value, str):
            raise UserError(f"{name} of a test case is a text, not {type(value).__name__}")
    return Case(**named)


@functools.lru_cache(maxsize=4096)
def questions(setup: str, test: str, entry: str) -> tuple[str, str, list[str], list[str], str]:
    """What the examiner is given of a case: setup, test, names of the program, modules of Python that are used, entry."""
    try:
        trees = ast.parse(setup), ast.parse(test)
        table = symtable.symtable(f"{setup}\n{test}", "test", "exec")
    except (SyntaxError, ValueError) as e:
        raise UserError(f"a test is not valid Python: {e}: {test[:60]!r}") from None
    checks = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in trees[1].body)
    called = any(isinstance(node, ast.Call) and names(node.func) == "check" for node in calls(trees[1]))
    if checks and not called:
        if not entry:
            raise UserError("a test defines check(candidate) but calls it nowhere; say with entry what to check")
        test = f"{test}\ncheck({entry})\n"
    if not any(isinstance(node, ast.Assert | ast.Raise) for tree in trees for node in ast.walk(tree)):
        raise UserError(f"a test asserts nothing: {test[:60]!r}")
    defined = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    wanted = used(table) - defined - set(dir(builtins)) - {"__name__", "__file__"}
    bases = {names(node.value) for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    modules = (wanted & bases & sys.stdlib_module_names) - {entry}  # ``math.isclose`` must not be the program's
    return setup, test, sorted((wanted - modules) | ({entry} - {""})), sorted(modules), entry


def names(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def calls(tree: ast.Module) -> list[ast.AST]:
    """What is done at the top level of a test, outside of functions."""
    return [n for s in tree.body if not isinstance(s, ast.FunctionDef | ast.ClassDef) for n in ast.walk(s)]


def used(table: symtable.SymbolTable) -> set[str]:
    """Global names that are read somewhere."""
    whole = table.get_type() == "module"
    out = {s.get_name() for s in table.get_symbols() if s.is_referenced() and (whole or s.is_global())}
    return out.union(*map(used, table.get_children()))
