"""With what a run was made: a line of sessions.jsonl for each time that a command trained in a workdir.

Everything that numbers may depend on is in it: versions, commit and uncommitted changes, flags of XLA and JAX, devices, seed, and
checksums of the data files that the config names. ``config.json`` has what the run began with; this file has every session.
"""

import datetime
import functools
import hashlib
import json
import logging
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

import jax

from rljax.structs import ConfigTree
from rljax.training import journal
from rljax.training.config_files import flatten_config
from rljax.training.versions import package_versions, source_changes, source_commit

FILE = "sessions.jsonl"
FLAGS = re.compile("XLA_|JAX_|LIBTPU_|TPU_|CUDA_VISIBLE|NVIDIA_TF32|TF_GPU|NCCL_ALGO|NCCL_PROTO|OMP_NUM|RLJAX_")
NO_FLAGS = ("CACHE", "COORDINATOR", "ADDRESS", "PROCESS_ID")  # parts of names of variables that no number depends on
JAX_SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl", "jax_threefry_partitionable")
LARGEST = 1 << 30  # bytes of a data file whose content is read for its checksum
COMPARED = ("versions", "commit", "dirty", "flags", "devices", "data")  # what a later session is compared by


def describe_session(config: ConfigTree) -> dict[str, Any]:
    """The facts of this session."""
    devices = jax.devices()
    kinds = sorted({d.device_kind for d in devices})
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        **code_facts(),
        "flags": {k: v for k, v in sorted(os.environ.items()) if FLAGS.match(k) and not any(x in k for x in NO_FLAGS)},
        "settings": {name: str(getattr(jax.config, name)) for name in JAX_SETTINGS},
        "devices": {"kinds": kinds, "count": len(devices), "processes": jax.process_count()},
        "seed": int(config.seed),
        "data": data_checksums(config),
    }


@functools.cache
def code_facts() -> dict[str, Any]:
    """Versions, commit, uncommitted changes and machine: the same for the whole life of this process."""
    machine = {"system": platform.platform(), "cpus": os.cpu_count()}
    return {"versions": package_versions(), "commit": source_commit(), "dirty": source_changes(), "machine": machine}


def data_checksums(config: ConfigTree) -> dict[str, dict[str, Any]]:
    """{key of the config: {path, bytes, sha256}} of the files that it names; of a folder its files' names and sizes."""
    found = {}
    for key, value in flatten_config(journal.to_plain(config.to_dict())).items():
        for text in value if isinstance(value, list) else [value]:
            for word in re.split(r"[+*,]", text) if isinstance(text, str) else ():
                path = Path(word.strip()).expanduser()
                if word.strip() and path.exists() and (path.is_file() or key == "weights"):
                    found[key if key not in found else f"{key} {path.name}"] = checksum_file(path)
    return found


def checksum_file(path: Path) -> dict[str, Any]:
    """Path, size and sha256 of a file; of a folder those of the list of its files. A file over 1 GiB has no sha256."""
    if path.is_dir():
        files = sorted((p.name, p.stat().st_size) for p in path.iterdir() if p.is_file())
        listed = hashlib.sha256(json.dumps(files).encode()).hexdigest()
        return {"path": str(path), "bytes": sum(size for _, size in files), "sha256_of_names_and_sizes": listed}
    size = path.stat().st_size
    about: dict[str, Any] = {"path": str(path), "bytes": size}
    if size <= LARGEST:
        with path.open("rb") as f:
            about["sha256"] = hashlib.file_digest(f, "sha256").hexdigest()
    return about


def record_session(workdir: Path, config: ConfigTree) -> None:
    """Append this session to sessions.jsonl. Warns in one line where it differs from the one before it."""
    path, now = workdir / FILE, describe_session(config)
    before = journal.read_records(path)
    journal.drop_torn_line(path)
    with path.open("a", encoding="utf-8") as f:
        f.write(json.dumps(now) + "\n")
        f.flush()
        os.fsync(f.fileno())
    if before and (said := describe_changes(before[-1], now)):
        logging.getLogger(__name__).warning(
            f"{workdir}: the session before had {said}: from here on numbers may differ in their last digits, and then sampled "
            "tokens too"
        )


def describe_changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """In what two sessions differ, as "jax 0.10.2 (now 0.11.0), flags XLA_FLAGS"; "" where in nothing that counts."""
    said = []
    for part in COMPARED:
        old: Any = before.get(part)
        new: Any = now.get(part)
        if old == new:
            continue
        if part == "versions" and old and new:
            said += [f"{name} {old.get(name)} (now {new.get(name)})" for name in new if old.get(name) != new.get(name)]
        elif part in ("flags", "data") and old is not None and new is not None:
            said.append(f"other {part} ({', '.join(k for k in {**old, **new} if old.get(k) != new.get(k))})")
        else:
            said.append({"commit": f"commit {old}", "dirty": "other uncommitted changes"}.get(part, f"other {part}"))
    return ", ".join(said)
