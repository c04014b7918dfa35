"""The two ways to compute an ablation's runs: processes with cores of their own, or programs that hold many runs each.

On a CPU a process for each core is faster: a program of four runs takes more than four times as long as one of them. One
small run does not fill an accelerator: there, runs that differ in numbers only are one program (vmapped.py), one group of them
after the other, and any other run uses the devices as its config says.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from rljax.ablation import vmap_groups, vmapped
from rljax.ablation.arms import Run, finished
from rljax.ablation.process_pool import Job, raise_failures, run_jobs
from rljax.errors import UserError
from rljax.structs import ConfigTree
from rljax.training.workdir import hold_workdir

FORMS = ("auto", "processes", "together")


class Experiments(NamedTuple):
    """The scripts that a scheduler runs in its own process, handed to it: rljax imports no experiment."""

    stages: Mapping[str, Callable[[ConfigTree, Path], None]]  # run(config, workdir) of each stage
    reproduce: Callable[[ConfigTree, Path], None]
    make_train_step: vmapped.MakeTrainStep


def choose_form(form: str) -> str:
    """``form``, or for "auto" the one that suits the devices. Raises UserError for one that these cannot serve."""
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
    return [r for r in runs if not finished(r.folder, r.config, stage)]


def has_start(run: Run) -> bool:
    """Whether the stages that a run starts from have come to their end."""
    return all(finished(run.start, run.start_config, stage) for stage in run.start_config.stages)


def missing_starts(todo: Sequence[Run]) -> list[Run]:
    """A run for each start that is still to be made."""
    return [r for r in {r.start: r for r in todo if r.start != Path()}.values() if not has_start(r)]


def run_as_processes(runs: Sequence[Run], stage: str, path: str, processes: int) -> None:
    """Every start, then every run, as many at once as there are processes. Raises UserError after the last if some failed."""
    todo = unfinished(runs, stage)
    starts = [Job(f"start of {r.label}", "reproduce", r.start, r.start_config) for r in missing_starts(todo)]
    run_jobs(starts, path, processes)
    run_jobs([Job(r.label, stage, r.folder, r.config) for r in todo], path, processes)


def run_as_programs(experiments: Experiments, runs: Sequence[Run], stage: str, workdir: Path, at_once: int) -> None:
    """Every start, then every run in this process; those that can share a program do, at most ``at_once`` (0: all).

    A group that was stopped continues as the group it was. Raises UserError after the last if some failed.
    """
    todo = unfinished(runs, stage)
    for r in missing_starts(todo):
        print(f"start of {r.label}", flush=True)
        with hold_workdir(r.start, r.start_config):
            experiments.reproduce(r.start_config, r.start)
    failed, stopped = [], find_stopped_groups(runs, workdir)
    held = {r.folder for group in stopped.values() for r in group}
    fresh = groups_of([r for r in todo if r.folder not in held], stage, at_once)
    groups = [*stopped.items(), *((group_folder(workdir, group), group) for group in fresh)]
    for number, (folder, group) in enumerate(groups, 1):
        print(f"group {number} of {len(groups)}: {', '.join(r.label for r in group)}", flush=True)
        try:
            run_group(experiments, group, stage, folder)
        except UserError as e:
            failed.append(str(e))
    raise_failures(failed, len(groups))


def run_group(experiments: Experiments, group: Sequence[Run], stage: str, folder: Path) -> None:
    """Run a group to its end; ``folder`` is there only until then."""
    if len(group) == 1:
        (run,) = group
        with hold_workdir(run.folder, run.config):
            experiments.stages[stage](run.config, run.folder)
        return
    vmapped.train_together(experiments.make_train_step, [r.config for r in group], [r.folder for r in group], folder)
    shutil.rmtree(folder)  # every run has its own checkpoint now


def groups_of(todo: Sequence[Run], stage: str, at_once: int) -> list[list[Run]]:
    """Runs that can share a program, in the order of their first; any other run is a group by itself."""
    by_signature: dict[str, list[Run]] = {}
    for r in todo:
        by_signature.setdefault(vmap_groups.signature(r.config) if stage == "rl" else r.label, []).append(r)
    out = []
    for group in by_signature.values():
        size = (at_once or len(group)) if is_vmappable(group) else 1
        out += [group[i : i + size] for i in range(0, len(group), size)]
    return out


def is_vmappable(group: Sequence[Run]) -> bool:
    """Whether these runs can share a program; says why where they cannot."""
    if len(group) == 1:
        return True
    try:
        vmapped.check_pure(vmapped.resolve_one(group[0].config))
    except UserError as e:
        print(f"{group[0].label} and {len(group) - 1} more: {e}", flush=True)
        return False
    return True


def group_folder(workdir: Path, group: Sequence[Run]) -> Path:
    """Where a group keeps what it needs to go on, named by who is in it."""
    names = json.dumps([str(r.folder.relative_to(workdir)) for r in group])
    return workdir / "together" / hashlib.sha256(names.encode()).hexdigest()[:10]


def find_stopped_groups(runs: Sequence[Run], workdir: Path) -> dict[Path, list[Run]]:
    """{folder: its runs} of groups that were stopped. Raises UserError where only some of a group are asked for."""
    asked, out = {r.folder.resolve(): r for r in runs}, {}
    for folder, members in vmapped.stopped_groups_in(workdir / "together"):
        mine = [asked.get(m) for m in members]
        if any(mine) and not all(mine):
            missing = next(m for m, r in zip(members, mine, strict=True) if r is None)
            raise UserError(
                f"{folder} was stopped, and {missing} is one of its runs: ask for that too, or remove {folder}"
            )
        if all(mine):
            out[folder] = [r for r in mine if r]
    return out
