"""An ablation's runs as processes, each with cores of its own, so that a run rounds the same however many run beside it."""

import contextlib
import itertools
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from rljax.errors import UserError
from rljax.structs import ConfigTree
from rljax.training import config_files


class Job(NamedTuple):
    """One process to run."""

    label: str
    script: str  # a name of experiments/
    folder: Path  # its workdir
    config: ConfigTree


def run_jobs(jobs: Sequence[Job], path: str, processes: int) -> None:
    """Run every job to its end, ``processes`` at once (0: one a core), each with its own share of the cores.

    ``path`` is the config file that the jobs' configs come from. Raises UserError after the last if some failed.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    slots: queue.Queue = queue.Queue()
    count = processes or len(cores)
    share = max(1, len(cores) // count)
    for i in range(count):
        slots.put([cores[(i * share + j) % len(cores)] for j in range(share)])
    running: dict[int, subprocess.Popen] = {}
    numbers = itertools.count(1)

    def run_job(job: Job) -> str:
        own_cores = slots.get()
        try:
            print(f"{job.label}: {next(numbers)} of {len(jobs)}, see {job.folder / 'log.txt'}", flush=True)
            return run_process(job, path, own_cores, running)
        finally:
            slots.put(own_cores)

    with ThreadPoolExecutor(count) as pool, sigterm_as_interrupt():
        waiting = [pool.submit(run_job, job) for job in jobs]
        try:
            failed = [f for f in (w.result() for w in waiting) if f]
        except BaseException:  # asked to stop: so are they, each of which saves and ends
            for w in waiting:
                w.cancel()
            for process in list(running.values()):
                process.send_signal(signal.SIGINT)
            raise
    raise_failures(failed, len(jobs))


def raise_failures(failed: Sequence[str], count: int) -> None:
    """Raise UserError where some of ``count`` runs failed."""
    if failed:
        raise UserError(f"{len(failed)} of {count} runs failed, the first: {failed[0]}; the others are kept")


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """A SIGTERM raises KeyboardInterrupt, as a SIGINT does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_process(job: Job, path: str, cores: list[int], running: dict[int, subprocess.Popen]) -> str:
    """Run one process to its end, its output in log.txt; returns what went wrong, or ""."""
    job.folder.mkdir(parents=True, exist_ok=True)
    changes = [
        f"--config.{change}" for change in config_files.list_overrides(config_files.load_config(path), job.config)
    ]
    command = [sys.executable, "-m", "rljax", job.script, f"--config={path}", f"--workdir={job.folder}", *changes]
    with (job.folder / "log.txt").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        running[process.pid] = process
        if hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(ProcessLookupError):  # it has ended already, and its status says why
                os.sched_setaffinity(process.pid, cores)
        code = process.wait()
        del running[process.pid]
    last = (job.folder / "log.txt").read_text().strip().splitlines()[-1:]
    return f"{job.folder}: {' '.join(last)}" if code else ""
