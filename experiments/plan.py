"""What a config would need on a mesh that is not here: memory, operations, communication, time and money; nothing is run.

    rljax plan --config qwen25:adapters=32 --model qwen25_32b --mesh data=1,fsdp=8,tensor=4 --chip h100

The real sampler and update are compiled for that mesh on abstract arrays: on a CPU that plays as many devices, or, with
``--topology v5e:2x4`` and libtpu installed, by the TPU's own compiler. ``--model`` is a published architecture
(rljax/planning/published_models.py) or a folder with a config.json; without it the config's own model is planned. What a CPU compiles
is an upper bound: products in bfloat16 that it makes in float32 have operands that an accelerator would not hold.
"""

import json
import math
import os
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when XLA is loaded: the partitioner warns of single arrays

import jax  # noqa: E402

from rljax import planning
from rljax.distributed import sharding  # noqa: E402
from rljax.errors import UserError  # noqa: E402
from rljax.structs import ConfigTree  # noqa: E402
from rljax.training import command_line  # noqa: E402
from rljax.training.command_line import Flag  # noqa: E402

FLAGS: dict[str, Any] = dict(
    model=Flag("", "a published architecture, or a folder with a config.json; without it the config's own model"),
    mesh=Flag("data=1", "devices along each axis: data, fsdp, tensor, expert, context"),
    chip=Flag("h100", "the accelerator whose memory and speed are assumed"),
    price=Flag(0.0, "dollars an hour of one chip; 0: an assumption for the chip"),
    efficiency=Flag(0.4, "share of the roofline that is reached"),
    topology=Flag("", "a TPU topology such as v5e:2x4, compiled for by libtpu"),
    json=Flag("", "yes: also print the plan as JSON"),
    exact=Flag("", "yes: compile every layer instead of extrapolating"),
    fit=Flag("yes", "yes: search settings that fit, where this one does not"),
)


def mesh_sizes(text: str) -> dict[str, int]:
    """``data=4,tensor=8`` -> sizes of all axes."""
    out: dict[str, int] = {axis: 1 for axis in sharding.MESH_AXES}
    for part in filter(None, text.split(",")):
        name, _, size = part.partition("=")
        if name not in out or not size.isdigit() or int(size) < 1:
            raise UserError(
                f"--mesh={text}: {part!r} is not AXIS=NUMBER with an axis of {', '.join(sharding.MESH_AXES)}"
            )
        out[name] = int(size)
    return out


def topology(name: str) -> Any:
    """Devices of a TPU that is not here. Raises UserError where libtpu is not, or knows no such topology."""
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    except Exception as e:
        why = str(e).split("\n")[0][:200]
        raise UserError(
            f"--topology={name}: needs libtpu (pip install libtpu), and a topology it knows: {why}"
        ) from None


def run(config: ConfigTree, **flags: Any) -> None:
    sizes, chip = mesh_sizes(flags["mesh"]), flags["chip"].lower()
    planning.chip(chip)
    if not 0 < flags["efficiency"] <= 1:
        raise UserError(f"--efficiency={flags['efficiency']}: a share of the roofline, above 0 and at most 1")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", math.prod(sizes.values()))
    devices = topology(flags["topology"]) if flags["topology"] else None
    if devices is None:  # else what is cached could not be read again
        command_line.use_compilation_cache()
    config.mesh.update(sizes)

    def make(config: Any) -> planning.Plan:
        return planning.make_plan(planning.resolve_abstract(config, flags["model"], devices), bool(flags["exact"]))

    began = time.perf_counter()
    plan = make(config)
    c = config.rl
    tokens = f"{c.prompts} prompts x {c.group_size} attempts x {c.max_new_tokens} tokens, {plan.updates} updates"
    title = f"{flags['model'] or config.task.name}, {c.algorithm}: {tokens} an iteration; {flags['mesh']}"
    how = chip, flags["price"], flags["efficiency"]
    print(planning.table.text(plan, *how, title))
    print(f"  compiled for {flags['topology'] or 'a CPU: upper bounds'} in {time.perf_counter() - began:.0f} s")
    room = planning.CHIPS[chip].memory
    if plan.memory.peak > room:
        print(f"\ndoes not fit: {(plan.memory.peak - room) / 1e9:.1f} GB too much in {planning.largest_phase(plan)}")
        if flags["fit"] == "yes":
            found, after = planning.search_settings(
                config, plan, room, make, lambda line: print(f"  tried {line}", flush=True)
            )
            fits = after.memory.peak <= room
            print(f"{'fits with' if fits else 'not even with'} {planning.as_flags(found) or 'any setting'}")
            print("\n".join(planning.table.memory(after, chip)))
            if not fits:
                print("more devices are needed, or larger ones")
    if flags["json"]:
        print(json.dumps(planning.table.plain(plan, *how)))


def main() -> None:
    command_line.main(run, use="none", **FLAGS)


if __name__ == "__main__":
    main()
