"""Processes of the sandbox: many threads and workers use it at once, and none of its processes outlives its caller."""

import contextlib
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rljax.rewards.scoring import score_pairs
from rljax.verifiers import sandbox
from rljax.verifiers.failures import VerifierFailed
from rljax.verifiers.jail import monitor, plain_data, pool
from rljax.verifiers.jail.monitor import Monitor, make_sealed_file, open_null
from rljax.verifiers.sandbox import Limits, run, run_many

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


@pytest.mark.exhaustive
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


def test_a_program_ends_with_a_zygote_that_was_killed_and_is_run_again_by_another():
    """The program says its process id through its output, so that its zygote is killed while it runs."""
    program = "import os, sys, time\nprint(os.getpid(), flush=True)\nif len(sys.stdin.readline()) < 3: time.sleep(1e6)"
    isolation = sandbox.get_isolation()
    with pool.borrow_zygote(isolation) as zygote, contextlib.suppress(pool.ZygoteDied):
        assert zygote.process
        watch = Monitor(zygote, Limits(), 1 << 16)
        (out, theirs), (_, errors) = watch.open_pipe(), watch.open_pipe()
        source = make_sealed_file(plain_data.encode(["", program]))
        pid = watch.start_process("script", [open_null(), theirs, errors, source])
        watch.wait_until(lambda: b"\n" in watch.received[out], [out])
        assert not has_ended(pid)
        zygote.process.kill()
        watch.wait_until(lambda: False, [out])  # until the zygote is found dead
    for _ in range(200):
        if has_ended(pid):
            break
        time.sleep(0.05)
    assert has_ended(pid)
    watch.close()
    assert run(*GOOD)[0].passed


def test_a_sandbox_that_dies_again_and_again_gives_no_verdict(monkeypatch):
    def die(*given):
        raise pool.ZygoteDied

    monkeypatch.setattr(sandbox.supervisor, "run_tests", die)
    with pytest.raises(VerifierFailed, match="died 3 times"):
        run(*GOOD)
    judge = lambda pairs: [{"correct": float(run(*GOOD)[0].passed)} for _ in pairs]
    scores = score_pairs(lambda *pair: False, judge, "", (), [("x", {}), ("y", {})])
    assert [s["verifier_unscored"] for s in scores] == [1, 1] and all(math.isnan(s["correct"]) for s in scores)


def test_a_pause_of_the_caller_is_no_time_of_the_program(monkeypatch):
    """The clock of the caller jumps by an hour at each look, as after SIGSTOP and SIGCONT."""
    hours = itertools.count(0, 3600)
    monkeypatch.setattr(monitor.time, "monotonic", lambda: next(hours))
    sleeps = "import time\ntime.sleep(0.2)\nprint('x')"
    assert run(sleeps, [("", "x")], Limits(wall_seconds=5))[0].passed
    assert run("import time; time.sleep(1e6)", [("", "x")], Limits(wall_seconds=0.2))[0].verdict == "timeout"


def test_what_a_late_caller_has_not_read_is_not_charged_to_one_test(monkeypatch):
    """Three tests, each with most of the CPU time and of the output that one may have."""
    read = sandbox.supervisor.read_reports

    def read_late(*given):
        for report in read(*given):
            time.sleep(0.4)
            yield report

    monkeypatch.setattr(sandbox.supervisor, "read_reports", read_late)
    burn = "import time\ndef f():\n end = time.process_time() + 0.25\n while time.process_time() < end: pass\n print('x' * 40_000)"
    outcomes = run(burn, ["assert f() is None"] * 3, Limits(cpu_seconds=0.4))
    assert [(o.verdict, len(o.output)) for o in outcomes] == [("passed", 40_001)] * 3


def test_a_process_that_runs_is_not_asleep():
    assert not monitor.is_asleep(os.getpid())
    with subprocess.Popen(["sleep", "1000"]) as process:
        while not monitor.is_asleep(process.pid):
            time.sleep(0.01)
        process.kill()


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
