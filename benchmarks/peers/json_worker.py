"""A worker answers JSON lines: first the case, then one line for each run. Standard library only: peers import it too."""

import importlib.metadata
import json
import os
import queue
import resource
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

Run = Callable[[int], int]  # a seed -> sampled tokens, or tokens that the update learns from


def serve(prepare: Callable[[dict[str, Any]], Run], packages: tuple[str, ...]) -> None:
    """Prepare the case on the first line of stdin, then do one run for each further line {"seed"}, until stdin ends.

    An answer has the seconds of the wall clock and of the CPU (all threads), tokens, the process's peak memory so far, and the
    versions of ``packages``.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print does not belong to the answers
    versions = {name: importlib.metadata.version(name) for name in packages}
    run = prepare(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        begin, cpu = time.perf_counter(), time.process_time()
        tokens = run(json.loads(line)["seed"])
        answer = {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - cpu, "tokens": tokens}
        answer["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)
        answer["versions"] = versions
        print(json.dumps(answer), file=answers, flush=True)
    os._exit(0)  # a trainer's thread may wait for ever


def by_steps(loop: Callable[[Callable[[], None]], None]) -> Callable[[], None]:
    """A function that lets a trainer's own loop do one step: ``loop`` calls what it is given after each step, and waits there."""
    go: queue.SimpleQueue[None] = queue.SimpleQueue()
    done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def pause() -> None:
        done.put(None)
        go.get()

    def body() -> None:
        try:
            go.get()
            loop(pause)
            done.put(RuntimeError("the trainer ended by itself"))
        except BaseException as error:  # raised again by ``step``, in the thread that waits
            done.put(error)

    threading.Thread(target=body, daemon=True).start()

    def step() -> None:
        go.put(None)
        error = done.get()
        if error is not None:
            raise error

    return step


def run_by_steps(loop: Callable[[Callable[[], None]], None], tokens: list[int]) -> Run:
    """One step of a trainer's own loop as a run; the loop notes in ``tokens`` how many it has sampled."""
    step = by_steps(loop)

    def run(seed: int) -> int:
        tokens.clear()
        step()
        return sum(tokens)

    return run
