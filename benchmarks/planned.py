"""Planned and measured peak memory, for small configs with arrays of some hundred megabytes, on this CPU.

    python -m benchmarks.planned            # all cases, each in its own process; appends to results/plan_cpu.jsonl

The measured peak is the bytes of the training state, plus the growth of the process's resident memory (Linux, /proc) during two
train steps. It is divided by the number of devices, because simulated devices share the process. All programs are compiled before
the measurement begins.
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
from rljax.training.versions import source_commit
from rljax.transformer import lora

RESULTS = Path(__file__).parent / "results" / "plan_cpu.jsonl"
MODEL = dict(layers=6, width=1024, heads=8, kv_heads=4, head_width=128, ff_width=4096, max_length=1024)
RL = dict(prompts=8, group_size=8, max_new_tokens=160, micro_batch=8, updates=1)
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


def resident_bytes(field: str) -> int:
    """Resident memory of this process in bytes: "VmRSS" is the present one, "VmHWM" the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def state_bytes(state: Any) -> int:
    """Bytes of a training state on all devices together."""
    arrays = [x for x in jax.tree.leaves(state) if not sharding.is_prng_key(x)]
    return sum(shard.data.nbytes for x in arrays for shard in x.addressable_shards)


def make_config(case: dict[str, Any]) -> Any:
    c: Any = shop.get_config("prices=8,max_price=20")
    c.model.update(case["model"])
    rl = dict(case["rl"])
    c.rl.lora.rank = rl.pop("adapters", 0)
    c.rl.update(rl | dict(widths=()))
    c.mesh.update(case["mesh"])
    return c


def fused_step_bytes(c: Any, abstract_run: Any) -> int:
    """Bytes on each device of the whole train step compiled as one program, as it is for tasks with a verifier in jnp."""
    task = tasks.make_task("shop", **c.task.options.to_dict())
    train_step = jax.jit(rl.make_train_step(dataclasses.replace(abstract_run, task=task)), donate_argnums=0)
    memory: Any = train_step.lower(lowering.abstract_state(abstract_run)).compile().memory_analysis()
    inputs_and_outputs = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return inputs_and_outputs + memory.temp_size_in_bytes


def run_train_steps(programs: dict[str, Any], abstract_run: Any, state: Any, steps: int) -> None:
    """Run the planned programs on prompts of ones, with rewards of 0 and 1."""
    prompts, slots = abstract_run.rl.problems.prompts, abstract_run.task.prompt_slots
    shapes = (jnp.ones((prompts, slots), jnp.int32), jnp.ones((prompts, slots), bool))
    abstract = lowering.with_row_sharding(shapes, abstract_run.sampler_model.layout)
    prompt, mask = (jax.device_put(jnp.ones(x.shape, x.dtype), x.sharding) for x in abstract)
    place = lambda args, program: jax.tree.map(jax.device_put, args, program.input_shardings[0])
    for _ in range(steps):
        policy = lora.policy_params(state.params, state.frozen)
        sampler_args = place((policy, prompt, mask, state.key), programs["sample"])
        rollout = jax.block_until_ready(programs["sample"](*sampler_args))
        reward = jnp.arange(prompts * abstract_run.rl.sampling.group_size, dtype=jnp.float32).reshape(prompts, -1) % 2
        experience = Experience(rollout, Rewards(reward, reward[..., None], {}))
        args = place((state, experience), programs["advantages"])
        batch = jax.block_until_ready(programs["advantages"](*args))[0]
        args = place((state, batch), programs["update"])
        state, _ = jax.block_until_ready(programs["update"](*args))
        del args, sampler_args


def measure(name: str) -> dict[str, Any]:
    """Plan a case, run two train steps, and return both peaks."""
    case = CASES[name]
    devices = math.prod(case["mesh"].values())
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    command_line.use_compilation_cache()

    # plan and compile
    c = make_config(case)
    abstract_run = planning.resolve_abstract(c)
    plan = planning.make_plan(abstract_run)
    fused_bytes = fused_step_bytes(c, abstract_run)
    programs = {name: lower().compile() for name, lower in lowering.lower_programs(abstract_run).items()}

    # run and measure
    state = jax.block_until_ready(initial_state.new_state(abstract_run, abstract_run.rl, None))
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    baseline = resident_bytes("VmRSS") - state_bytes(state)
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    run_train_steps(programs, abstract_run, state, steps=2)
    peak = resident_bytes("VmHWM") - baseline
    return {
        "case": name,
        "devices": devices,
        "planned_mb": round(plan.memory.peak / 1e6),
        "measured_mb": round(peak / devices / 1e6),
        "ratio": round(plan.memory.peak / (peak / devices), 3),
        "one_program_mb": round(fused_bytes / 1e6),
        "phases_mb": {k: round(v / 1e6) for k, v in plan.memory.phases.items()},
        "state_mb": round(sum(plan.memory.state.values()) / 1e6),
        "jax": jax.__version__,
        "commit": source_commit(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.planned")
    parser.add_argument("--case", choices=CASES)
    case = parser.parse_args().case
    if case:
        print(json.dumps(measure(case)), flush=True)
        return
    with RESULTS.open("a") as file:
        for name in CASES:
            command = [sys.executable, "-m", "benchmarks.planned", "--case", name]
            done = subprocess.run(command, capture_output=True, text=True)
            line = done.stdout.strip().splitlines()[-1] if done.returncode == 0 else sys.exit(done.stderr)
            print(line, flush=True)
            file.write(line + "\n")


if __name__ == "__main__":
    main()
