"""Minutes of several seeds of RL as processes, one a core, beside one seed on one core: what an ablation costs on a CPU.

    python -m benchmarks.seeds --config configs/ablations/small.py --out benchmarks/results/seeds_cpu.jsonl [--seeds 8]
        [--steps 50] [--start runs/seeds]

``--start`` is a folder whose SFT every seed starts from; without it weights are random. Whole processes are timed: Python's
start, RL, its evaluations and checkpoints. A first seed, not counted, leaves the compiled programs that all find. One JSON line a
measurement, appended.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rljax.ablation.process_pool import Job, run_jobs
from rljax.training import config_files
from rljax.training.versions import source_commit


def minutes_of(seeds: Sequence[int], processes: int, a: argparse.Namespace) -> dict[str, Any]:
    """Wall minutes of these seeds with as many processes at once."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for seed in seeds:
            changes = [f"seed={seed}", f"rl.steps={a.steps}", f"rl.start={f'{a.start}:sft' if a.start else ''}"]
            config = config_files.override_config(config_files.load_config(a.config), changes)
            jobs.append(Job(f"seed {seed}", "rl", Path(folder) / str(seed), config))
        begin = time.perf_counter()
        run_jobs(jobs, a.config, processes)
        took = (time.perf_counter() - begin) / 60
    return {"seeds": len(seeds), "processes": processes, "minutes": round(took, 3)}


def main() -> None:
    p = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    p.add_argument("--config", required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--seeds", type=int, default=8)
    p.add_argument("--steps", type=int, default=50)
    p.add_argument("--start", default="")
    a = p.parse_args()
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [min(cores)])
    minutes_of([a.seeds], 1, a)
    one = minutes_of([0], 1, a)
    os.sched_setaffinity(0, cores)
    many = minutes_of(range(a.seeds), len(cores), a)
    about = {"config": a.config, "steps": a.steps, "start": "sft" if a.start else "random", "cores": len(cores)}
    about["commit"] = source_commit()
    for line in (one, many | {"of_one": round(many["minutes"] / one["minutes"], 2)}):
        line = {"benchmark": "seeds"} | line | about
        print(json.dumps(line), flush=True)
        with a.out.open("a") as out:
            out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
