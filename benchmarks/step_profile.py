"""Where the time of a step goes, against what the machine can do: a table of the operations of one compiled program.

    python -m benchmarks.step_profile "update 10M equal 32x64" [--core 0] [--out FILE]

The cases are those of ``benchmarks.peers``. The program runs once under JAX's profiler. Time is summed over its operations by
kind: matrix products, copies and transpositions, reductions, scatters, everything else. Shares of the profile times the CPU
seconds of a run without it give the rate of products. The ceiling is the best rate of one large float32 product on the same core.
"""

import argparse
import collections
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

KINDS = ("products", "copies", "reductions", "scatters and updates", "other")
REDUCE, UPDATE = {"reduce", "reduce-window"}, {"scatter", "dynamic-update-slice"}  # XLA's names of operations
MOVE = {"copy", "transpose", "bitcast", "reshape", "parameter", "slice", "concatenate", "pad", "constant"}
CONTROL = re.compile(r"^(while|conditional|cond|call|body|region)")  # they contain other operations


class Operation(NamedTuple):
    """An operation of the compiled program: its kind, and how many operations on floats its products are."""

    kind: str
    flops: float


def parse_shape(text: str) -> list[int]:
    """The sizes of ``f32[4,288]{1,0}``."""
    found = re.search(r"\[([\d,]*)\]", text)
    return [int(n) for n in found.group(1).split(",") if n] if found else []


def read_operations(hlo: str) -> dict[str, Operation]:
    """{name: operation} of the text of an optimized program."""
    line = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (\S+) ([\w\-]+)\((.*)$")
    shapes: dict[str, str] = {}
    bodies: dict[str, list[tuple[str, str, str]]] = collections.defaultdict(list)
    parsed, body = [], ""
    for text in hlo.splitlines():
        begins = re.match(r"^\s*(?:ENTRY )?%?([\w.\-]+) \(.*\{$", text)
        if begins:
            body = begins.group(1)
        elif found := line.match(text):
            name, shape, operation, rest = found.groups()
            shapes[name] = shape
            bodies[body].append((shape, operation, rest))
            parsed.append((name, shape, operation, rest))

    def flops(shape: str, rest: str) -> float:
        left = parse_shape(shapes.get(re.findall(r"%([\w.\-]+)", rest)[0], ""))
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", rest)
        sizes = [left[int(i)] for i in contracted.group(1).split(",")] if contracted else [0]
        return 2.0 * math.prod(parse_shape(shape)) * math.prod(sizes)

    def describe(shape: str, operation: str, rest: str) -> Operation:
        called = re.search(r"calls=%([\w.\-]+)", rest)
        inside = bodies[called.group(1)] if called else [(shape, operation, rest)]
        names = {name for _, name, _ in inside}
        if "dot" in names:
            return Operation("products", sum(flops(s, r) for s, o, r in inside if o == "dot"))
        kinds = {"reductions": names & REDUCE, "scatters and updates": names & UPDATE, "copies": names <= MOVE}
        return Operation(next((kind for kind, holds in kinds.items() if holds), "other"), 0.0)

    return {name: describe(*others) for name, *others in parsed}


def read_trace(folder: Path) -> Iterator[tuple[str, float]]:
    """(operation, seconds) of each time that one ran."""
    from jax.profiler import ProfileData

    for file in folder.rglob("*.xplane.pb"):
        for plane in ProfileData.from_file(str(file)).planes:
            for line in plane.lines:
                for event in line.events:
                    name = dict(event.stats).get("hlo_op")
                    if name is not None:
                        yield str(name), event.duration_ns / 1e9


def measure_product_rate() -> float:
    """Operations on floats a second of CPU time, of one large product in float32."""
    import jax
    import jax.numpy as jnp

    size, x = 1024, jnp.ones((1024, 1024))
    multiply = jax.jit(lambda x: x @ x)
    multiply(x).block_until_ready()
    best = math.inf
    for _ in range(5):
        start = time.process_time()
        for _ in range(4):
            multiply(x).block_until_ready()
        best = min(best, (time.process_time() - start) / 4)
    return 2.0 * size**3 / best


def profile(name: str, dump: Path) -> dict[str, Any]:
    """The line of the case: CPU seconds, the share of each kind, the rate of products and that of the machine."""
    import jax

    from benchmarks.peers import countdown
    from benchmarks.peers.cases import CASES, task_of
    from benchmarks.peers.work_rljax import prepare
    from rljax.errors import UserError
    from rljax.training.versions import source_commit

    case = next((case for case in CASES if case.name == name), None)
    if case is None:
        raise UserError(f"there is no case {name!r}: python -m benchmarks.peers --list names them")
    with tempfile.TemporaryDirectory() as folder:
        countdown.write_folder(
            Path(folder) / "model", case.model, countdown.length_chances(case.lengths, case.mean, case.new)
        )
        run = prepare(task_of(case, Path(folder) / "model"))
        for seed in range(2):
            run(seed)
        start = time.process_time()
        tokens = run(2)
        seconds = time.process_time() - start
        with jax.profiler.trace(str(Path(folder) / "trace")):
            run(3)
        events = list(read_trace(Path(folder) / "trace"))
    program = max(dump.glob("*cpu_after_optimizations.txt"), key=lambda file: file.stat().st_size)
    operations = read_operations(program.read_text())
    spent: dict[str, float] = dict.fromkeys(KINDS, 0.0)
    flops = 0.0
    for operation, duration in events:
        if operation in operations and not CONTROL.match(operation):
            spent[operations[operation].kind] += duration
            flops += operations[operation].flops
    total, ceiling = sum(spent.values()), measure_product_rate()
    return {
        "benchmark": "step_profile",
        "case": name,
        "cpu_seconds": round(seconds, 3),
        "tokens": tokens,
        "shares": {kind: round(spent[kind] / total, 3) for kind in KINDS},
        "product_gflops": round(flops / (seconds * spent["products"] / total) / 1e9, 1),
        "step_gflops": round(flops / seconds / 1e9, 1),
        "machine_gflops": round(ceiling / 1e9, 1),
        "commit": source_commit(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.step_profile", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("cases", nargs="+", help="names of cases of benchmarks.peers")
    parser.add_argument("--core", type=int, default=0, help="the core that is used")
    parser.add_argument("--out", type=Path, help="file of JSON lines that the results are appended to")
    args = parser.parse_args()
    os.sched_setaffinity(0, {args.core})
    os.environ["JAX_PLATFORMS"] = "cpu"
    for case in args.cases:
        if (child := os.fork()) == 0:  # JAX reads the flags once, and a dump holds one program
            with tempfile.TemporaryDirectory() as dump:
                flags = f"--xla_dump_to={dump} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=.*(step|draw|lambda).*"
                os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
                line = json.dumps(profile(case, Path(dump)))
            print(line, flush=True)
            if args.out:
                with args.out.open("a") as out:
                    out.write(line + "\n")
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            raise SystemExit(f"the profile of {case!r} failed")


if __name__ == "__main__":
    main()
