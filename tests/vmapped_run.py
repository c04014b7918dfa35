"""Two steps of six vmapped runs, on four simulated devices and on one: prints how much they differ (see simulated.py)."""

import json
import tempfile
from pathlib import Path

import jax
import numpy as np
from vmapped_configs import make_config, score_first_number

from experiments import rl
from rljax.ablation import vmap_groups, vmapped
from rljax.tasks import shop
from rljax.training import command_line


def run_two_steps(devices):
    """(number of devices used, number of collectives in the program, metrics {name: values [R]} of each step)."""
    configs = [make_config(**{"seed": n, "rl.temperature": 1 - n / 20}) for n in range(6)]
    runs = [vmapped.resolve_on_one_device(config) for config in configs]
    mesh = vmapped.make_run_mesh(len(configs), devices)
    state, _ = vmapped.make_initial_states(runs, [Path(tempfile.gettempdir())] * len(configs), mesh)
    numbers = vmap_groups.stack_numbers(configs)[1]
    train_step = vmapped.vmap_train_step(rl.make_train_step, vmapped.with_run_axis(runs[0]), numbers, mesh)
    program, metrics_of_steps = train_step.func.lower(*train_step.args, state).as_text(), []
    for _ in range(2):
        state, metrics = train_step(state)
        metrics_of_steps.append(jax.device_get(metrics))
    collectives = program.count("all_reduce") + program.count("all_gather")
    return len(state.params["embedding"].sharding.device_set), collectives, metrics_of_steps


command_line.use_compilation_cache()
shop.score = score_first_number
num_devices, num_collectives, sharded = run_two_steps(jax.devices())
_, _, on_one_device = run_two_steps(jax.devices()[:1])
pairs = list(zip(sharded, on_one_device, strict=True))
max_difference = max(float(np.abs(a[key] - b[key]).max()) for a, b in pairs for key in a)
lengths = [metrics["response_length/mean"].tolist() for metrics in sharded]
print(
    json.dumps(
        {
            "num_devices": num_devices,
            "num_collectives": num_collectives,
            "max_difference": max_difference,
            "lengths": lengths,
        }
    )
)
