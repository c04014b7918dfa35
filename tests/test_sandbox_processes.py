"""Processes of the sandbox: many threads and workers use it at once, and none of its processes outlives its caller."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rljax.verifiers import sandbox
from rljax.verifiers.jail import pool
from rljax.verifiers.sandbox import run, run_many

sys.path.insert(0, str(Path(__file__).parent))
from honest_programs import GOOD  # noqa: E402

WITH_PACKAGE = os.environ | {"PYTHONPATH": str(Path(sandbox.__file__).parents[2])}


def test_many_threads_at_once_get_their_own_outcomes():
    found = {}

    def work(n):
        found[n] = run(f"print(int(input()) * {n})", [(str(m), str(n * m)) for m in range(3)])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(o.passed for outcomes in found.values() for o in outcomes) and len(found) == 12


def test_200_programs_come_back_in_order():
    jobs = [(f"def f(x): return x + {n % 7}", [f"assert f(1) == {n % 7 + 1 if n % 2 else -1}"]) for n in range(200)]
    outcomes = run_many(jobs)
    assert [o[0].passed for o in outcomes] == [n % 2 == 1 for n in range(200)]
    assert run_many([]) == [] and run("x", []) == []


def test_a_zygote_that_was_killed_is_replaced():
    assert run(*GOOD)[0].passed
    zygotes = list(pool.get_pool(sandbox.get_isolation()).free.queue)
    before = {z.process.pid for z in zygotes if z.process}
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    assert all(o[0].passed for o in run_many([GOOD] * 4))
    assert not before & {z.process.pid for z in zygotes if z.process}


PARENT = """
import json, sys, threading, time
from rljax.verifiers import sandbox
from rljax.verifiers.jail import pool
out = sandbox.run("print(int(input()) + 1)", [("1", "2")])
free = pool.get_pool(sandbox.get_isolation()).free
print(json.dumps([out[0].passed, [[z.process.pid, z.folder] for z in free.queue if z.process]]), flush=True)
if len(sys.argv) > 1:
    threading.Thread(target=sandbox.run, args=("import time; time.sleep(1e6)", [("", "")])).start()
    time.sleep(0.3)
    print("running", flush=True)
    time.sleep(1e6)
"""


def has_ended(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        os.kill(pid, 0)
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    return True


@pytest.mark.parametrize("killed", [False, True])
def test_nothing_is_left_when_the_caller_ends_or_is_killed(killed):
    command = [sys.executable, "-c", PARENT, *["wait"] * killed]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=WITH_PACKAGE) as process:
        assert process.stdout
        passed, zygotes = json.loads(process.stdout.readline())
        assert passed and zygotes
        if killed:
            assert process.stdout.readline() == "running\n"
            process.kill()
    for _ in range(200):
        if all(has_ended(pid) and not os.path.exists(folder) for pid, folder in zygotes):
            break
        time.sleep(0.05)
    assert all(has_ended(pid) and not os.path.exists(folder) for pid, folder in zygotes)


SPAWN = """
import multiprocessing
from rljax.verifiers import sandbox

def work(n):
    return [o.passed for o in sandbox.run("print(int(input()) + 1)", [("1", "2"), ("1", "3")])]

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(work, range(4)) == [[True, False]] * 4
"""


def test_worker_processes_have_their_own_zygotes(tmp_path):
    (tmp_path / "spawn.py").write_text(SPAWN)
    assert subprocess.run([sys.executable, str(tmp_path / "spawn.py")], env=WITH_PACKAGE).returncode == 0
