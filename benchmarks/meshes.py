"""Do the curves depend on the mesh? RL from one start on one device with several seeds, then on meshes of 8 with the first.

    python -m benchmarks.meshes runs/meshes [--forms compiled,hosted] [--seeds 4] [--steps 50] [--processes 2]

Forms: ``compiled`` is configs/shop.py, a train step that is one compiled function; ``hosted`` configs/programs.py, verified in
worker processes; ``compiled_experts`` and ``hosted_experts`` the same with 8 experts of which a token meets 2. All have four
heads, so that tensor=4 divides them. One JSON line a run, appended to results/meshes.jsonl; runs that are there are not done
again. A table at the end says where each run's curves end, and how far they are from the first seed's on one device.
"""

import argparse
import json
import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from rljax.structs import ConfigTree
from rljax.training import command_line, journal
from rljax.training.versions import source_commit
from rljax.training.workdir import hold_workdir

RESULTS = Path(__file__).parent / "results" / "meshes.jsonl"
EXPERTS = {"model.experts": 8, "model.expert_width": 64, "model.shared_width": 64}
FORMS = {"compiled": {}, "hosted": {}, "compiled_experts": EXPERTS, "hosted_experts": EXPERTS}
MESHES = ("data=2,tensor=4", "fsdp=8", "fsdp=4,context=2")
WITH_EXPERTS = (*MESHES, "fsdp=2,expert=4")
CURVES = ("eval/pass@1", "eval/response_length/mean", "train/reward", "train/response_length/mean")


def config_of(form: str, seed: int, steps: int) -> ConfigTree:
    from configs import programs, shop

    c: Any = (shop if form.startswith("compiled") else programs).get_config()
    c.seed = seed
    c.model.update(dict(heads=4, kv_heads=4, head_width=16))
    c.update_from_flattened_dict(FORMS[form])
    c.rl.update(dict(steps=steps, eval_every=10, updates=1))
    c.rl.optimizer.schedule = "constant"
    c.eval.update(dict(problems=64, attempts=8, greedy=False))
    return c


def start(form: str, folder: Path) -> None:
    """Pretraining and SFT, on one device."""
    from experiments import pretrain, sft

    config = config_of(form, 0, 1)
    command_line.use_compilation_cache()
    with hold_workdir(folder, config):
        pretrain.run(config, folder)
        sft.run(config, folder)


def practise(form: str, begin: Path, folder: Path, mesh: str, seed: int, steps: int) -> dict[str, Any]:
    """RL of so many steps on a mesh ("" for one device); the line of the benchmark."""
    import jax

    from experiments import rl

    sizes = {axis: int(n) for axis, n in (part.split("=") for part in mesh.split(",") if part)}
    devices = math.prod(sizes.values())
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    os.environ["NPROC"] = str(
        2 * devices
    )  # XLA's threads: with one a device, copies that wait can keep a program from starting
    config = config_of(form, seed, steps)
    config.rl.start = f"{begin}:sft"
    config.mesh.update(dict(data=1) | sizes)
    command_line.use_compilation_cache()
    with hold_workdir(folder, config):
        rl.run(config, folder)
    records = [r for r in journal.read_records(folder / "metrics.jsonl") if r["stage"] == "rl"]
    curves = {name: [r[name] for r in records if name in r] for name in CURVES}
    seconds = [r["seconds"] for r in journal.read_records(folder / "timings.jsonl") if r["stage"] == "rl"][-1]
    about = {"form": form, "mesh": mesh, "seed": seed, "steps": steps, "seconds": round(seconds, 1)}
    return {"benchmark": "meshes", **about, "cores": os.cpu_count(), "commit": source_commit(), **curves}


def apart(x: dict[str, Any], one: dict[str, Any]) -> str:
    """Cells: the first step whose reward or length is not that of ``one``, and by how much the two differ at most."""
    reward, length = (np.abs(np.subtract(x[key], one[key])) for key in CURVES[2:])
    other = np.flatnonzero((reward > 0) | (length > 0))
    return f"{other[0] + 1 if len(other) else 'none'} | {reward.max():.3f} | {length.max():.2f}"


def table(lines: list[dict[str, Any]]) -> str:
    """Where each run's curves end, and how far they are from those of the first seed on one device."""
    rows = ["| form | run | pass@1 at the end | length | first step that differs | reward | length |", "|---" * 7 + "|"]
    for form in FORMS:
        mine = sorted((x for x in lines if x["form"] == form), key=lambda x: (x["mesh"], x["seed"]))
        for x in mine:
            name = x["mesh"] or f"one device, seed {x['seed']}"
            ends = f"{x[CURVES[0]][-1]:.3f} | {x[CURVES[1]][-1]:.1f}"
            rows.append(f"| {form} | {name} | {ends} | {apart(x, mine[0]) if x is not mine[0] else ' | | '} |")
    return "\n".join(rows)


def main() -> None:
    p = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    p.add_argument("workdir", type=Path)
    p.add_argument("--forms", default=",".join(FORMS))
    p.add_argument("--seeds", type=int, default=4)
    p.add_argument("--steps", type=int, default=50)
    p.add_argument("--processes", type=int, default=2)
    a = p.parse_args()
    forms = a.forms.split(",")
    lines = journal.read_records(RESULTS)
    done = {(x["form"], x["mesh"], x["seed"], x["steps"]) for x in lines}
    begin = {form: a.workdir.absolute() / f"start_{form}" for form in forms}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(a.processes, mp_context=spawn, max_tasks_per_child=1) as pool:
        ready = {form: pool.submit(start, form, folder) for form, folder in begin.items()}
        jobs = []
        for form in forms:
            ready[form].result()
            meshes = WITH_EXPERTS if FORMS[form] else MESHES
            for mesh, seed in [("", seed) for seed in range(a.seeds)] + [(mesh, 0) for mesh in meshes]:
                if (form, mesh, seed, a.steps) not in done:
                    folder = a.workdir.absolute() / f"{form}_{mesh or 'one'}_{seed}"
                    jobs.append(pool.submit(practise, form, begin[form], folder, mesh, seed, a.steps))
        for job in jobs:
            line = job.result()
            print(json.dumps({k: v for k, v in line.items() if k not in CURVES}), flush=True)
            with RESULTS.open("a") as out:
                out.write(json.dumps(line) + "\n")
            lines.append(line)
    print(table([x for x in lines if x["steps"] == a.steps]))


if __name__ == "__main__":
    main()
