"""Programs per second that the sandbox runs on all cores, and the time of the first program.

    python -m benchmarks.sandbox [programs]

Each measurement is one JSON line: programs that print for one input, programs with three asserts as in MBPP, and
programs with a block of tests as in HumanEval. Each time is the best of three after a warm-up.
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


def print_measurement(what: str, seconds: float, programs: int) -> None:
    line = {"benchmark": "sandbox", "what": what, "programs": programs, "seconds": round(seconds, 4)}
    line |= {"programs_per_second": round(programs / seconds)} if programs > 1 else {}
    line |= {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "python": platform.python_version()}
    print(json.dumps(line | sandbox.get_isolation()._asdict()), flush=True)


def time_jobs(jobs: list) -> float:
    start = time.perf_counter()
    outcomes = sandbox.run_many(jobs)
    seconds = time.perf_counter() - start
    assert all(o.passed for out in outcomes for o in out)
    return seconds


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    print_measurement("first use", time_jobs([JOBS["three asserts"]]), 1)
    for name, job in JOBS.items():
        time_jobs([job] * 20)
        print_measurement(name, min(time_jobs([job] * count) for _ in range(3)), count)
