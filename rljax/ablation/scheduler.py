"""The two ways to compute an ablation's runs: processes with cores of their own, or programs that hold many runs each.

On a CPU a process a core wins: a program of four runs takes more than four times as long as one of them. An accelerator is
not filled by one small run: there, runs that differ in numbers only are one program (vmapped.py), one group of them after
the other, and what has to be a program by itself uses the devices as its config says.
"""

import contextlib
import hashlib
import itertools
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax

from experiments import reproduce
from rljax import ablation
from rljax.ablation import Run, vmap_groups, vmapped
from rljax.errors import UserError
from rljax.structs import ConfigTree
from rljax.training import config_files
from rljax.training.workdir import hold_workdir

FORMS = ("auto", "processes", "together")


def choose(form: str) -> str:
    """What ``form`` says, and for "auto" one of the others by the devices. Raises UserError for what these cannot."""
    on_cpu = jax.default_backend() == "cpu"
    if form not in FORMS:
        raise UserError(f"--form {form}: choose from {', '.join(FORMS)}")
    if form == "processes" and not on_cpu:
        raise UserError(
            f"--form processes: one process holds a {jax.default_backend()}: --form together, or JAX_PLATFORMS=cpu"
        )
    return form if form != "auto" else "processes" if on_cpu else "together"


def unfinished(runs: Sequence[Run], stage: str) -> list[Run]:
    """Those that have not come to the end of their stage."""
    return [r for r in runs if not ablation.finished(r.folder, r.config, stage)]


def begun(run: Run) -> bool:
    """Whether the stages that a run starts from have come to their end."""
    return all(ablation.finished(run.start, run.start_config, stage) for stage in run.start_config.stages)


def starts_of(todo: Sequence[Run]) -> list[Run]:
    """A run for each start that is still to be made."""
    return [r for r in {r.start: r for r in todo if r.start != Path()}.values() if not begun(r)]


def complain(failed: Sequence[str], count: int) -> None:
    """Raise UserError where there is something to complain of."""
    if failed:
        raise UserError(f"{len(failed)} of {count} runs failed, the first: {failed[0]}; the others are kept")


# Processes, each with cores of its own, so that a run rounds the same however many run beside it


def as_processes(runs: Sequence[Run], stage: str, path: str, processes: int) -> None:
    """Every start, then every run, as many at once as there are processes. Raises UserError after the last if some failed."""
    todo = unfinished(runs, stage)
    starts = [(f"start of {r.label}", "reproduce", r.start, r.start_config) for r in starts_of(todo)]
    side_by_side(starts, path, processes)
    side_by_side([(r.label, stage, r.folder, r.config) for r in todo], path, processes)


def side_by_side(jobs: Sequence[tuple[str, str, Path, ConfigTree]], path: str, processes: int) -> None:
    """Run jobs (label, script, folder, config), each slot with its own share of the cores."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    slots: queue.Queue = queue.Queue()
    count = processes or len(cores)
    share = max(1, len(cores) // count)
    for i in range(count):
        slots.put([cores[(i * share + j) % len(cores)] for j in range(share)])
    running: dict[int, subprocess.Popen] = {}
    numbers = itertools.count(1)

    def one(job: tuple[str, str, Path, ConfigTree]) -> str:
        label, script, folder, config = job
        mine = slots.get()
        try:
            print(f"{label}: {next(numbers)} of {len(jobs)}, see {folder / 'log.txt'}", flush=True)
            return in_process(script, folder, config, path, mine, running)
        finally:
            slots.put(mine)

    with ThreadPoolExecutor(count) as pool, terminated_is_interrupted():
        waiting = [pool.submit(one, job) for job in jobs]
        try:
            failed = [f for f in (w.result() for w in waiting) if f]
        except BaseException:  # asked to stop: so are they, each of which saves and ends
            for w in waiting:
                w.cancel()
            for process in list(running.values()):
                process.send_signal(signal.SIGINT)
            raise
    complain(failed, len(jobs))


@contextlib.contextmanager
def terminated_is_interrupted() -> Iterator[None]:
    """A SIGTERM raises KeyboardInterrupt, as a SIGINT does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def in_process(
    script: str, folder: Path, config: ConfigTree, path: str, cores: list[int], running: dict[int, subprocess.Popen]
) -> str:
    """Run one process to its end, its output in log.txt; returns what went wrong, or ""."""
    folder.mkdir(parents=True, exist_ok=True)
    changes = [f"--config.{change}" for change in config_files.list_overrides(config_files.load_config(path), config)]
    command = [sys.executable, "-m", "rljax", script, f"--config={path}", f"--workdir={folder}", *changes]
    with (folder / "log.txt").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        running[process.pid] = process
        if hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(ProcessLookupError):  # it has ended already, and its status says why
                os.sched_setaffinity(process.pid, cores)
        code = process.wait()
        del running[process.pid]
    last = (folder / "log.txt").read_text().strip().splitlines()[-1:]
    return f"{folder}: {' '.join(last)}" if code else ""


# Programs, one after the other in this process


def as_programs(runs: Sequence[Run], stage: str, workdir: Path, at_once: int) -> None:
    """Every start, then every run, those that are alike as one program, at most ``at_once`` of them (0: all).

    A group that was stopped goes on as the group it was. Raises UserError after the last if some failed.
    """
    todo = unfinished(runs, stage)
    for r in starts_of(todo):
        print(f"start of {r.label}", flush=True)
        with hold_workdir(r.start, r.start_config):
            reproduce.run(r.start_config, r.start)
    failed, stopped = [], stopped_groups(runs, workdir)
    held = {r.folder for group in stopped.values() for r in group}
    fresh = groups_of([r for r in todo if r.folder not in held], stage, at_once)
    groups = [*stopped.items(), *((group_folder(workdir, group), group) for group in fresh)]
    for number, (folder, group) in enumerate(groups, 1):
        print(f"group {number} of {len(groups)}: {', '.join(r.label for r in group)}", flush=True)
        try:
            as_program(group, stage, folder)
        except UserError as e:
            failed.append(str(e))
    complain(failed, len(groups))


def as_program(group: Sequence[Run], stage: str, folder: Path) -> None:
    """Run a group to its end; ``folder`` is there only until then."""
    if len(group) == 1:
        (one,) = group
        with hold_workdir(one.folder, one.config):
            reproduce.STAGES[stage](one.config, one.folder)
        return
    vmapped.run([r.config for r in group], [r.folder for r in group], folder)
    shutil.rmtree(folder)  # every run has its own checkpoint now


def groups_of(todo: Sequence[Run], stage: str, at_once: int) -> list[list[Run]]:
    """Runs that are alike, in the order of their first; a run that cannot be computed with others is a group by itself."""
    alikes: dict[str, list[Run]] = {}
    for r in todo:
        alikes.setdefault(vmap_groups.signature(r.config) if stage == "rl" else r.label, []).append(r)
    out = []
    for group in alikes.values():
        size = (at_once or len(group)) if can_be_together(group) else 1
        out += [group[i : i + size] for i in range(0, len(group), size)]
    return out


def can_be_together(group: Sequence[Run]) -> bool:
    """Whether these runs can share a program; says why where they cannot."""
    if len(group) == 1:
        return True
    try:
        vmapped.check(vmapped.resolved(group[0].config))
    except UserError as e:
        print(f"{group[0].label} and {len(group) - 1} more: {e}", flush=True)
        return False
    return True


def group_folder(workdir: Path, group: Sequence[Run]) -> Path:
    """Where a group keeps what it needs to go on, named by who is in it."""
    names = json.dumps([str(r.folder.relative_to(workdir)) for r in group])
    return workdir / "together" / hashlib.sha256(names.encode()).hexdigest()[:10]


def stopped_groups(runs: Sequence[Run], workdir: Path) -> dict[Path, list[Run]]:
    """{folder: its runs} of groups that were stopped. Raises UserError where only some of a group are asked for."""
    asked, out = {r.folder.resolve(): r for r in runs}, {}
    for folder, members in vmapped.stopped(workdir / "together"):
        mine = [asked.get(m) for m in members]
        if any(mine) and not all(mine):
            missing = next(m for m, r in zip(members, mine, strict=True) if r is None)
            raise UserError(
                f"{folder} was stopped, and {missing} is one of its runs: ask for that too, or remove {folder}"
            )
        if all(mine):
            out[folder] = [r for r in mine if r]
    return out
