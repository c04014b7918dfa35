"""The side that is trusted: has programs and tests run in jails, and says what became of them."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator

from rljax.verifiers.jail import inmate, plain
from rljax.verifiers.jail.cases import Case, Limits, Outcome, questions
from rljax.verifiers.jail.pool import Zygote
from rljax.verifiers.jail.watch import Watch, nothing, sealed

EXPLAINED = 4096  # bytes that are kept of what a program writes to stderr


def fate(status: int) -> str:
    """What an exit status tells; "" for a regular end, which is no merit."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "killed" if number == signal.SIGSYS else "output" if number == signal.SIGXFSZ else "error"
    code = os.WEXITSTATUS(status)
    return "memory" if code == inmate.OUT_OF_MEMORY else "error" if code else ""


def same(one: bytes, other: bytes) -> bool:
    """Are two outputs the same, apart from blanks at the ends of lines and empty lines at the end?"""
    lines = [[line.rstrip() for line in text.rstrip().split(b"\n")] for text in (one, other)]
    return lines[0] == lines[1]


def run_script(zygote: Zygote, text: str, case: Case, limits: Limits) -> Outcome:
    """Run a program on its stdin, and compare what it prints."""
    expected = (case.stdout or "").encode("utf-8", "surrogatepass")
    with contextlib.closing(Watch(zygote, limits, max(limits.output, 2 * len(expected)))) as watch:
        (out, their_out), (err, their_err) = watch.open(), watch.open()
        stdin = watch.hold(sealed(case.stdin.encode("utf-8", "surrogatepass")))
        source = watch.hold(sealed(plain.encode(["", text])))
        pid = watch.add("script", [stdin, their_out, their_err, source])
        verdict = watch.wait(lambda: pid in zygote.exits, [out, err])
        zygote.end()
        status, seconds = zygote.exits.pop(pid)
        for fd in (out, err):
            watch.take(fd)
        printed, errors = watch.taken[out], watch.taken[err]
        if seconds > limits.cpu_seconds:
            verdict = "timeout"
        elif len(printed) + len(errors) > watch.cap:
            verdict = verdict or "output"
        verdict = verdict or fate(status) or ("passed" if same(bytes(printed), expected) else "wrong")
        return outcome(verdict, printed, seconds, errors, watch.cap)


def outcome(verdict: str, printed: bytearray, seconds: float, errors: bytearray, cap: int) -> Outcome:
    output, error = bytes(printed[:cap]).decode(errors="replace"), bytes(errors[-EXPLAINED:]).decode(errors="replace")
    return Outcome(verdict == "passed", verdict, output, seconds, error)


def run_tests(zygote: Zygote, text: str, cases: list[Case], limits: Limits, until_failure: bool) -> list[Outcome]:
    """Run tests of one setup, one after the other, until one cannot be finished: the outcomes so far, at least one.

    A program that fails before the first test fails all of them.
    """
    outcomes: list[Outcome] = []
    with contextlib.closing(Watch(zygote, limits, limits.output)) as watch:
        (out, their_out), (err, their_err), (reports, their_report) = watch.open(), watch.open(), watch.open()
        mine, theirs = (watch.hold(s.detach()) for s in socket.socketpair())
        source = watch.hold(sealed(plain.encode([cases[0].setup, text])))
        program = watch.add("module", [watch.hold(nothing()), their_out, their_err, source, mine], len(cases))
        tests = watch.hold(sealed(plain.encode([list(questions(c.setup, c.test or "", c.entry)) for c in cases])))
        nowhere = [watch.hold(nothing()) for _ in range(3)]
        examiner = watch.add("examiner", [*nowhere, tests, theirs, their_report], len(cases))
        printed = wrong = 0
        for said, verdict in statements(watch, reports, [out, err], {program, examiner}):
            last = bool(verdict) or said == "gone"
            if last:
                zygote.end()
            elif said == "ready":
                continue
            for fd in (out, err):
                watch.take(fd)
            seconds = watch.spent(program)
            if seconds > limits.cpu_seconds:
                verdict = "timeout"
            elif last and not verdict:
                verdict = fate(zygote.exits[program][0]) or "error"
            parts = watch.taken[out][printed:], seconds, watch.taken[err][wrong:]
            outcomes.append(outcome(verdict or said, *parts, watch.cap))
            printed, wrong = len(watch.taken[out]), len(watch.taken[err])
            if last or len(outcomes) == len(cases) or until_failure and not outcomes[-1].passed:
                break
            watch.begin()
        if not watch.taken[reports].startswith(b"ready"):
            outcomes *= len(cases)
        zygote.end()
        zygote.exits.clear()
        return outcomes


def statements(watch: Watch, reports: int, outputs: list[int], inmates: set[int]) -> Iterator[tuple[str, str]]:
    """What an examiner says, word by word, with the verdict where the inmates did what is not allowed."""
    seen = 0
    words = lambda: bytes(watch.taken[reports]).split(b"\n")[:-1]
    while True:
        verdict = watch.wait(lambda seen=seen: len(words()) > seen or inmates <= set(watch.zygote.exits), outputs)
        watch.take(reports)
        yield words()[seen].decode() if len(words()) > seen else "gone", verdict
        seen += 1
