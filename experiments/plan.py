"""Plan a run on devices that are not here: memory, FLOPs, communication, time and price. Nothing is run.

    rljax plan --config qwen25:adapters=32 --model qwen25_32b --mesh data=1,fsdp=8,tensor=4 --chip h100

The programs for sampling and for the update are made for these devices, but not run. A CPU that simulates as many devices
makes them; with ``--topology v5e:2x4`` and libtpu installed, the TPU's compiler does. ``--model`` is a published model
(rljax/planning/published_models.py) or a folder with a config.json; without it the model of the config is planned.
Memory found on a CPU is an upper bound: a CPU computes bfloat16 products in float32 and stores converted operands, which
an accelerator does not.
"""

import json
import math
import os
import time
from typing import Any

os.environ.setdefault(
    "TF_CPP_MIN_LOG_LEVEL", "3"
)  # XLA reads it when it is loaded; it hides the partitioner's warnings

import jax  # noqa: E402

from rljax import planning
from rljax.distributed import sharding  # noqa: E402
from rljax.errors import UserError  # noqa: E402
from rljax.structs import ConfigTree  # noqa: E402
from rljax.training import command_line  # noqa: E402
from rljax.training.command_line import Flag  # noqa: E402

FLAGS: dict[str, Any] = dict(
    model=Flag("", "a published model, a folder with a config.json, or a GGUF file; without it the config's own model"),
    mesh=Flag("data=1", "devices along each axis: data, fsdp, tensor, expert, context"),
    chip=Flag("h100", "the accelerator whose memory the run must fit in"),
    price=Flag(0.0, "dollars an hour of one chip; 0: the assumed price of each chip"),
    efficiency=Flag(0.4, "share of the roofline that a run reaches", high=1.0),
    topology=Flag("", "a TPU topology such as v5e:2x4: compile for it with libtpu"),
    json=Flag("", "yes: also print the plan as JSON"),
    exact=Flag("", "yes: compile every layer instead of extrapolating"),
    fit=Flag("yes", "yes: where the run does not fit, search settings with which it fits"),
)
MAX_DEVICES = 8192  # each is simulated


def parse_mesh(text: str) -> dict[str, int]:
    """``data=4,tensor=8`` -> the sizes of all mesh axes. Raises UserError for another form or an unknown axis."""
    sizes: dict[str, int] = {axis: 1 for axis in sharding.MESH_AXES}
    for part in filter(None, text.split(",")):
        name, _, size = part.partition("=")
        if name not in sizes or not size.isdigit() or int(size) < 1:
            raise UserError(
                f"--mesh={text}: {part!r} is not AXIS=NUMBER with an axis of {', '.join(sharding.MESH_AXES)}"
            )
        sizes[name] = int(size[:10])
    if (devices := math.prod(sizes.values())) > MAX_DEVICES:
        raise UserError(f"--mesh={text}: {devices:,} devices, at most {MAX_DEVICES:,} can be planned")
    return sizes


def topology_devices(name: str) -> Any:
    """The devices of a TPU topology, which need not exist. Raises UserError without libtpu, or for an unknown topology."""
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    except Exception as e:
        why = str(e).split("\n")[0][:200]
        raise UserError(
            f"--topology={name}: needs libtpu (pip install libtpu) and a topology that it knows: {why}"
        ) from None


def run(config: ConfigTree, **flags: Any) -> None:
    # the mesh and the chip
    sizes, chip = parse_mesh(flags["mesh"]), flags["chip"].lower()
    memory_limit = planning.get_chip(chip).memory
    if not 0 < flags["efficiency"] <= 1:
        raise UserError(f"--efficiency={flags['efficiency']}: a share of the roofline, above 0 and at most 1")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", math.prod(sizes.values()))
    devices = topology_devices(flags["topology"]) if flags["topology"] else None
    if devices is None:  # a program cached for a topology cannot be loaded again without its devices
        command_line.use_compilation_cache()
    config.mesh.update(sizes)

    # the plan
    def make_plan(config: Any) -> planning.Plan:
        return planning.make_plan(planning.resolve_abstract(config, flags["model"], devices), bool(flags["exact"]))

    start = time.perf_counter()
    plan = make_plan(config)
    rl = config.rl
    tokens = f"{rl.prompts} prompts x {rl.group_size} attempts x {rl.max_new_tokens} tokens"
    title = (
        f"{flags['model'] or config.task.name}, {rl.algorithm}: {tokens}, {plan.optimizer_steps} updates an iteration; "
    )
    assumptions = chip, flags["price"], flags["efficiency"]
    print(planning.format_plan(plan, *assumptions, title + flags["mesh"]))
    print(f"  compiled for {flags['topology'] or 'a CPU: upper bounds'} in {time.perf_counter() - start:.0f} s")

    # settings that fit
    if plan.memory.peak > memory_limit:
        excess = (plan.memory.peak - memory_limit) / 1e9
        print(f"\ndoes not fit: {excess:.1f} GB too much in {planning.largest_phase(plan)}")
        if flags["fit"] == "yes":
            print_settings_that_fit(config, plan, chip, make_plan)
    if flags["json"]:
        print(json.dumps(planning.plan_to_dict(plan, *assumptions)))


def print_settings_that_fit(config: ConfigTree, plan: planning.Plan, chip: str, make_plan: Any) -> None:
    """Search settings with which the run fits on the chip; print each that is tried, and the result."""
    memory_limit = planning.CHIPS[chip].memory
    report = lambda line: print(f"  tried {line}", flush=True)
    settings, after = planning.search_settings(config, plan, memory_limit, make_plan, report)
    fits = after.memory.peak <= memory_limit
    print(f"{'fits with' if fits else 'does not even fit with'} {planning.format_flags(settings) or 'any setting'}")
    print("\n".join(planning.format_memory(after, chip)))
    if not fits:
        print("use more devices, or devices with more memory")


def main() -> None:
    command_line.main(run, use="none", **FLAGS)


if __name__ == "__main__":
    main()
