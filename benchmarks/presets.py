"""What each algorithm learns on the default task from the same start, in the same number of steps: does every one work?

    python -m benchmarks.presets runs/presets [--seeds 3] [--steps 50] [--processes 2] [--only grpo,dapo]
                                              [--set rl.updates=4] [--out results.jsonl]

Each seed is pretrained and fine-tuned once; from there every algorithm practises under the settings of ``configs/shop.py``,
tuned for dr_grpo and for no other. One JSON line a run; then a table, mean over seeds and its 95 % interval. Finished runs
are not done again.
"""

import argparse
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from rljax import policy_gradient as pg
from rljax.metrics.intervals import confidence_interval
from rljax.structs import ConfigTree
from rljax.training import command_line, journal
from rljax.training.versions import source_commit
from rljax.training.workdir import hold_workdir


def config_of(seed: int) -> ConfigTree:
    from configs import shop

    config: Any = shop.get_config()
    config.seed, config.rl.updates = seed, 1  # a table of algorithms at one update a rollout
    return config


def start(folder: Path, seed: int) -> None:
    """Pretraining and SFT of a seed."""
    from experiments import pretrain, sft

    config = config_of(seed)
    command_line.use_compilation_cache()
    with hold_workdir(folder, config):
        pretrain.run(config, folder)
        sft.run(config, folder)


def practise(folder: Path, begin: Path, name: str, seed: int, steps: int, changes: dict[str, str]) -> dict:
    """``steps`` of RL by one algorithm, evaluated at both ends; the line of the benchmark."""
    from experiments import rl

    config = config_of(seed)
    config.rl.algorithm, config.rl.start, config.rl.eval_every = name, f"{begin}:sft", steps
    config.update_from_flattened_dict({k: json.loads(v) for k, v in changes.items()})
    command_line.use_compilation_cache()
    with hold_workdir(folder, config):
        rl.run(config, folder, stop=steps)
    records = [r for r in journal.read_records(folder / "metrics.jsonl") if r["stage"] == "rl"]
    looks = [r for r in records if "eval/pass@1" in r]
    learned = [r for r in records if "train/entropy" in r]
    seconds = [r["seconds"] for r in journal.read_records(folder / "timings.jsonl") if r["stage"] == "rl"][-1]
    mean = lambda key: float(np.mean([r[key] for r in learned if key in r])) if any(key in r for r in learned) else None
    return {
        "benchmark": "presets",
        "algorithm": name,
        "changes": changes,
        "seed": seed,
        "steps": steps,
        "pass@1": [r["eval/pass@1"] for r in looks],
        "length": [r["eval/response_length/mean"] for r in looks],
        "truncated": looks[-1]["eval/truncated"],
        "jumps": looks[-1]["eval/strategy/jump"],
        "entropy": learned[-1]["train/entropy"],
        "clip_fraction": mean("train/clip_fraction"),
        "rounds": mean("train/refill/rounds"),
        "seconds": round(seconds, 1),
        "cores": os.cpu_count(),
        "commit": source_commit(),
    }


def table(lines: list[dict]) -> str:
    """Markdown, one row an algorithm, in the order of ``ALGORITHMS``."""
    rows = ["| algorithm | seeds | pass@1 | length | jumps | truncated | entropy | problems asked |", "|---" * 8 + "|"]
    for name in pg.ALGORITHMS:
        mine = [x for x in lines if x["algorithm"] == name]
        if not mine:
            continue
        last = lambda key, mine=mine: [x[key][-1] for x in mine]
        spread = lambda v, d: "{:.{d}f} [{:.{d}f}, {:.{d}f}]".format(*confidence_interval(np.array(v))[:3], d=d)
        flat = lambda key, mine=mine: f"{np.mean([x[key] for x in mine]):.2f}"
        asked = np.mean([x["rounds"] or 1 for x in mine])
        cells = [f"`{name}`", len(mine), spread(last("pass@1"), 3), spread(last("length"), 1)]
        cells += [flat("jumps"), flat("truncated"), flat("entropy"), f"{asked:.1f} x"]
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    before = [x["pass@1"][0] for x in {x["seed"]: x for x in lines}.values()]
    length = [x["length"][0] for x in {x["seed"]: x for x in lines}.values()]
    return "\n".join([*rows, "", f"Before: pass@1 {np.mean(before):.3f}, length {np.mean(length):.1f}."])


def draw(lines: list[dict], path: Path) -> None:
    """One dot a run: accuracy and length at the end, by algorithm; hollow where a rollout had several updates."""
    from matplotlib.figure import Figure

    names = [name for name in pg.ALGORITHMS if any(x["algorithm"] == name for x in lines)][::-1]
    figure = Figure((9, 0.32 * len(names) + 1.4), dpi=110, layout="constrained")
    for ax, key, label in zip(
        figure.subplots(1, 2, sharey=True),
        ("pass@1", "length"),
        ("pass@1", "mean response length, tokens"),
        strict=True,
    ):
        ax.axvline(np.mean([x[key][0] for x in lines]), color="#999999", lw=1, ls="--")
        for x in lines:
            several = "rl.updates" in x["changes"]
            color = "#d55e00" if several else "#0072b2"
            place = names.index(x["algorithm"]) + (0.15 if several else -0.15)
            ax.plot(x[key][-1], place, "o", ms=5, color=color, mfc="none" if several else color, alpha=0.9)
        ax.set(yticks=range(len(names)), yticklabels=names, xlabel=label, xlim=(0, None), ylim=(-0.6, len(names) - 0.4))
        ax.grid(axis="y", color="#eeeeee")
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"After {lines[0]['steps']} rollouts; filled: one update each, hollow: four; dashed: before", fontsize=10
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    changes = dict(change.split("=", 1) for change in args.set)
    arm = "".join(f"{k}={v}," for k, v in changes.items())
    names = (
        args.only.split(",")
        if args.only
        else [name for name, row in pg.ALGORITHMS.items() if not row.looks_at("ref_logprobs")]
    )
    begin = {seed: args.workdir.absolute() / f"start_{seed}" for seed in range(args.seeds)}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.processes, mp_context=spawn, max_tasks_per_child=1) as pool:
        for future in [pool.submit(start, folder, seed) for seed, folder in begin.items()]:
            future.result()
        jobs = []
        for name in names:
            for seed in begin:
                folder = args.workdir / f"{arm}{name}_{seed}"
                jobs.append(pool.submit(practise, folder, begin[seed], name, seed, args.steps, changes))
        lines = []
        for job in jobs:
            lines.append(job.result())
            print(json.dumps(lines[-1]), flush=True)
            if args.out:
                args.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(table(lines))
    draw(lines, args.workdir / "presets.png")


if __name__ == "__main__":
    main()
