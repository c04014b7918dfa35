"""Runs as processes. Each process keeps its own CPU cores: the number of threads changes how sums are rounded.

So a run gives the same numbers no matter how many others run at the same time.
"""

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
    """A process to run: one script with one config."""

    label: str  # for messages
    script: str  # a module of experiments/
    folder: Path  # its workdir
    config: ConfigTree


def run_jobs(jobs: Sequence[Job], config_file: str, processes: int) -> None:
    """Run all jobs to their end, ``processes`` at once (0: one for each core). The cores are divided between them.

    ``config_file`` is the file that the configs of the jobs were made from. Raises UserError at the end if a job failed. On an
    interrupt, the running processes are interrupted too: they save and end.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    count = processes or len(cores)
    cores_each = max(1, len(cores) // count)
    free_cores: queue.Queue[list[int]] = queue.Queue()
    for i in range(count):
        free_cores.put([cores[(i * cores_each + j) % len(cores)] for j in range(cores_each)])
    running: dict[int, subprocess.Popen] = {}
    job_numbers = itertools.count(1)

    def run_job(job: Job) -> str:
        """Run a job on free cores; returns why it failed, or "". Waits until there are free cores."""
        job_cores = free_cores.get()
        try:
            print(f"{job.label}: {next(job_numbers)} of {len(jobs)}, see {job.folder / 'log.txt'}", flush=True)
            return run_process(job, config_file, job_cores, running)
        finally:
            free_cores.put(job_cores)

    with ThreadPoolExecutor(count) as pool, sigterm_as_interrupt():
        futures = [pool.submit(run_job, job) for job in jobs]
        try:
            failures = [failure for failure in (future.result() for future in futures) if failure]
        except BaseException:
            for future in futures:
                future.cancel()
            for process in list(running.values()):
                process.send_signal(signal.SIGINT)
            raise
    raise_if_failed(failures, len(jobs))


def raise_if_failed(failures: Sequence[str], count: int) -> None:
    """Raise UserError if some of ``count`` runs failed. ``failures`` are their messages."""
    if failures:
        raise UserError(
            f"{len(failures)} of {count} runs failed, the results of the others are kept. The first: {failures[0]}"
        )


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Inside, a SIGTERM or SIGHUP raises KeyboardInterrupt, as a SIGINT does: the runs are asked to save, and this process waits.

    A SIGHUP that is ignored, as under ``nohup``, stays ignored.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    numbers += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else []
    previous = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def run_process(job: Job, config_file: str, cores: list[int], running: dict[int, subprocess.Popen]) -> str:
    """Run one job to its end; returns why it failed, or "". Its output goes to log.txt of its workdir.

    ``running`` is {process id: process} of the processes that run now; this one is in it until it ends.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    overrides = config_files.list_overrides(config_files.load_config(config_file), job.config)
    config_flags = [f"--config.{override}" for override in overrides]
    command = [sys.executable, "-m", "rljax", job.script, f"--config={config_file}", f"--workdir={job.folder}"]
    with (job.folder / "log.txt").open("a") as log:
        process = subprocess.Popen([*command, *config_flags], stdout=log, stderr=subprocess.STDOUT)
        running[process.pid] = process
        if hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(ProcessLookupError):  # the process has already ended; its exit code tells why
                os.sched_setaffinity(process.pid, cores)
        exit_code = process.wait()
        del running[process.pid]
    last_line = (job.folder / "log.txt").read_text().strip().splitlines()[-1:]
    return f"{job.folder}: {' '.join(last_line)}" if exit_code else ""
