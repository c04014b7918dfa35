"""2,000 steps of RL of a tiny model: does anything grow?

    python -m benchmarks.soak --steps 2000

Memory, threads, open files and processor time of the run and of its worker processes are read whenever a line is added to
metrics.jsonl. Each form of the run is measured in the second tenth of the steps and in the last tenth: what it uses at rest (the
least, for a save needs more for a moment), and the processor time of a step among the quietest of them, because other programs on
the machine make it longer. Each tenth has twenty evaluations and saves. One JSON line a form; the status is 1 if one of the numbers
grew by more than 5 %.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.hostile import FORMS

LIMIT = 0.05  # growth of a number from the second tenth to the last
PAGE, TICK = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
TINY = [
    "--config=configs/shop.py:short",
    "--config.model.layers=1",
    "--config.model.width=32",
    "--config.eval.problems=8",
    "--config.eval.attempts=2",
    "--config.rl.prompts=2",
    "--config.rl.max_new_tokens=24",
    "--config.rl.widths=()",
    "--config.rl.start=",
    "--config.rl.log_every=5",
]


class Look(NamedTuple):
    """What a run uses at a step, with its worker processes."""

    step: int
    megabytes: float
    threads: int
    files: int
    seconds: float  # of the processor, so far


def processes_of(root: int) -> list[int]:
    """The process and all that come from it."""
    found, todo = [], [root]
    while todo:
        found.append(todo.pop())
        for children in Path(f"/proc/{found[-1]}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                todo += map(int, children.read_text().split())
    return found


def look(root: int, step: int) -> Look:
    out = Look(step, 0.0, 0, 0, 0.0)
    for pid in processes_of(root):
        with contextlib.suppress(OSError):  # it has just ended
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            out = Look(
                step,
                out.megabytes + int(fields[21]) * PAGE / 1e6,
                out.threads + int(fields[17]),
                out.files + len(os.listdir(f"/proc/{pid}/fd")),
                out.seconds + (int(fields[11]) + int(fields[12])) / TICK,
            )
    return out


def watch(form: str, steps: int, folder: Path) -> list[Look]:
    """Do the run; what it uses at each line of its metrics."""
    workdir = folder / form
    options = [*TINY, *FORMS[form], f"--config.rl.steps={steps}", f"--config.rl.eval_every={steps // 200}"]
    looks, read = [], 0
    with (folder / f"{form}.log").open("wb") as log:
        command = [sys.executable, "-m", "experiments.rl", *options, f"--workdir={workdir}"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        while process.poll() is None:
            path = workdir / "metrics.jsonl"
            lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
            if len(lines) > read:
                read = len(lines)
                looks.append(look(process.pid, json.loads(lines[-1])["step"]))
            time.sleep(0.02)
    if process.returncode:
        sys.exit((folder / f"{form}.log").read_text()[-3000:])
    return looks


def usage(looks: list[Look], begin: int, end: int) -> dict[str, float]:
    """What the run used from one step to another."""
    some = [x for x in looks if begin <= x.step <= end and x.threads]
    at_rest = {name: min(getattr(x, name) for x in some) for name in ("megabytes", "threads", "files")}
    chunk = (end - begin) // 10
    parts = [[x for x in some if x.step >= first and x.step <= first + chunk] for first in range(begin, end, chunk)]
    passed = min((part[-1].seconds - part[0].seconds) / (part[-1].step - part[0].step) for part in parts)
    return at_rest | {"CPU ms a step": 1000 * passed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    steps, grew = parser.parse_args().steps, False
    with tempfile.TemporaryDirectory() as folder:
        for form in FORMS:
            looks = watch(form, steps, Path(folder))
            second, last = usage(looks, steps // 10, steps // 5), usage(looks, steps - steps // 10, steps)
            line = {name: [round(x, 2), round(last[name], 2)] for name, x in second.items()}
            growth = {name: round(last[name] / x - 1, 4) for name, x in second.items()}
            print(json.dumps({"form": form, "second and last tenth": line, "growth": growth}), flush=True)
            grew |= max(growth.values()) > LIMIT
    sys.exit(grew)


if __name__ == "__main__":
    main()
