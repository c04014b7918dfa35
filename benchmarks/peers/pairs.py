"""Worker processes take turns, rljax first: the ratio of each round is between neighbours in time."""

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers import countdown
from benchmarks.peers.cases import Case, task_of
from rljax.errors import UserError

ROOT = Path(__file__).parent.parent.parent
OURS = "rljax"
ENVIRONMENTS = {OURS: ".venv", "tunix": ".venv-tunix", "trl": ".venv-trl"}
Answer = dict[str, Any]


def is_installed(library: str) -> bool:
    return (ROOT / ENVIRONMENTS[library] / "bin" / "python").exists()


def environment(cores: Sequence[int], cache: Path | None = None) -> dict[str, str]:
    """Environment variables of a worker: the CPU, as many threads as cores, no network; a compilation cache or none."""
    out = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    out |= {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": str(len(cores)), "HF_HUB_OFFLINE": "1"}
    out |= {"TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
    if cache:
        out |= {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return out


@contextmanager
def worker(library: str, task: dict[str, Any], cores: Sequence[int], cache: Path | None = None) -> Iterator[Any]:
    """``ask(seed)`` of a worker that has been given its task; the process ends with the block.

    The answer to the first question also has "start_seconds", from the start of the process.
    """
    begin = time.perf_counter()
    python = str(ROOT / ENVIRONMENTS[library] / "bin" / "python")
    command = ["taskset", "-c", ",".join(map(str, cores)), python, "-m", f"benchmarks.peers.work_{library}"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env=environment(cores, cache),
        )
        assert process.stdin and process.stdout
        say = lambda line: print(json.dumps(line), file=process.stdin, flush=True)

        def ask(seed: int) -> Answer:
            say({"seed": seed})
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                log.seek(0)
                raise UserError(f"the worker of {library} ended. The end of what it printed:\n{log.read()[-3000:]}")
            return json.loads(line) | {"start_seconds": time.perf_counter() - begin}

        try:
            say(task)
            yield ask
        finally:
            process.kill()
            process.wait()


def measure(case: Case, libraries: Sequence[str], pairs: int, cores: Sequence[int]) -> list[dict[str, Any]]:
    """One line for each peer: rljax and the peers in turn, ``pairs`` rounds after one that compiles."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        chances = countdown.length_chances(case.lengths, case.mean, case.new)
        countdown.write_folder(model, case.model, chances)
        task = task_of(case, model)
        rounds = start_rounds if case.work == "start" else run_rounds
        answers = rounds(case, task, (OURS, *libraries), pairs, cores)
    return [summarise(case, peer, answers[OURS], answers[peer]) for peer in libraries]


def run_rounds(
    case: Case, task: dict[str, Any], libraries: Sequence[str], pairs: int, cores: Sequence[int]
) -> dict[str, list[Answer]]:
    """{library: answers}; the first of each includes loading and compilation."""
    answers: dict[str, list[Answer]] = {library: [] for library in libraries}
    with ExitStack() as stack:
        asks = {}
        for library in libraries:  # one after the other, so that start times are undisturbed
            asks[library] = stack.enter_context(worker(library, task, cores))
            answers[library].append(asks[library](0))
        for seed in range(1, pairs + 1):
            for library, ask in asks.items():
                answers[library].append(ask(seed))
    return answers


def start_rounds(
    case: Case, task: dict[str, Any], libraries: Sequence[str], pairs: int, cores: Sequence[int]
) -> dict[str, list[Answer]]:
    """{library: answers} of a new process each, to its first step. With ``case.cached`` the first one fills the cache."""
    answers: dict[str, list[Answer]] = {library: [] for library in libraries}
    with tempfile.TemporaryDirectory() as caches:
        for _ in range(pairs + 1):
            for library in libraries:
                cache = Path(caches) / library if case.cached else None
                with worker(library, task | {"work": "step"}, cores, cache) as ask:
                    answer = ask(0)
                answers[library].append(answer | {"seconds": answer["start_seconds"]})
    return answers


def check_lengths(case: Case, peer: str, ours: list[int], theirs: list[int]) -> None:
    """Raise UserError where the peer's responses have other lengths than ours: it would not have done the same work."""
    if not 0.6 < sum(theirs) / sum(ours) < 1.6:
        raise UserError(f"{case.name}: {peer} computed {theirs} tokens, rljax {ours}: they have not done the same work")


def summarise(case: Case, peer: str, ours: list[Answer], theirs: list[Answer]) -> dict[str, Any]:
    """A line of the results. Where one core works, seconds are those of its CPU, else of the wall clock.

    The ratio of a round is (peer's seconds a token) / (our seconds a token): above 1 rljax is faster.
    """
    clock = "cpu_seconds" if case.cores == 1 and case.work != "start" else "seconds"
    of = lambda answers, name: [answer[name] for answer in answers[1:]]
    each = lambda answers: [
        s if case.work == "start" else s / n for s, n in zip(of(answers, clock), of(answers, "tokens"), strict=True)
    ]
    check_lengths(case, peer, of(ours, "tokens"), of(theirs, "tokens"))
    ratios = [b / a for a, b in zip(each(ours), each(theirs), strict=True)]
    line: dict[str, Any] = {"benchmark": "peers", "case": case.name, "work": case.work, "size": case.size}
    line |= {"lengths": case.lengths, "rows": case.rows, "new": case.new, "peer": peer, "clock": clock}
    line["ratio"] = {
        name: round(f(ratios), 2) for name, f in (("median", statistics.median), ("min", min), ("max", max))
    }
    line |= {"pairs": len(ratios)}
    for name, answers in ((OURS, ours), ("peer_measured", theirs)):
        line[name] = {
            "seconds": [round(s, 4) for s in of(answers, clock)],
            "tokens": of(answers, "tokens"),
            "tokens_per_second": round(
                statistics.median(n / s for s, n in zip(of(answers, clock), of(answers, "tokens"), strict=True))
            ),
            "start_seconds": round(answers[0]["start_seconds"], 2),
            "peak_mb": max(answer["peak_mb"] for answer in answers),
            "versions": answers[0]["versions"],
        }
    return line
