"""Check and measure the accelerator of this machine: one table, in about eight minutes.

    python -m benchmarks.accelerator [--json FILE] [--budget SECONDS] [--only WORD] [--tiny]

Needs jax, optax, flax, numpy and this checkout. Parts that need more are skipped, each with a line that says what is
missing. A part that fails does not end the others. Parts run in order of value, and none begins when the budget is gone: the
last may take longer. The exit status is 1 where a check or a part failed.

Checks: the sampler's log-probabilities and the scorer's; the gradient of an update here and on the CPU; each attention kernel
that the backend has and our own; the tokens of equal and of different seeds.

Times are medians of a few repeats, each until its result is ready, after one that compiles. Shares are of what was measured
on this machine, not of its maker's sheet:

    copy bandwidth  2 n bytes / seconds, of an array of n bytes that is read and written
    matrix rate     2 n^3 FLOP / seconds, of an n x n product
    decode share    (bytes of weights + bytes of keys and values) / copy bandwidth / seconds of a step. Keys and values are
                    2 L K E numbers a column; the columns are B P of the prompts, which a group shares, and B G T / 2 of the
                    responses, halfway through. All rows run to the end.
    update share    MFU: 6 N FLOP a token x tokens a second / the bfloat16 matrix rate. N counts all weights (the embedding
                    is the head). Attention and what the backward pass computes again (``remat=layer``) do not count.
    planned memory  of an update: arguments + outputs - those that share a buffer + temporaries, as the compiler says; of
                    configs/shop.py: ``rljax.planning``. Measured: the peak that ``device.memory_stats()`` has, which is
                    the largest since the process began.
"""

import argparse
import functools
import gc
import importlib.metadata
import json
import platform
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks import accelerator_parts as parts
from benchmarks import accelerator_speed as speed
from benchmarks.accelerator_parts import TINY_SIZES, Lines, Result, Sizes, Skipped, first_line

ROOT = Path(__file__).parent.parent
Part = tuple[str, Callable[[], Lines]]


def missing_packages() -> list[str]:
    """The product's requirements (pyproject.toml) that are not installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [requirement.split(">=")[0].split("==")[0].strip() for requirement in project["dependencies"]]
    return [name for name in names if not is_installed(name)]


def is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def describe_machine() -> dict[str, Any]:
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    return {
        "backend": jax.default_backend(),
        "device": device.device_kind,
        "devices": jax.device_count(),
        "memory_gb": round(stats.get("bytes_limit", 0) / 1e9, 1),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "missing": missing_packages(),
    }


def list_parts(sizes: Sizes) -> list[Part]:
    """(name, function) of every part, in order of value. The first shop run comes before larger parts hide its memory."""
    rates: speed.Rates = {}
    out: list[Part] = [
        ("check logprobs", functools.partial(parts.check_logprobs, sizes)),
        ("check gradients", functools.partial(parts.check_gradients, sizes)),
        ("check kernels", functools.partial(parts.check_kernels, sizes)),
        ("check seeds", functools.partial(parts.check_seeds, sizes)),
        ("shop, 1 run", functools.partial(speed.measure_shop, sizes, rates, 1, plan=True)),
        ("rates", functools.partial(speed.measure_rates, sizes, rates)),
    ]
    for name, model in sizes.models:
        out.append((f"decode {name}", functools.partial(speed.measure_decode, sizes, rates, name, model)))
        out.append((f"update {name}", functools.partial(speed.measure_update, sizes, rates, name, model)))
    return [*out, (f"shop, {sizes.runs} runs", functools.partial(speed.measure_shop, sizes, rates, sizes.runs))]


def run_parts(todo: Sequence[Part], budget: float, tell: Callable[[str], None] = print) -> dict[str, list[Any]]:
    """{"checks", "measurements", "skipped", "errors", "parts"}: run each part while less than ``budget`` seconds are gone."""
    start = time.perf_counter()
    out: dict[str, list[Any]] = {name: [] for name in ("checks", "measurements", "skipped", "errors", "parts")}

    def skip(line: Skipped) -> None:
        out["skipped"].append(line._asdict())
        tell(f"skipped  {line.name}: {line.reason}")

    for name, part in todo:
        began = time.perf_counter()
        if began - start >= budget:
            skip(Skipped(name, f"the budget of {budget:g} s is gone"))
            continue
        try:
            for line in part():
                if isinstance(line, Skipped):
                    skip(line)
                    continue
                out["measurements" if line.ok is None else "checks"].append(line._asdict())
                tell(table_line(line))
        except ModuleNotFoundError as e:
            skip(Skipped(name, f"needs the package {e.name}"))
        except Exception as e:  # out of memory, a compiler's error: the other parts go on
            out["errors"].append({"name": name, "error": first_line(e)})
            tell(f"ERROR    {name}: {first_line(e)}")
        out["parts"].append({"name": name, "seconds": round(time.perf_counter() - began, 1)})
        gc.collect()
    return out


def table_line(line: Result) -> str:
    kind = {None: "measured", True: "passed", False: "FAILED"}[line.ok]
    value = "" if line.value is None else f"{line.value:.4g}"
    more = [line.note] if line.note else []
    more += [f"limit {line.limit:g}"] if line.limit is not None else []
    share = "" if line.share is None else f"{100 * line.share:.1f} %"
    return f"{kind:8} {line.name:78} {value:>10} {line.unit:12} {share:>8}  {', '.join(more)}".rstrip()


def failed(report: dict[str, Any]) -> bool:
    return bool(report["errors"]) or not all(line["ok"] for line in report["checks"])


def main(arguments: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="benchmarks.accelerator", description=(__doc__ or "").split("\n")[0])
    p.add_argument("--json", type=Path, help="file for the results")
    p.add_argument("--budget", type=float, default=420.0, help="seconds after which no part begins")
    p.add_argument("--only", default="", help="run only the parts whose name holds this")
    p.add_argument("--tiny", action="store_true", help="all sizes tiny: a dry run on a CPU")
    a = p.parse_args(arguments)
    if a.tiny:
        jax.config.update("jax_disable_most_optimizations", True)  # compiling is what takes the time
    machine = describe_machine()
    print(", ".join(f"{k} {v}" for k, v in machine.items() if k != "missing"), flush=True)
    print(f"missing here, of the product's requirements: {', '.join(machine['missing']) or 'nothing'}", flush=True)
    start = time.perf_counter()
    todo = [part for part in list_parts(TINY_SIZES if a.tiny else Sizes()) if a.only in part[0]]
    report = {"machine": machine, "tiny": a.tiny, "budget": a.budget}
    report |= run_parts(todo, a.budget, functools.partial(print, flush=True))
    report["seconds"] = round(time.perf_counter() - start, 1)
    if a.json:
        a.json.write_text(json.dumps(report, indent=1) + "\n")
    counts = f"{len(report['checks'])} checks, {len(report['skipped'])} skipped, {len(report['errors'])} errors"
    print(f"{'FAILED' if failed(report) else 'passed'}: {counts}, {report['seconds']} s")
    return int(failed(report))


if __name__ == "__main__":
    sys.exit(main())
