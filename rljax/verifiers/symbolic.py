r"""Compares two mathematical expressions with math-verify (sympy), in processes that can be killed.

    expressions_equal("x^2+1", "1+x^2")  ->  True

sympy may never end, or use all memory, on a text that a policy wrote. Therefore servers do the work: ``python -m
rljax.verifiers.symbolic``. Each server has sympy loaded and its parser warmed up, and forks a child that checks one
pair after another. The kernel kills a child that uses more than ``CPU_SECONDS`` of CPU time or ``MEMORY_BYTES`` of
memory. The server then counts the pair as not equal, forks another child within milliseconds, and continues. A child that
the machine kills, or keeps from working, says nothing about the pair: it is asked again once, and then has no verdict. The
caller needs no signals, so it may be any thread. Expressions that are hopeless (towers of powers, huge factorials) are rejected
before.
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
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import IO

from rljax.verifiers import formula_evaluator
from rljax.verifiers.failures import known_verdict
from rljax.verifiers.tractability import is_tractable

Pair = tuple[str, str | None]  # (gold, answer); with None for the answer: can gold be parsed?
Verdict = bool | None  # None: the machine kept the processes from judging
CPU_SECONDS = 0.5  # of CPU time for one check; a normal one takes a fiftieth
MEMORY_BYTES = 2 << 30  # bytes of address space
PARENT_CHECK_SECONDS = 2.0  # a server checks so often whether its caller is alive
REPLY_TIMEOUT_SECONDS = 20.0  # for a child that neither works nor answers
WAIT_SECONDS = 0.5  # the most that one look at a child adds to this time: a pause of the server adds no more
MAX_CACHE_ENTRIES = 1 << 17

DECIMAL = re.compile(r"(?<![0-9.])[0-9]*\.[0-9]+(?![0-9.])")
SPACE = re.compile(r"(?<![A-Za-z]) | (?![A-Za-z])")  # spaces that can be removed: "\pi x" must not become "\pix"
UNDEFINED = re.compile(
    r"zoo|nan|\*oo|oo\*|\boo ?[-+/]|[\w)] ?[-+/] ?oo\b"
)  # sympy finds 9*oo equal to many expressions


# In the process of the caller


class Server:
    """A client of one server process, which is started at the first check and after it died. One caller at a time."""

    def __init__(self):
        self.process: subprocess.Popen[bytes] | None = None
        self.lock = threading.Lock()

    def start(self) -> subprocess.Popen[bytes]:
        """The running process; starts it if necessary."""
        if self.process is None or self.process.poll() is not None:
            package = str(Path(__file__).parents[2])
            env = os.environ | {"PYTHONPATH": os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])}
            command = [sys.executable, "-m", "rljax.verifiers.symbolic"]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
        return self.process

    def check(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """One verdict per pair. A server that dies is restarted once. If it dies again, no pair has a verdict."""
        with self.lock:
            for _ in range(2):
                process = self.start()
                assert process.stdin and process.stdout
                with contextlib.suppress(OSError, ValueError):
                    process.stdin.write(json.dumps(list(pairs)).encode() + b"\n")
                    process.stdin.flush()
                    return json.loads(process.stdout.readline())
                self.stop()
            return [None] * len(pairs)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@functools.cache
def get_servers(pid: int) -> tuple[Server, ...]:
    """The servers of the process ``pid``. A forked child gets its own."""
    out = tuple(Server() for _ in range(max(1, min(8, os.cpu_count() or 1))))
    atexit.register(lambda: os.getpid() == pid and [s.stop() for s in out])
    return out


CACHE: dict[Pair, bool] = {}


def check_many(pairs: Sequence[Pair]) -> list[Verdict]:
    """One verdict per pair: is gold equal to answer? With None for the answer: can gold be parsed? From any thread.

    A verdict is None where the machine killed the processes that judge, or kept them from working, twice.
    """
    pairs = [formula_evaluator.rename_letters(*pair) for pair in pairs]
    verdicts: dict[Pair, Verdict] = {p: CACHE[p] for p in dict.fromkeys(pairs) if p in CACHE}
    todo = [p for p in dict.fromkeys(pairs) if p not in verdicts]
    verdicts |= {p: False for p in todo if not all(is_tractable(text) for text in p if text is not None)}
    todo = [p for p in todo if p not in verdicts]
    pool = get_servers(os.getpid())
    if len(todo) < 4:
        free = next((s for s in pool if not s.lock.locked()), pool[0])
        found = free.check(todo) if todo else []
    else:
        parts = [todo[i :: len(pool)] for i in range(len(pool))]
        with ThreadPoolExecutor(len(pool)) as threads:
            done = list(threads.map(Server.check, pool, parts))
        found = [done[i % len(pool)][i // len(pool)] for i in range(len(todo))]
    checked = dict(zip(todo, found, strict=True))
    if len(CACHE) + len(checked) > MAX_CACHE_ENTRIES:
        CACHE.clear()
    CACHE.update({pair: verdict for pair, verdict in checked.items() if verdict is not None})
    verdicts |= checked
    return [verdicts[p] for p in pairs]


def expressions_equal(gold: str, answer: str) -> bool:
    """True if two expressions are equal; False if one cannot be parsed, or if the check takes too long.

    Raises VerifierFailed where there is no verdict.
    """
    return known_verdict(check_many([(gold, answer)])[0])


def is_readable(gold: str) -> bool:
    """True if math-verify can parse the text. Raises VerifierFailed where there is no verdict."""
    return known_verdict(check_many([(gold, None)])[0])


# In the server process


def decimal_to_fraction(decimal: re.Match[str]) -> str:
    """A decimal as an exact LaTeX fraction."""
    above, below = Fraction(decimal[0]).as_integer_ratio()
    return f"{{\\frac{{{above}}}{{{below}}}}}"


def check_pair(gold: str, answer: str | None) -> bool:
    """The verdict of math-verify. Its default compares 6 digits; here decimals are fractions, and 40 digits count."""
    from math_verify import LatexExtractionConfig, parse, verify  # a slow import, for servers only

    config = [LatexExtractionConfig()]

    def read(text: str):
        text = DECIMAL.sub(decimal_to_fraction, text)
        # math-verify takes a single letter at the end, " + c", for a unit, and loses the sum
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
    return all(relatively_close(one, other) for one, other in zip(right, said, strict=False))


def relatively_close(one, other) -> bool:
    """True if two numbers agree to 40 significant digits. math-verify rounds, so that tiny numbers become 0."""
    if not (getattr(one, "is_number", False) and getattr(other, "is_number", False)) or one == other:
        return True
    return bool(abs((one - other).evalf(60)) <= abs(one.evalf(60)) * 1e-40)


WARM_UP_PAIRS = [  # checked once in each server, whose children inherit the tables of the parser
    (r"\frac{\sqrt{3}}{2}-x^2", r"\frac{\sqrt 3}{2}-x^{2}"),
    (r"(-\infty, 2] \cup [3, 5)", r"(3, 4)"),
    (r"\{1,2\}", r"1, 2"),
    (r"3\pi+2i", r"y=2x+\log_2 3"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\pm \sin x"),
]


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answer each line of pairs (JSON) with a line of verdicts (JSON)."""
    import logging

    logging.disable(logging.ERROR)
    for pair in WARM_UP_PAIRS:
        check_pair(*pair)
    caller = os.getppid()
    child: tuple[int, int, int] | None = None  # (pid, descriptor to write pairs to, descriptor to read verdicts from)
    while line := read_request(requests, caller):
        verdicts = []
        for pair in json.loads(line):
            verdict = None
            for _ in range(2):  # once more where the machine, not the pair, has ended or stopped the child
                child = child or start_child()
                verdict = check_in_child(child, pair)
                if verdict is not None:
                    break
                by_machine, child = kill_child(child), None
                if not by_machine:
                    verdict = False
                    break
            verdicts.append(verdict)
        replies.write(json.dumps(verdicts).encode() + b"\n")
        replies.flush()
    if child:
        kill_child(child)


def read_request(requests: IO[bytes], caller: int) -> bytes:
    """The next request; empty when the caller has ended, even if a fork of the caller keeps our stdin open."""
    while not select.select([requests], [], [], PARENT_CHECK_SECONDS)[0]:
        if os.getppid() != caller:
            return b""
    return requests.readline()


def start_child() -> tuple[int, int, int]:
    """Start a child that checks pairs until it is killed: (pid, descriptor for pairs, descriptor for verdicts)."""
    read_pair, write_pair = os.pipe()
    read_verdict, write_verdict = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write_pair)
        os.close(read_verdict)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGPROF, signal.SIG_DFL)  # the default action ends the process, even inside C code
        with os.fdopen(read_pair, "rb") as pairs:
            for line in pairs:
                signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
                try:
                    right = check_pair(*json.loads(line))
                except Exception:  # an error of sympy on hostile text is no proof of equality
                    right = False
                signal.setitimer(signal.ITIMER_PROF, 0)
                os.write(write_verdict, b"1" if right else b"0")
        os._exit(0)
    os.close(read_pair)
    os.close(write_verdict)
    return pid, write_pair, read_verdict


def check_in_child(child: tuple[int, int, int], pair: Pair) -> Verdict:
    """The verdict of a child; None if it died, or stood still for too long. ``CPU_SECONDS`` end one that works."""
    with contextlib.suppress(BrokenPipeError):  # it died since the last pair
        os.write(child[1], json.dumps(pair).encode() + b"\n")
    ready, seconds = [], REPLY_TIMEOUT_SECONDS
    while not ready and seconds > 0:
        before, used = time.monotonic(), cpu_seconds(child[0])
        ready, _, _ = select.select([child[2]], [], [], WAIT_SECONDS)
        if cpu_seconds(child[0]) <= used:
            seconds -= min(time.monotonic() - before, WAIT_SECONDS)
    verdict = os.read(child[2], 1) if ready else b""
    return verdict == b"1" if verdict else None


def cpu_seconds(pid: int) -> float:
    """The CPU time of a process; 0 where the kernel does not tell it."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # as clock_getcpuclockid of Linux numbers the clock
    except OSError:
        return 0.0


def kill_child(child: tuple[int, int, int]) -> bool:
    """Kill a child and close its pipes. Returns whether the machine, and no pair, is to blame.

    That is so where somebody else had killed it, as the kernel does without memory, and where it neither works nor ends: a
    pair that needs much work ends it by ``CPU_SECONDS``.
    """
    os.close(child[1])
    os.close(child[2])
    pid = status = 0
    for _ in range(10):  # one that died gives its status at once, but its pipe may close before
        pid, status = os.waitpid(child[0], os.WNOHANG)
        if pid:
            break
        time.sleep(0.01)
    if not pid:
        os.kill(child[0], signal.SIGKILL)
        _, status = os.waitpid(child[0], 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@contextlib.contextmanager
def reserve_stdio() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """(requests, replies): stdin and stdout for this module alone. Prints of libraries go to stderr."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    yield sys.stdin.buffer, replies


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # they are for the caller, whose end closes our stdin
        signal.signal(number, signal.SIG_IGN)
    with reserve_stdio() as channel:
        serve(*channel)
