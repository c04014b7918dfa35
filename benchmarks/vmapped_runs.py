"""Seconds a step of RL runs that are computed together, beside one run by itself: the same shapes, on the devices there are.

    python -m benchmarks.vmapped_runs --out benchmarks/results/vmapped_cpu.jsonl [--runs 1,8] [--steps 3] [--start runs/seeds]

configs/shop.py with as many seeds. ``--start`` is a folder with the SFT of seed 0 (DIR:sft is what every run starts from);
without it weights are random and hardly any response ends before the window does, so that a step costs the most it can.
"alone" is ``experiments.rl``'s iteration, "together" the one of so many runs. Evaluations and checkpoints are not counted. One
JSON line a measurement, appended: the median step after one that compiles.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from configs import shop
from experiments import rl
from rljax.ablation import vmap_groups, vmapped
from rljax.structs import ConfigTree
from rljax.training import command_line, initial_state
from rljax.training.rl_steps import compile_train_step
from rljax.training.versions import source_commit


def config_of(seed: int, start: str) -> ConfigTree:
    config: Any = shop.get_config()
    config.seed, config.rl.start, config.mesh.data = seed, f"{start}:sft" if start else "", 1
    return config


def timed(train_step: Callable, state: Any, steps: int) -> dict[str, Any]:
    """Seconds of the first step, which compiles, and of the steps after it; and how long the responses were."""
    seconds = []
    for _ in range(1 + steps):
        begin = time.perf_counter()
        state, metrics = jax.block_until_ready(train_step(state))
        seconds.append(time.perf_counter() - begin)
    length = float(jax.device_get(metrics["response_length/mean"]).mean())
    median = statistics.median(seconds[1:])
    return {"first_step": round(seconds[0], 2), "seconds": round(median, 3), "response_length": round(length, 1)}


def alone(start: str, steps: int) -> dict[str, Any]:
    run = vmapped.resolve_on_one_device(config_of(0, start))
    params = initial_state.start_params(run, run.rl.start, "")
    train_step = compile_train_step(rl.make_train_step, run)
    return timed(train_step, initial_state.new_state(run, run.rl, params), steps)


def many(runs: int, start: str, steps: int) -> dict[str, Any]:
    configs = [config_of(seed, start) for seed in range(runs)]
    each, mesh = [vmapped.resolve_on_one_device(c) for c in configs], vmapped.make_run_mesh(runs, jax.devices())
    begin = time.perf_counter()
    state, _ = vmapped.make_initial_states(each, [Path(tempfile.gettempdir())] * runs, mesh)
    ready = time.perf_counter() - begin
    numbers = vmap_groups.stack_numbers(configs)[1]
    train_step = vmapped.vmap_train_step(rl.make_train_step, vmapped.with_run_axis(each[0]), numbers, mesh)
    return timed(train_step, state, steps) | {"states": round(ready, 2), "devices": mesh.size}


def main() -> None:
    p = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--runs", default="1,8")
    p.add_argument("--steps", type=int, default=3)
    p.add_argument("--start", default="")
    a = p.parse_args()
    command_line.use_compilation_cache()
    about = {"backend": jax.default_backend(), "device": jax.devices()[0].device_kind, "jax": jax.__version__}
    about |= {"cores": len(os.sched_getaffinity(0)), "start": "sft" if a.start else "random", "commit": source_commit()}
    one = alone(a.start, a.steps)
    found = [{"how": "alone", "runs": 1} | one]
    for runs in map(int, a.runs.split(",")):
        line = {"how": "together", "runs": runs} | many(runs, a.start, a.steps)
        line["of_one_by_one"] = round(line["seconds"] / (runs * one["seconds"]), 3)  # 1: nothing is gained
        found.append(line)
    for line in found:
        line = {"benchmark": "vmapped_runs"} | line | {"steps": a.steps} | about
        print(json.dumps(line), flush=True)
        with a.out.open("a") as out:
            out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
