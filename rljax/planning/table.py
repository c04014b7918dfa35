"""Format a plan: as text of one screen, or as a dict for JSON."""

from typing import Any

import numpy as np

from rljax.planning import collectives, roofline
from rljax.planning.chips import CHIPS, Chip
from rljax.planning.lowering import CompiledProgram
from rljax.planning.plan import Plan

PREFIXES = (("P", 1e15), ("T", 1e12), ("G", 1e9))  # of units


def choose_prefix(largest: float) -> tuple[str, float]:
    """Return (prefix of the unit, its factor) for numbers up to ``largest``, for example ("G", 1e9)."""
    return next(((prefix, factor) for prefix, factor in PREFIXES if largest >= factor), ("M", 1e6))


def format_number(x: float) -> str:
    """Return x with about two significant digits: 1,234 or 12.3 or 0.12."""
    return f"{x:,.0f}" if x >= 100 else f"{x:.1f}" if x >= 1 else f"{x:.2g}"


def format_plan(plan: Plan, chip_name: str, dollars_per_hour: float, efficiency: float, title: str) -> str:
    """Return a plan as text: memory, costs, and the roofline of every chip.

    ``dollars_per_hour`` is the price of one chip; 0 means the prices of CHIPS. ``efficiency`` is the share of the roofline that
    a run reaches.
    """
    memory, costs = format_memory(plan, chip_name), format_costs(plan)
    return "\n".join(
        [
            title,
            "",
            *memory,
            *format_padding(plan),
            "",
            *costs,
            "",
            *format_roofline(plan, chip_name, dollars_per_hour, efficiency),
        ]
    )


def format_padding(plan: Plan) -> list[str]:
    """Return the line about padding: computed columns of an update for each real token, responses long and short."""
    lengths, slots = plan.prompt_lengths, plan.run.task.prompt_slots
    if lengths is None:
        return [f"padding: prompts have {slots} slots; the data is not at hand to measure them"]
    rates = columns_per_token(plan, lengths)
    return [
        f"padding: prompts of {lengths.mean():.0f} tokens on average, {lengths.max()} at most, in {slots} slots: "
        f"{rates['prompt']:.1f} computed columns for each real token; of an update {rates['longest']:.1f} where responses are as "
        f"long as they may be, {rates['eighth']:.1f} where they are an eighth of that"
    ]


def columns_per_token(plan: Plan, lengths: np.ndarray) -> dict[str, float]:
    """Return computed columns for each real token: of prompts, and of an update with long and with short responses."""
    task, longest = plan.run.task, plan.run.rl.sampling.max_new_tokens
    prompt, slots, batching = lengths.mean(), task.prompt_slots, plan.run.rl.micro_batching

    def of_update(response: int) -> float:
        if batching.packing is not None:
            return 1.0
        width = next(w for w in batching.all_widths(slots + longest) if w >= slots + response)
        return float(width / (prompt + response))

    return {"prompt": float(slots / prompt), "longest": of_update(longest), "eighth": of_update(max(longest // 8, 1))}


def format_memory(plan: Plan, chip_name: str) -> list[str]:
    """Return the lines about memory: the bytes on each device beside the memory of this chip."""
    m, chip = plan.memory, CHIPS[chip_name]
    prefix, factor = choose_prefix(min(m.peak, 999e9))
    note = f" (sampler {plan.note})" if plan.note else ""
    lines = [f"{prefix}B on each of {plan.num_devices} devices{note}"]
    if m.host:
        lines.append(f"  of the state, {m.host / factor:.2f} a device in host memory")

    def format_parts(parts: dict[str, float]) -> str:
        return "   ".join(f"{name} {x / factor:.2f}" for name, x in parts.items() if x >= 0.005 * factor)

    for name, parts in {"state": m.state, "sampling": m.sampling, "updating": m.updating}.items():
        lines.append(f"  {name:<10}{format_parts(parts)}")
    peak = f"{m.peak / factor:.2f} in {m.largest_phase}, of {chip.memory / factor:,.1f} ({chip_name})"
    return [*lines, f"  {'peak of':<10}{format_parts(m.phases)}   -> {peak}"]


def format_costs(plan: Plan) -> list[str]:
    """Return the lines about FLOPs, bytes accessed and bytes sent in one iteration."""
    p = plan.programs
    phases = {
        "sample": (plan.sampling, [p.sample, *([p.greedy] if p.greedy else [])]),
        "update": (plan.updating, [p.advantages, p.update]),
    }
    sent = [
        sum(c.count * c.bytes_sent for program in programs for c in program.collectives)
        for _, programs in phases.values()
    ]
    flops_prefix, flops_factor = choose_prefix(plan.updating.flops)
    bytes_prefix, bytes_factor = choose_prefix(plan.updating.bytes)
    sent_prefix, sent_factor = choose_prefix(min(max(sent), 999e9))
    header = f"{flops_prefix + 'FLOP':>12}{bytes_prefix + 'B moved':>14}   {sent_prefix}B sent by each device (times)"
    lines = [f"{'an iteration, all devices':<26}{header}"]
    for name, (cost, programs) in phases.items():
        flops, moved = format_number(cost.flops / flops_factor), format_number(cost.bytes / bytes_factor)
        lines.append(f"  {name:<24}{flops:>12}{moved:>14}   {format_collectives(programs, sent_factor)}")
    return lines


def format_collectives(programs: list[CompiledProgram], factor: float) -> str:
    """Return the collectives of these programs, each as ``KIND bytes sent / factor (executions)``."""
    if not all(p.has_hlo_text for p in programs):
        return "unknown: the compiler gave no HLO text; the times below leave collectives out"
    totals = collectives.sum_by_kind([c for p in programs for c in p.collectives])
    parts = [
        f"{kind} {sent / factor:,.1f} ({executions:,.0f})"
        for kind, (executions, sent) in totals.items()
        if sent > 0.05 * factor
    ]
    return "   ".join(parts) or "nothing"


def format_roofline(plan: Plan, chip_name: str, dollars_per_hour: float, efficiency: float) -> list[str]:
    """Return the lines about time: one for each chip of CHIPS."""
    lines = [
        f"{'roofline':<8}{'sample s':>10}{'update s':>10}{'bound by':>20}   at {efficiency:.0%} of it:"
        f"{'tokens/s':>12}{'$ / 1,000 updates':>20}   fits"
    ]
    for name, chip in CHIPS.items():
        speed = estimate_speed(plan, chip, dollars_per_hour, efficiency)
        sample, update, dollars = (format_number(speed[key]) for key in ("sample", "update", "dollars_per_1000"))
        fits = "yes" if plan.memory.peak <= chip.memory else "no"
        mark = " <" if name == chip_name else ""
        lines.append(
            f"  {name:<6}{sample:>10}{update:>10}{speed['bound']:>20}{'':>14}{speed['tokens_per_second']:>15,.0f}"
            f"{dollars:>20}   {fits}{mark}"
        )
    assumed = ", ".join(f"{name} ${c.dollars_per_hour:.2f}" for name, c in CHIPS.items())
    prices = f"${dollars_per_hour:.2f}" if dollars_per_hour else assumed
    return [*lines, f"  prices a chip-hour, assumed: {prices}"]


def estimate_speed(plan: Plan, chip: Chip, dollars_per_hour: float, efficiency: float) -> dict[str, Any]:
    """Return the speed of a plan on a chip.

    ``sample`` and ``update`` are the seconds of an iteration's phases at the roofline, and ``bound`` is what limits them.
    ``tokens_per_second`` and ``dollars_per_1000``, of 1,000 optimizer steps, are at ``efficiency`` times the roofline.
    """
    phases = roofline.phase_times(plan.sampling, plan.updating, plan.programs, chip, plan.num_devices)
    seconds = sum(phase.seconds for phase in phases.values()) / efficiency
    chip_hours = seconds / plan.optimizer_steps * 1000 / 3600 * plan.num_devices
    return {
        "sample": phases["sample"].seconds,
        "update": phases["update"].seconds,
        "bound": f"{phases['sample'].bound}, {phases['update'].bound}",
        "tokens_per_second": plan.sampled_tokens / seconds,
        "dollars_per_1000": chip_hours * (dollars_per_hour or chip.dollars_per_hour),
    }


def plan_to_dict(plan: Plan, chip_name: str, dollars_per_hour: float, efficiency: float) -> dict[str, Any]:
    """Return a plan as a dict for JSON, in bytes, FLOPs and seconds. The arguments are those of ``format_plan``."""
    m = plan.memory
    programs = {name: p for name, p in plan.programs._asdict().items() if p is not None}
    return {
        "devices": plan.num_devices,
        "chip": chip_name,
        "bytes": {"state": m.state, "sampling": m.sampling, "updating": m.updating, "phases": m.phases, "peak": m.peak}
        | {"host": m.host, "largest_phase": m.largest_phase},
        "flops": {"sample": plan.sampling.flops, "update": plan.updating.flops},
        "moved": {"sample": plan.sampling.bytes, "update": plan.updating.bytes},
        "sent": {name: collectives.sum_by_kind(list(p.collectives)) for name, p in programs.items()},
        "roofline": {name: estimate_speed(plan, c, dollars_per_hour, efficiency) for name, c in CHIPS.items()},
        "note": plan.note,
        "columns_per_token": None if plan.prompt_lengths is None else columns_per_token(plan, plan.prompt_lengths),
    }
