"""A run that is killed, paused, asked to stop, starved of disk and bit-flipped at random must leave the bytes of an undisturbed one.

    python -m benchmarks.hostile --minutes 60

The run is ``rljax reproduce`` of the small config below, in two forms: "compiled" is verified on the device, "hosted" by
worker processes that read text. Each is done once undisturbed. Then, until the time is over, they are done
in turn with one random blow every few seconds, always continued by the same command. After each end, metrics.jsonl,
the samples, the names of the checkpoints and the checksums of the last ones are compared with the undisturbed run's, and no
process of the run may be alive. Prints one JSON line for each run, then a summary; the status is 1 if a run differed.
``benchmarks.kills`` aims at chosen moments instead.
"""

import argparse
import collections
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

STAGES = ("pretrain", "sft", "rl")
SMALL = [
    "--config=configs/shop.py:short",
    "--config.model.layers=1",
    "--config.model.width=32",
    "--config.eval.problems=8",
    "--config.eval.attempts=2",
    "--config.rl.prompts=2",
    "--config.rl.max_new_tokens=24",
    "--config.selection.rules=()",
    *(f"--config.{stage}.steps=12" for stage in STAGES),
    *(f"--config.{stage}.eval_every=3" for stage in STAGES),
    *(f"--config.{stage}.log_every=1" for stage in STAGES),
]
FORMS = {  # length differs between the attempts of a group, so that something is learned
    "compiled": ["--config.rl.reward=correct + length(per=10)"],
    "hosted": ["--config.rl.reward=correct + length(per=10) + 0.1*repetition", "--config.workers=2"],
}
FILE_LIMIT = 24_000  # bytes: with it no checkpoint can be written
BLOWS = ("kill", "terminate", "hang up", "pause", "starve", "flip")


def start(form: str, workdir: Path, starved: bool = False, more: Sequence[str] = ()) -> subprocess.Popen:
    """The run, in a process group of its own. A starved one can write no file larger than FILE_LIMIT."""
    command = [sys.executable, "-m", "experiments.reproduce", *SMALL, *FORMS[form], f"--workdir={workdir}", *more]
    environment = os.environ | ({"JAX_COMPILATION_CACHE_DIR": "", "PYTHONDONTWRITEBYTECODE": "1"} if starved else {})
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, FILE_LIMIT))
    with (workdir.parent / f"{workdir.name}.log").open("ab") as log:
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
            preexec_fn=limit if starved else None,
        )


def flip_a_bit(workdir: Path, rng: random.Random) -> None:
    """Flip one bit of an array file of the newest checkpoint of the last stage that has two: the one before it is whole."""
    for stage in reversed(STAGES):
        steps = sorted(
            (p for p in (workdir / "checkpoints" / stage).glob("[0-9]*") if p.name.isdigit()), key=lambda p: int(p.name)
        )
        files = [p for p in steps[-1].rglob("*") if p.is_file() and p.stat().st_size > 200] if len(steps) > 1 else []
        if files:
            path = rng.choice(files)
            content = bytearray(path.read_bytes())
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            path.write_bytes(content)
            return


def strike(process: subprocess.Popen, blow: str, workdir: Path, rng: random.Random) -> None:
    """One blow to a running process. After all but a pause it ends."""
    if blow == "pause":
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(rng.uniform(0.5, 4))
        os.killpg(process.pid, signal.SIGCONT)
    elif blow == "terminate":
        process.send_signal(signal.SIGTERM)
        process.wait()
    elif blow == "hang up":
        os.killpg(process.pid, signal.SIGHUP)
        process.wait()
    else:
        process.kill()
        process.wait()
        if blow == "flip":
            flip_a_bit(workdir, rng)


def left_behind(workdir: Path) -> dict[str, str]:
    """What must not depend on the blows."""
    files = [workdir / "metrics.jsonl", *sorted((workdir / "samples").glob("*.jsonl"))]
    out = {path.name: path.read_text() for path in files}
    for stage in STAGES:
        folder = workdir / "checkpoints" / stage
        out[stage] = (folder / "12" / "sums" / "metadata").read_text()
        out[f"{stage}: kept"] = " ".join(sorted(path.name for path in folder.glob("[0-9]*")))
    return out


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """The names of what is not the same."""
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def alive(workdir: Path) -> list[int]:
    """Processes whose command line names this workdir, or that a run of it left in its process group."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(workdir) in (entry / "cmdline").read_text() and int(entry.name) != os.getpid():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def group_is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def disturbed_run(form: str, workdir: Path, rng: random.Random) -> tuple[collections.Counter, list[int]]:
    """Do the run under blows. Returns how many of each kind, and the process groups that were alive seconds after their end."""
    blows, survivors = collections.Counter(), []
    while True:
        blow = rng.choice(BLOWS)
        process = start(form, workdir, blow == "starve")
        try:
            if blow == "starve":
                process.wait(timeout=rng.uniform(8, 20))
            else:
                process.wait(timeout=rng.uniform(3, 12))
                if process.returncode == 0:
                    return blows, survivors
        except subprocess.TimeoutExpired:
            strike(process, "kill" if blow == "starve" else blow, workdir, rng)
            if blow == "pause":
                process.wait()
                if process.returncode == 0:
                    return blows + collections.Counter([blow]), survivors
        blows[blow] += 1
        deadline = time.monotonic() + 10
        while group_is_alive(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        if group_is_alive(process.pid):
            survivors.append(process.pid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long new runs are begun")
    parser.add_argument("--seed", type=int, default=0, help="of the blows")
    flags = parser.parse_args()
    rng, runs, differed, total = random.Random(flags.seed), 0, 0, collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        expected = {}
        for form in FORMS:
            if start(form, Path(folder) / form).wait():
                sys.exit((Path(folder) / f"{form}.log").read_text())
            expected[form] = left_behind(Path(folder) / form)
        end = time.monotonic() + 60 * flags.minutes
        while time.monotonic() < end:
            form, workdir = list(FORMS)[runs % len(FORMS)], Path(folder) / f"run{runs}"
            blows, survivors = disturbed_run(form, workdir, rng)
            wrong = differences(expected[form], left_behind(workdir))
            line = {"run": runs, "form": form, "blows": dict(blows), "differs": wrong}
            line["survivors"] = survivors + alive(workdir)
            print(json.dumps(line), flush=True)
            runs, differed, total = runs + 1, differed + bool(wrong or line["survivors"]), total + blows
    print(json.dumps({"runs": runs, "differed": differed, "blows": dict(total), "in all": sum(total.values())}))
    sys.exit(bool(differed))


if __name__ == "__main__":
    main()
