"""Which code runs: versions of the packages, the commit that is checked out, and what was changed since."""

import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import rljax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "ml-collections", "numpy")


def package_versions() -> dict[str, str]:
    """Versions of Python, of rljax and of the libraries that numbers depend on."""
    ours = {"python": platform.python_version(), "rljax": rljax.__version__}
    return ours | {p: importlib.metadata.version(p) for p in PACKAGES}


def source_commit() -> str | None:
    """The commit that is checked out, where rljax runs from its own git checkout; None elsewhere."""
    folder = _checkout()
    return _git(folder, "rev-parse", "HEAD").decode().strip() if folder else None


def source_changes() -> dict[str, Any] | None:
    """What the checkout holds beside the commit: the sha256 of ``git diff HEAD``, and whether files are untracked.

    None where nothing was changed, or where there is no commit.
    """
    folder = _checkout()
    if not folder:
        return None
    diff = _git(folder, "diff", "HEAD")
    untracked = bool(_git(folder, "ls-files", "--others", "--exclude-standard").strip())
    if not diff and not untracked:
        return None
    return {"diff_sha256": hashlib.sha256(diff).hexdigest() if diff else None, "untracked_files": untracked}


def _checkout() -> Path | None:
    """The top folder of rljax's own git checkout. An installed package in somebody else's repository has none."""
    package = Path(rljax.__file__).resolve().parent
    try:
        top = Path(_git(package, "rev-parse", "--show-toplevel").decode().strip()).resolve()
        _git(package, "rev-parse", "--verify", "--quiet", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return None
    return top if top / "rljax" == package else None


def _git(folder: Path, *command: str) -> bytes:
    return subprocess.run(["git", *command], cwd=folder, capture_output=True, check=True).stdout
