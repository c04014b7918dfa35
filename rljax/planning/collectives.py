"""What devices say to each other, read from the text of a compiled program.

XLA writes how often a counted loop runs (``known_trip_count``), or its condition is nothing but a comparison with a number;
the caller says it of the others, in the order in which they stand: the sampler's loops end with the longest response. Of a
conditional's branches the one that sends most counts. A TPU's compiler spreads one collective over the instructions that it
runs beside: parts with the number of one channel are one.
"""

import dataclasses
import math
import re
from collections import defaultdict

import numpy as np

BYTES = dict(pred=1, s8=1, u8=1, s16=2, u16=2, f16=2, bf16=2, s32=4, u32=4, f32=4, s64=8, u64=8, f64=8, c64=8)
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*)$")
SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")
CALLED = re.compile(r"(?:calls|body|true_computation|false_computation)=%?([\w.\-]+)")
CALLS = ("while", "fusion", "call", "async-start")
CONDITION = re.compile(r"condition=%?([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
TRIPS = re.compile(r'known_trip_count[^\d]*"n":"(\d+)"')
CONSTANT = re.compile(r"^\s+%?[\w.\-]+ = s32\[\]\S* constant\((\d+)\)")
LESS = re.compile(r"^\s+ROOT .* compare\(.*direction=LT")


@dataclasses.dataclass(frozen=True)
class Collective:
    kind: str
    size: int  # bytes of the whole array on one device: what is summed or sent, or what a gather leaves
    group: int  # devices that talk
    within: int  # smallest power of two of neighbours, from a multiple of itself, that holds every group
    times: float  # runs of it in one run of the program
    channel: str = ""

    @property
    def sent(self) -> float:
        """Bytes that each device sends each time, by a ring."""
        share = (self.group - 1) / self.group if self.group > 1 else 0.0
        return self.size * (2 * share if self.kind == "all-reduce" else share if self.kind != KINDS[-1] else 1.0)


@dataclasses.dataclass
class Computation:
    found: list[Collective]
    calls: list[
        tuple[str, str, float | None]
    ]  # (computation, the condition of its loop or "", times where they are said)
    branches: list[list[str]]
    constants: list[int]
    only_less: bool = False  # what it returns is one number being less than another


def read(text: str, turns: tuple[float, ...] = ()) -> list[Collective]:
    """The collectives of a program; ``turns`` of its loops of unknown length, in order (the last one's for further ones)."""
    computations, entry = parse(text)
    unknown = iter(turns)
    last = turns[-1] if turns else 1.0

    def limit(condition: str) -> float | None:
        """How often a loop runs that counts from 0 to a number and asks nothing else."""
        asked = computations.get(condition)
        return float(asked.constants[0]) if asked and asked.only_less and len(asked.constants) == 1 else None

    def walk(name: str, times: float) -> list[Collective]:
        here = computations[name]
        out = [dataclasses.replace(c, times=c.times * times) for c in here.found]
        for called, condition, often in here.calls:
            if called not in computations:
                continue
            often = limit(condition) if often is None else often
            given = next(unknown, last) if often is None else often
            out += walk(called, times * given)
        for branches in here.branches:
            each = [walk(b, times) for b in branches if b in computations]
            out += max(each, key=lambda cs: sum(c.sent * c.times for c in cs), default=[])
        once = {(c.channel or f"number {i}", c.times): c for i, c in enumerate(out)}
        return list(once.values())

    return walk(entry, 1.0) if entry else []


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """(computations by name, the name of the first to run)."""
    out: dict[str, Computation] = {}
    now, entry = None, ""
    devices = re.search(r"num_partitions=(\d+)", text[: text.find("\n")])
    everyone = np.arange(int(devices[1]) if devices else 1)[None]
    for line in text.splitlines():
        if not line.startswith(" ") and (head := COMPUTATION.match(line)):
            now = out[head[2]] = Computation([], [], [], [])
            entry = head[2] if head[1] else entry
        elif now is not None and (said := INSTRUCTION.match(line)):
            _, shape, op, rest = said.groups()
            kind = op.removesuffix("-start")
            if kind in KINDS:
                now.found.append(collective(kind, shape, op != kind, rest, everyone))
            if number := CONSTANT.match(line):
                now.constants.append(int(number[1]))
            now.only_less = now.only_less or bool(LESS.match(line))
            if op == "conditional":
                listed = BRANCHES.search(rest)
                names = listed[1].split(",") if listed else CALLED.findall(rest)
                now.branches.append([b.strip().lstrip("%") for b in names])
            elif op in CALLS:
                trips, condition = TRIPS.search(rest), CONDITION.search(rest)
                times = 1.0 if op != "while" else float(trips[1]) if trips else None
                now.calls += [(called, condition[1] if condition else "", times) for called in CALLED.findall(rest)]
    return out, entry


def collective(kind: str, shape: str, started: bool, rest: str, everyone: np.ndarray) -> Collective:
    sizes = [BYTES.get(t, 4) * math.prod(int(n) for n in dims.split(",") if n) for t, dims in SHAPE.findall(shape)]
    size = sizes[-1] if started and kind != "all-reduce" and len(sizes) > 1 else sum(sizes)
    groups = members(rest)
    groups = everyone if groups is None else groups
    if kind == "reduce-scatter":
        size *= groups.shape[1]
    within = 1
    while np.any(groups // within != groups[:, :1] // within):
        within *= 2
    channel = re.search(r"channel_id=(\d+)", rest)
    return Collective(kind, size, groups.shape[1], within, 1.0, channel=channel[1] if channel else "")


def members(rest: str) -> np.ndarray | None:
    """[groups, devices] of an instruction's replica groups, or of the pairs of a permutation; None where it has neither."""
    if said := re.search(r"replica_groups=\[(\d+),(\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", rest):
        return iota(said[3]).reshape(int(said[1]), int(said[2]))
    if said := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(([^{]*)\))?\s*\{([^}]*)\}", rest):
        return along(said[1], said[3], iota(said[2]) if said[2] else None)
    if said := re.search(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{} ]*\})\}", rest):
        return np.asarray([[int(n) for n in g.split(",")] for g in re.findall(r"\{([\d, ]+)\}", said[1])])
    return None


def iota(text: str) -> np.ndarray:
    """Device numbers in the order that ``[2,4]T(1,0)`` says: counted up in that shape, then transposed, flat."""
    shape, _, order = text.partition("T")
    numbers = lambda part: [int(n) for n in re.findall(r"\d+", part)]
    ids = np.arange(math.prod(numbers(shape))).reshape(numbers(shape))
    return (ids.transpose(numbers(order)) if order else ids).reshape(-1)


def along(mesh: str, chosen: str, ids: np.ndarray | None = None) -> np.ndarray:
    """[groups, devices] of ``'a'=2,'b'=4`` along ``'b'``, or along ``'b':(2)2``: of b cut in 2, 2 and the rest the second."""
    shape, names = [], []
    cuts = {name: (int(m or 1), int(k or 0)) for name, m, k in re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", chosen)}
    for name, n in re.findall(r"'(\w+)'=(\d+)", mesh):
        before, size = cuts.get(name, (1, 0))
        size = size or (int(n) // before if name in cuts else 1)
        for part, used in ((before, False), (size, name in cuts), (int(n) // before // size, False)):
            shape.append(part)
            names.append(used)
    ids = (np.arange(math.prod(shape)) if ids is None else ids).reshape(shape)
    order = [i for i, used in enumerate(names) if not used] + [i for i, used in enumerate(names) if used]
    return ids.transpose(order).reshape(-1, math.prod(n for n, used in zip(shape, names, strict=True) if used))


def by_kind(found: list[Collective]) -> dict[str, tuple[float, float]]:
    """{kind: (times, bytes that each device sends)} in one run."""
    out: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for c in found:
        out[c.kind] = out[c.kind][0] + c.times, out[c.kind][1] + c.times * c.sent
    return dict(out)
