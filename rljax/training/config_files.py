"""Config files: find one by name or path, load it, change settings, compare two configs.

A config is a Python file with ``get_config(arg) -> ConfigDict``, or ``get_config()`` where it takes no argument.
``shop:short`` is the file configs/shop.py, called with ``arg="short"``. Files of the project load as modules ``rljax.configs.*``; a file of your own may import them
(``from rljax.configs import common``) and its neighbours (``from . import mine``).
"""

import copy
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from rljax.errors import UserError
from rljax.structs import ConfigTree
from rljax.training.key_synonyms import FLAG_SYNONYMS, SYNONYMS

# Find and load


def configs_folder() -> Path:
    """The folder of the project's own configs."""
    return Path(next(iter(importlib.import_module("rljax.configs").__path__))).resolve()


def config_names() -> list[str]:
    """Names of the project's configs: "shop", "ablations/selection", ..."""
    folder = configs_folder()
    files = (p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.py"))
    return sorted(name for name in files if name.split("/")[-1] not in ("__init__", "common", "small"))


def find_config(name: str) -> Path:
    """The file of ``NAME[:arguments]`` or ``FILE.py[:arguments]``. Raises UserError where there is none."""
    wanted = name.partition(":")[0]
    if Path(wanted).is_file():
        return Path(wanted).resolve()
    inside = wanted.removeprefix("configs/").removesuffix(".py")
    file = configs_folder() / f"{inside}.py"
    if inside and file.is_file():
        return file
    near = difflib.get_close_matches(inside, config_names(), 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else f"the project's configs are {', '.join(config_names())}"
    if wanted.endswith(".py"):
        raise UserError(f"--config: there is no file {wanted}; {hint}")
    raise UserError(f"--config: there is no config {wanted!r} and no such file; {hint}")


def load_config_module(name: str) -> ModuleType:
    """The module of a config file. Raises UserError where there is no such file."""
    file = find_config(name)
    if file.is_relative_to(configs_folder()):
        inside = file.relative_to(configs_folder()).with_suffix("").parts
        return importlib.import_module(".".join(("rljax.configs", *inside)))
    top = file.parent
    while (top.parent / "__init__.py").is_file():  # relative imports may climb to the top of its package
        top = top.parent
    inside = file.relative_to(top).with_suffix("").parts
    return _load_fresh(file, ".".join((_add_package(top), *inside)))


def _add_package(folder: Path) -> str:
    """Make a folder outside sys.path a package, so that its files can import each other; returns the package's name."""
    name = f"rljax_config_{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_loader(name, loader=None, is_package=True)
    assert spec
    spec.submodule_search_locations = [str(folder)]
    sys.modules.setdefault(name, importlib.util.module_from_spec(spec))
    return name


def _load_fresh(file: Path, name: str) -> ModuleType:
    """Execute a file as module ``name``, also where it was loaded before: it may have been edited."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    if name.count(".") > 1:
        importlib.import_module(name.rpartition(".")[0])
    try:
        spec.loader.exec_module(module)
    except ImportError as e:
        ours = "configs" in str(e) or "rljax_config_" in str(e)
        hint = "; the project's configs are imported as `from rljax.configs import common`" if ours else ""
        raise UserError(f"--config: {file} cannot be loaded: {e}{hint}") from None
    except Exception as e:
        raise UserError(f"--config: {file} cannot be loaded: {describe_error(e, file)}") from None
    return module


def describe_error(error: Exception, file: Path) -> str:
    """One line: the error's type and text, and the line of ``file`` where it was raised."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    where = f"line {lines[-1]}: " if lines else ""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{where}{type(error).__name__}: {text}".replace("\n", " ")


def load_config(name: str) -> ConfigTree:
    """The config of ``NAME[:arguments]``, without overrides. Raises UserError for a file or an argument that is unknown."""
    module = load_config_module(name)
    if not hasattr(module, "get_config"):
        raise UserError(f"--config: {find_config(name)} has no function get_config(arg)")
    argument = name.partition(":")[2]
    takes_one = bool(inspect.signature(module.get_config).parameters)
    if argument and not takes_one:
        raise UserError(f"--config: {name}: its get_config() takes no argument, so nothing may follow the colon")
    try:
        config = module.get_config(argument or None) if takes_one else module.get_config()
    except ValueError as e:  # what common.parse_arg says of an argument
        raise UserError(f"--config: {name}: {e}".replace("\n", " ")) from None
    except Exception as e:
        raise UserError(f"--config: {name}: {describe_error(e, find_config(name))}") from None
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config: {name}: get_config must return a ConfigDict, not {type(config).__name__}")
    return config


def config_from_record(record: Mapping[str, Any]) -> ConfigTree:
    """The config that config.json holds. Settings that it lacks have their defaults, those without a value their type."""
    config = importlib.import_module("rljax.configs.common").base()
    _fill(config, record)
    return config


def _fill(config: Any, record: Mapping[str, Any]) -> None:
    for key, value in record.items():
        if isinstance(value, Mapping):
            if not isinstance(config.get(key), ConfigDict):
                config[key] = ConfigDict()
            _fill(config[key], value)
        elif value is not None or config.get(key) is not None or key not in config:
            config[key] = _as_tuple(value)


def _as_tuple(value: Any) -> Any:
    """JSON has lists only; a config has tuples only."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


# Override and compare


def override_config(config: ConfigTree, changes: Sequence[str]) -> ConfigTree:
    """A locked copy of the config with settings changed, each "key=value" as after ``--config.`` on a command line.

    Raises UserError for a key that is unknown or a value of another type.
    """
    argv = ["override_config", *(f"--config.{change}" for change in changes)]
    values = flags.FlagValues()
    check_override_keys(argv, config)
    holder = define_config_flag(config, values, argv)
    try:
        rest = values(argv)
    except (flags.Error, TypeError, ValueError) as e:
        raise UserError(describe_wrong_value(e)) from None
    assert len(rest) == 1
    return holder.value


def describe_wrong_value(error: Exception) -> str:
    """One line for a value of the wrong type, without Python's own words for it."""
    text = re.sub(r"invalid literal for int\(\) with base 10: .*", "must be a whole number", str(error))
    return re.sub(r"could not convert string to float: .*", "must be a number", text).replace("\n", " ")


def define_config_flag(config: ConfigTree, values: flags.FlagValues, argv: Sequence[str]) -> flags.FlagHolder:
    """Define ``--config.key=value`` for the overrides in ``argv``; the flag's value is a changed, locked copy."""
    changing = copy.deepcopy(config)  # placeholders keep their types
    return config_flags.DEFINE_config_dict("config", changing, flag_values=values, sys_argv=list(argv))


def list_overrides(before: ConfigTree, after: ConfigTree) -> list[str]:
    """What makes ``before`` into ``after``: each "key=value" as after ``--config.`` on a command line."""
    old, new = flatten_config(before.to_dict()), flatten_config(after.to_dict())
    return [f"{key}={value}" for key, value in new.items() if old.get(key) != value]


def flatten_config(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        out |= flatten_config(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return out


# Keys that are not there


def check_override_keys(argv: Sequence[str], config: ConfigTree) -> None:
    """Raise UserError for an override of a key that the config does not have, with the nearest one it has."""
    known = list(flatten_config(config.to_dict()))
    groups = {key.rsplit(".", i)[0] for key in known for i in range(1, key.count(".") + 1)}
    for arg in argv[1:]:
        if not arg.startswith("-") or not arg.lstrip("-").startswith("config."):
            continue
        key = arg.split("=")[0].lstrip("-").removeprefix("config.")
        if key in known:
            continue
        synonym = synonym_of(key, known)
        if key in groups and synonym is None:
            raise UserError(
                f"--config.{key} is a group of settings, set one of them, for example "
                f"--config.{nearest_key(key + '.', known)}"
            )
        hint = synonym or f"--config.{nearest_key(key, known)}"
        raise UserError(f"--config.{key}: there is no such setting; did you mean {hint}?")


def synonym_of(key: str, known: Sequence[str]) -> str | None:
    """The flag that means what other libraries call ``key``, in the stage that the key names; None: it is no such name."""
    word = key.rsplit(".", 1)[-1].lower().replace("-", "_")
    if word in FLAG_SYNONYMS:
        return FLAG_SYNONYMS[word]
    ours = SYNONYMS.get(word)
    if ours is None:
        return None
    elsewhere = f"{key.split('.')[0].lower()}.{ours.partition('.')[2]}"
    found = next((k for k in (elsewhere, ours) if k in known), None)
    return f"--config.{found}" if found else None


def nearest_key(key: str, known: Sequence[str]) -> str:
    """The known key that most resembles this one, judged whole and by its last part."""
    similarity = lambda a, b: difflib.SequenceMatcher(None, a, b).ratio()
    last = lambda k: k.rsplit(".", 1)[-1]
    score = lambda k: similarity(key, k) + similarity(last(key), last(k)) + (key.split(".")[0] == k.split(".")[0]) / 2
    return max(known, key=score)
