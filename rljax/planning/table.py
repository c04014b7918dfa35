"""A plan as text, one screen."""

from typing import Any

from rljax.planning import collectives, roofline
from rljax.planning.chips import CHIPS, Chip
from rljax.planning.lowering import Sizes
from rljax.planning.plan import Plan

Unit = tuple[str, float]


def unit(largest: float) -> Unit:
    """The prefix that numbers up to this one are best said with, and its worth."""
    return next(((name, x) for name, x in (("P", 1e15), ("T", 1e12), ("G", 1e9)) if largest >= x), ("M", 1e6))


def short(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 else f"{x:.1f}" if x >= 1 else f"{x:.2g}"


def text(plan: Plan, chip_name: str, price: float, efficiency: float, title: str) -> str:
    return "\n".join(
        [title, "", *memory(plan, chip_name), "", *work(plan), "", *times(plan, chip_name, price, efficiency)]
    )


def memory(plan: Plan, chip_name: str) -> list[str]:
    m, chip = plan.memory, CHIPS[chip_name]
    letter, one = unit(min(m.peak, 999e9))
    how = f" (sampler {plan.note})" if plan.note else ""
    out = [f"{letter}B on each of {plan.devices} devices{how}"]
    if m.host:
        out.append(f"  in host memory, for each, {m.host / one:.2f} of the state")
    said = lambda parts: "   ".join(f"{k} {v / one:.2f}" for k, v in parts.items() if v >= 0.005 * one)
    for name, parts in {"state": m.state, "sampling": m.sampling, "updating": m.updating}.items():
        out.append(f"  {name:<10}{said(parts)}")
    out.append(f"  {'peak of':<10}{said(m.phases)}   -> {m.peak / one:.2f} of {chip.memory / one:,.1f} ({chip_name})")
    return out


def work(plan: Plan) -> list[str]:
    p = plan.programs
    halves = {
        "sample": (plan.sampling, [p.sample, *([p.greedy] if p.greedy else [])]),
        "update": (plan.updating, [p.advantages, p.update]),
    }
    sent = {name: sum(c.times * c.sent for x in programs for c in x.said) for name, (_, programs) in halves.items()}
    flop, moved, talked = unit(plan.updating.flops), unit(plan.updating.bytes), unit(min(max(sent.values()), 999e9))
    head = f"{flop[0] + 'FLOP':>12}{moved[0] + 'B moved':>14}   {talked[0]}B sent by each device (times)"
    out = [f"{'an iteration, all devices':<26}{head}"]
    for name, (done, programs) in halves.items():
        numbers = f"{short(done.flops / flop[1]):>12}{short(done.bytes / moved[1]):>14}"
        out.append(f"  {name:<24}{numbers}   {talk(programs, talked[1])}")
    return out


def talk(programs: list[Sizes], one: float) -> str:
    if not all(p.read for p in programs):
        return "could not be read, and is not in the times below"
    said = collectives.by_kind([c for p in programs for c in p.said])
    each = [f"{kind} {size / one:,.1f} ({times:,.0f})" for kind, (times, size) in said.items() if size > 0.05 * one]
    return "   ".join(each) or "nothing"


def times(plan: Plan, chip_name: str, price: float, efficiency: float) -> list[str]:
    own = ", ".join(f"{name} ${c.price:.2f}" for name, c in CHIPS.items()) if not price else f"${price:.2f}"
    out = [
        f"{'roofline':<8}{'sample s':>10}{'update s':>10}{'bound by':>20}   at {efficiency:.0%} of it:"
        f"{'tokens/s':>12}{'$ / 1,000 updates':>20}   fits"
    ]
    for name, chip in CHIPS.items():
        r = row(plan, chip, price, efficiency)
        mark = " <" if name == chip_name else ""
        out.append(
            f"  {name:<6}{short(r['sample']):>10}{short(r['update']):>10}{r['bound']:>20}{'':>14}{r['tokens_per_second']:>15,.0f}"
            f"{short(r['dollars_per_1000']):>20}   {'yes' if plan.memory.peak <= chip.memory else 'no'}{mark}"
        )
    return [*out, f"  prices a chip-hour, assumed: {own}"]


def row(plan: Plan, chip: Chip, price: float, efficiency: float) -> dict[str, Any]:
    """Seconds of an iteration's halves at the roofline; tokens a second and dollars at that share of it."""
    r = roofline.phases(plan.sampling, plan.updating, plan.programs, chip, plan.devices)
    seconds = sum(p.seconds for p in r.values()) / efficiency
    dollars = seconds / plan.updates * 1000 / 3600 * plan.devices * (price or chip.price)
    return {
        "sample": r["sample"].seconds,
        "update": r["update"].seconds,
        "bound": f"{r['sample'].bound}, {r['update'].bound}",
        "tokens_per_second": plan.tokens / seconds,
        "dollars_per_1000": dollars,
    }


def plain(plan: Plan, chip_name: str, price: float, efficiency: float) -> dict[str, Any]:
    """The same as data, in bytes, operations and seconds."""
    m, p = plan.memory, plan.programs
    return {
        "devices": plan.devices,
        "chip": chip_name,
        "bytes": {"state": m.state, "sampling": m.sampling, "updating": m.updating, "phases": m.phases, "peak": m.peak}
        | {"host": m.host},
        "flops": {"sample": plan.sampling.flops, "update": plan.updating.flops},
        "moved": {"sample": plan.sampling.bytes, "update": plan.updating.bytes},
        "sent": {name: collectives.by_kind(list(x.said)) for name, x in p._asdict().items() if x is not None},
        "roofline": {name: row(plan, c, price, efficiency) for name, c in CHIPS.items()},
        "note": plan.note,
    }
