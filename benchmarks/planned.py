"""The planner's peak beside the measured one: small configs whose arrays are some hundred megabytes, on this CPU.

    python -m benchmarks.planned            # all of them, each in a process of its own; appends to results/plan_cpu.jsonl

Measured is the state, and the growth of the process's resident memory (Linux, /proc) from when it lies there through two
train steps, divided by the devices, which on a CPU share it. Everything was compiled before.
"""

import argparse
import ctypes
import dataclasses
import gc
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from configs import shop
from experiments import rl
from rljax import planning, tasks
from rljax.distributed import sharding
from rljax.planning import lowering
from rljax.structs import Experience, Rewards
from rljax.training import command_line, initial_state
from rljax.training.workdir import source_commit
from rljax.transformer import lora

RESULTS = Path(__file__).parent / "results" / "plan_cpu.jsonl"
MODEL = dict(layers=6, width=1024, heads=8, kv_heads=4, head_width=128, ff_width=4096, max_length=1024)
RL = dict(prompts=8, group_size=8, max_new_tokens=160, micro_batch=8)
CASES: dict[str, dict[str, Any]] = {
    "all weights": dict(model=MODEL, rl=RL, mesh={}),
    "remat, scan, a reference": dict(
        model=MODEL | dict(remat="layer", scan_layers=True, logprob_chunk=32, layers=8),
        rl=RL | dict(algorithm="r1_zero", updates=2, group_size=4),
        mesh={},
    ),
    "long cache, adapters": dict(
        model=MODEL | dict(width=512, ff_width=1024, kv_heads=8, layers=4),
        rl=RL | dict(group_size=32, micro_batch=4, adapters=8),
        mesh={},
    ),
    "fsdp 2 x tensor 2": dict(
        model=MODEL | dict(remat="layer", scan_layers=True),
        rl=RL | dict(group_size=4),
        mesh=dict(data=1, fsdp=2, tensor=2),
    ),
}


def resident(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def configured(case: dict[str, Any]) -> Any:
    c: Any = shop.get_config("prices=8,max_price=20")
    c.model.update(case["model"])
    rl = dict(case["rl"])
    c.rl.lora.rank = rl.pop("adapters", 0)
    c.rl.update(rl | dict(widths=()))
    c.mesh.update(case["mesh"])
    return c


def measure(name: str) -> dict[str, Any]:
    case = CASES[name]
    devices = math.prod(case["mesh"].values())
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    command_line.use_compilation_cache()
    c = configured(case)
    abstract = planning.resolve_abstract(c)
    plan = planning.make_plan(abstract)
    task = tasks.make_task("shop", **c.task.options.to_dict())
    train_step = jax.jit(rl.make_train_step(dataclasses.replace(abstract, task=task)), donate_argnums=0)
    about: Any = train_step.lower(lowering.state_of(abstract)).compile().memory_analysis()
    whole = (
        about.argument_size_in_bytes + about.output_size_in_bytes - about.alias_size_in_bytes + about.temp_size_in_bytes
    )
    run = {name: lower().compile() for name, lower in lowering.lower_programs(abstract).items()}
    state = jax.block_until_ready(initial_state.new_state(abstract, abstract.rl, None))
    held = sum(
        x.nbytes
        for y in jax.tree.leaves(state)
        if not sharding.is_prng_key(y)
        for x in (part.data for part in y.addressable_shards)
    )
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = resident("VmRSS") - held
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    n, slots = c.rl.prompts, abstract.task.prompt_slots
    put = lambda x, like: jax.device_put(x, like.sharding)
    layout = abstract.sampler_model.layout
    asked = lowering.abstract_rows((jnp.ones((n, slots), jnp.int32), jnp.ones((n, slots), bool)), layout)
    prompt, mask = (put(jnp.ones(x.shape, x.dtype), x) for x in asked)
    for _ in range(2):
        policy = lora.policy_params(state.params, state.frozen)
        placed = jax.tree.map(jax.device_put, (policy, prompt, mask, state.key), run["sample"].input_shardings[0])
        rollout = jax.block_until_ready(run["sample"](*placed))
        reward = jnp.arange(n * c.rl.group_size, dtype=jnp.float32).reshape(n, -1) % 2
        args = (state, Experience(rollout, Rewards(reward, reward[..., None], {})))
        args = jax.tree.map(jax.device_put, args, run["advantages"].input_shardings[0])
        batch = jax.block_until_ready(run["advantages"](*args))[0]
        args = jax.tree.map(jax.device_put, (state, batch), run["update"].input_shardings[0])
        state, _ = jax.block_until_ready(run["update"](*args))
        del args, placed
    peak = resident("VmHWM") - before
    return {
        "case": name,
        "devices": devices,
        "planned_mb": round(plan.memory.peak / 1e6),
        "measured_mb": round(peak / devices / 1e6),
        "ratio": round(plan.memory.peak / (peak / devices), 3),
        "one_program_mb": round(whole / 1e6),  # the whole train step compiled as one, as for tasks on the device
        "phases_mb": {k: round(v / 1e6) for k, v in plan.memory.phases.items()},
        "state_mb": round(sum(plan.memory.state.values()) / 1e6),
        "jax": jax.__version__,
        "commit": source_commit(),
    }


if __name__ == "__main__":
    p = argparse.ArgumentParser(prog="benchmarks.planned")
    p.add_argument("--case", choices=CASES)
    a = p.parse_args()
    if a.case:
        print(json.dumps(measure(a.case)), flush=True)
    else:
        with RESULTS.open("a") as out:
            for case in CASES:
                done = subprocess.run(
                    [sys.executable, "-m", "benchmarks.planned", "--case", case], capture_output=True, text=True
                )
                line = done.stdout.strip().splitlines()[-1] if done.returncode == 0 else sys.exit(done.stderr)
                print(line, flush=True)
                out.write(line + "\n")
