"""A plan as text, one screen."""

from typing import Any

from rljax.planning import collectives, roofline
from rljax.planning.chips import CHIPS, Chip
from rljax.planning.plan import Plan
from rljax.planning.programs import Sizes

GB = 1e9


def text(plan: Plan, chip_name: str, price: float, efficiency: float, title: str) -> str:
    return "\n".join(
        [title, "", *memory(plan, chip_name), "", *work(plan), "", *times(plan, chip_name, price, efficiency)]
    )


def memory(plan: Plan, chip_name: str) -> list[str]:
    m, chip = plan.memory, CHIPS[chip_name]
    how = f" (sampler {plan.note})" if plan.note else ""
    out = [f"GB on each of {plan.devices} devices{how}"]
    line = lambda name, parts: f"  {name:<10}" + "   ".join(f"{k} {v / GB:.2f}" for k, v in parts.items() if v > 5e6)
    if m.host:
        out.append(f"  in host memory, for each, {m.host / GB:.2f} of the state")
    out += [line("state", m.state), line("sampling", m.sampling), line("updating", m.updating)]
    out.append(line("peak of", m.phases) + f"   -> {m.peak / GB:.2f} of {chip.memory / GB:.1f} ({chip_name})")
    return out


def work(plan: Plan) -> list[str]:
    p = plan.programs
    halves = {
        "sample": (plan.sampling, [p.sample, *([p.greedy] if p.greedy else [])]),
        "update": (plan.updating, [p.compare, p.push]),
    }
    out = [f"{'an iteration, all devices':<26}{'PFLOP':>12}{'TB moved':>14}   GB sent by each device (times)"]
    for name, (done, programs) in halves.items():
        out.append(f"  {name:<24}{done.flops / 1e15:>12,.1f}{done.bytes / 1e12:>14,.1f}   {talk(programs)}")
    return out


def talk(programs: list[Sizes]) -> str:
    if not all(p.read for p in programs):
        return "could not be read, and is not in the times below"
    said = collectives.by_kind([c for p in programs for c in p.said])
    each = [f"{kind} {size / GB:,.1f} ({times:,.0f})" for kind, (times, size) in said.items() if size > 1e7]
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
            f"  {name:<6}{r['sample']:>10,.1f}{r['update']:>10,.1f}{r['bound']:>20}{'':>14}{r['tokens_per_second']:>15,.0f}"
            f"{r['dollars_per_1000']:>20,.0f}   {'yes' if plan.memory.peak <= chip.memory else 'no'}{mark}"
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
