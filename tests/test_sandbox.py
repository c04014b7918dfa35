"""Programs of a policy: honest ones pass, no hostile one does, and nothing outside of its jail is touched."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rljax.errors import UserError
from rljax.verifiers import sandbox
from rljax.verifiers.jail import confinement, plain, pool
from rljax.verifiers.sandbox import Case, Limits, run, run_many

sys.path.insert(0, str(Path(__file__).parent))
from hostile_programs import MODULES, SCRIPTS, SEARCH  # noqa: E402

TIGHT = Limits(cpu_seconds=0.4, wall_seconds=1.5, memory=96 << 20)
TOKEN = "zebraquartz"
TESTS = [
    f"assert answer(7) == {TOKEN!r}",
    "assert math.isclose(answer(7), 12345.678)",
    "assert abs(answer(7) - 12345.678) < 1e-6",
    "assert answer(7) in [12345, (1, 2)]",
    "assert answer(7).startswith('zebra')",
    "assert answer(7).issubset({1})",
    "assert answer(7).difference({1}) == set()",
    "assert set(answer(7)) == {'a'} and isinstance(answer(7), str)",
]
WITH_PACKAGE = os.environ | {"PYTHONPATH": str(Path(sandbox.__file__).parents[2])}
GOOD = ("def add(a, b): return a + b", ["assert add(2, 3) == 5"])


class World:
    """A folder that anybody may write, sockets that anybody may use, and what must be as it was."""

    def __init__(self, folder: str):
        self.folder = folder
        os.chmod(folder, 0o777)
        Path(folder, "sentinel").write_text("untouched")
        os.chmod(f"{folder}/sentinel", 0o666)
        self.name = f"rljax-{os.getpid()}-{os.urandom(4).hex()}"
        self.sockets = [socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]
        self.sockets += [socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)]
        self.sockets += [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)]
        self.sockets[0].bind(("127.0.0.1", 0))
        self.port = self.sockets[0].getsockname()[1]
        self.sockets[1].bind(("127.0.0.1", self.port))
        self.sockets[2].bind(f"{folder}/socket")
        os.chmod(f"{folder}/socket", 0o777)
        self.sockets[3].bind(f"\0{self.name}")
        self.sockets[4].bind(f"\0{self.name}d")
        for s in (self.sockets[0], self.sockets[2], self.sockets[3]):
            s.listen()
        self.before = self.look()

    def look(self):
        files = sorted((p.name, p.lstat().st_mode, p.lstat().st_uid) for p in Path(self.folder).iterdir())
        sentinel = Path(self.folder, "sentinel")
        return files, sentinel.read_text(), sentinel.stat().st_mtime, sentinel.stat().st_nlink

    def fill(self, program: str) -> str:
        values = {"OUTSIDE": self.folder, "PARENT": str(os.getpid()), "PORT": str(self.port), "NAME": self.name}
        if len(program) < 10_000:
            for name, value in values.items():
                program = program.replace(name, value)
        return program

    def close(self):
        for s in self.sockets:
            s.close()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    os.environ["SECRET_TOKEN"] = TOKEN
    folder = tempfile.mkdtemp(prefix="sandbox-test-", dir="/tmp")
    out = World(folder)
    yield out
    out.close()
    shutil.rmtree(folder)


def leftovers() -> list[str]:
    """What lies in the folders of the zygotes."""
    folders = Path(tempfile.gettempdir()).glob("rljax-sandbox-*/work")
    return [str(p) for folder in folders for p in folder.iterdir() if str(folder.parent) in own_folders()]


def own_folders() -> set[str]:
    return {z.folder for z in list(pool.pool(sandbox.isolation()).free.queue)}


def hostile(kind: str, name: str, world: World) -> list[sandbox.Outcome]:
    """What becomes of a hostile program."""
    if kind == "script":
        return run(world.fill(SCRIPTS[name]), [Case(stdin="7\n", stdout="escaped\n")], TIGHT)
    return run(world.fill(MODULES[name]), TESTS, TIGHT, until_failure=True)


ALL = [("script", name) for name in SCRIPTS] + [("tests", name) for name in MODULES]


@pytest.mark.parametrize(("kind", "name"), ALL, ids=[f"{kind}: {name}" for kind, name in ALL])
def test_a_hostile_program_does_not_pass_and_leaves_no_trace(kind, name, world):
    outcomes = hostile(kind, name, world)
    assert not any(o.passed for o in outcomes), outcomes
    assert "untouched" not in outcomes[0].output
    assert outcomes[0].verdict in {"wrong", "error", "timeout", "memory", "output", "killed", "refused"}
    assert run(*GOOD)[0].passed
    assert world.look() == world.before
    assert not leftovers()


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize(
    "name", ["equal to everything", "names of modules", "names of builtins", "more names than were asked for", "NaN"]
)
def test_no_lie_passes_any_form_of_test(name, test):
    assert not run(MODULES[name], [test], TIGHT)[0].passed


VERDICTS = [
    ("infinite loop", "timeout"),
    ("sleep forever", "timeout"),
    ("memory bomb", "memory"),
    ("huge output", "output"),
    ("huge output to stderr", "output"),
    ("many files", "output"),
    ("x32 system call", "killed"),
    ("32-bit system call", "killed"),
    ("read passwd", "error"),
    ("TCP", "error"),
    ("fork bomb", "error"),
    ("right but fails", "error"),
    ("exit at once", "wrong"),
    ("10 MB of source", "refused"),
]


@pytest.mark.parametrize(("name", "verdict"), VERDICTS)
def test_the_verdict_tells_what_was_wrong(name, verdict, world):
    if os.uname().machine != "x86_64" and "system call" in name:
        verdict = "error"
    assert hostile("script", name, world)[0].verdict == verdict


# Honest programs: standard input and output

SORT = "n = int(input())\nprint(*sorted(int(input()) for _ in range(n)))"
IMPORTS = "abc argparse array ast asyncio base64 bisect calendar cmath collections colorsys copy csv dataclasses datetime decimal difflib dis email.message enum fractions functools glob graphlib hashlib heapq html.parser inspect io ipaddress itertools json keyword logging math numbers operator pathlib pickle platform pprint queue random re sched secrets shlex shutil statistics string struct sys tempfile textwrap threading time timeit types typing unicodedata unittest.mock urllib.parse uuid wave xml.etree.ElementTree zipfile zlib zoneinfo"
SCRIPTS_THAT_PASS = {
    "input": ("print(int(input()) + 1)", "1\n", "2"),
    "several lines": (SORT, "3\n3\n1\n2\n", "1 2 3\n"),
    "sys.stdin": ("import sys\nprint(sum(map(int, sys.stdin.read().split())))", "1 2\n3", "6"),
    "lines of stdin": ("import sys\nfor line in sys.stdin: print(line.strip()[::-1])", "ab\ncd\n", "ba\ndc"),
    "open(0)": ("print(len(open(0).read()))", "abc", "3"),
    "stdin as bytes": ("import sys\nprint(sys.stdin.buffer.read())", "é", r"b'\xc3\xa9'"),
    "os.read": ("import os\nprint(os.read(0, 100).decode())", "x", "x"),
    "blanks at the ends of lines": ("print('a  '); print(); print('b'); print(); print()", "", "a\n\nb  \n"),
    "sys.stdout.write": ("import sys\nsys.stdout.write('x')", "", "x"),
    "another stdout": (
        "import sys\nclass W:\n def write(self, s): sys.__stdout__.write(s.upper())\nsys.stdout = W()\nprint('x')",
        "",
        "X",
    ),
    "a fast reader": (
        "import io, os\nprint(io.BytesIO(os.read(0, os.fstat(0).st_size)).readline())",
        "ab\n",
        "b'ab\\n'",
    ),
    "os.write": ("import os\nos.write(1, b'x')", "", "x"),
    "main": ("def main(): print('x')\nif __name__ == '__main__': main()", "", "x"),
    "exit()": ("print('x'); exit()", "", "x"),
    "sys.exit(0)": ("import sys; print('x'); sys.exit(0)", "", "x"),
    "unicode": ("print(input()[::-1])", "äöü€😀", "😀€üöä"),
    "classes": (
        "from dataclasses import dataclass\n@dataclass(order=True)\nclass P:\n x: int\nprint(max(P(1), P(2)))",
        "",
        "P(x=2)",
    ),
    "recursion": (
        "import sys\nsys.setrecursionlimit(10**6)\ndef f(n): return n and 1 + f(n - 1)\nprint(f(50000))",
        "",
        "50000",
    ),
    "recursion in a thread": (
        "import sys, threading\nthreading.stack_size(1 << 26)\nsys.setrecursionlimit(10**6)\ndef f(n): return n and 1 + f(n - 1)\n"
        "t = threading.Thread(target=lambda: print(f(20000))); t.start(); t.join()",
        "",
        "20000",
    ),
    "threads": (
        "from concurrent.futures import ThreadPoolExecutor\nprint(sum(ThreadPoolExecutor(4).map(abs, range(-9, 9))))",
        "",
        "81",
    ),
    "many threads": (
        "import threading\nb = threading.Barrier(9)\nfor n in range(8): threading.Thread(target=b.wait).start()\nb.wait(); print('x')",
        "",
        "x",
    ),
    "asyncio": (
        "import asyncio\nasync def f(): await asyncio.sleep(0.01); return 5\nprint(asyncio.run(f()))",
        "",
        "5",
    ),
    "its own files": (
        "import os\nos.mkdir('d'); open('d/x', 'w').write('5'); print(open('d/x').read(), os.listdir('.'))",
        "",
        "5 ['d']",
    ),
    "temporary files": (
        "import tempfile\nwith tempfile.TemporaryDirectory() as d:\n open(d + '/x', 'w').write('x')\nwith tempfile.NamedTemporaryFile() as f: print(f.write(b'abc'))",
        "",
        "3",
    ),
    "pickle": ("import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))).__name__)", "", "A"),
    "exceptions": ("try: 1 / 0\nexcept ZeroDivisionError as e: print(e)", "", "division by zero"),
    "asserts": ("assert 1 + 1 == 2; print('x')", "", "x"),
    "atexit": ("import atexit; atexit.register(print, 'bye')", "", "bye"),
    "every common module": ("".join(f"import {m}\n" for m in IMPORTS.split()) + "print('x')", "", "x"),
    "a lot of output that is expected": ("print('x' * 200_000)", "", "x" * 200_000),
    "a lot of input": ("print(len(input()))", "x" * 500_000, "500000"),
    "set order": ("print(list({'a', 'b', 'c'}) == list({'a', 'b', 'c'}))", "", "True"),
    "signals to itself": (
        "import signal, os\nsignal.signal(signal.SIGALRM, lambda *a: print('x'))\nos.kill(os.getpid(), signal.SIGALRM)",
        "",
        "x",
    ),
    "80 MB": ("x = [0] * 10_000_000; print(len(x))", "", "10000000"),
}


@pytest.mark.parametrize("name", SCRIPTS_THAT_PASS)
def test_an_honest_script_passes_and_fails_where_its_output_is_another(name):
    program, stdin, stdout = SCRIPTS_THAT_PASS[name]
    good, bad = run(program, [(stdin, stdout), {"input": stdin, "output": stdout + "x"}])
    assert good.passed and good.verdict == "passed", good
    assert bad.verdict == "wrong"
    assert good.seconds > 0


# Honest programs: tests

HUMAN_EVAL = """
METADATA = {"author": "x"}

def check(candidate):
    assert candidate([1.0, 2.0, 3.9, 4.0], 0.3) == True
    assert candidate([1.0, 2.0, 5.9], 0.95) is False, "far"
    for t in range(3):
        assert candidate([], t) == False
"""
CLOSE = "def has_close(a, t):\n return any(abs(x - y) < t for i, x in enumerate(a) for y in a[:i])"
POLY = "import math\ndef poly(xs, x):\n return sum(c * math.pow(x, i) for i, c in enumerate(xs))\n"
ROOT = """
def find_zero(xs):
    a, b = -100.0, 100.0
    while b - a > 1e-10:
        m = (a + b) / 2
        if poly(xs, a) * poly(xs, m) > 0: a = m
        else: b = m
    return a
"""
ROOT_TEST = (
    "def check(candidate):\n import math\n assert math.fabs(poly([-6, 11, -6, 1], candidate([-6, 11, -6, 1]))) < 1e-4\n"
)
PAIR = """
class Pair(object):
    def __init__(self, a, b): self.a, self.b = a, b
def chain(arr, n):
    best = [1] * n
    for i in range(1, n):
        for j in range(i):
            if arr[i].a > arr[j].b and best[i] < best[j] + 1: best[i] = best[j] + 1
    return max(best)
"""
RAISES = "try:\n    f(-1)\n    assert False\nexcept ValueError as e:\n    assert 'small' in str(e)"
TESTS_THAT_PASS = {
    "MBPP": (GOOD[0], ["assert add(2, 3) == 5", "assert add('a', 'b') == 'ab'", "assert add([1], [2]) == [1, 2]"]),
    "HumanEval": (CLOSE, [Case(test=HUMAN_EVAL, entry="has_close")]),
    "HumanEval that calls check": (CLOSE, [HUMAN_EVAL + "\ncheck(has_close)\n"]),
    "helper of the prompt": (ROOT, [Case(test=ROOT_TEST, setup=POLY, entry="find_zero")]),
    "objects by handle": (PAIR, ["assert chain([Pair(5, 24), Pair(15, 25), Pair(27, 40), Pair(50, 60)], 4) == 3"]),
    "methods": (
        "class S:\n def solve(self, x): self.n = x; return x + 1",
        ["s = S()\nassert s.solve(1) == 2 and s.n == 1", "assert S().solve(x=4) == 5"],
    ),
    "isclose": ("def f(x): return x / 3", ["import math\nassert math.isclose(f(1), 0.3333333333, rel_tol=1e-6)"]),
    "isclose without import": ("import math\ndef f(x): return x / 3", ["assert math.isclose(f(1), 1 / 3)"]),
    "exceptions": ("def f(x):\n if x < 0: raise ValueError('too small')", [RAISES]),
    "exceptions of its own": ("class Odd(ValueError): pass\ndef f(x): raise Odd('small')", [RAISES]),
    "a builtin's name": ("def sum(a, b): return a * b", [Case(test="assert sum(10, 15) == 150", entry="sum")]),
    "stub in the setup": (
        "def f(x):\n return x + 1",
        [Case(test="def check(c):\n assert c(1) == 2", setup="def f(x):\n '''doc'''", entry="f")],
    ),
    "plain data": (
        "def f(*a, **k): return [a, k]",
        [
            "assert f(None, True, 1.5, 'é', b'x', 2j, {1}, frozenset([2]), (3, [4]), x={'k': 10**50}) == "
            "[(None, True, 1.5, 'é', b'x', 2j, {1}, frozenset([2]), (3, [4])), {'x': {'k': 10**50}}]"
        ],
    ),
    "exact types": ("def f(): return (1, True)", ["a, b = f()\nassert type(a) is int and type(b) is bool"]),
    "subclasses": (
        "from collections import Counter, namedtuple, defaultdict\nP = namedtuple('P', 'x y')\ndef f(s): return Counter(s)\ndef g(): return P(1, 2)\n",
        ["assert f('aab') == {'a': 2, 'b': 1}", "assert g() == (1, 2)"],
    ),
    "NaN and infinity": (
        "def f(x): return x",
        ["assert f(float('inf')) == float('inf')", "assert f(float('nan')) != f(1)"],
    ),
    "generators": ("def f(n): yield from range(n)", ["assert list(f(3)) == [0, 1, 2]", "assert next(f(3)) == 0"]),
    "maps": ("def f(xs): return map(abs, xs)", ["assert sorted(f([-2, 1])) == [1, 2]"]),
    "constants": ("N = [1, 2]\ndef f(): return N", ["assert N == f()"]),
    "functions of functions": ("def f(n): return lambda x: x + n", ["assert f(2)(3) == 5"]),
    "state": ("a = []\ndef f(x): a.append(x); return len(a)", ["assert f(1) == 1 and f(1) == 2"]),
    "recursion with a cache": (
        "from functools import cache\n@cache\ndef f(n): return n if n < 2 else f(n - 1) + f(n - 2)",
        ["assert f(80) == 23416728348467685"],
    ),
    "what it prints is no matter": ("print('hello')\ndef f(): print('x'); return 1", ["assert f() == 1"]),
    "loops in tests": ("def f(x): return x * x", ["for i in range(50):\n assert f(i) == i ** 2"]),
    "main is not run": ("def f(): return 1\nif __name__ == '__main__': input()", ["assert f() == 1"]),
    "float()": ("from decimal import Decimal\ndef f(): return Decimal('1.5')", ["assert float(f()) == 1.5"]),
    "a large value": ("def f(n): return list(range(n))", ["assert f(100_000)[-1] == 99_999"]),
}


@pytest.mark.parametrize("name", TESTS_THAT_PASS)
def test_an_honest_module_passes(name):
    program, cases = TESTS_THAT_PASS[name]
    outcomes = run(program, cases)
    assert all(o.passed for o in outcomes) and len(outcomes) == len(cases), outcomes


TESTS_THAT_FAIL = {
    "a wrong value": ("def add(a, b): return a - b", ["assert add(2, 3) == 5"], "wrong"),
    "HumanEval": ("def has_close(a, t): return True", [Case(test=HUMAN_EVAL, entry="has_close")], "wrong"),
    "helper of the prompt": (
        "def find_zero(xs): return 0",
        [Case(test=ROOT_TEST, setup=POLY, entry="find_zero")],
        "wrong",
    ),
    "its own helper": (
        "def poly(xs, x): return 0\ndef find_zero(xs): return 0",
        [Case(test=ROOT_TEST, setup=POLY, entry="find_zero")],
        "wrong",
    ),
    "pairs": (PAIR.replace("max", "min"), ["assert chain([Pair(5, 24), Pair(27, 40)], 2) == 2"], "wrong"),
    "its own isclose where the setup has one": (
        "def isclose(*a): return True\ndef f(): return 1",
        [Case(test="assert isclose(f(), 2.0)", setup="from math import *")],
        "wrong",
    ),
    "no exception": ("def f(x): return x", [RAISES], "wrong"),
    "another exception": ("def f(x): raise KeyError('small')", [RAISES], "error"),
    "an exception of Python's own that stops loops": (
        "def f(x): raise StopIteration",
        ["assert all(map(f, [1, 2])) and list(map(f, [])) == []"],
        "error",
    ),
    "exit where any exception is right": (
        "import os\ndef f(x): os._exit(0)",
        ["try:\n    f(-1)\n    assert False\nexcept BaseException: pass"],
        "error",
    ),
    "wrong name": ("def ad(a, b): return a + b", ["assert add(2, 3) == 5"], "error"),
    "no handle is equal to itself": ("x = object()\ndef f(): return x", ["assert f() == f()"], "wrong"),
    "memory": ("def f(): return bytearray(10 << 30)", ["assert f()"], "memory"),
    "memory at the start": ("x = bytearray(10 << 30)", ["assert x"], "memory"),
    "time at the start": ("while True: pass", ["assert 1"], "timeout"),
}


@pytest.mark.parametrize("name", TESTS_THAT_FAIL)
def test_a_wrong_module_does_not_pass(name):
    program, cases, verdict = TESTS_THAT_FAIL[name]
    assert [o.verdict for o in run(program, cases, TIGHT)] == [verdict]


def test_each_test_has_a_verdict_of_its_own_also_after_one_that_never_ends():
    program = "def f(x):\n while x == 2: pass\n return x"
    outcomes = run(program, [f"assert f({n}) == {m}" for n, m in [(1, 1), (2, 2), (3, 3), (4, 5), (5, 5)]], TIGHT)
    assert [o.verdict for o in outcomes] == ["passed", "timeout", "passed", "wrong", "passed"]
    skipped = run(program, [f"assert f({n}) == 1" for n in (1, 3, 4)], TIGHT, until_failure=True)
    assert [o.verdict for o in skipped] == ["passed", "wrong", "skipped"]


def test_a_program_that_fails_as_it_is_defined_fails_all_its_tests():
    outcomes = run("1 / 0\ndef f(): return 1", ["assert f() == 1"] * 3)
    assert [o.verdict for o in outcomes] == ["error"] * 3
    assert "ZeroDivisionError" in outcomes[0].error


def test_kinds_of_cases_can_be_mixed_and_keep_their_order():
    program = "def f(x): return x\nif __name__ == '__main__': print(input())"
    outcomes = run(
        program, [("a", "a"), "assert f(1) == 1", Case(test="assert f(2) == 3"), {"stdin": "b", "stdout": "c"}]
    )
    assert [o.verdict for o in outcomes] == ["passed", "passed", "wrong", "wrong"]


def test_what_a_program_prints_and_its_errors_are_told_but_never_what_is_expected():
    assert run("print('a'); print('b')", [("", "x")])[0].output == "a\nb\n"
    assert "NameError" in run("print(zzz)", [("", "x")])[0].error
    outcome = run("def f(): print('hello'); return 3", [f"assert f() == {TOKEN!r}"])[0]
    assert outcome.output == "hello\n" and TOKEN not in repr(outcome)


# Secrecy


def test_what_is_expected_is_nowhere_in_the_memory_of_the_program():
    tests = [f"assert answer(1) == {TOKEN!r}", "assert answer(1) == 'nothing'", f"assert answer(1) != {TOKEN!r}"]
    verdicts = [o.verdict for o in run(SEARCH, tests, Limits(cpu_seconds=20, wall_seconds=60))]
    assert verdicts == ["wrong", "passed", "passed"]
    script = SEARCH + "\nprint(answer(1))\nprint('x')"
    assert run(script, [("", f"{TOKEN}\n")], Limits(cpu_seconds=20, wall_seconds=60))[0].output == "nothing\nx\n"


def test_a_program_sees_no_environment_of_its_caller(world):
    out = run("import os; print(sorted(os.environ))", [("", "x")])[0].output
    assert "SECRET" not in out and "PATH'" not in out


# What passes between program and examiner

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
def test_bytes_that_are_no_data_are_refused(data):
    with pytest.raises(ValueError):
        plain.decode(data)


def test_data_is_rebuilt_from_exact_builtin_types():
    class Liar(int):
        def __eq__(self, other):
            return True

        __hash__ = int.__hash__

    back = plain.decode(plain.encode([Liar(3), {Liar(4): (Liar(5),)}]))
    assert back == [3, {4: (5,)}] and type(back[0]) is int and back[0] != 7


# The pool


def test_many_threads_at_once_get_their_own_outcomes():
    found = {}

    def work(n):
        found[n] = run(f"print(int(input()) * {n})", [(str(m), str(n * m)) for m in range(3)])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(o.passed for outcomes in found.values() for o in outcomes) and len(found) == 12


def test_200_programs_come_back_in_order():
    jobs = [(f"def f(x): return x + {n % 7}", [f"assert f(1) == {n % 7 + 1 if n % 2 else -1}"]) for n in range(200)]
    outcomes = run_many(jobs)
    assert [o[0].passed for o in outcomes] == [n % 2 == 1 for n in range(200)]
    assert run_many([]) == [] and run("x", []) == []


def test_a_zygote_that_was_killed_is_replaced():
    assert run(*GOOD)[0].passed
    zygotes = list(pool.pool(sandbox.isolation()).free.queue)
    before = {z.process.pid for z in zygotes if z.process}
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    assert all(o[0].passed for o in run_many([GOOD] * 4))
    assert not before & {z.process.pid for z in zygotes if z.process}


PARENT = """
import json, sys, threading, time
from rljax.verifiers import sandbox
from rljax.verifiers.jail import pool
out = sandbox.run("print(int(input()) + 1)", [("1", "2")])
free = pool.pool(sandbox.isolation()).free
print(json.dumps([out[0].passed, [[z.process.pid, z.folder] for z in free.queue if z.process]]), flush=True)
if len(sys.argv) > 1:
    threading.Thread(target=sandbox.run, args=("import time; time.sleep(1e6)", [("", "")])).start()
    time.sleep(0.3)
    print("running", flush=True)
    time.sleep(1e6)
"""


def gone(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        os.kill(pid, 0)
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    return True


@pytest.mark.parametrize("killed", [False, True])
def test_nothing_is_left_when_the_caller_ends_or_is_killed(killed):
    command = [sys.executable, "-c", PARENT, *["wait"] * killed]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=WITH_PACKAGE) as process:
        assert process.stdout
        passed, zygotes = json.loads(process.stdout.readline())
        assert passed and zygotes
        if killed:
            assert process.stdout.readline() == "running\n"
            process.kill()
    end = time.monotonic() + 10
    while not all(gone(pid) and not os.path.exists(folder) for pid, folder in zygotes) and time.monotonic() < end:
        time.sleep(0.05)
    assert all(gone(pid) and not os.path.exists(folder) for pid, folder in zygotes)


SPAWN = """
import multiprocessing
from rljax.verifiers import sandbox

def work(n):
    return [o.passed for o in sandbox.run("print(int(input()) + 1)", [("1", "2"), ("1", "3")])]

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(work, range(4)) == [[True, False]] * 4
"""


def test_worker_processes_have_zygotes_of_their_own(tmp_path):
    (tmp_path / "spawn.py").write_text(SPAWN)
    assert subprocess.run([sys.executable, str(tmp_path / "spawn.py")], env=WITH_PACKAGE).returncode == 0


# Other users, containers, other kernels

AS_USER = """
import ctypes, os, sys
sys.path[:0] = sys.argv[1:3]
how = sys.argv[3]
if how == "user":
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
if how == "container":  # no right of root that Docker takes away; see capabilities(7)
    keep = sum(1 << n for n in (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31)) & ~(1 << 21)
    import struct
    word = struct.pack("<IIIIII", keep, keep, keep, 0, 0, 0)
    libc = ctypes.CDLL(None); number = {"x86_64": 126, "aarch64": 91}[os.uname().machine]
    assert libc.syscall(number, struct.pack("<II", 0x20080522, 0), word) == 0
if how == "no rights":
    import struct
    libc = ctypes.CDLL(None); number = {"x86_64": 126, "aarch64": 91}[os.uname().machine]
    assert libc.syscall(number, struct.pack("<II", 0x20080522, 0), bytes(24)) == 0
import tempfile
tempfile.tempdir = "/tmp"
"""

EVERYTHING = """
import importlib.util, json, os, sys, tempfile
from concurrent.futures import ThreadPoolExecutor
from rljax.verifiers import sandbox
from rljax.verifiers.sandbox import Case, Limits
with open(sys.argv[4]) as file: jobs = json.load(file)
found = []
for name, program, cases, good in jobs:
    cases = [Case(**c) for c in cases]
    bad = program.encode("utf-8", "surrogatepass").decode("utf-8", "surrogatepass")
    found.append((name, bad.replace("PARENT", str(os.getpid())) if len(bad) < 10000 else bad, cases, good))
wrong = []
for good, seconds, wall in [(True, 5, 60), (False, 0.1, 1)]:
    some = [job for job in found if job[3] is good]
    limits = Limits(cpu_seconds=seconds, wall_seconds=wall, memory=96 << 20)
    outcomes = sandbox.run_many([(p, c) for _, p, c, _ in some], limits, until_failure=True)
    wrong += [(job[0], [list(x) for x in o]) for job, o in zip(some, outcomes) if all(x.passed for x in o) != good]
print(json.dumps([list(sandbox.isolation()), os.getuid(), wrong]))
"""


def all_jobs(world: World) -> list:
    """Every program of this file, hostile or not, with whether it is to pass."""
    slow = {"sleep forever", "read forever", "threads that do not end", "thread bomb", "sleeps"}
    fill = lambda program: world.fill(program.replace("PARENT", "PAR" + "ENT"))
    out = []
    for name, program in SCRIPTS.items():
        if name not in slow and len(program) < 100_000:
            program = program.replace("PARENT", "\1")
            out.append(
                [name, world.fill(program).replace("\1", "PARENT"), [{"stdin": "7\n", "stdout": "escaped"}], False]
            )
    for name, program in MODULES.items():
        if name not in slow:
            out.append([name, fill(program), [{"test": test} for test in TESTS[:2]], False])
    for name, (program, stdin, stdout) in SCRIPTS_THAT_PASS.items():
        out.append([name, program, [{"stdin": stdin, "stdout": stdout}], True])
    for name, (program, cases) in TESTS_THAT_PASS.items():
        given = [sandbox.cases_.case(c) for c in cases]
        out.append([name, program, [{"test": c.test, "setup": c.setup, "entry": c.entry} for c in given], True])
    return out


def interpreter_for_others(folder: Path) -> str:
    """A Python that another user can run: ours, one of the system, or a copy of ours."""
    look = "import os, sys; os.setgid(65534); os.setuid(65534); os.execv(sys.argv[1], [sys.argv[1], '-c', 'import sys; sys.exit(sys.version_info < (3, 11))'])"
    for path in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        done = subprocess.run([sys.executable, "-c", look, path], stderr=subprocess.DEVNULL, cwd="/")
        if done.returncode == 0:
            return path
    home = Path(os.__file__).parents[2]
    ignore = shutil.ignore_patterns("site-packages", "test", "__pycache__", "idlelib", "*.a")
    shutil.copytree(Path(os.__file__).parent, folder / "lib" / Path(os.__file__).parent.name, ignore=ignore)
    shutil.copytree(home / "bin", folder / "bin", ignore=shutil.ignore_patterns("pip*", "*config*"), symlinks=True)
    return str(folder / "bin" / f"python3.{sys.version_info.minor}")


@pytest.mark.parametrize("how", ["user", "container", "no rights"])
def test_all_of_it_holds_for_an_ordinary_user_and_in_a_container(how, world):
    root = os.geteuid() == 0
    if not root:
        how = "as we are"
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        jobs = Path(folder, "jobs.json")
        jobs.write_text(json.dumps(all_jobs(world)))
        python = interpreter_for_others(Path(folder)) if how == "user" else sys.executable
        program = AS_USER + EVERYTHING
        package = Path(folder, "package")
        shutil.copytree(Path(sandbox.__file__).parents[1] / "verifiers", package / "rljax" / "verifiers")
        for file in ("__init__.py", "errors.py"):
            shutil.copy(Path(sandbox.__file__).parents[1] / file, package / "rljax")
        command = [python, "-B", "-c", program, str(package), folder, how, str(jobs)]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stderr
        isolation, user, wrong = json.loads(done.stdout.splitlines()[-1])
    assert wrong == []
    assert isolation[2] is (how == "container") and user == (65534 if how == "user" else os.getuid())
    assert world.look() == world.before


def test_without_isolation_programs_are_refused_unless_one_insists(monkeypatch):
    monkeypatch.setattr(confinement, "probe", lambda: confinement.Isolation(landlock=0, seccomp=False, own_user=False))
    with pytest.raises(UserError, match="no Landlock and no seccomp.*allow_unsafe"):
        run(*GOOD)
    assert run(*GOOD, allow_unsafe=True)[0].passed
    assert run("while True: pass", [("", "x")], TIGHT, allow_unsafe=True)[0].verdict == "timeout"
    orphan = "import os, time\nif os.fork() == 0:\n os.setsid()\n if os.fork() == 0: time.sleep(1e6)\n"
    assert run(orphan, [("", "x")], TIGHT, allow_unsafe=True)[0].verdict in {"wrong", "timeout"}
    assert run(*GOOD, allow_unsafe=True)[0].passed
    for zygote in list(pool.pool(sandbox.isolation()).free.queue):
        children = Path(f"/proc/{zygote.process.pid}/task/{zygote.process.pid}/children") if zygote.process else None
        assert not (children and children.exists() and children.read_text())


def test_with_less_than_all_of_it_one_is_told_what_is_missing(monkeypatch):
    monkeypatch.setattr(confinement, "probe", lambda: confinement.Isolation(landlock=0, seccomp=True, own_user=False))
    with pytest.raises(UserError, match="no Landlock "):
        run_many([GOOD])


# What is asked for must make sense

MISTAKES = [
    (lambda: Case(), "either stdout"),
    (lambda: Case(stdout="1", test="assert f()"), "either stdout"),
    (lambda: Case(stdout="1", entry="f"), "setup and entry"),
    (lambda: Case(test="assert f()", entry="f()"), "name of a function"),
    (lambda: run("", [{"inputs": "1", "stdout": "2"}]), "no 'inputs'"),
    (lambda: run("", [("1", "2", "3")]), "3 things"),
    (lambda: run("", [("1", 2)]), "is a text"),
    (lambda: run("", ["assert f( == 1"]), "not valid Python"),
    (lambda: run("", ["f(1) == 1"]), "asserts nothing"),
    (lambda: run("", ["def check(candidate):\n assert candidate(1)"]), "calls it nowhere"),
    (lambda: run("", [("", "")], Limits(cpu_seconds=0)), "cpu_seconds must be positive"),
    (lambda: run("", [("", "")], Limits(cpu_seconds=float("inf"))), "finite"),
    (lambda: run("", [("", "")], Limits(memory=float("1e8"))), "whole number"),
]


@pytest.mark.parametrize(("what", "message"), MISTAKES, ids=[m for _, m in MISTAKES])
def test_a_mistake_of_the_caller_is_told_in_one_line(what, message):
    with pytest.raises(UserError, match=message) as e:
        what()
    assert "\n" not in str(e.value)
