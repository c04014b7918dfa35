"""The trusted side: runs programs and tests in the jail, and decides their verdicts."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator

from rljax.verifiers.jail import plain_data, program_process
from rljax.verifiers.jail.cases import Case, Limits, Outcome, prepare_test
from rljax.verifiers.jail.monitor import Monitor, make_sealed_file, open_null
from rljax.verifiers.jail.pool import ZygoteClient

MAX_ERROR_BYTES = 4096  # that are kept of what a program writes to stderr


def verdict_of_exit(status: int) -> str:
    """The verdict for an exit status; "" for a regular exit, which proves nothing."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "killed" if number == signal.SIGSYS else "output" if number == signal.SIGXFSZ else "error"
    code = os.WEXITSTATUS(status)
    return "memory" if code == program_process.OUT_OF_MEMORY else "error" if code else ""


def outputs_equal(one: bytes, other: bytes) -> bool:
    """True if two outputs are equal, apart from blanks at the ends of lines and empty lines at the end."""
    lines = [[line.rstrip() for line in text.rstrip().split(b"\n")] for text in (one, other)]
    return lines[0] == lines[1]


def run_script(zygote: ZygoteClient, text: str, case: Case, limits: Limits) -> Outcome:
    """Run a program with the stdin of the case, and compare what it prints."""
    expected = (case.stdout or "").encode("utf-8", "surrogatepass")
    with contextlib.closing(Monitor(zygote, limits, max(limits.output, 2 * len(expected)))) as monitor:
        (out, their_out), (err, their_err) = monitor.open_pipe(), monitor.open_pipe()
        stdin = monitor.own(make_sealed_file(case.stdin.encode("utf-8", "surrogatepass")))
        source = monitor.own(make_sealed_file(plain_data.encode(["", text])))
        pid = monitor.start_process("script", [stdin, their_out, their_err, source])
        verdict = monitor.wait_until(lambda: pid in zygote.exits, [out, err])
        zygote.kill_all()
        status, seconds, peak = zygote.exits.pop(pid)
        for fd in (out, err):
            monitor.read_available(fd)
        printed, errors = monitor.received[out], monitor.received[err]
        if seconds > limits.cpu_seconds:
            verdict = "timeout"
        elif len(printed) + len(errors) > monitor.output_cap:
            verdict = verdict or "output"
        elif monitor.exceeds_memory(peak):
            verdict = "memory"
        if not verdict and zygote.full and verdict_of_exit(status):
            verdict = "output"  # it failed because its folder was full
        verdict = (
            verdict or verdict_of_exit(status) or ("passed" if outputs_equal(bytes(printed), expected) else "wrong")
        )
        return make_outcome(verdict, printed, seconds, errors, monitor.output_cap)


def make_outcome(verdict: str, printed: bytearray, seconds: float, errors: bytearray, output_cap: int) -> Outcome:
    output = bytes(printed[:output_cap]).decode(errors="replace")
    error = bytes(errors[-MAX_ERROR_BYTES:]).decode(errors="replace")
    return Outcome(verdict == "passed", verdict, output, seconds, error)


def run_tests(zygote: ZygoteClient, text: str, cases: list[Case], limits: Limits, until_failure: bool) -> list[Outcome]:
    """Run tests with one setup, one after another, until one is not finished: the outcomes so far, at least one.

    A program that fails before the first test fails all of them.
    """
    outcomes: list[Outcome] = []
    with contextlib.closing(Monitor(zygote, limits, limits.output)) as monitor:
        # The two processes and their files
        (out, their_out), (err, their_err) = monitor.open_pipe(), monitor.open_pipe()
        reports, their_report = monitor.open_pipe()
        their_go, go = map(monitor.own, os.pipe())  # each test waits until the clocks and outputs are those of the next
        mine, theirs = (monitor.own(s.detach()) for s in socket.socketpair())
        source = monitor.own(make_sealed_file(plain_data.encode([cases[0].setup, text])))
        files = [monitor.own(open_null()), their_out, their_err, source, mine]
        program = monitor.start_process("module", files, len(cases))
        prepared = [list(prepare_test(c.setup, c.test or "", c.entry)) for c in cases]
        tests = monitor.own(make_sealed_file(plain_data.encode(prepared)))
        null_files = [monitor.own(open_null()) for _ in range(3)]
        assertions = monitor.start_process(
            "assertions", [*null_files, tests, theirs, their_report, their_go], len(cases)
        )
        # One report per test
        for report, verdict in read_reports(monitor, reports, [out, err], {program, assertions}):
            last = bool(verdict) or report == "gone"
            if last:
                zygote.kill_all()
            elif report == "ready":
                continue
            for fd in (out, err):
                monitor.read_available(fd)
            seconds = monitor.cpu_seconds_of_case(program)
            if seconds > limits.cpu_seconds:
                verdict = "timeout"
            elif last and not verdict:
                status, _, peak = zygote.exits[program]
                verdict = "memory" if monitor.exceeds_memory(peak) else verdict_of_exit(status) or "error"
            parts = monitor.received[out], seconds, monitor.received[err]
            outcomes.append(make_outcome(verdict or report, *parts, monitor.output_cap))
            if last or len(outcomes) == len(cases) or until_failure and not outcomes[-1].passed:
                break
            monitor.begin_case([out, err])
            with contextlib.suppress(BrokenPipeError):  # it has ended; its exit will be reported
                os.write(go, b"x")
        if not monitor.received[reports].startswith(b"ready"):
            outcomes *= len(cases)
        zygote.kill_all()
        zygote.exits.clear()
        return outcomes


def read_reports(monitor: Monitor, reports: int, outputs: list[int], pids: set[int]) -> Iterator[tuple[str, str]]:
    """(report, verdict) one after another. The report is a line from the process of the tests, or "gone" if it ended.

    The verdict is "" unless a process exceeded a limit.
    """
    seen = 0
    lines = lambda: bytes(monitor.received[reports]).split(b"\n")[:-1]
    while True:
        done = lambda seen=seen: len(lines()) > seen or pids <= set(monitor.zygote.exits)
        verdict = monitor.wait_until(done, outputs)
        monitor.read_available(reports)
        yield lines()[seen].decode() if len(lines()) > seen else "gone", verdict
        seen += 1
