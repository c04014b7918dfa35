"""Seconds from process start to the first finished RL step, without and with a compilation cache.

    python -m benchmarks.first_step runs/shop

Takes the SFT checkpoint of a finished run; prints one JSON line a measurement.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rljax.training import journal


def prepare(run: Path, workdir: Path) -> None:
    """A workdir whose SFT is done and whose RL is not begun."""
    for name in ("config.json", "samples", "checkpoints/sft"):
        source, target = run / name, workdir / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    records = [r for r in journal.read_records(run / "metrics.jsonl") if r["stage"] != "rl"]
    journal.replace_text(workdir / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in records))


def seconds_to_first_step(run: Path, config: str, cache: Path) -> float:
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        prepare(run, workdir)
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "experiments.rl", f"--config={config}", f"--workdir={workdir}"],
            env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while not any(
                r["stage"] == "rl" and r["step"] == 1 for r in journal.read_records(workdir / "metrics.jsonl")
            ):
                if process.poll() is not None:
                    raise RuntimeError(f"the run ended with status {process.returncode} before its first step")
                time.sleep(0.02)
            return time.perf_counter() - start
        finally:
            process.kill()
            process.wait()


def main() -> None:
    run, config = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "configs/shop.py"
    with tempfile.TemporaryDirectory() as cache:
        for state in ("cold", "warm", "warm"):
            seconds = round(seconds_to_first_step(run, config, Path(cache)), 2)
            print(
                json.dumps({"benchmark": "first_step", "cache": state, "seconds": seconds, "cores": os.cpu_count()}),
                flush=True,
            )


if __name__ == "__main__":
    main()
