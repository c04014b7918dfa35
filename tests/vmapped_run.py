"""Six runs on four simulated devices, and on one: prints how far apart they are (see simulated.py)."""

import json
import tempfile
from pathlib import Path

import jax
import numpy as np
from vmapped_configs import config_of, generous

from experiments import rl
from rljax.ablation import vmap_groups, vmapped
from rljax.tasks import shop
from rljax.training import command_line


def after_two(devices):
    """(devices used, collectives in the program, metrics of two steps [2][name][R])."""
    configs = [config_of(**{"seed": n, "rl.temperature": 1 - n / 20}) for n in range(6)]
    each, mesh = [vmapped.resolve_one(c) for c in configs], vmapped.mesh_for(len(configs), devices)
    state, _ = vmapped.initial_states(each, [Path(tempfile.gettempdir())] * len(configs), mesh)
    numbers = vmap_groups.stack_numbers(configs)[1]
    train_step = vmapped.vmap_train_step(rl.make_train_step, vmapped.beside_others(each[0]), numbers, mesh)
    text, seen = train_step.func.lower(*train_step.args, state).as_text(), []
    for _ in range(2):
        state, metrics = train_step(state)
        seen.append(jax.device_get(metrics))
    return len(state.params["embedding"].sharding.device_set), text.count("all_reduce") + text.count("all_gather"), seen


command_line.use_compilation_cache()
shop.score = generous
used, talk, many = after_two(jax.devices())
_, _, one = after_two(jax.devices()[:1])
apart = max(float(np.abs(a[k] - b[k]).max()) for a, b in zip(many, one, strict=True) for k in a)
lengths = [m["response_length/mean"].tolist() for m in many]
print(json.dumps({"used": used, "talk": talk, "apart": apart, "lengths": lengths}))
