"""Search settings that make a plan fit: candidate changes are tried in a fixed order, and each that helps is kept."""

from collections.abc import Callable, Iterator
from typing import Any

from rljax.errors import UserError
from rljax.learner.optimizer import LARGEST_BFLOAT16_DECAY
from rljax.planning.plan import Plan
from rljax.structs import ConfigTree

Settings = dict[str, Any]  # path in the config tree -> value


def candidate_settings(config: ConfigTree, experts: int) -> Iterator[tuple[str, Settings]]:
    """Yield (the phase whose memory the change reduces, "" for all phases; the settings to change).

    Changes that only cost time come first. Changes to what the model learns come last.
    """
    model, rl, mesh = config.model, config.rl, config.mesh
    if model.remat != "layer" or not model.scan_layers:
        yield "update", {"model.remat": "layer", "model.scan_layers": True}
    if not model.logprob_chunk:
        yield "update", {"model.logprob_chunk": 128}
    if not model.attention_chunk:
        yield "update", {"model.attention_chunk": 512}
    if experts and not model.expert_chunk:
        yield "update", {"model.expert_chunk": 2048}
    if mesh.data > 1:
        yield "", {"mesh.fsdp": mesh.fsdp * mesh.data, "mesh.data": 1}
    if rl.micro_batch > mesh.data * mesh.fsdp * mesh.expert:  # each device needs at least one row
        yield "update", {"rl.micro_batch": rl.micro_batch // 2}
    evaluated = config.eval.rows or rl.prompts * rl.group_size
    if evaluated > 1:
        yield "evaluate", {"eval.rows": evaluated // 2}
    if model.cache_dtype == "float32":
        yield "sample", {"model.cache_dtype": "bfloat16"}
    for axis in ("fsdp", "data"):
        size, tensor = mesh[axis], mesh.tensor
        if size > 1 and size % 2 == 0:
            yield "", {f"mesh.{axis}": size // 2, "mesh.tensor": tensor * 2}
            break
    yield "sample", {"rl.sampler_weights": "int8"}
    if rl.optimizer.name == "adamw" and not rl.optimizer.moment_dtype and rl.optimizer.b1 <= LARGEST_BFLOAT16_DECAY:
        yield "", {"rl.optimizer.moment_dtype": "bfloat16"}
    if not rl.optimizer.offload and rl.optimizer.name != "sgd":
        yield "", {"rl.optimizer.offload": True}
    if rl.prompts % 2 == 0 and (rl.updates == 1 or rl.updates % 2 == 0):
        fewer_updates = {"rl.updates": rl.updates // 2} if rl.updates > 1 else {}  # each keeps its number of attempts
        yield "sample", {"rl.prompts": rl.prompts // 2} | fewer_updates
    if not rl.lora.rank:
        yield "", {"rl.lora.rank": 32, "model.weight_dtype": "bfloat16"}


def change_settings(config: ConfigTree, settings: Settings) -> ConfigTree:
    """Return a copy of the config with these settings."""
    changed = config.copy_and_resolve_references()
    for path, value in settings.items():
        *sections, name = path.split(".")
        section = changed
        for part in sections:
            section = section[part]
        section[name] = value
    return changed


def search_settings(
    config: ConfigTree,
    plan: Plan,
    memory_limit: float,
    make_plan: Callable[[ConfigTree], Plan],
    report: Callable[[str], None] = lambda line: None,
) -> tuple[Settings, Plan]:
    """Return (the settings to change, the plan with them).

    The search stops where the plan's peak is at most ``memory_limit`` bytes a device, or where no candidate is left. The caller
    must therefore check the peak of the returned plan. ``plan`` is the plan of ``config``. ``make_plan`` plans a changed config;
    where it raises UserError, the candidate is skipped. ``report`` receives a line of text for each candidate tried.
    """
    found: Settings = {}
    tried: set[str] = set()
    while plan.memory.peak > memory_limit:
        candidates = [
            settings
            for phase, settings in candidate_settings(config, plan.run.model.experts)
            if repr(settings) not in tried and phase in ("", largest_phase(plan))
        ]
        if not candidates:
            break
        settings = candidates[0]
        tried.add(repr(settings))
        try:
            changed = change_settings(config, settings)
            new_plan = make_plan(changed)
        except UserError:
            continue
        report(f"{format_flags(settings)}: {new_plan.memory.peak / 1e9:.1f} GB")
        if new_plan.memory.peak < 0.99 * plan.memory.peak:
            found, plan, config = found | settings, new_plan, changed
    return found, plan


def largest_phase(plan: Plan) -> str:
    """Return the phase with the largest memory."""
    return plan.memory.largest_phase


def format_flags(settings: Settings) -> str:
    """Return the settings as command-line flags, ``--config.rl.prompts=8 ...``."""
    return " ".join(f"--config.{name}={value}" for name, value in settings.items())
