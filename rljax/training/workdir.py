"""The folder of a run: one process holds it, and config.json in it records what is run, with what and on what."""

import contextlib
import dataclasses
import fcntl
import json
import secrets
import shlex
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import jax

from rljax import pretrained
from rljax.distributed import processes
from rljax.errors import UserError
from rljax.structs import ConfigTree
from rljax.tasks import prompting
from rljax.training import journal
from rljax.training.checkpoint_manifest import digest
from rljax.training.config_files import config_from_record, flatten_config
from rljax.training.provenance import record_session
from rljax.training.schema import declarations
from rljax.training.versions import package_versions, source_changes, source_commit


@contextlib.contextmanager
def hold_workdir(workdir: Path, config: ConfigTree, locked: bool = False) -> Iterator[None]:
    """Hold the workdir for one run and one config. Raises UserError where another holds it, or another config.

    Of several processes the first holds it. The others wait until it does, and go no further where it may not. ``locked``:
    this process holds the folder already, by ``lock_folder``.
    """
    with lock_workdir(workdir, config, locked) if processes.is_primary() else contextlib.nullcontext():
        processes.barrier("workdir")
        if not (workdir / "config.json").exists():
            raise UserError(
                f"--workdir: process {jax.process_index()} does not see the {workdir} of process 0: it must be on a file "
                "system that all processes share"
            )
        yield


@contextlib.contextmanager
def lock_folder(workdir: Path) -> Iterator[None]:
    """Make the folder and hold it, for the first of several processes. Raises UserError where another command holds it.

    For a script that has work to do in its workdir before it knows the config of the run there.
    """
    if not processes.is_primary():
        yield
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("w")
    except OSError as e:
        raise UserError(f"--workdir: cannot write to {workdir}: {e.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"--workdir: {workdir} is in use by another process") from None
        yield


@contextlib.contextmanager
def lock_workdir(workdir: Path, config: ConfigTree, locked: bool) -> Iterator[None]:
    """Hold the workdir for this process, and record the config."""
    with contextlib.nullcontext() if locked else lock_folder(workdir):
        for folder in ("checkpoints", "samples"):
            if (workdir / folder).exists() and not (workdir / folder).is_dir():
                raise UserError(
                    f"--workdir: {workdir / folder} is a file, but a run keeps a folder there: move it away"
                )
        before, recorded = config_files(workdir), progress(workdir)
        record_config(workdir, config)
        try:
            record_session(workdir, config)
            yield
        except UserError:
            if before and progress(workdir) == recorded:  # refused before it did anything: the run's config stays
                for path, content in before.items():
                    journal.replace_bytes(path, content)
            raise


def config_files(workdir: Path) -> dict[Path, bytes]:
    """The content of config.json and of its copy; {} where no run has begun."""
    paths = (workdir / "config.json", workdir / "checkpoints" / "config.json")
    return {path: path.read_bytes() for path in paths if path.is_file()} if has_begun(workdir) else {}


def progress(workdir: Path) -> tuple[int, list[str]]:
    """What grows while a run goes on: the bytes of metrics.jsonl, and its checkpoints."""
    metrics = workdir / "metrics.jsonl"
    size = metrics.stat().st_size if metrics.exists() else 0
    return size, sorted(str(path) for path in (workdir / "checkpoints").glob("*/*"))


def keep_data_in(workdir: Path, config: ConfigTree) -> ConfigTree:
    """The config with the workdir's folder ``data`` for data that are prepared from files of the user's own.

    Without this they would fill the home folder. config.json does not record it, so that a workdir can be moved.
    """
    if config.task.options.get("own_data_dir") != "":
        return config
    config = config.copy_and_resolve_references()
    config.task.options.own_data_dir = str(workdir / "data")
    return config


def record_config(workdir: Path, config: ConfigTree) -> None:
    """Write config.json, or check that the one there holds the same config.

    checkpoints/config.json is a copy. Raises UserError where a run has begun and its config.json is gone: any other config
    would be mixed into it.
    """
    path, copy = workdir / "config.json", workdir / "checkpoints" / "config.json"
    now, changes, record = journal.to_plain(config.to_dict()), {}, journal.read_config_record(workdir)
    begun = has_begun(workdir)
    if record:
        old, new = flatten_config(record["config"]), flatten_config(now)
        different = differing_keys(old, new)
        if not different:
            if not copy.exists():  # an older version made none
                journal.replace_bytes(copy, path.read_bytes())
            return
        forbidden = [k for k in different if not may_change(k, old, new)]
        if begun and forbidden and not has_trained(workdir):
            begin_anew(workdir)
        elif begun:
            refuse_changes(workdir, old, new, forbidden)
            changes = {k: [old.get(k), new.get(k)] for k in different}
            said = ", ".join(f"{k} {before!r} -> {after!r}" for k, (before, after) in changes.items())
            print(f"{workdir}: the run goes on with other settings: {said}", flush=True)
    elif begun:
        way_out = f"copy {copy} there" if copy.is_file() else "bring it back"
        raise UserError(
            f"{path} is missing, but a run has begun in this folder: {way_out}, or use another --workdir. Without it nobody "
            "knows which config the checkpoints belong to"
        )
    about = {"run": record.get("run") or secrets.token_hex(8), "config": now, "versions": package_versions()}
    about |= {"commit": source_commit(), "dirty": source_changes(), "devices": [str(d) for d in jax.devices()]}
    about |= {"template": prompting.template_strings(now["task"]["options"], now["weights"])}
    if now["weights"]:
        folder_model = dataclasses.asdict(pretrained.read_config(now["weights"]))
        about["architecture"] = {k: v for k, v in folder_model.items() if k != "layout"}
    if changes:
        about["changes"] = [*record.get("changes", []), changes]
    about["sha256"] = digest(json.loads(json.dumps(about)))
    text = json.dumps(about, indent=1) + "\n"
    journal.replace_text(copy, text)
    journal.replace_text(path, text)


def has_begun(workdir: Path) -> bool:
    """Whether a run has left records or checkpoints here."""
    finished = (path for path in (workdir / "checkpoints").glob("*/*") if path.name.isdigit())
    return (workdir / "metrics.jsonl").exists() or any(finished)


def has_trained(workdir: Path) -> bool:
    """Whether a run has left checkpoints here, or records of more than evaluations before its first step."""
    finished = (path for path in (workdir / "checkpoints").glob("*/*") if path.name.isdigit())
    return any(record["step"] > 0 for record in journal.read_records(workdir / "metrics.jsonl")) or any(finished)


def begin_anew(workdir: Path) -> None:
    """Set the records of evaluations before a first step aside: another config begins."""
    path = workdir / "metrics.jsonl"
    aside = path.with_name(f".untrained-{path.name}")
    path.replace(aside)
    print(f"{workdir}: nothing was trained here yet: begins anew with this config, {aside.name} has the old records")


def may_change(key: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether a run that has begun may go on with another value of this key.

    Devices, workers, logging, the report and how many attempts are sampled or verified at once may change. A stage may get more
    steps where its learning rate does not depend on their number.
    """
    if key.startswith(("mesh.", "checkpoint.", "report.", "selection.")) or key in (
        "workers",
        "max_unscored",
        "log",
        "stages",
        "eval.rows",
        "rl.verify_parts",
    ):
        return True
    stage, _, name = key.partition(".")
    constant = new.get(f"{stage}.optimizer.schedule") == old.get(f"{stage}.optimizer.schedule") == "constant"
    return name == "steps" and constant and new[key] >= old[key]


def refuse_changes(workdir: Path, old: dict[str, Any], new: dict[str, Any], different: list[str]) -> None:
    """Raise UserError where settings differ that a run that has begun must keep."""
    if not different:
        return
    k = different[0]
    more = f" (and {len(different) - 1} more)" if len(different) > 1 else ""
    stage, _, name = k.partition(".")
    schedule = new.get(f"{stage}.optimizer.schedule", "constant")
    if name == "steps" and schedule != "constant":
        more += (
            f" (with {stage}.optimizer.schedule={schedule!r} the learning rate of every step depends on their number)"
        )
    raise UserError(
        f"--workdir: {workdir} holds a run with {k}={old.get(k)!r}, this one says {new.get(k)!r}{more}: "
        f"use another --workdir, or the config that the run began with{describe_overrides(old, new, different)}"
    )


def describe_overrides(old: dict[str, Any], new: dict[str, Any], different: list[str]) -> str:
    """What to add to the command line for the values that a few settings had; "" where that is not enough."""
    if len(different) > 4 or not all(k in old and k in new for k in different):
        return ""
    had = {k: tuple(old[k]) if isinstance(old[k], list) else old[k] for k in different}
    return ": add " + " ".join(shlex.quote(f"--config.{k}={value}") for k, value in had.items())


def check_recorded_config(workdir: Path, config: ConfigTree, later: Container[str]) -> None:
    """Raise UserError where a run has trained in the workdir with another config, whatever it says about the keys ``later``.

    For a script that has long work to do before it can hold the workdir.
    """
    record = journal.read_config_record(workdir)
    if record and has_trained(workdir):
        old, new = flatten_config(record["config"]), flatten_config(journal.to_plain(config.to_dict()))
        different = [k for k in differing_keys(old, new) if k not in later and not may_change(k, old, new)]
        refuse_changes(workdir, old, new, different)


def read_config(workdir: Path) -> ConfigTree | None:
    """The config that a run in this workdir was started with; None where there is none."""
    record = journal.read_config_record(workdir)
    return config_from_record(record["config"]) if record else None


def differing_keys(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The keys of two flat configs whose values differ. A setting that ``old`` lacks, because it is newer, had its default."""
    declared = declarations()
    default = lambda k: journal.to_plain({"": declared[k][1]})[""] if k in declared else None
    before = {k: old[k] if k in old else default(k) for k in {**old, **new}}
    return [k for k in {**old, **new} if before[k] != new.get(k)]


def describe_differences(recorded: ConfigTree, config: ConfigTree) -> str:
    """One line about the settings in which ``config`` is not the one that the run was started with; "" where none is."""
    old, new = (flatten_config(journal.to_plain(c.to_dict())) for c in (recorded, config))
    different = differing_keys(old, new)
    if not different:
        return ""
    said = ", ".join(f"{k}={new.get(k)!r} (the run: {old.get(k)!r})" for k in different[:4])
    more = f", and {len(different) - 4} more" if len(different) > 4 else ""
    return f"not as the run was started: {said}{more}"
