"""Test cases of programs: their forms, the limits of a run, its outcome, and the preparation of tests.

    Case(stdin="2 3", stdout="5")                                     the program reads and prints
    Case(test="assert add(2, 3) == 5")                                as MBPP writes tests
    Case(test="def check(candidate): ...", setup=prompt, entry="add") as HumanEval does

A test takes from the program each name that it uses but that neither the test, nor its setup, nor Python defines. Put
helpers of the test into ``setup``, or the program would supply them.
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
    """One test case: either ``stdin`` and ``stdout``, or ``test``."""

    stdin: str = ""
    stdout: str | None = None
    test: str | None = None
    setup: str = (
        ""  # for ``test``: code that runs before the program and before the test, such as helpers of the prompt
    )
    # The function under test, if a test has only ``check(candidate)``, or if the function has the name of a builtin
    entry: str = ""

    def __post_init__(self):
        if (self.stdout is None) == (self.test is None):
            raise UserError("a test case needs either stdout (the output to expect) or test (code with asserts)")
        if self.test is None and (self.setup or self.entry):
            raise UserError("setup and entry belong to a test case with test, not to one with stdout")
        if self.entry and not self.entry.isidentifier():
            raise UserError(f"entry is the name of a function, not {self.entry!r}")


class Limits(NamedTuple):
    """What a program may use in one run. Sizes are in bytes."""

    cpu_seconds: float = 2.0
    wall_seconds: float = 10.0  # ends only programs that wait; generous, so that a busy machine changes no verdict
    memory: int = 256 << 20
    output: int = 64 << 10  # of stdout and stderr together; twice the expected output if that is more
    folder: int = 4 << 20  # all files together
    files: int = 64
    source: int = 1 << 20  # the source code


class Outcome(NamedTuple):
    """The outcome of one test case.

    ``verdict`` is one of:
        "passed"
        "wrong"    the result is not the expected one
        "error"    an exception, a bad exit status, or the program ended before it answered
        "timeout"  the limit of CPU time or wall time was exceeded
        "memory"   the limit of memory was exceeded
        "output"   the program wrote too much, to stdout, stderr or files
        "killed"   the jail killed the program
        "refused"  the source code is too long
        "skipped"  an earlier case failed, and ``until_failure`` was set
    """

    passed: bool
    verdict: str
    output: str = ""  # what the program printed
    seconds: float = 0.0  # of CPU time
    error: str = ""  # the end of what the program wrote to stderr; never from the test


CaseLike = Case | Mapping[str, str] | str | tuple[str, str]
FIELD_ALIASES = {"input": "stdin", "output": "stdout"}
FIELD_NAMES = {f.name for f in fields(Case)}


def parse_case(given: CaseLike) -> Case:
    """A case from the forms in data sets: a text with asserts, a pair (stdin, stdout), or a mapping of the fields."""
    if isinstance(given, Case):
        return given
    if isinstance(given, str):
        return Case(test=given)
    if isinstance(given, Mapping):
        named = {FIELD_ALIASES.get(key, key): value for key, value in given.items()}
        if unknown := set(named) - FIELD_NAMES:
            raise UserError(f"a test case has no {sorted(unknown)[0]!r}; it has {', '.join(sorted(FIELD_NAMES))}")
        return make_case(named)
    if len(given) != 2:
        raise UserError(f"a test case given as a tuple is (stdin, stdout), not {len(given)} items")
    return make_case({"stdin": given[0], "stdout": given[1]})


def make_case(named: Mapping[str, str]) -> Case:
    for name, value in named.items():
        if not isinstance(value, str):
            raise UserError(f"{name} of a test case must be a string, not {type(value).__name__}")
    return Case(**named)


@functools.lru_cache(maxsize=4096)
def prepare_test(setup: str, test: str, entry: str) -> tuple[str, str, list[str], list[str], str]:
    """What the process of the tests gets: (setup, test, names of the program, standard modules that are used, entry).

    Raises UserError if the test cannot work: invalid Python, nothing asserted, or ``check`` without a call.
    """
    try:
        return parse_test(setup, test, entry)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:  # the last two: nested too deeply
        why = str(e) or "nested too deeply"
        raise UserError(f"a test is not valid Python: {why}: {test[:60]!r}") from None


def parse_test(setup: str, test: str, entry: str) -> tuple[str, str, list[str], list[str], str]:
    """``prepare_test``, which turns the exceptions of Python's parser and compiler into a UserError."""
    trees = ast.parse(setup), ast.parse(test)
    table = symtable.symtable(f"{setup}\n{test}", "test", "exec")
    checks = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in trees[1].body)
    called = any(isinstance(node, ast.Call) and name_of(node.func) == "check" for node in top_level_nodes(trees[1]))
    if checks and not called:
        if not entry:
            raise UserError("a test defines check(candidate) but does not call it; name the function to check in entry")
        test = f"{test}\ncheck({entry})\n"
    if not any(isinstance(node, ast.Assert | ast.Raise) for tree in trees for node in ast.walk(tree)):
        raise UserError(f"a test asserts nothing: {test[:60]!r}")
    for text in (setup, test):
        compile(text, "<test>", "exec")  # finds what the parser lets through: a return outside, nesting
    defined = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    wanted = referenced_globals(table) - defined - set(dir(builtins)) - {"__name__", "__file__"}
    bases = {name_of(node.value) for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    modules = (wanted & bases & sys.stdlib_module_names) - {
        entry
    }  # or the program could supply its own ``math.isclose``
    return setup, test, sorted((wanted - modules) | ({entry} - {""})), sorted(modules), entry


def name_of(node: ast.AST) -> str:
    """The name of a Name node; "" for other nodes."""
    return node.id if isinstance(node, ast.Name) else ""


def top_level_nodes(tree: ast.Module) -> list[ast.AST]:
    """The syntax nodes at the top level of a test, outside of functions and classes."""
    return [n for s in tree.body if not isinstance(s, ast.FunctionDef | ast.ClassDef) for n in ast.walk(s)]


def referenced_globals(table: symtable.SymbolTable) -> set[str]:
    """The global names that the code reads."""
    whole = table.get_type() == "module"
    out = {s.get_name() for s in table.get_symbols() if s.is_referenced() and (whole or s.is_global())}
    return out.union(*map(referenced_globals, table.get_children()))
