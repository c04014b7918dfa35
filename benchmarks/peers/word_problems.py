"""rljax and TRL learn the same word problems with the same model, side by side: both learning curves, and seconds a step.

    make peers                                                                  # once
    python -m benchmarks.peers.word_problems FOLDER --workdir runs/trl          # 3 seeds of each, in turn
    python -m benchmarks.peers.word_problems --figure docs/figures/trl.png      # both curves, from the results

The same folder, prompts in the same order, verifier, group size, number of prompts, learning rate and warm-up, in float32, Dr. GRPO
without KL, at temperature 1. Both stop at a newline. The held-out problems are asked by the same evaluator at the same
steps: TRL's model is saved as a folder there, which `rljax evaluate` loads. Seconds of a step are those of the wall clock without
evaluations. TRL samples with a static cache and 8 rows a micro-batch: both can be set.

A line for each library and seed is appended to ``--out`` when its run is done. Stopped, the same command goes on behind the runs that
are in the file.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks.peers import pairs
from configs import smollm2
from rljax.json_lines import format_json_lines
from rljax.report.figures import draw_learning
from rljax.structs import ConfigTree
from rljax.tasks.curriculum import make_asker
from rljax.training import journal
from rljax.training.run import Run, resolve
from rljax.training.versions import package_versions, source_commit

RESULTS = pairs.ROOT / "benchmarks" / "results" / "word_problems_trl.jsonl"
KEPT = ("pass@1", "pass@1/se", "cons@8", "response_length/mean", "truncated")  # of each evaluation
NAMES = {"rljax": "rljax", "trl": "TRL"}


def make_overrides(a: argparse.Namespace, seed: int) -> dict[str, Any]:
    """What both sides change of the config."""
    return {
        "seed": seed,
        "rl.steps": a.steps,
        "rl.eval_every": a.eval_every,
        "rl.prompts": a.prompts,
        "rl.group_size": a.group,
        "eval.problems": a.problems,
        "eval.attempts": a.attempts,
        "rl.algorithm": "dr_grpo",
        "model.dtype": "float32",
        "model.cache_dtype": "float32",
    }


def make_config(a: argparse.Namespace, seed: int) -> ConfigTree:
    config = smollm2.get_config(config_argument(a, a.folder))
    config.update_from_flattened_dict(make_overrides(a, seed))
    return config


def config_argument(a: argparse.Namespace, weights: Any) -> str:
    return f"weights={weights},level={a.level},tokens={a.tokens},examples={a.examples}"


def flags_of(a: argparse.Namespace, seed: int, weights: Any) -> list[str]:
    changes = [f"--config.{key}={value}" for key, value in make_overrides(a, seed).items()]
    return [f"--config=smollm2:{config_argument(a, weights)}", *changes]


# What both are asked


def write_questions(run: Run, path: Path) -> None:
    """The prompts of all steps in the order in which rljax asks them, with their ids and records."""
    ask = make_asker(run.rl.problems, run.task, run.seed)
    tokenizer, lines = run.task.tokenizer, []
    for step in range(run.rl.loop.steps):
        problems = ask(jnp.asarray(step * run.rl.problems.prompts))
        records = run.task.records(problems.facts)
        for ids, mask, record in zip(
            np.asarray(problems.prompt), np.asarray(problems.prompt_mask), records, strict=True
        ):
            ids = ids[mask].tolist()
            text = tokenizer.decode(ids[len(tokenizer.begin_ids) :])
            lines.append({"prompt": text, "ids": ids, "record": record})
    path.write_text(format_json_lines(lines), encoding="utf-8")


def find_stop_ids(run: Run) -> list[int]:
    """The stop tokens, and every token that completes a stop string by itself."""
    strings = [text.encode() for text in run.task.stop_strings]
    tokenizer: Any = run.task.tokenizer
    tokens: list[bytes] = tokenizer.token_bytes
    return [*tokenizer.stop_ids, *(i for i, b in enumerate(tokens) if any(s in b for s in strings))]


# The two sides


def run_rljax(a: argparse.Namespace, seed: int, cores: range) -> dict[str, Any]:
    workdir = a.workdir / f"rljax_{seed}"
    peak = call(
        a, [sys.executable, "-m", "experiments.rl", *flags_of(a, seed, a.folder), f"--workdir={workdir}"], cores
    )
    records = journal.read_records(workdir / "metrics.jsonl")
    timings = journal.read_records(workdir / "timings.jsonl")
    ends = {t["step"]: t["seconds"] for t in timings if t["stage"] == "rl"}
    evaluated = {r["step"] for r in records if "eval/pass@1" in r}
    # A step is recorded when the next one has begun: the time between two records is that of one step, but not where an
    # evaluation or the compilation lies between, nor before an evaluation, where two steps are recorded at once
    steps = [s for s in sorted(ends) if s > 2 and s - 1 in ends]
    seconds = [ends[s] - ends[s - 1] for s in steps if not evaluated & {s, s - 1}]
    return {
        "evaluations": [summarise(r["step"], r) for r in records if "eval/pass@1" in r],
        "reward": [r["train/reward"] for r in records if "train/reward" in r],
        "length": [r["train/response_length/mean"] for r in records if "train/reward" in r],
        "seconds": [round(s, 2) for s in seconds],
        "peak_mb": peak,
        "versions": {name: v for name, v in package_versions().items() if name in ("jax", "rljax")},
    }


def run_trl(a: argparse.Namespace, seed: int, cores: range) -> dict[str, Any]:
    run, out = resolve(make_config(a, seed), "rl"), (a.workdir / f"trl_{seed}").resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    write_questions(run, out / "questions.jsonl")
    stop_ids, rl, evaluated = find_stop_ids(run), run.rl, [*range(a.eval_every, a.steps + 1, a.eval_every)]
    evaluated = sorted({*evaluated, a.steps})
    task = {"folder": str(a.folder), "options": run.record["task"]["options"], "stop_ids": stop_ids}
    optimizer = {k: getattr(rl.optimizer, k) for k in ("learning_rate", "warmup", "b1", "b2", "eps", "clip_norm")}
    case = {
        "folder": str(a.folder),
        "out": str(out),
        "questions": str(out / "questions.jsonl"),
        "verifier": [sys.executable, "-m", "benchmarks.peers.verify_words"],
        "task": task,
        "stop_ids": stop_ids,
        "cores": len(cores),
        "prompts": a.prompts,
        "group": a.group,
        "new": a.tokens,
        "rows": a.rows,
        "cache": a.cache,
        "steps": a.steps,
        "seed": seed,
        "evaluated": evaluated,
    } | optimizer
    lines = list(ask_worker(case, cores, out / "log.txt"))
    about, steps = lines[0], lines[1:]
    folders = {0: a.folder} | {step: out / f"step_{step}" for step in evaluated}
    evaluations = []
    for step, folder in folders.items():
        if step:
            complete_folder(a.folder, folder)
        evaluations.append(summarise(step, evaluate(a, seed, folder, out / f"evaluation_{step}", cores)))
        if step:
            shutil.rmtree(folder)
    return {
        "evaluations": evaluations,
        "reward": [line["reward"] for line in steps],
        "length": [line["length"] for line in steps],
        "seconds": [line["seconds"] for line in steps[2:]],
        "peak_mb": max(line["peak_mb"] for line in steps),
        "versions": about["versions"],
    }


def ask_worker(case: dict[str, Any], cores: range, log: Path) -> Iterator[dict[str, Any]]:
    """The lines that the worker of TRL answers."""
    python = str(pairs.ROOT / pairs.ENVIRONMENTS["trl"] / "bin" / "python")
    with log.open("w") as errors:
        worker = subprocess.Popen(
            [*pinned(cores), python, "-m", "benchmarks.peers.work_words"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=pairs.ROOT,
            env=pairs.environment(cores),
        )
        assert worker.stdin and worker.stdout
        print(json.dumps(case), file=worker.stdin, flush=True)
        for line in worker.stdout:
            found = json.loads(line)
            print("trl", line.strip(), flush=True)
            yield found
        if worker.wait():
            raise SystemExit(f"the worker of TRL failed; the end of {log}:\n{log.read_text()[-3000:]}")


def complete_folder(source: Path, folder: Path) -> None:
    """Put the tokenizer's files beside the weights that TRL has saved."""
    for path in source.iterdir():
        if path.is_file() and path.suffix in (".json", ".jinja") and not (folder / path.name).exists():
            shutil.copy(path, folder / path.name)
    shutil.copy(
        source / "generation_config.json", folder / "generation_config.json"
    )  # ours has the model's own stop ids


def evaluate(a: argparse.Namespace, seed: int, folder: Path, workdir: Path, cores: range) -> dict[str, float]:
    """The metrics of a folder's weights on the held-out problems, by `rljax evaluate`."""
    workdir.mkdir(parents=True, exist_ok=True)
    how = ["--stage=weights", "--protocol=config", f"--workdir={workdir}"]
    call(a, [sys.executable, "-m", "experiments.evaluate", *flags_of(a, seed, folder), *how], cores)
    return json.loads((workdir / "evaluation_weights_test.json").read_text())["metrics"]


def summarise(step: int, metrics: dict[str, float]) -> dict[str, float]:
    return {"step": step} | {name: round(metrics[f"eval/{name}"], 6) for name in KEPT if f"eval/{name}" in metrics}


def call(a: argparse.Namespace, command: list[str], cores: range) -> int:
    """Run a command of ours on these cores, its output in the workdir's log. Returns its peak memory in MB."""
    a.workdir.mkdir(parents=True, exist_ok=True)
    env = {k: v for k, v in os.environ.items()} | {"PYTHONPATH": str(pairs.ROOT), "JAX_PLATFORMS": "cpu"}
    log = a.workdir / "log.txt"
    with log.open("a") as out:
        process = subprocess.Popen([*pinned(cores), *command], cwd=Path.cwd(), env=env, stdout=out, stderr=out)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed; the end of {log}:\n{log.read_text()[-3000:]}")
    return round(usage.ru_maxrss * 1024 / 1e6)


def pinned(cores: range) -> list[str]:
    return ["taskset", "-c", ",".join(map(str, cores))] if cores else []


# The results


def read_results(path: Path) -> list[dict[str, Any]]:
    return journal.read_records(path) if path.exists() else []


def as_records(line: dict[str, Any]) -> list[dict[str, Any]]:
    """A line of the results as the records of a run, which the figures draw."""
    evaluations = [
        {f"eval/{k}": v for k, v in e.items() if k != "step"} | {"step": e["step"]} for e in line["evaluations"]
    ]
    return [{"stage": "rl"} | record for record in evaluations]


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    groups: dict[str, list[Any]] = {}
    for name in NAMES:
        found = [line for line in lines if line["library"] == name]
        if found:
            seconds = [s for line in found for s in line["seconds"]]
            speed = f", {statistics.median(seconds):.0f} s a step" if seconds else ""
            groups[NAMES[name] + speed] = [as_records(line) for line in found]
    draw_learning(groups, path, f"{lines[0]['model']}, level {lines[0]['level']}", questions=lines[0]["problems"])


def main(arguments: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(prog="benchmarks.peers.word_problems", description=(__doc__ or "").split("\n")[0])
    p.add_argument("folder", nargs="?", type=Path, help="the Hugging Face folder of the model")
    p.add_argument("--workdir", type=Path, default=Path("runs/word_problems_trl"))
    p.add_argument("--out", type=Path, default=RESULTS, help="file of JSON lines")
    p.add_argument("--libraries", default="rljax,trl")
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--level", default="2")
    p.add_argument("--examples", type=int, default=3)
    p.add_argument("--tokens", type=int, default=48, help="most tokens of a response")
    p.add_argument("--steps", type=int, default=40)
    p.add_argument("--eval_every", type=int, default=10)
    p.add_argument("--prompts", type=int, default=8)
    p.add_argument("--group", type=int, default=8)
    p.add_argument("--problems", type=int, default=48, help="held-out problems")
    p.add_argument("--attempts", type=int, default=8, help="at each of them")
    p.add_argument("--rows", type=int, default=8, help="of a micro-batch of TRL")
    p.add_argument("--cache", default="static", help="of TRL's sampler; '': as it grows")
    p.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    p.add_argument("--figure", type=Path, help="draw both curves from the results, into this file")
    a = p.parse_args(arguments)
    if a.folder:
        a.folder = a.folder.resolve()
        cores = range(a.cores)
        for seed in range(a.seeds):
            for library in a.libraries.split(","):
                about = {"benchmark": "word_problems", "library": library, "seed": seed, "model": a.folder.name}
                about |= {
                    k: vars(a)[k] for k in ("level", "examples", "tokens", "steps", "eval_every", "prompts", "group")
                }
                about |= {k: vars(a)[k] for k in ("problems", "attempts", "cores")}
                about |= {"rows": a.rows, "cache": a.cache} if library == "trl" else {}
                if any(about.items() <= line.items() for line in read_results(a.out)):
                    continue
                found = {"rljax": run_rljax, "trl": run_trl}[library](a, seed, cores)
                line = about | found | {"commit": source_commit()}
                with a.out.open("a") as out:
                    out.write(json.dumps(line) + "\n")
                last = found["evaluations"][-1]
                print(
                    f"{library} seed {seed}: pass@1 {last['pass@1']:.3f}, {statistics.median(found['seconds'] or [0]):.1f} s a step"
                )
    if a.figure:
        draw(read_results(a.out), a.figure)


if __name__ == "__main__":
    main()
