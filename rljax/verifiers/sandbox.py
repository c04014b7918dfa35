"""Verifier of programs: does a program that a language model wrote pass its test cases? It runs in a jail.

    run("print(int(input()) + 1)", [("1", "2")])  ->  [Outcome(passed=True, verdict="passed", ...)]
    run("def add(a, b): return a + b", ["assert add(2, 3) == 5"])

A policy learns every way to deceive its verifier. Therefore nothing is trusted but the bytes that the program sends,
and the expected results are never in the process of the program:

* Printed output is compared in this process.
* A test with asserts runs in a second jail (``jail.assertion_process``). It calls the functions of the program through
  a socket that carries only plain data (``jail.plain_data``). What a program does to its arguments is not seen by the
  test, and an object that is not plain data equals nothing.
* A bad exit status fails a program. A good one never passes it.

The tests of one program run one after another in one process, as in MBPP. After a test that was not finished, the next
one begins in a new process. Each pair of stdin and stdout has its own process. A program has the standard library and
one empty folder. It has no network, no other process and no other file. One bug of the kernel is enough to escape: if
that matters, run the whole training in a container or a virtual machine.
"""

import contextlib
import functools
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from rljax.errors import UserError
from rljax.verifiers.failures import VerifierFailed
from rljax.verifiers.jail import cases as test_cases
from rljax.verifiers.jail import confinement, pool, supervisor
from rljax.verifiers.jail.cases import Case, CaseLike, Limits, Outcome
from rljax.verifiers.jail.confinement import Isolation

LOG = logging.getLogger(__name__)
DEFAULT_LIMITS = Limits()
MAX_ATTEMPTS = 3  # to run a case whose zygote dies


def get_isolation() -> Isolation:
    """The mechanisms that isolate programs on this machine."""
    return confinement.probe_isolation()


def run(
    program: str,
    cases: Sequence[CaseLike],
    limits: Limits = DEFAULT_LIMITS,
    *,
    until_failure: bool = False,
    allow_unsafe: bool = False,
) -> list[Outcome]:
    """One outcome per test case.

    ``until_failure`` skips the cases after the first that fails. ``allow_unsafe`` runs programs on a machine that
    cannot isolate them, with resource limits only. Raises UserError for invalid cases or limits, and without isolation.
    Raises VerifierFailed where the sandbox itself dies again and again.
    """
    given = [test_cases.parse_case(c) for c in cases]
    return run_program(program, given, limits, until_failure, check_request(limits, given, allow_unsafe))


def run_many(
    jobs: Sequence[tuple[str, Sequence[CaseLike]]],
    limits: Limits = DEFAULT_LIMITS,
    *,
    until_failure: bool = False,
    allow_unsafe: bool = False,
) -> list[list[Outcome]]:
    """``run`` for many (program, cases) on all cores, from any thread. The outcomes have the order of the jobs."""
    given = [(program, [test_cases.parse_case(c) for c in cases]) for program, cases in jobs]
    isolation = check_request(limits, [c for _, cases in given for c in cases], allow_unsafe)
    width = min(len(given), pool.get_pool(isolation).size)
    if width < 2:
        return [run_program(program, cases, limits, until_failure, isolation) for program, cases in given]
    with ThreadPoolExecutor(width) as threads:
        return list(threads.map(lambda job: run_program(job[0], job[1], limits, until_failure, isolation), given))


def check_request(limits: Limits, cases: Sequence[Case], allow_unsafe: bool) -> Isolation:
    """The isolation of this machine. Raises UserError if it is insufficient, or if limits or cases are invalid."""
    for name, value in limits._asdict().items():
        if not 0 < value < 1 << 50:
            raise UserError(f"limits: {name} must be positive and finite, not {value}")
        if not (isinstance(value, int) or name.endswith("seconds")):
            raise UserError(f"limits: {name} must be a whole number, not {value}")
    for case in cases:
        if case.test is not None:
            test_cases.prepare_test(case.setup, case.test, case.entry)
    return require_isolation(allow_unsafe)


def require_isolation(allow_unsafe: bool = False) -> Isolation:
    """The isolation of this machine. Raises UserError if it is insufficient; call it before long work starts."""
    found = get_isolation()
    if found.missing and not allow_unsafe:
        raise UserError(
            f"programs cannot be jailed here: no {' and no '.join(found.missing)} (Linux 5.13 or newer on x86-64 or "
            "aarch64); allow_unsafe=True (--config.task.options.allow_unsafe) runs them with resource limits only"
        )
    warn_of_gaps(found)
    return found


@functools.cache
def warn_of_gaps(isolation: Isolation) -> None:
    """Say in the log, once, what the kernel does not bound here. The supervisor still looks, but later."""
    if isolation.gaps and not isolation.missing:
        LOG.warning(
            f"programs are jailed, but this kernel lets a hostile one {'; '.join(isolation.gaps)}. Root, or user namespaces "
            "(kernel.unprivileged_userns_clone=1, a container that allows them), would prevent it"
        )


def run_program(
    program: str, cases: list[Case], limits: Limits, until_failure: bool, isolation: Isolation
) -> list[Outcome]:
    """The outcomes of all cases of one program."""
    if len(program) > limits.source or len(program.encode("utf-8", "surrogatepass")) > limits.source:
        return [Outcome(False, "refused")] * len(cases)
    outcomes: list[Outcome] = []
    while len(outcomes) < len(cases):
        if until_failure and outcomes and not outcomes[-1].passed:
            return outcomes + [Outcome(False, "skipped")] * (len(cases) - len(outcomes))
        outcomes += run_next_cases(program, cases[len(outcomes) :], limits, until_failure, isolation)
    return outcomes


def run_next_cases(
    program: str, cases: list[Case], limits: Limits, until_failure: bool, isolation: Isolation
) -> list[Outcome]:
    """The outcomes of the first case, or of the first few if they are tests with the same setup; at least one."""
    first = cases[0]
    alike = next((n for n, c in enumerate(cases) if c.test is None or c.setup != first.setup), len(cases))
    for _ in range(MAX_ATTEMPTS):
        with contextlib.suppress(pool.ZygoteDied), pool.borrow_zygote(isolation) as zygote:
            if first.test is None:
                return [supervisor.run_script(zygote, program, first, limits)]
            return supervisor.run_tests(zygote, program, cases[:alike], limits, until_failure)
    raise VerifierFailed(f"the process that starts programs died {MAX_ATTEMPTS} times: is there enough memory?")
