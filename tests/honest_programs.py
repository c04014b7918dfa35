"""Honest programs: scripts and modules that must pass their test cases, and modules that must not."""

from rljax.verifiers.sandbox import Case

GOOD = ("def add(a, b): return a + b", ["assert add(2, 3) == 5"])

# Scripts: name -> (program, stdin, stdout)

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
    "recursion in a thread with a stack of 256 MB": (
        "import sys, threading\nthreading.stack_size(256 << 20)\nsys.setrecursionlimit(10**6)\ndef f(n): return n and 1 + f(n - 1)\n"
        "t = threading.Thread(target=lambda: print(f(100_000))); t.start(); t.join()",
        "",
        "100000",
    ),
    "threads": (
        "from concurrent.futures import ThreadPoolExecutor\nprint(sum(ThreadPoolExecutor(4).map(abs, range(-9, 9))))",
        "",
        "81",
    ),
    "multiprocessing.pool.ThreadPool": (
        "from multiprocessing.pool import ThreadPool\nwith ThreadPool(4) as p: print(sum(p.map(abs, range(-9, 9))))",
        "",
        "81",
    ),
    "multiprocessing.dummy": (
        "from multiprocessing.dummy import Pool, Lock\nwith Lock(), Pool(3) as p: print(p.map(str, [1, 2]))",
        "",
        "['1', '2']",
    ),
    "sqlite3 in memory": (
        "import sqlite3\nc = sqlite3.connect(':memory:')\nc.execute('create table t (n int)')\nc.executemany('insert into t values (?)', [(1,), (4,)])\n"
        "print(c.execute('select sum(n) from t').fetchone()[0])",
        "",
        "5",
    ),
    "sqlite3 in a file": (
        "import sqlite3\nwith sqlite3.connect('a.db') as c:\n c.execute('create table t (n int)'); c.execute('insert into t values (5)')\n"
        "print(sqlite3.connect('a.db').execute('select n from t').fetchone()[0])",
        "",
        "5",
    ),
    "shelve": (
        "import shelve\nwith shelve.open('s') as s: s['a'] = [1, 2]\nwith shelve.open('s') as s: print(s['a'])",
        "",
        "[1, 2]",
    ),
    "shutil.copy, copy2 and copytree": (
        "import os, shutil\nos.mkdir('d'); open('d/x', 'w').write('5')\nshutil.copy('d/x', 'y'); shutil.copy2('y', 'z'); shutil.copytree('d', 'e')\n"
        "print(open('z').read(), os.listdir('e'))",
        "",
        "5 ['x']",
    ),
    "inspect.getsource": (
        "import inspect\ndef f(): return 1\nclass A:\n  n = 2\nprint(inspect.getsource(f), inspect.getsource(A))",
        "",
        "def f(): return 1\n class A:\n  n = 2",
    ),
    "files that are removed, one after another": (
        "import os\nfor n in range(200):\n  open('x', 'wb').write(bytes(1 << 20)); os.unlink('x')\nprint(os.listdir())",
        "",
        "[]",
    ),
    "many threads one after another": (
        "import threading\nfor n in range(300):\n t = threading.Thread(target=int); t.start(); t.join()\nprint('x')",
        "",
        "x",
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

# Modules: name -> (program, test cases)

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
    "30 KB of output for each of six tests": (
        "def f(x): print('x' * 30_000); return x",
        [f"assert f({n}) == {n}" for n in range(6)],
    ),
    "half of the CPU time for each of three tests": (
        "import time\ndef f(x):\n end = time.process_time() + 1.0\n while time.process_time() < end: pass\n return x",
        [f"assert f({n}) == {n}" for n in range(3)],
    ),
    "inspect.getsource of a function that is tested": (
        "import inspect\ndef f(): return 1\ndef g(): return inspect.getsource(f)",
        ["assert g() == 'def f(): return 1\\n'"],
    ),
    "what it prints is no matter": ("print('hello')\ndef f(): print('x'); return 1", ["assert f() == 1"]),
    "loops in tests": ("def f(x): return x * x", ["for i in range(50):\n assert f(i) == i ** 2"]),
    "main is not run": ("def f(): return 1\nif __name__ == '__main__': input()", ["assert f() == 1"]),
    "float()": ("from decimal import Decimal\ndef f(): return Decimal('1.5')", ["assert float(f()) == 1.5"]),
    "items and text of a result": (
        "from collections import deque\ndef f(n): return deque(range(n))",
        [
            "r = f(3)\nassert len(r) == 3 and r[0] == 0 and r[-1] == 2 and r[1:] == [1, 2] and list(r) == list(r) == [0, 1, 2]"
        ],
    ),
    "an iterator gives its items once": (
        "def f(n): yield from range(n)",
        ["g = f(4)\nassert next(g) == 0 and [x for x, _ in zip(g, 'a')] == [1] and list(g) == [3] and list(g) == []"],
    ),
    "attributes of a result": (
        "class Node:\n def __init__(self, v, n=None): self.v, self.next = v, n\ndef f(n): return Node(n, Node(n + 1))",
        ["assert f(3).v == 3 and f(3).next.v == 4 and f(3).next.next is None"],
    ),
    "methods and items of objects": (
        "class Cache:\n def __init__(self): self.d, self.all = {}, self\n def put(self, k, v): self.d[k] = v\n"
        " def get(self, k): return self.d.get(k, -1)\n def __getitem__(self, k): return self.d[k]\n def __len__(self): return len(self.d)",
        [
            "c = Cache()\nc.put('a', 1)\nassert c.get('a') == 1 and c.get('b') == -1 and c['a'] == 1 and len(c) == 1\n"
            "c.put('b', 2)\nassert len(c) == 2 and c.all.get('b') == 2"
        ],
    ),
    "names of types": (
        "def f(x): return type(x)",
        ["assert f(1) == int and f('a') is not str and f({}) in (list, dict)"],
    ),
    "a type goes back to the program": (
        "def f(x): return type(x)\ndef g(t, x): return t(x)",
        ["assert g(f(1), '5') == 5"],
    ),
    "a large value": ("def f(n): return list(range(n))", ["assert f(100_000)[-1] == 99_999"]),
}

# Modules: name -> (program, test cases, verdict)

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
