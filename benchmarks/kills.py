"""SIGKILLs at chosen moments: in a step, in a save, in an evaluation, while texts are verified. The bytes must be those of no kill.

    python -m benchmarks.kills --kills 40

The run is that of ``benchmarks.hostile``, in three forms: compiled, hosted, and hosted in two processes of which either is
killed. Each is done once undisturbed, then under kills, always continued by the same command. Also a worker process alone is
killed, which the run must survive. Afterwards everything is compared as ``benchmarks.hostile`` does. Prints one JSON line for
each run, then a summary; the status is 1 if a run differed.
"""

import argparse
import collections
import contextlib
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.hostile import STAGES, alive, differences, group_is_alive, left_behind, start

EVERY = 3  # steps between two evaluations, as in hostile.SMALL
PLAIN = [(stage, where) for stage in STAGES for where in ("a step", "a save", "an evaluation")]
HOSTED = [("rl", "the verifier pool"), ("rl", "a worker alone")]
FORMS = {"compiled": PLAIN, "hosted": PLAIN + HOSTED, "two processes": PLAIN + HOSTED[:1]}
HEARTBEAT = 10  # seconds after which a process notices that the other one is gone


def launch(form: str, workdir: Path) -> list[subprocess.Popen]:
    """The processes of the run."""
    if form != "two processes":
        return [start(form, workdir)]
    with socket.socket() as s:
        s.bind(("", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    several = [f"--coordinator={address}", "--num_processes=2", f"--heartbeat_timeout={HEARTBEAT}"]
    several += ["--config.mesh.data=2"]
    return [start("hosted", workdir, more=[*several, f"--process_id={i}"]) for i in range(2)]


def last_record(workdir: Path) -> tuple[int, dict]:
    """(number of whole lines, the last of them) of metrics.jsonl."""
    path = workdir / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return len(lines), json.loads(lines[-1]) if lines else {}


def unfinished(workdir: Path, stage: str) -> set[Path]:
    return set((workdir / "checkpoints" / stage).glob("*.orbax-checkpoint-tmp*"))


def busy_workers(process: subprocess.Popen) -> list[int]:
    """Worker processes of this run that use the processor now."""
    found = []
    for children in Path(f"/proc/{process.pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread or a worker that has just ended
            for pid in children.read_text().split():
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                if state == "R" and "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text():
                    found.append(int(pid))
    return found


def comes(moment: tuple[str, str], processes: list[subprocess.Popen], workdir: Path, rng: random.Random) -> bool:
    """Wait for a moment of the run; False where the run ended before it."""
    stage, where = moment
    before, torn = last_record(workdir), unfinished(workdir, stage)
    more = rng.randint(1, 2)
    while all(p.poll() is None for p in processes):
        count, record = last_record(workdir)
        moved = record.get("stage") == stage and (count, record) != before
        if where == "a step" and moved and abs(count - before[0]) >= more:
            time.sleep(rng.random() * 0.2)
            return True
        if where == "a save" and unfinished(workdir, stage) - torn:
            return True
        if where == "an evaluation" and moved and record["step"] % EVERY == 0 and "train/loss" in record:
            time.sleep(rng.random() * 0.02)
            return True
        if where in ("the verifier pool", "a worker alone") and moved and any(map(busy_workers, processes)):
            return True
        time.sleep(0.001)
    return False


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()


def killed_run(form: str, workdir: Path, rng: random.Random) -> tuple[collections.Counter, list[int]]:
    """Do the run under kills. Returns how many at each moment, and the process groups that were alive seconds after their end."""
    kills, survivors, moments = collections.Counter(), [], list(FORMS[form])
    while True:
        processes = launch(form, workdir)
        while moments and comes(moments[0], processes, workdir, rng):
            stage, where = moments.pop(0)
            kills[f"{stage}: {where}"] += 1
            victim = rng.choice(processes)
            if where != "a worker alone":
                kill(victim)
                break
            workers = busy_workers(victim)
            subprocess.run(["kill", "-9", *map(str, workers)], check=False, capture_output=True)
        for process in processes:
            process.wait()
        deadline = time.monotonic() + 10
        while any(group_is_alive(p.pid) for p in processes) and time.monotonic() < deadline:
            time.sleep(0.1)
        survivors += [p.pid for p in processes if group_is_alive(p.pid)]
        if not any(p.returncode for p in processes):
            return kills, survivors
        if not any(p.returncode == -9 for p in processes):
            sys.exit((workdir.parent / f"{workdir.name}.log").read_text()[-3000:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40, help="at least so many")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    flags = parser.parse_args()
    rng, runs, differed, total = random.Random(flags.seed), 0, 0, collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        expected = {}
        for form in FORMS:
            if any([p.wait() for p in launch(form, Path(folder) / form)]):
                sys.exit((Path(folder) / f"{form}.log").read_text())
            expected[form] = left_behind(Path(folder) / form)
        while sum(total.values()) < flags.kills:
            form, workdir = list(FORMS)[runs % len(FORMS)], Path(folder) / f"run{runs}"
            kills, survivors = killed_run(form, workdir, rng)
            wrong = differences(expected[form], left_behind(workdir))
            line = {"run": runs, "form": form, "kills": dict(kills), "differs": wrong}
            line["survivors"] = survivors + alive(workdir)
            print(json.dumps(line), flush=True)
            runs, differed, total = runs + 1, differed + bool(wrong or line["survivors"]), total + kills
    print(json.dumps({"runs": runs, "differed": differed, "kills": sum(total.values()), "at": dict(total)}))
    sys.exit(bool(differed))


if __name__ == "__main__":
    main()
