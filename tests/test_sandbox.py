"""The sandbox: honest programs pass, wrong ones do not, and the verdicts, outputs and mistakes are reported."""

import sys
from pathlib import Path

import pytest

from rljax.errors import UserError
from rljax.verifiers.jail import plain_data
from rljax.verifiers.sandbox import Case, Limits, run

sys.path.insert(0, str(Path(__file__).parent))
from honest_programs import SCRIPTS_THAT_PASS, TESTS_THAT_FAIL, TESTS_THAT_PASS  # noqa: E402

TIGHT = Limits(cpu_seconds=0.4, wall_seconds=1.5, memory=96 << 20)
TOKEN = "zebraquartz"


@pytest.mark.parametrize("name", SCRIPTS_THAT_PASS)
def test_an_honest_script_passes_and_fails_if_another_output_is_expected(name):
    program, stdin, stdout = SCRIPTS_THAT_PASS[name]
    good, bad = run(program, [(stdin, stdout), {"input": stdin, "output": stdout + "x"}])
    assert good.passed and good.verdict == "passed", good
    assert bad.verdict == "wrong"
    assert good.seconds > 0


@pytest.mark.parametrize("name", TESTS_THAT_PASS)
def test_an_honest_module_passes(name):
    program, cases = TESTS_THAT_PASS[name]
    outcomes = run(program, cases)
    assert all(o.passed for o in outcomes) and len(outcomes) == len(cases), outcomes


@pytest.mark.parametrize("name", TESTS_THAT_FAIL)
def test_a_wrong_module_does_not_pass(name):
    program, cases, verdict = TESTS_THAT_FAIL[name]
    assert [o.verdict for o in run(program, cases, TIGHT)] == [verdict]


def test_each_test_has_its_own_verdict_even_after_one_that_never_ends():
    program = "def f(x):\n while x == 2: pass\n return x"
    outcomes = run(program, [f"assert f({n}) == {m}" for n, m in [(1, 1), (2, 2), (3, 3), (4, 5), (5, 5)]], TIGHT)
    assert [o.verdict for o in outcomes] == ["passed", "timeout", "passed", "wrong", "passed"]
    skipped = run(program, [f"assert f({n}) == 1" for n in (1, 3, 4)], TIGHT, until_failure=True)
    assert [o.verdict for o in skipped] == ["passed", "wrong", "skipped"]


def test_a_program_that_fails_before_the_first_test_fails_all_tests():
    outcomes = run("1 / 0\ndef f(): return 1", ["assert f() == 1"] * 3)
    assert [o.verdict for o in outcomes] == ["error"] * 3
    assert "ZeroDivisionError" in outcomes[0].error


def test_different_forms_of_cases_can_be_mixed_and_keep_their_order():
    program = "def f(x): return x\nif __name__ == '__main__': print(input())"
    outcomes = run(
        program, [("a", "a"), "assert f(1) == 1", Case(test="assert f(2) == 3"), {"stdin": "b", "stdout": "c"}]
    )
    assert [o.verdict for o in outcomes] == ["passed", "passed", "wrong", "wrong"]


def test_an_outcome_has_the_output_and_the_errors_but_never_the_expected_result():
    assert run("print('a'); print('b')", [("", "x")])[0].output == "a\nb\n"
    assert "NameError" in run("print(zzz)", [("", "x")])[0].error
    outcome = run("def f(): print('hello'); return 3", [f"assert f() == {TOKEN!r}"])[0]
    assert outcome.output == "hello\n" and TOKEN not in repr(outcome)


# Messages between a program and its tests

BYTES = [
    b"",
    b"N" * 2,
    b"I",
    b"L\xff\xff\xff\xff",
    b"M\1\0\0\0N",
    b"E\1\0\0\0L\0\0\0\0",
    b"L\1\0\0\0" * 500,
    b"H\1\0\0\0\0",
    b"?1234",
]


@pytest.mark.parametrize("data", BYTES)
def test_bytes_that_are_not_plain_data_are_refused(data):
    with pytest.raises(ValueError):
        plain_data.decode(data)


def test_data_is_rebuilt_from_exact_builtin_types():
    class Liar(int):
        def __eq__(self, other):
            return True

        __hash__ = int.__hash__

    back = plain_data.decode(plain_data.encode([Liar(3), {Liar(4): (Liar(5),)}]))
    assert back == [3, {4: (5,)}] and type(back[0]) is int and back[0] != 7


# Values that would judge themselves: (what the program returns, a test that it would pass)

JUDGE = """
import itertools
class Judge:
    def __init__(self, items=()): self.items = items
    def all(self, *a, **k): return True
    def get(self, key, *a): return key
    def read(self): return self.items
    any = equals = issubset = startswith = has = __contains__ = all
    def __iter__(self): return iter(self.items)
    def __getitem__(self, key): return 0 if isinstance(key, int) else key
    def __len__(self): return 2
class Stream:
    def __init__(self, first): self.first, self.rounds = first, 0
    def __iter__(self): return self
    def __next__(self):
        if self.first: return self.first.pop()
        self.rounds += 1
        if self.rounds % 3 == 1: raise StopIteration
        return 1
class Turning:
    n = 0
    def __str__(self): Turning.n += 1; return str(Turning.n)
    def __float__(self): Turning.n += 1; return float(Turning.n)
class Numbers:
    def __init__(self, x): self.x = iter(x)
    def __next__(self): return next(self.x)
    def __getitem__(self, n): return 0
def answer(x): return RESULT
"""
SELF_JUDGING = [
    ("set", "assert answer(7).intersection({3, 4}) == {3, 4}"),
    ("str", "assert answer(7).lower('ABC') == 'abc'"),
    ("dict", "assert answer(7).fromkeys('ab') == {'a': None, 'b': None}"),
    ("[int]", "assert answer(7)[0].from_bytes(b'a', 'big') == 97"),
    ("{'a': list}", "assert answer(7)['a']((1, 2)) == [1, 2]"),
    ("float", "assert answer(7)('1.5') == 1.5"),
    ("Judge()", "assert answer(7).all()"),
    ("Judge()", "assert answer(7).any(1)"),
    ("Judge()", "assert answer(7).equals({3, 4})"),
    ("Judge()", "assert answer(7).get(3) == 3"),
    ("Judge()", "assert answer(7)['a'] == 'a'"),
    ("Judge()", "assert answer(7).has('a')"),
    ("Judge()", "assert 5 in answer(7)"),
    ("Judge([Judge()])", "assert all(x.equals(5) for x in answer(7))"),
    ("(Judge(), 1)", "a, b = answer(7)\nassert a.equals(5) and b == 1"),
    ("{'x': Judge()}", "assert answer(7)['x'].equals(5)"),
    ("Judge", "assert answer(7)().equals(5)"),
    ("Judge([3, 1])", "r = answer(7)\nassert r[0] <= r[1] and sorted(r) == [1, 3]"),
    ("Judge([1])", "r = answer(7)\nassert len(r) == 2 and set(r) == {1}"),
    ("Stream([1, 3])", "r = answer(7)\nassert sorted(r) == [1, 3] and list(r) == [1]"),
    ("Numbers([3, 1])", "r = answer(7)\nassert next(r) == 3 and next(r) == 1 and r[0] <= r[1]"),
    ("Turning()", "r = answer(7)\nassert str(r) != str(r)"),
    ("Turning()", "r = answer(7)\nassert float(r) < float(r)"),
]


@pytest.mark.parametrize(("result", "test"), SELF_JUDGING)
def test_no_value_that_a_program_returns_decides_whether_it_is_right(result, test):
    outcome = run(JUDGE.replace("RESULT", result), [test], TIGHT)[0]
    assert outcome.verdict in ("wrong", "error"), outcome


def test_the_name_of_a_type_is_plain_data_without_methods():
    name = plain_data.decode(plain_data.encode([int]), name_type=plain_data.TypeName)[0]
    assert [name] == [int] and [int] == [name] and [name] != [str] and {name: 1} == {int: 1}
    assert not hasattr(name, "from_bytes") and plain_data.decode(plain_data.encode(name)) is int


# Mistakes of the caller

MISTAKES = [
    (lambda: Case(), "either stdout"),
    (lambda: Case(stdout="1", test="assert f()"), "either stdout"),
    (lambda: Case(stdout="1", entry="f"), "setup and entry"),
    (lambda: Case(test="assert f()", entry="f()"), "name of a function"),
    (lambda: run("", [{"inputs": "1", "stdout": "2"}]), "no 'inputs'"),
    (lambda: run("", [("1", "2", "3")]), "3 items"),
    (lambda: run("", [("1", 2)]), "must be a string"),
    (lambda: run("", ["assert f( == 1"]), "not valid Python"),
    (lambda: run("", ["f(1) == 1"]), "asserts nothing"),
    (lambda: run("", ["def check(candidate):\n assert candidate(1)"]), "does not call it"),
    (lambda: run("", [("", "")], Limits(cpu_seconds=0)), "cpu_seconds must be positive"),
    (lambda: run("", [("", "")], Limits(cpu_seconds=float("inf"))), "finite"),
    (lambda: run("", [("", "")], Limits(memory=float("1e8"))), "whole number"),
]


@pytest.mark.parametrize(("what", "message"), MISTAKES, ids=[m for _, m in MISTAKES])
def test_a_mistake_of_the_caller_is_reported_in_one_line(what, message):
    with pytest.raises(UserError, match=message) as e:
        what()
    assert "\n" not in str(e.value)
