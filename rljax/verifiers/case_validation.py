"""Are the tests of a data set valid? Decided in a child process, which a hostile or broken test may kill or exhaust.

find_invalid_test([[Case(test="assert f(1) == 2")], [Case(test="f(1) == 2")]])  ->  (1, "a test asserts nothing: ...")
"""

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from rljax.errors import UserError
from rljax.verifiers.jail.cases import Case, prepare_test

CPU_SECONDS = 5.0  # of CPU time for the tests of one row
MEMORY_BYTES = 2 << 30  # bytes of address space
START_CODE = "import sys; sys.path.insert(0, sys.argv[1]); from rljax.verifiers import case_validation as c; c.main()"


def find_invalid_test(rows: Sequence[Sequence[Case]]) -> tuple[int, str] | None:
    """(index of the first row with a test that cannot work, what is wrong with it); None where all are valid.

    Raises UserError where the child process cannot be started.
    """
    lines = [json.dumps([asdict(case) for case in row]) for row in rows]
    command = [sys.executable, "-S", "-s", "-P", "-B", "-c", START_CODE, str(Path(__file__).parents[2])]
    given = "".join(line + "\n" for line in lines).encode()
    try:
        done = subprocess.run(command, input=given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/")
    except OSError as e:
        raise UserError(f"the process that validates tests does not start: {e.strerror or e}") from None
    said = [json.loads(line) for line in done.stdout.split(b"\n") if line]
    if said and said[-1]:
        return len(said) - 1, said[-1]
    if len(said) == len(rows):
        return None
    if not said and done.returncode > 0:
        raise UserError(f"the process that validates tests does not work here (exit status {done.returncode})")
    took = "too much time" if done.returncode == -signal.SIGPROF else "too much memory, or it kills Python"
    return len(said), f"to parse a test takes {took}"


def main() -> None:
    """In the child process: one line of stdout for each row, "" or what is wrong."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    validate_rows(sys.stdin.buffer, sys.stdout)


def validate_rows(rows: IO[bytes], replies: IO[str]) -> None:
    for line in rows:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # its signal ends the process, also inside C code
        wrong = describe_mistake(json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(json.dumps(wrong) + "\n")
        replies.flush()
        if wrong:
            return


def describe_mistake(cases: list[dict[str, Any]]) -> str:
    """What is wrong with the first invalid case of a row; "" where all are valid."""
    for case in cases:
        try:
            if case["test"] is not None:
                prepare_test(case["setup"], case["test"], case["entry"])
        except UserError as e:
            return str(e)
    return ""
