"""What a checkpoint says that it is: step, stage, run, score, arrays. Kept in each step's folder as manifest/metadata.

    checkpoints/STAGE/STEP/manifest/metadata    this manifest, JSON
    checkpoints/STAGE/STEP/sums/metadata        {item: {path of an array: its checksum}}, JSON
    checkpoints/STAGE/STEP/{params,rest}/       the arrays

A folder that is copied or renamed is known by its manifest. The manifest holds a digest of the checksums and one of itself, so
that a changed character anywhere is seen. Checkpoints of older versions have none: they are known by the checksum of their step.
"""

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from rljax.errors import UserError
from rljax.training.checkpoint_errors import DamagedError, OtherStateError

STEP = re.compile("0|[1-9][0-9]*")  # the name of a checkpoint's folder
SCHEMA = 2  # 1: without a manifest


@dataclasses.dataclass(frozen=True)
class Owner:
    """Whose checkpoints these are. Empty where it is not known: then it is not compared."""

    stage: str = ""
    run: str = ""  # the run's id in config.json


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a checkpoint says that it is."""

    step: int
    stage: str = ""
    run: str = ""
    scheduled: bool = (
        True  # whether every run with this config has a checkpoint here; not at an interrupt or by the clock
    )
    score: float | None = None  # larger is better
    records: tuple[str | None, ...] = ()  # of each run: digest of the stage's lines in metrics.jsonl up to this step
    devices: str = ""  # how many of which kind, and the mesh
    arrays: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)  # {item: {path: "float32[2,3]"}}
    sums: str = ""  # digest of the checksums
    schema: int = SCHEMA


def digest(value: Any) -> str:
    """The sha256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def manifest_to_json(manifest: Manifest) -> dict[str, Any]:
    """A manifest as it is stored, with its own digest."""
    values = json.loads(json.dumps(dataclasses.asdict(manifest)))
    return values | {"sha256": digest(values)}


def list_steps(directory: Path) -> list[int]:
    """The steps of the checkpoints in a stage's folder, ascending. Unfinished ones and those set aside have other names.

    Raises UserError where something else than folders stands in their places.
    """
    if not directory.exists():
        return []
    try:
        found = [path for path in directory.iterdir() if STEP.fullmatch(path.name)] if directory.is_dir() else []
        files = [path for path in (*found, directory) if not path.is_dir()]
    except OSError as e:
        raise UserError(f"cannot read {directory}: {e.strerror}") from None
    if files:
        raise UserError(
            f"{files[0]} is a file, but checkpoints are folders: move it away, then run the same command again"
        )
    return sorted(int(path.name) for path in found)


def read_json_item(folder: Path, item: str) -> Any:
    """A JSON item of a checkpoint. Raises DamagedError where it is missing or is no JSON, OSError where it cannot be read."""
    path = folder / item / "metadata"
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise DamagedError(f"{path} is missing") from None
    except (ValueError, RecursionError):
        raise DamagedError(f"{path} is not JSON: the file is damaged") from None


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a checkpoint; None for one that an older version wrote.

    Raises DamagedError for one that is not as it was written, UserError for one of a newer version.
    """
    if not (folder / "manifest").exists():
        listing = folder / "_CHECKPOINT_METADATA"
        if not listing.exists() or b'"manifest"' in listing.read_bytes():
            raise DamagedError(f"{folder / 'manifest'} is missing")
        return None
    values = read_json_item(folder, "manifest")
    if not isinstance(values, dict) or values.pop("sha256", None) != digest(values):
        raise DamagedError(f"{folder / 'manifest' / 'metadata'} does not match its checksum: the file is damaged")
    if values["schema"] > SCHEMA:
        raise UserError(f"{folder} was written by a newer version of rljax: use that one")
    values["records"] = tuple(values["records"])
    return Manifest(**{f.name: values[f.name] for f in dataclasses.fields(Manifest)})


def check_manifest(folder: Path, owner: Owner) -> Manifest | None:
    """The manifest of a checkpoint, which stands in the folder of its step. Raises OtherStateError where it does not belong."""
    found = read_manifest(folder)
    if found is None:
        return None
    if found.step != int(folder.name):
        raise OtherStateError(f"its manifest says that it is step {found.step}: it was copied or renamed")
    for what, stored, own in (("stage", found.stage, owner.stage), ("run", found.run, owner.run)):
        if stored and own and stored != own:
            raise OtherStateError(
                f"its manifest says that it is of {what} {stored}, not {own}: it was copied from there"
            )
    return found


def read_sums(folder: Path, manifest: Manifest | None) -> dict[str, dict[str, int]]:
    """{item: {path of an array: its checksum}} of a checkpoint. Raises DamagedError where they are not as they were written."""
    sums = read_json_item(folder, "sums")
    whole = isinstance(sums, dict) and all(isinstance(item, dict) for item in sums.values())
    if not whole or manifest is not None and digest(sums) != manifest.sums:
        raise DamagedError(f"{folder / 'sums' / 'metadata'} does not match its checksum: the file is damaged")
    return sums
