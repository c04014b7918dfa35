"""From a command line to a run: config, workdir, compilation cache, and errors that are one line.

python -m experiments.rl --config configs/shop.py[:name=value,...] --workdir DIR [--config.key=value ...]
"""

import contextlib
import copy
import difflib
import errno
import fcntl
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from absl import flags
from ml_collections import config_flags

from rljax.distributed import processes
from rljax.errors import UserError
from rljax.structs import ConfigTree
from rljax.tasks import prompting
from rljax.training import journal
from rljax.training.loop import Interrupted

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "ml-collections", "numpy")


Flag = str | int | float | list[str]


def main(run: Callable[..., None], *, writes: bool = True, **extra: Flag) -> None:
    """Parse the command line, make the workdir this run's own, and call ``run(config, workdir, **extra)``.

    ``extra`` names this script's own flags, with their defaults; a flag has its default's type.

    Exits with status 1 and one line on stderr for what the user can mend, 130 after an interrupt. ``writes=False`` is
    for scripts that only read the workdir: they neither lock it nor record a config.
    """
    with one_line_errors():
        assert not extra.keys() & processes.FLAGS.keys(), "two flags of one name"
        config, workdir, more = parse(sys.argv, extra | processes.FLAGS)
        processes.initialize(**{name: more.pop(name) for name in processes.FLAGS})
        use_compilation_cache()
        with own(workdir, config) if writes else contextlib.nullcontext():
            run(config, workdir, **more)
        processes.shutdown()


def alone(run: Callable[..., None], **flags_of: Flag) -> None:
    """Parse a command line that has this script's own flags only, and call ``run(**flags)``."""
    with one_line_errors():
        values = flags.FlagValues()
        define(flags_of, values)
        read_flags(values, sys.argv)
        use_compilation_cache()
        run(**{name: values[name].value for name in flags_of})


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what the user can mend into one line and an exit status; leave defects their traceback."""
    try:
        yield
    except UserError as e:
        processes.exit_with_line(f"error: {e}")
    except Interrupted as e:
        processes.exit_with_line(str(e), 130, all_alike=True)
    except KeyboardInterrupt:
        processes.exit_with_line("interrupted: the last checkpoint stands, the same command continues from it", 130)
    except Exception as e:
        full = isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        full = full or "No space left" in str(e) or "File too large" in str(e)  # the storage library's own words
        if full:
            line = "error: the disk is full; what was finished is whole: free some space, then run it again"
            processes.exit_with_line(line, at_once=True)  # failed background writers would print tracebacks after it
        if jax.distributed.is_initialized():
            processes.exit_with_exception(e)
        raise


def parse(argv: Sequence[str], extra: dict[str, Any]) -> tuple[ConfigTree, Path, dict[str, Any]]:
    """The locked config, the workdir and the script's own flags. Raises UserError for anything that does not fit."""
    values = flags.FlagValues()
    parser = config_flags.DEFINE_config_file(
        "config", None, "configs/NAME.py[:arguments]", flag_values=values, sys_argv=list(argv)
    )
    flags.DEFINE_string("workdir", None, "where the run leaves everything", flag_values=values)
    define(extra, values)
    path, workdir = flag_value(argv, "config"), flag_value(argv, "workdir")
    if not path or not workdir:
        own = "".join(f" [--{name}={default}]" for name, default in extra.items())
        usage = f"--config configs/NAME.py[:arguments] --workdir DIR{own} [--config.key=value]"
        raise UserError(f"usage: {Path(argv[0]).name} {usage}")
    try:
        check_names(argv, load_config(path))
    except (TypeError, ValueError) as e:
        raise UserError(str(e).replace("\n", " ")) from None
    read_flags(values, argv, "overrides are written --config.key=value")
    return values[parser.name].value, Path(workdir), {name: values[name].value for name in extra}


def define(flags_of: dict[str, Any], values: flags.FlagValues) -> None:
    """Flags by name; each has the type of its default."""
    kinds = {int: flags.DEFINE_integer, float: flags.DEFINE_float, str: flags.DEFINE_string}
    for name, default in flags_of.items():
        kinds.get(type(default), flags.DEFINE_multi_string)(name, default, "", flag_values=values)


def read_flags(values: flags.FlagValues, argv: Sequence[str], hint: str = "flags are written --name=value") -> None:
    """Fill in the flags. Raises UserError for one that is unknown, has another type, or is no flag."""
    try:
        rest = values(argv)
    except (flags.Error, TypeError, ValueError) as e:
        raise UserError(str(e).replace("\n", " ")) from None
    if len(rest) > 1:
        raise UserError(f"do not know what to do with {rest[1]!r}: {hint}")


def load_config(path: str) -> ConfigTree:
    """The config that ``configs/NAME.py[:arguments]`` describes, without overrides."""
    return config_module(path).get_config(path.partition(":")[2] or None)


def config_module(path: str) -> ModuleType:
    """The module of ``configs/NAME.py[:arguments]``. Raises UserError where there is no such file."""
    file = path.partition(":")[0]
    if not Path(file).is_file():
        raise UserError(f"--config: there is no file {file}")
    spec = importlib.util.spec_from_file_location("config_file", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def changed(config: ConfigTree, changes: Sequence[str]) -> ConfigTree:
    """A locked copy of the config with settings changed, each "key=value" as after ``--config.`` on a command line.

    Raises UserError for a key that is unknown or a value of another type.
    """
    argv = ["changes", *(f"--config.{change}" for change in changes)]
    values = flags.FlagValues()
    check_names(argv, config)
    changing = copy.deepcopy(config)  # placeholders keep their types
    parser = config_flags.DEFINE_config_dict("config", changing, flag_values=values, sys_argv=argv)
    read_flags(values, argv)
    return values[parser.name].value


def flag_value(argv: Sequence[str], name: str) -> str | None:
    """The value of --name=VALUE or --name VALUE."""
    for i, arg in enumerate(argv):
        for dashes in ("-", "--"):
            if arg.startswith(f"{dashes}{name}="):
                return arg.split("=", 1)[1]
            if arg == dashes + name and i + 1 < len(argv):
                return argv[i + 1]
    return None


def differences(before: ConfigTree, after: ConfigTree) -> list[str]:
    """What makes ``before`` into ``after``: each "key=value" as after ``--config.`` on a command line."""
    old, new = flatten(before.to_dict()), flatten(after.to_dict())
    return [f"{key}={value}" for key, value in new.items() if old.get(key) != value]


def check_names(argv: Sequence[str], config: ConfigTree) -> None:
    """Raise UserError for an override of a key that the config does not have, with the nearest one it has."""
    known = list(flatten(config.to_dict()))
    groups = {key.rsplit(".", i)[0] for key in known for i in range(1, key.count(".") + 1)}
    for arg in argv[1:]:
        if arg.startswith("-") and "config." in arg.split("=")[0]:
            key = arg.split("=")[0].lstrip("-").removeprefix("config.")
            if key in groups:
                raise UserError(
                    f"--config.{key} is a group of settings, set one of them, for example --config.{nearest(key + '.', known)}"
                )
            if key not in known:
                raise UserError(
                    f"--config.{key}: there is no such setting; did you mean --config.{nearest(key, known)}?"
                )


def nearest(key: str, known: list[str]) -> str:
    """The known key that most resembles this one, judged whole and by its last part."""
    alike = lambda a, b: difflib.SequenceMatcher(None, a, b).ratio()
    last = lambda k: k.rsplit(".", 1)[-1]
    score = lambda k: alike(key, k) + alike(last(key), last(k)) + (key.split(".")[0] == k.split(".")[0]) / 2
    return max(known, key=score)


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        out |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return out


def use_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder, unless JAX_COMPILATION_CACHE_DIR says where (or "" for none)."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(base) / "rljax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@contextlib.contextmanager
def own(workdir: Path, config: ConfigTree) -> Iterator[None]:
    """Hold the workdir for one run and one config. Raises UserError where another holds it, or another config.

    Of several processes the first holds it, and the others wait until it does: they go no further where it may not.
    """
    with held(workdir, config) if processes.is_primary() else contextlib.nullcontext():
        processes.barrier("workdir")
        if not (workdir / "config.json").exists():
            raise UserError(
                f"--workdir: process {jax.process_index()} does not see the {workdir} of process 0: it must be on a file "
                "system that all processes share"
            )
        yield


@contextlib.contextmanager
def held(workdir: Path, config: ConfigTree) -> Iterator[None]:
    """Hold the workdir for this process, and record the config."""
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
        record_config(workdir, config)
        yield


def record_config(workdir: Path, config: ConfigTree) -> None:
    """Write config.json, or check that the one there says the same."""
    path = workdir / "config.json"
    now = journal.to_plain(config.to_dict())
    if path.exists():
        try:
            before = json.loads(path.read_text())["config"]
        except (ValueError, KeyError):
            raise UserError(f"{path} is damaged: restore it, or use another --workdir") from None
        old, new = flatten(before), flatten(now)
        different = [k for k in {**old, **new} if old.get(k) != new.get(k)]
        begun = (workdir / "metrics.jsonl").exists() or (workdir / "checkpoints").exists()
        if different and begun:
            k = different[0]
            more = f" (and {len(different) - 1} more)" if len(different) > 1 else ""
            raise UserError(
                f"--workdir: {workdir} holds a run with {k}={old.get(k)!r}, this one says {new.get(k)!r}{more}: "
                "use another --workdir, or the config that the run began with"
            )
        if not different:
            return
    about = {"config": now, "versions": versions(), "commit": commit(), "devices": [str(d) for d in jax.devices()]}
    about |= {"template": prompting.template_strings(now["task"]["options"], now["weights"])}
    journal.replace_text(path, json.dumps(about, indent=1) + "\n")


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in PACKAGES}


def commit() -> str | None:
    """The checked-out commit of the source, where it is a git checkout."""
    try:
        here = Path(__file__).parent
        out = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        return out.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
