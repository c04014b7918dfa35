"""Parse the collectives of a compiled program (all-reduce, all-gather, ...) from its HLO text.

Each collective is counted as often as it runs, so the trip count of every loop around it is needed:

* XLA annotates a loop whose trip count it knows (``known_trip_count``).
* Where the loop condition only compares a counter with one constant, that constant is the trip count.
* The caller passes the trip counts of all other loops, in the order of the text. The sampler's loops are of this kind: they
  end with the longest response.

Of the branches of a conditional, the one that sends the most bytes is counted. The TPU compiler splits a collective into several
instructions, to overlap it with computation. All parts have the same channel id and are counted as one collective.
"""

import dataclasses
import math
import re
from collections import defaultdict
from typing import NamedTuple

import numpy as np

DTYPE_BYTES = dict(pred=1, s8=1, u8=1, s16=2, u16=2, f16=2, bf16=2, s32=4, u32=4, f32=4, s64=8, u64=8, f64=8, c64=8)
COLLECTIVE_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
CALL_OPS = ("while", "fusion", "call", "async-start")

# HLO syntax
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*)$")
SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")
CALLED_COMPUTATION = re.compile(r"(?:calls|body|true_computation|false_computation)=%?([\w.\-]+)")
CONDITION = re.compile(r"condition=%?([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
TRIP_COUNT = re.compile(r'known_trip_count[^\d]*"n":"(\d+)"')
CONSTANT = re.compile(r"^\s+%?[\w.\-]+ = s32\[\]\S* constant\((\d+)\)")
RETURN_LESS_THAN = re.compile(r"^\s+ROOT .* compare\(.*direction=LT")
NUM_PARTITIONS = re.compile(r"num_partitions=(\d+)")
CHANNEL_ID = re.compile(r"channel_id=(\d+)")
IOTA_GROUPS = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)")
MESH_GROUPS = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(([^{]*)\))?\s*\{([^}]*)\}")
LISTED_GROUPS = re.compile(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{} ]*\})\}")


@dataclasses.dataclass(frozen=True)
class Collective:
    kind: str  # one of COLLECTIVE_KINDS
    size: int  # bytes on one device: of the array that is reduced or sent, or of the result of an all-gather
    group_size: int  # devices in each replica group
    span: int  # smallest power of two n such that every group is inside one aligned block of n consecutive devices
    count: float  # executions in one run of the program
    channel_id: str = ""

    @property
    def bytes_sent(self) -> float:
        """Bytes that each device sends in one execution, with a ring algorithm."""
        if self.kind == "collective-permute":
            return float(self.size)
        share = (self.group_size - 1) / self.group_size if self.group_size > 1 else 0.0
        return self.size * (2 * share if self.kind == "all-reduce" else share)


class Call(NamedTuple):
    """An instruction that runs another computation."""

    computation: str
    condition: str  # the computation of a loop's condition; "" for other calls
    trip_count: float | None  # None: the text does not annotate it


@dataclasses.dataclass
class Computation:
    """What one computation of an HLO module contains, as far as collectives depend on it."""

    collectives: list[Collective] = dataclasses.field(default_factory=list)
    calls: list[Call] = dataclasses.field(default_factory=list)
    conditionals: list[list[str]] = dataclasses.field(default_factory=list)  # names of each conditional's branches
    constants: list[int] = dataclasses.field(default_factory=list)  # scalar int32 constants
    returns_less_than: bool = False  # whether its result is a comparison a < b


def parse_collectives(hlo_text: str, trip_counts: tuple[float, ...] = ()) -> list[Collective]:
    """Return the collectives of a compiled program, each with its number of executions.

    ``trip_counts`` are those of the loops whose trip count the text does not give, in the order of the text. Loops beyond the
    end of ``trip_counts`` get its last entry, or 1 where it is empty.
    """
    computations, entry = parse_computations(hlo_text)
    given_trip_counts = iter(trip_counts)
    default_trip_count = trip_counts[-1] if trip_counts else 1.0

    def trip_count_from_condition(name: str) -> float | None:
        """The trip count of a loop that counts from 0 to a constant and has no other condition; None for other loops."""
        condition = computations.get(name)
        if condition and condition.returns_less_than and len(condition.constants) == 1:
            return float(condition.constants[0])
        return None

    def collect(name: str, executions: float) -> list[Collective]:
        computation = computations[name]
        out = [dataclasses.replace(c, count=c.count * executions) for c in computation.collectives]
        for call in computation.calls:
            if call.computation not in computations:
                continue
            trip_count = call.trip_count
            if trip_count is None:
                trip_count = trip_count_from_condition(call.condition)
            if trip_count is None:
                trip_count = next(given_trip_counts, default_trip_count)
            out += collect(call.computation, executions * trip_count)
        for branches in computation.conditionals:
            alternatives = [collect(branch, executions) for branch in branches if branch in computations]
            out += max(alternatives, key=lambda found: sum(c.bytes_sent * c.count for c in found), default=[])
        # the last part of each channel stands for the whole collective
        by_channel = {(c.channel_id or f"without channel {i}", c.count): c for i, c in enumerate(out)}
        return list(by_channel.values())

    return collect(entry, 1.0) if entry else []


def parse_computations(hlo_text: str) -> tuple[dict[str, Computation], str]:
    """Return (computations by name, name of the entry computation). The name is "" where the text has no entry."""
    computations: dict[str, Computation] = {}
    current, entry = None, ""
    num_partitions = NUM_PARTITIONS.search(hlo_text[: hlo_text.find("\n")])
    all_devices = np.arange(int(num_partitions[1]) if num_partitions else 1)[None]
    for line in hlo_text.splitlines():
        if not line.startswith(" ") and (header := COMPUTATION.match(line)):
            current = computations[header[2]] = Computation()
            entry = header[2] if header[1] else entry
        elif current is not None and (instruction := INSTRUCTION.match(line)):
            _, shape, op, arguments = instruction.groups()
            kind = op.removesuffix("-start")
            if kind in COLLECTIVE_KINDS:
                current.collectives.append(parse_collective(kind, shape, op != kind, arguments, all_devices))
            if constant := CONSTANT.match(line):
                current.constants.append(int(constant[1]))
            current.returns_less_than = current.returns_less_than or bool(RETURN_LESS_THAN.match(line))
            if op == "conditional":
                listed = BRANCHES.search(arguments)
                names = listed[1].split(",") if listed else CALLED_COMPUTATION.findall(arguments)
                current.conditionals.append([name.strip().lstrip("%") for name in names])
            elif op in CALL_OPS:
                condition, annotated = CONDITION.search(arguments), TRIP_COUNT.search(arguments)
                trip_count = 1.0 if op != "while" else float(annotated[1]) if annotated else None
                current.calls += [
                    Call(name, condition[1] if condition else "", trip_count)
                    for name in CALLED_COMPUTATION.findall(arguments)
                ]
    return computations, entry


def parse_collective(kind: str, shape: str, is_async: bool, arguments: str, all_devices: np.ndarray) -> Collective:
    """Return the Collective of one instruction, with a count of 1.

    ``shape`` is the text of its result's shape, ``arguments`` the text after the opening parenthesis. ``is_async`` marks the
    ``-start`` form, whose result is a tuple (operands, results). ``all_devices`` [1, devices] are its replica groups where it
    names none.
    """
    sizes = [
        DTYPE_BYTES.get(dtype, 4) * math.prod(int(n) for n in dims.split(",") if n)
        for dtype, dims in SHAPE.findall(shape)
    ]
    size = sizes[-1] if is_async and kind != "all-reduce" and len(sizes) > 1 else sum(sizes)
    groups = parse_replica_groups(arguments)
    groups = all_devices if groups is None else groups
    if kind == "reduce-scatter":
        size *= groups.shape[1]  # the text has the result's shape, and each device sends parts of the operand
    span = 1
    while np.any(groups // span != groups[:, :1] // span):
        span *= 2
    channel_id = CHANNEL_ID.search(arguments)
    return Collective(kind, size, groups.shape[1], span, 1.0, channel_id[1] if channel_id else "")


def parse_replica_groups(arguments: str) -> np.ndarray | None:
    """Return the replica groups of an instruction, or the pairs of a collective-permute: [groups, devices in a group] int.

    XLA writes them in three forms: ``[2,4]<=[8]``, ``mesh['a'=2,'b'=4] {'b'}`` and ``{{0,1},{2,3}}``. Returns None where the
    instruction has none of them.
    """
    if match := IOTA_GROUPS.search(arguments):
        return parse_device_order(match[3]).reshape(int(match[1]), int(match[2]))
    if match := MESH_GROUPS.search(arguments):
        return mesh_axis_groups(match[1], match[3], parse_device_order(match[2]) if match[2] else None)
    if match := LISTED_GROUPS.search(arguments):
        groups = re.findall(r"\{([\d, ]+)\}", match[1])
        return np.asarray([[int(n) for n in group.split(",")] for group in groups])
    return None


def parse_device_order(text: str) -> np.ndarray:
    """Return the device numbers of XLA's iota form ``[2,4]T(1,0)``: arange(8), reshaped to [2, 4], transposed, flattened."""
    shape, _, permutation = text.partition("T")
    numbers = lambda part: [int(n) for n in re.findall(r"\d+", part)]
    devices = np.arange(math.prod(numbers(shape))).reshape(numbers(shape))
    return (devices.transpose(numbers(permutation)) if permutation else devices).reshape(-1)


def mesh_axis_groups(mesh: str, axes: str, device_order: np.ndarray | None = None) -> np.ndarray:
    """Return the replica groups along some axes of a mesh: [groups, devices in a group] int.

    ``mesh`` is text such as ``'a'=2,'b'=4``, and ``axes`` such as ``'b'``. ``axes`` may also name a part of an axis:
    ``'b':(2)2`` splits b into factors (2, 2, size / 4) and means the second one. ``device_order`` are the mesh's devices in
    row-major order; None means 0, 1, 2, ...
    """
    sizes, is_grouped = [], []  # of the mesh axes, each split into (before, named part, after)
    parts = {name: (int(m or 1), int(k or 0)) for name, m, k in re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", axes)}
    for name, n in re.findall(r"'(\w+)'=(\d+)", mesh):
        before, size = parts.get(name, (1, 0))
        size = size or (int(n) // before if name in parts else 1)
        sizes += [before, size, int(n) // before // size]
        is_grouped += [False, name in parts, False]
    devices = (np.arange(math.prod(sizes)) if device_order is None else device_order).reshape(sizes)
    order = [i for i, grouped in enumerate(is_grouped) if not grouped]
    order += [i for i, grouped in enumerate(is_grouped) if grouped]
    group_size = math.prod(n for n, grouped in zip(sizes, is_grouped, strict=True) if grouped)
    return devices.transpose(order).reshape(-1, group_size)


def sum_by_kind(collectives: list[Collective]) -> dict[str, tuple[float, float]]:
    """Return {kind: (executions, bytes that each device sends)} of one run of the program."""
    totals: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for c in collectives:
        executions, sent = totals[c.kind]
        totals[c.kind] = executions + c.count, sent + c.count * c.bytes_sent
    return dict(totals)
