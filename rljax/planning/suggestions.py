"""Which settings would make a plan fit: knobs in the order in which one would rather turn them, each kept if it helps."""

from collections.abc import Callable, Iterator
from typing import Any

from rljax.errors import UserError
from rljax.planning.plan import Plan
from rljax.structs import ConfigTree

Flags = dict[str, Any]  # setting -> value


def candidates(config: ConfigTree, experts: int) -> Iterator[tuple[str, Flags]]:
    """(the phase it is for, "" for all; what to set), from free ones to those that change what is learned."""
    m, c, mesh = config.model, config.rl, config.mesh
    if m.remat != "layer" or not m.scan_layers:
        yield "update", {"model.remat": "layer", "model.scan_layers": True}
    if not m.logprob_chunk:
        yield "update", {"model.logprob_chunk": 128}
    if not m.attention_chunk:
        yield "update", {"model.attention_chunk": 512}
    if experts and not m.expert_chunk:
        yield "update", {"model.expert_chunk": 2048}
    if mesh.data > 1:
        yield "", {"mesh.fsdp": mesh.fsdp * mesh.data, "mesh.data": 1}
    if c.micro_batch > mesh.data * mesh.fsdp * mesh.expert:  # a row on each at least
        yield "update", {"rl.micro_batch": c.micro_batch // 2}
    if m.cache_dtype == "float32":
        yield "sample", {"model.cache_dtype": "bfloat16"}
    for axis in ("fsdp", "data"):
        size, tensor = mesh[axis], mesh.tensor
        if size > 1 and size % 2 == 0:
            yield "", {f"mesh.{axis}": size // 2, "mesh.tensor": tensor * 2}
            break
    yield "sample", {"rl.sampler_weights": "int8"}
    if "moment_dtype" in c.optimizer and c.optimizer.name == "adamw" and not c.optimizer.moment_dtype:
        yield "", {"rl.optimizer.moment_dtype": "bfloat16"}
    if not c.optimizer.offload and c.optimizer.name != "sgd":
        yield "", {"rl.optimizer.offload": True}
    if c.prompts % 2 == 0 and (
        c.updates == 1 or c.updates % 2 == 0
    ):  # as many attempts an update, where there are several
        yield "sample", {"rl.prompts": c.prompts // 2} | ({"rl.updates": c.updates // 2} if c.updates > 1 else {})
    if not c.lora.rank:
        yield "", {"rl.lora.rank": 32, "model.weight_dtype": "bfloat16"}


def change_settings(config: ConfigTree, flags: Flags) -> ConfigTree:
    """A copy with these settings."""
    out = config.copy_and_resolve_references()
    for name, value in flags.items():
        group, last = out, name.split(".")
        for part in last[:-1]:
            group = group[part]
        group[last[-1]] = value
    return out


def search_settings(
    config: ConfigTree,
    plan: Plan,
    room: float,
    make: Callable[[ConfigTree], Plan],
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Flags, Plan]:
    """(what to set, the plan with it): whether that fits, its peak says. ``make`` plans a config, and may raise UserError."""
    flags: Flags = {}
    seen: set[str] = set()
    while plan.memory.peak > room:
        left = [
            (of, k)
            for of, k in candidates(config, plan.run.model.experts)
            if repr(k) not in seen and of in ("", largest_phase(plan))
        ]
        if not left:
            break
        _, knob = left[0]
        seen.add(repr(knob))
        try:
            changed = change_settings(config, knob)
            after = make(changed)
        except UserError:
            continue
        say(f"{as_flags(knob)}: {after.memory.peak / 1e9:.1f} GB")
        if after.memory.peak < 0.99 * plan.memory.peak:
            flags, plan, config = flags | knob, after, changed
    return flags, plan


def largest_phase(plan: Plan) -> str:
    phases = plan.memory.phases
    return max(phases, key=lambda name: phases[name])


def as_flags(flags: Flags) -> str:
    return " ".join(f"--config.{name}={value}" for name, value in flags.items())
