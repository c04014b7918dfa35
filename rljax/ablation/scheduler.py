"""Computes the runs of an ablation in one of two ways: as processes, or as vmapped programs of many runs.

On a CPU, processes are faster: a program of four runs takes more than four times as long as one run. On an accelerator, a
small run does not fill the device. There, runs that differ only in numbers are one program (vmapped.py), and each other run is
a program of its own, on the devices that its config names. The programs run one after the other.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from rljax.ablation import vmap_groups, vmapped
from rljax.ablation.arms import ArmRun, is_finished
from rljax.ablation.process_pool import Job, raise_if_failed, run_jobs
from rljax.errors import UserError
from rljax.structs import ConfigTree
from rljax.training.workdir import hold_workdir

FORMS = ("auto", "processes", "together")  # values of --form; "together" means vmapped programs
GROUPS_FOLDER = "together"  # in the workdir of the ablation; a folder for each group that is not finished


class Experiments(NamedTuple):
    """The functions of experiments/ that run in this process. The caller passes them: rljax imports no experiment."""

    stages: Mapping[str, Callable[[ConfigTree, Path], None]]  # {stage: run(config, workdir)}
    reproduce: Callable[[ConfigTree, Path], None]  # runs all stages of a config
    make_train_step: vmapped.MakeTrainStep


def choose_form(form: str) -> str:
    """ "processes" or "together": the value of --form, where "auto" depends on the devices.

    Raises UserError for an unknown form, or one that does not work on these devices.
    """
    on_cpu = jax.default_backend() == "cpu"
    if form not in FORMS:
        raise UserError(f"--form {form}: unknown form, choose from {', '.join(FORMS)}; --help says what each means")
    if form == "processes" and not on_cpu:
        raise UserError(
            f"--form processes: one process holds the {jax.default_backend()}, so that others cannot use it: write "
            "--form together (all runs in one process), or set JAX_PLATFORMS=cpu"
        )
    return form if form != "auto" else "processes" if on_cpu else "together"


def unfinished_runs(runs: Sequence[ArmRun], stage: str) -> list[ArmRun]:
    """The runs that do not have the last checkpoint of the stage."""
    return [run for run in runs if not is_finished(run.folder, run.config, stage)]


def has_start(run: ArmRun) -> bool:
    """Whether the earlier stages that a run starts from are finished."""
    return all(is_finished(run.start, run.start_config, stage) for stage in run.start_config.stages)


def missing_starts(runs: Sequence[ArmRun]) -> list[ArmRun]:
    """One run for each start that is not finished; several runs may share a start."""
    return [run for run in {run.start: run for run in runs if run.start != Path()}.values() if not has_start(run)]


def run_as_processes(runs: Sequence[ArmRun], stage: str, config_file: str, processes: int) -> None:
    """Compute all starts, then all runs, as processes, ``processes`` at once. Raises UserError at the end if some failed."""
    todo = unfinished_runs(runs, stage)
    starts = [Job(f"start of {run.label}", "reproduce", run.start, run.start_config) for run in missing_starts(todo)]
    run_jobs(starts, config_file, processes)
    run_jobs([Job(run.label, stage, run.folder, run.config) for run in todo], config_file, processes)


def run_as_vmapped_groups(
    experiments: Experiments, runs: Sequence[ArmRun], stage: str, workdir: Path, max_runs: int
) -> None:
    """Compute all starts, then all runs, in this process. Runs that can be one program are a group.

    A group has at most ``max_runs`` runs (0: any number). A group that was stopped continues with the same runs. Raises
    UserError at the end if some groups failed.
    """
    todo = unfinished_runs(runs, stage)
    for run in missing_starts(todo):
        print(f"start of {run.label}", flush=True)
        with hold_workdir(run.start, run.start_config):
            experiments.reproduce(run.start_config, run.start)
    failures, stopped = [], find_stopped_groups(runs, workdir)
    in_stopped_group = {run.folder for group in stopped.values() for run in group}
    new_groups = make_groups([run for run in todo if run.folder not in in_stopped_group], stage, max_runs)
    groups = [*stopped.items(), *((group_folder(workdir, group), group) for group in new_groups)]
    for number, (folder, group) in enumerate(groups, 1):
        print(f"group {number} of {len(groups)}: {', '.join(run.label for run in group)}", flush=True)
        try:
            run_group(experiments, group, stage, folder)
        except UserError as e:
            failures.append(str(e))
    raise_if_failed(failures, len(groups))


def run_group(experiments: Experiments, group: Sequence[ArmRun], stage: str, folder: Path) -> None:
    """Run a group to its end. ``folder`` has the checkpoints of a group of several runs, and is removed at the end."""
    if len(group) == 1:
        (run,) = group
        with hold_workdir(run.folder, run.config):
            experiments.stages[stage](run.config, run.folder)
        return
    configs, workdirs = [run.config for run in group], [run.folder for run in group]
    vmapped.train_vmapped_runs(experiments.make_train_step, configs, workdirs, folder)
    shutil.rmtree(folder)  # every run has its own last checkpoint now


def make_groups(runs: Sequence[ArmRun], stage: str, max_runs: int) -> list[list[ArmRun]]:
    """Groups of runs that can be one program, in the order of their first runs. Every other run is a group of one."""
    by_signature: dict[str, list[ArmRun]] = {}
    for run in runs:
        signature = vmap_groups.group_signature(run.config) if stage == "rl" else run.label
        by_signature.setdefault(signature, []).append(run)
    groups = []
    for candidates in by_signature.values():
        size = (max_runs or len(candidates)) if is_vmappable(candidates) else 1
        groups += [candidates[i : i + size] for i in range(0, len(candidates), size)]
    return groups


def is_vmappable(runs: Sequence[ArmRun]) -> bool:
    """Whether runs of the same signature can be one program. Prints the reason if they cannot."""
    if len(runs) == 1:
        return True
    try:
        vmapped.check_vmappable(vmapped.resolve_on_one_device(runs[0].config))
    except UserError as e:
        print(f"{runs[0].label} and {len(runs) - 1} more: {e}", flush=True)
        return False
    return True


def group_folder(workdir: Path, group: Sequence[ArmRun]) -> Path:
    """The folder of a group's checkpoints. Its name is a hash of the names of its runs."""
    names = json.dumps([str(run.folder.relative_to(workdir)) for run in group])
    return workdir / GROUPS_FOLDER / hashlib.sha256(names.encode()).hexdigest()[:10]


def find_stopped_groups(runs: Sequence[ArmRun], workdir: Path) -> dict[Path, list[ArmRun]]:
    """{folder: runs} of the groups that were stopped. Groups of which no run is in ``runs`` are left out.

    Raises UserError if only some runs of a group are in ``runs``.
    """
    run_of_folder, stopped = {run.folder.resolve(): run for run in runs}, {}
    for folder, workdirs in vmapped.list_stopped_groups(workdir / GROUPS_FOLDER):
        group = [run_of_folder.get(path) for path in workdirs]
        if any(group) and not all(group):
            missing = next(path for path, run in zip(workdirs, group, strict=True) if run is None)
            raise UserError(
                f"{folder} is a stopped group, and its run {missing} is not in this ablation: add this run (its arm and "
                f"seed), or remove {folder}"
            )
        if all(group):
            stopped[folder] = [run for run in group if run]
    return stopped
