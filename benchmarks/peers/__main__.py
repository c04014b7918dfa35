"""Measure rljax beside google-tunix, and beside transformers and TRL, on the same shapes, in turn.

    make peers                                     # once: makes .venv-tunix and .venv-trl
    python -m benchmarks.peers                     # the cases of 1M parameters, in about ten minutes
    python -m benchmarks.peers 10M step            # the cases with all these words in their names
    python -m benchmarks.peers --list

Every library loads the same folder, on the same core, and samples responses of the same lengths (``countdown.py``). One JSON line
for each case and peer; "others" in it is how many cores other processes used meanwhile. ``--out`` appends it to a file, from which ``python -m benchmarks.peers.table`` writes docs/performance.md.
"""

import argparse
import json
import os
import resource
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers import pairs
from benchmarks.peers.cases import CASES
from rljax.training.versions import source_commit


class Clocks(NamedTuple):
    """Seconds so far: of the wall clock, of all CPUs at work, and of this process with its ended workers on them."""

    wall: float
    busy: float
    own: float


def read_clocks() -> Clocks:
    fields = list(map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9]))
    busy = (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")  # without idle and waiting for disks
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return Clocks(time.perf_counter(), busy, sum(x.ru_utime + x.ru_stime for x in used))


def cores_of_others(before: Clocks, after: Clocks) -> float:
    """Cores that other processes used on average between two readings."""
    wall, busy, own = (b - a for a, b in zip(before, after, strict=True))
    return round(max(0.0, busy - own) / wall, 2)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("words", nargs="*", default=["1M"], help="of the names of the cases that are measured")
    parser.add_argument("--pairs", type=int, default=3, help="rounds that are timed")
    parser.add_argument("--peers", default="tunix,trl", help="which peers")
    parser.add_argument("--core", type=int, default=0, help="the first core that is used")
    parser.add_argument("--out", type=Path, help="file of JSON lines that the results are appended to")
    parser.add_argument("--list", action="store_true", help="list all cases, measure none")
    args = parser.parse_args()
    if args.list:
        print("\n".join(case.name for case in CASES))
        return
    installed = [peer for peer in args.peers.split(",") if pairs.is_installed(peer)]
    if not installed:
        print("no peer is installed: make peers")
    for case in CASES:
        peers = [peer for peer in installed if peer in case.peers]
        if not peers or not set(args.words) <= set(case.name.split()):
            continue
        before = read_clocks()
        lines = pairs.measure(case, peers, args.pairs, range(args.core, args.core + case.cores))
        about = {"cores": case.cores, "commit": source_commit(), "others": cores_of_others(before, read_clocks())}
        for line in lines:
            print(json.dumps(line | about), flush=True)
            if args.out:
                with args.out.open("a") as out:
                    out.write(json.dumps(line | about) + "\n")


if __name__ == "__main__":
    main()
