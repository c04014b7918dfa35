r"""Are two mathematical expressions equal? math-verify (sympy) decides, in processes that can be killed.

    equal("x^2+1", "1+x^2")  ->  True

sympy may take for ever, or all memory, on what a policy writes. So the work is done by servers, ``python -m
rljax.verifiers.symbolic``: each has sympy loaded and its parser warm, and forks a child that does one check after the
other. The kernel ends a child that uses more than ``SECONDS`` of CPU time or ``MEMORY`` bytes; the server notes the
verdict "too hard", forks the next child in milliseconds, and goes on. Nothing here depends on signals in the caller: it
works from any thread. Answers that are bound to be hostile (towers of powers, huge factorials) are turned away before.
"""

import atexit
import contextlib
import functools
import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import IO

Pair = tuple[str, str | None]  # (gold, answer); None asks whether gold can be read at all
SECONDS = 0.5  # of CPU time a check: fifty times what an honest one takes
MEMORY = 2 << 30  # bytes of address space
WATCH = 2.0  # seconds between two looks at whether the caller is alive
PATIENCE = 20.0  # wall-clock seconds, for a machine that is busy with other things
LARGEST_CACHE = 1 << 17

WILD = re.compile(
    r"\^ ?\{[^{}]*\^|\^ ?[0-9a-zA-Z]+ ?\^"  # a power of a power
    r"|\^ ?\{?-?[0-9]{6,}|[)}\]a-zA-Z] ?\^ ?\{?-?[0-9]{3,}"  # huge exponents; of an expression: large ones
    r"|[0-9]{5,} ?!|[)}\]!] ?!|binom ?\{? ?[0-9]{5,}|[0-9]{60,}"
    r"|\\(?:i*int|sum|prod|lim|Gamma|zeta)|\*\*|\^ ?\{ ?\("
)

DECIMAL = re.compile(r"(?<![0-9.])[0-9]*\.[0-9]+(?![0-9.])")
SPACE = re.compile(r"(?<![A-Za-z]) | (?![A-Za-z])")  # that may go: \pi x is not \pix
UNDEFINED = re.compile(r"zoo|nan|\*oo|oo\*|\boo ?[-+/]|[\w)] ?[-+/] ?oo\b")  # 9*oo would be equal to many things
POWER = re.compile(r"[)}\]] ?\^ ?\{?([0-9]{1,6})")  # of sums and functions: multiplied out, they are long


def tame(text: str) -> bool:
    """Can this be worked out in reasonable time? False for towers of powers, huge factorials, deep nesting, ..."""
    depth = deepest = 0
    for c in text:
        depth += (c in "({[") - (c in ")}]")
        deepest = max(deepest, depth)
    powers = sum(int(n) for n in POWER.findall(text))
    return deepest <= 10 and powers <= 60 and text.count("^") <= 16 and text.count("!") <= 3 and not WILD.search(text)


# The caller's side


class Server:
    """One server process, started when first asked and again whenever it has died; one caller at a time."""

    def __init__(self):
        self.process: subprocess.Popen[bytes] | None = None
        self.lock = threading.Lock()

    def start(self) -> subprocess.Popen[bytes]:
        if self.process is None or self.process.poll() is not None:
            package = str(Path(__file__).parents[2])
            env = os.environ | {"PYTHONPATH": os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])}
            command = [sys.executable, "-m", "rljax.verifiers.symbolic"]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
        return self.process

    def check(self, pairs: Sequence[Pair]) -> list[bool]:
        """A verdict for each pair. A server that dies is replaced once; what it was asked a second time is False."""
        with self.lock:
            for _ in range(2):
                process = self.start()
                assert process.stdin and process.stdout
                with contextlib.suppress(OSError, ValueError):
                    process.stdin.write(json.dumps(list(pairs)).encode() + b"\n")
                    process.stdin.flush()
                    return json.loads(process.stdout.readline())
                self.stop()
            return [False] * len(pairs)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@functools.cache
def servers(pid: int) -> tuple[Server, ...]:
    """The servers of this process; a forked copy of it gets its own."""
    out = tuple(Server() for _ in range(max(1, min(8, os.cpu_count() or 1))))
    atexit.register(lambda: os.getpid() == pid and [s.stop() for s in out])
    return out


CACHE: dict[Pair, bool] = {}


def check_many(pairs: Sequence[Pair]) -> list[bool]:
    """Is gold equal to answer (or, with None for an answer, can gold be read)? One verdict a pair; from any thread."""
    verdicts = {p: CACHE[p] for p in dict.fromkeys(pairs) if p in CACHE}
    todo = [p for p in dict.fromkeys(pairs) if p not in verdicts]
    verdicts |= {p: False for p in todo if not all(tame(text) for text in p if text is not None)}
    todo = [p for p in todo if p not in verdicts]
    pool = servers(os.getpid())
    if len(todo) < 4:
        free = next((s for s in pool if not s.lock.locked()), pool[0])
        found = free.check(todo) if todo else []
    else:
        parts = [todo[i :: len(pool)] for i in range(len(pool))]
        with ThreadPoolExecutor(len(pool)) as threads:
            done = list(threads.map(Server.check, pool, parts))
        found = [done[i % len(pool)][i // len(pool)] for i in range(len(todo))]
    new = dict(zip(todo, found, strict=True))
    if len(CACHE) + len(new) > LARGEST_CACHE:
        CACHE.clear()
    CACHE.update(new)
    verdicts |= new
    return [verdicts[p] for p in pairs]


def equal(gold: str, answer: str) -> bool:
    """Are two expressions equal? False where either cannot be read, or in time."""
    return check_many([(gold, answer)])[0]


def readable(gold: str) -> bool:
    """Can this be read as mathematics?"""
    return check_many([(gold, None)])[0]


# The server's side


def fraction(decimal: re.Match[str]) -> str:
    above, below = Fraction(decimal[0]).as_integer_ratio()
    return f"{{\\frac{{{above}}}{{{below}}}}}"


def judge(gold: str, answer: str | None) -> bool:
    """What math-verify says. By itself it compares 6 digits; here decimals are fractions, and 40 digits count."""
    from math_verify import LatexExtractionConfig, parse, verify  # slow to import: in servers only

    config = [LatexExtractionConfig()]

    def read(text: str):
        text = DECIMAL.sub(fraction, text)
        # a lonely letter at the end, " + c", is a unit to math-verify, and nothing is left of the sum
        for form in (text, SPACE.sub("", text)):
            out = parse(f"${form}$", extraction_config=config, fallback_mode="no_fallback", parsing_timeout=0)
            if out:
                return [] if any(UNDEFINED.search(str(x)) for x in out) else out
        return []

    right = read(gold)
    if answer is None or not right:
        return bool(right)
    said = read(answer)
    if not verify(right, said, float_rounding=40, numeric_precision=60, timeout_seconds=0):
        return False
    return all(close(one, other) for one, other in zip(right, said, strict=False))


def close(one, other) -> bool:
    """math-verify rounds at a fixed place, where all that is tiny is nought: numbers must agree in proportion, too."""
    if not (getattr(one, "is_number", False) and getattr(other, "is_number", False)) or one == other:
        return True
    return bool(abs((one - other).evalf(60)) <= abs(one.evalf(60)) * 1e-40)


WARM = [  # parsed once in each server: its children inherit the parser's tables
    (r"\frac{\sqrt{3}}{2}-x^2", r"\frac{\sqrt 3}{2}-x^{2}"),
    (r"(-\infty, 2] \cup [3, 5)", r"(3, 4)"),
    (r"\{1,2\}", r"1, 2"),
    (r"3\pi+2i", r"y=2x+\log_2 3"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\pm \sin x"),
]


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answer each line of pairs with a line of verdicts."""
    import logging

    logging.disable(logging.ERROR)
    for pair in WARM:
        judge(*pair)
    caller = os.getppid()
    child: tuple[int, int, int] | None = None  # (pid, where to write a pair, where to read its verdict)
    while line := next_line(requests, caller):
        verdicts = []
        for pair in json.loads(line):
            child = child or fork()
            verdict = ask(child, pair)
            if verdict is None:
                child = end(child)
            verdicts.append(verdict is True)
        replies.write(json.dumps(verdicts).encode() + b"\n")
        replies.flush()
    if child:
        end(child)


def next_line(requests: IO[bytes], caller: int) -> bytes:
    """The next request; empty when the caller has ended, even if a copy of it still holds our stdin open."""
    while not select.select([requests], [], [], WATCH)[0]:
        if os.getppid() != caller:
            return b""
    return requests.readline()


def fork() -> tuple[int, int, int]:
    """Start a child that judges pairs until it is killed."""
    read_pair, write_pair = os.pipe()
    read_verdict, write_verdict = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write_pair)
        os.close(read_verdict)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGPROF, signal.SIG_DFL)  # by default it ends the process, even within C code
        with os.fdopen(read_pair, "rb") as pairs:
            for line in pairs:
                signal.setitimer(signal.ITIMER_PROF, SECONDS)
                try:
                    right = judge(*json.loads(line))
                except Exception:  # whatever a policy's text provokes within sympy is no proof that it is right
                    right = False
                signal.setitimer(signal.ITIMER_PROF, 0)
                os.write(write_verdict, b"1" if right else b"0")
        os._exit(0)
    os.close(read_pair)
    os.close(write_verdict)
    return pid, write_pair, read_verdict


def ask(child: tuple[int, int, int], pair: Pair) -> bool | None:
    """The child's verdict; None where it died or took too long."""
    os.write(child[1], json.dumps(pair).encode() + b"\n")
    ready, _, _ = select.select([child[2]], [], [], PATIENCE)
    verdict = os.read(child[2], 1) if ready else b""
    return verdict == b"1" if verdict else None


def end(child: tuple[int, int, int]) -> None:
    """Kill a child and forget it."""
    os.kill(child[0], signal.SIGKILL)
    os.waitpid(child[0], 0)
    os.close(child[1])
    os.close(child[2])


@contextlib.contextmanager
def own_channel() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """stdin and stdout for this module alone: what a library prints goes to stderr."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    yield sys.stdin.buffer, replies


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller decides when to stop, and closes our stdin when it ends
    with own_channel() as channel:
        serve(*channel)
