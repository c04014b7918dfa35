"""Does a program that a language model wrote pass its tests? It runs jailed, and what is right is never where it runs.

    run("print(int(input()) + 1)", [("1", "2")])  ->  [Outcome(passed=True, verdict="passed", ...)]
    run("def add(a, b): return a + b", ["assert add(2, 3) == 5"])

A policy is rewarded for any way past a checker, so nothing that the program does is believed but the bytes that it sends.
Printed output is compared here. A test runs in a jail of its own (``examiner``) and calls the functions of the program
across a pipe along which only plain data passes (``plain``): the values and the tests are never in one process. What a
program does to its arguments stays with it, and objects that are no plain data are equal to nothing. Exit codes count
against a program, never for it.

The tests of one program run one after the other in one process, as in MBPP; after one that could not be finished, the
next begins in a new process. Each pair of stdin and stdout has a process of its own. Programs have the standard library
and one empty folder; no network, no other process, no other file. One flaw of the kernel would be enough to get out: run
the whole training in a container or a virtual machine where that matters.
"""

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from rljax.errors import UserError
from rljax.verifiers.jail import cases as cases_
from rljax.verifiers.jail import confinement, pool, warden
from rljax.verifiers.jail.cases import Case, Given, Limits, Outcome
from rljax.verifiers.jail.confinement import Isolation

DEFAULT = Limits()
TRIES = 3  # a zygote that dies is replaced


def isolation() -> Isolation:
    """What holds programs on this machine."""
    return confinement.probe()


def run(
    program: str,
    cases: Sequence[Given],
    limits: Limits = DEFAULT,
    *,
    until_failure: bool = False,
    allow_unsafe: bool = False,
) -> list[Outcome]:
    """One outcome a test case. ``until_failure`` skips those after the first that fails."""
    given = [cases_.case(c) for c in cases]
    return run_one(program, given, limits, until_failure, permitted(limits, given, allow_unsafe))


def run_many(
    jobs: Sequence[tuple[str, Sequence[Given]]],
    limits: Limits = DEFAULT,
    *,
    until_failure: bool = False,
    allow_unsafe: bool = False,
) -> list[list[Outcome]]:
    """``run`` for many programs, on all cores; outcomes in the order of the jobs. From any thread."""
    given = [(program, [cases_.case(c) for c in cases]) for program, cases in jobs]
    found = permitted(limits, [c for _, cases in given for c in cases], allow_unsafe)
    width = min(len(given), pool.pool(found).size)
    if width < 2:
        return [run_one(program, cases, limits, until_failure, found) for program, cases in given]
    with ThreadPoolExecutor(width) as threads:
        return list(threads.map(lambda job: run_one(job[0], job[1], limits, until_failure, found), given))


def permitted(limits: Limits, cases: Sequence[Case], allow_unsafe: bool) -> Isolation:
    """The isolation of this machine; UserError where it does not suffice, or what is asked for makes no sense."""
    for name, value in limits._asdict().items():
        if not 0 < value < 1 << 50:
            raise UserError(f"limits: {name} must be positive and finite, not {value}")
        if not (isinstance(value, int) or name.endswith("seconds")):
            raise UserError(f"limits: {name} must be a whole number, not {value}")
    for case in cases:
        if case.test is not None:
            cases_.questions(case.setup, case.test, case.entry)
    return require(allow_unsafe)


def require(allow_unsafe: bool = False) -> Isolation:
    """The isolation of this machine; UserError where it does not suffice, before anything is run."""
    found = isolation()
    if found.missing and not allow_unsafe:
        raise UserError(
            f"programs cannot be jailed here: no {' and no '.join(found.missing)} (Linux 5.13 or newer on x86-64 or "
            "aarch64); allow_unsafe=True (--config.task.options.allow_unsafe) runs them with resource limits only"
        )
    return found


def run_one(program: str, cases: list[Case], limits: Limits, until_failure: bool, found: Isolation) -> list[Outcome]:
    """All cases of one program, on one zygote."""
    if len(program) > limits.source or len(program.encode("utf-8", "surrogatepass")) > limits.source:
        return [Outcome(False, "refused")] * len(cases)
    outcomes: list[Outcome] = []
    while len(outcomes) < len(cases):
        if until_failure and outcomes and not outcomes[-1].passed:
            return outcomes + [Outcome(False, "skipped")] * (len(cases) - len(outcomes))
        outcomes += some(program, cases[len(outcomes) :], limits, until_failure, found)
    return outcomes


def some(program: str, cases: list[Case], limits: Limits, until_failure: bool, found: Isolation) -> list[Outcome]:
    """The first of the cases, or the first few."""
    first = cases[0]
    alike = next((n for n, c in enumerate(cases) if c.test is None or c.setup != first.setup), len(cases))
    for _ in range(TRIES):
        with contextlib.suppress(pool.Died), pool.borrowed(found) as zygote:
            if first.test is None:
                return [warden.run_script(zygote, program, first, limits)]
            return warden.run_tests(zygote, program, cases[:alike], limits, until_failure)
    return [Outcome(False, "killed")]
