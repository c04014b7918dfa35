"""Programs a second that the sandbox judges on all cores, and how long the first one takes.

    python -m benchmarks.sandbox [programs]

One JSON line a measurement: programs that print for one input, programs with three asserts (in the manner of MBPP), and
one with a block of tests (HumanEval). The best of three timings after a warm-up.
"""

import json
import os
import platform
import sys
import time

from rljax.verifiers import sandbox
from rljax.verifiers.sandbox import Case

CHECK = "def check(candidate):\n" + "".join(f"    assert candidate({n}, 1) == {n + 1}\n" for n in range(7))
ADD = "def add(a, b):\n    return a + b\n"
JOBS = {
    "stdin and stdout, one case": ("print(int(input()) + 1)", [("1\n", "2\n")]),
    "three asserts": (ADD, ["assert add(2, 3) == 5", "assert add(0, 0) == 0", "assert add(-1, 1) == 0"]),
    "one block of seven asserts": (ADD, [Case(test=CHECK, entry="add")]),
}


def report(what: str, seconds: float, programs: int) -> None:
    line = {"benchmark": "sandbox", "what": what, "programs": programs, "seconds": round(seconds, 4)}
    line |= {"programs_per_second": round(programs / seconds)} if programs > 1 else {}
    line |= {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "python": platform.python_version()}
    print(json.dumps(line | sandbox.isolation()._asdict()), flush=True)


def timed(jobs: list) -> float:
    start = time.perf_counter()
    outcomes = sandbox.run_many(jobs)
    seconds = time.perf_counter() - start
    assert all(o.passed for out in outcomes for o in out)
    return seconds


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    report("first use", timed([JOBS["three asserts"]]), 1)
    for name, job in JOBS.items():
        timed([job] * 20)
        report(name, min(timed([job] * count) for _ in range(3)), count)
