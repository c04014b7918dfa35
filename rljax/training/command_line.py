"""A command line -> a run: flags, config, workdir, compilation cache, ``--help``, and one-line errors.

python -m experiments.rl --config shop[:name=value,...] --workdir DIR [--config.key=value ...]
rljax rl --config shop[:name=value,...] --workdir DIR [--config.key=value ...]
"""

import contextlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
from absl import flags

from rljax import options
from rljax.distributed import processes
from rljax.errors import UserError, allow_closed_stdout, discard_closed_stdout
from rljax.options import Declared
from rljax.structs import ConfigTree
from rljax.training import config_files, workdir
from rljax.training.checkpoint_errors import SYSTEM_ERRORS, SaveError, describe_error, is_full
from rljax.training.quiet import quiet_third_parties
from rljax.training.signals import STATUS, STOPPED, Interrupted, stop_requests

Value = str | int | float | list[str]

CLOSED_STDOUT = 141  # exit status, as a shell gives it to a program that SIGPIPE ended
HELP = ("-h", "-help", "--help", "--helpfull")
# How a script uses its workdir. "hold": it trains there (one process, one config). "read": it reads the run there, whose
# config is the default. "other": it writes other files there. "none": it has no workdir.
Use = Literal["hold", "read", "other", "none"]


class Flag(NamedTuple):
    """A flag of a script: its default, whose type is also the flag's, its help, and the range of a number.

    A list is a flag that may be repeated. The range is checked where the flag is written: a default may lie outside.
    """

    default: Value
    help: str = ""
    low: float = 0
    high: float | None = None  # None: as large as a setting may be


Flags = Mapping[str, Flag | Value]


def main(run: Callable[..., None], *, use: Use = "hold", also: Mapping[str, Flags] | None = None, **own: Any) -> None:
    """Parse the command line, lock the workdir if the script trains in it, and call ``run(config, workdir, **own)``.

    ``own`` are the script's own flags: a Flag, or its default alone. ``also`` are flags of another form of the script, by
    their title in the help. With ``use="none"`` the call is ``run(config, **own)``.

    Exits with status 1 and one line on stderr for an error of the user, 130 after an interrupt.
    """
    with one_line_errors():
        distributed = {name: Flag(*flag) for name, flag in processes.FLAGS.items()} if use != "none" else {}
        assert not own.keys() & distributed.keys(), "two flags of one name"
        if help_asked(sys.argv):
            sections = {"flags": own, **(also or {}), "several processes": distributed}
            print_help(run, sections, use)
            return
        config, folder, values = parse_command_line(sys.argv, own | distributed, use)
        if use == "none":
            run(config, **values)
            return
        quiet_third_parties()
        processes.initialize(**{name: values.pop(name) for name in distributed})
        use_compilation_cache()
        with workdir.hold_workdir(folder, config) if use == "hold" else contextlib.nullcontext():
            run(workdir.keep_data_in(folder, config) if use in ("hold", "read") else config, folder, **values)
        processes.shutdown()


def main_without_config(run: Callable[..., None], **own: Any) -> None:
    """Parse a command line that has only this script's own flags, and call ``run(**own)``."""
    with one_line_errors():
        if help_asked(sys.argv):
            print_help(run, {"flags": own}, None)
            return
        values = flags.FlagValues()
        define_flags(own, values)
        read_flags(values, sys.argv, own)
        check_ranges(values, own)
        quiet_third_parties()
        use_compilation_cache()
        run(**{name: values[name].value for name in own})


def name_arguments(*names: str) -> None:
    """Let the command line begin with values without a name: `rljax checkpoints runs/a` is `--workdir=runs/a`."""
    for place, name in enumerate(names[: len(sys.argv) - 1], 1):
        if sys.argv[place].startswith("-"):
            break
        sys.argv[place] = f"--{name}={sys.argv[place]}"


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn an error of the user, and a signal to stop, into one line and an exit status. A defect keeps its traceback.

    A run whose output is no longer read, as by ``head``, ends without a line and with status 141.
    """
    try:
        with stop_requests():
            yield
            sys.stdout.flush()
    except UserError as e:
        processes.exit_with_line(f"error: {e}", at_once=isinstance(e, SaveError))
    except Interrupted as e:
        processes.exit_with_line(str(e), STATUS, all_alike=True)
    except KeyboardInterrupt as e:
        processes.exit_with_line(str(e) or STOPPED.replace("{signal}", "a signal"), STATUS)
    except Exception as e:
        if isinstance(e, BrokenPipeError) and discard_closed_stdout():
            processes.exit_with_line("", CLOSED_STDOUT)
        if is_full(e):
            line = (
                f"error: the disk is full ({describe_error(e)}); finished files are complete: free some space, then run the "
                "same command again"
            )
            processes.exit_with_line(line, at_once=True)  # failed background writers would print tracebacks after it
        if isinstance(e, OSError) and e.errno in SYSTEM_ERRORS:
            line = (
                f"error: {describe_error(e)}; finished files are complete: mend that, then run the same command again"
            )
            processes.exit_with_line(line, at_once=True)
        if jax.distributed.is_initialized():
            processes.exit_with_exception(e)
        raise


def use_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder, or in JAX_COMPILATION_CACHE_DIR ("" for no cache)."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(base) / "rljax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


# Parsing


def parse_command_line(argv: Sequence[str], own: Flags, use: Use = "hold") -> tuple[ConfigTree, Path, dict[str, Any]]:
    """(locked config, workdir, the script's own flags). Raises UserError for a command line that is not valid."""
    name, folder = find_flag(argv, "config"), find_flag(argv, "workdir")
    if (not folder and use != "none") or (not name and use != "read"):
        needed = {"read": "--workdir DIR", "none": "--config NAME"}.get(use, "--config NAME --workdir DIR")
        raise UserError(f"usage: {program_name(argv)} {needed} [--config.key=value]; --help lists all flags")
    recorded = workdir.read_config(Path(folder)) if use == "read" and folder else None
    if name:
        config = config_files.load_config(name)
    elif recorded is None:
        raise UserError(f"--workdir: there is no run in {folder} (no config.json): give --config too")
    else:
        config = recorded
    argv = without_flag(argv, "config")
    config_files.check_override_keys(argv, config)
    values = flags.FlagValues()
    holder = config_files.define_config_flag(config, values, argv)
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    define_flags(own, values)
    known = list(config_files.flatten_config(config.to_dict()))
    read_flags(values, argv, [*own, "workdir", "config"], known, "overrides are written --config.key=value")
    check_ranges(values, own)
    if recorded is not None and (line := workdir.describe_differences(recorded, holder.value)):
        print(line, file=sys.stderr)
    return holder.value, Path(folder or ""), {name: values[name].value for name in own}


def define_flags(own: Flags, values: flags.FlagValues) -> None:
    """Define flags by name. Each has the type of its default."""
    kinds = {int: flags.DEFINE_integer, float: flags.DEFINE_float, str: flags.DEFINE_string}
    for name, flag in own.items():
        default = default_of(flag)
        kinds.get(type(default), flags.DEFINE_multi_string)(name, default, "", flag_values=values)


def default_of(flag: Flag | Value) -> Value:
    """The default of a flag."""
    return flag.default if isinstance(flag, Flag) else flag


def read_flags(
    values: flags.FlagValues,
    argv: Sequence[str],
    own: Sequence[str] | Flags,
    keys: Sequence[str] = (),
    hint: str = "flags are written --name=value",
) -> None:
    """Set the flags from the command line. Raises UserError for an unknown flag, a wrong type, or a word that is no flag.

    ``own`` are the names of the flags, ``keys`` those of the config's settings. Both serve the hint in the message.
    """
    try:
        rest = values(argv)
    except flags.UnrecognizedFlagError as e:
        raise UserError(unknown_flag(e.flagname, list(own), keys)) from None
    except (flags.Error, TypeError, ValueError) as e:
        raise UserError(config_files.describe_wrong_value(e)) from None
    if len(rest) > 1:
        raise UserError(f"do not know what to do with {rest[1]!r}: {hint}")
    for name in own:
        if values[name].present and values[name].value in ("", [""]):  # --budget=$BUDGET, and the variable is not set
            raise UserError(f"--{name}=: there is no value; for the default leave the flag out")


def check_ranges(values: flags.FlagValues, own: Flags) -> None:
    """Raise UserError for a number that was written on the command line and lies outside its flag's range."""
    for name, given in own.items():
        flag = given if isinstance(given, Flag) else Flag(given)
        if values[name].present and isinstance(flag.default, (int, float)):
            options.check(
                Declared("", type(flag.default), low=flag.low, high=flag.high), values[name].value, f"--{name}"
            )


@contextlib.contextmanager
def name_flags(settings: Mapping[str, str]) -> Iterator[None]:
    """Let an error of the user name the flags that set some settings: {"eval.attempts": "attempts"} says --attempts."""
    try:
        yield
    except UserError as e:
        text = str(e)
        for setting, flag in settings.items():
            text = re.sub(rf"(?<![\w.-]){re.escape(setting)}(?![\w.])", f"--{flag}", text)
        if text == str(e):
            raise
        raise UserError(text) from None


def unknown_flag(name: str, own: Sequence[str], keys: Sequence[str]) -> str:
    """The message for an unknown flag, with the flag or the setting that was probably meant."""
    meant = config_files.synonym_of(name, keys)
    if meant is None and name in keys:
        meant = f"--config.{name}"
    if meant is None:
        last_parts = [key for key in keys if key.rsplit(".", 1)[-1] == name]
        near = config_files.nearest_key(name, [*own, *last_parts])
        meant = f"--config.{near}" if near in last_parts else f"--{near}"
    return f"--{name}: there is no such flag; did you mean {meant}? --help lists all flags"


def find_flag(argv: Sequence[str], name: str) -> str | None:
    """The value of --name=VALUE or --name VALUE."""
    for i, arg in enumerate(argv):
        for dashes in ("-", "--"):
            if arg.startswith(f"{dashes}{name}="):
                return arg.split("=", 1)[1]
            if arg == dashes + name and i + 1 < len(argv):
                return argv[i + 1]
    return None


def without_flag(argv: Sequence[str], name: str) -> list[str]:
    """The command line without --name=VALUE and --name VALUE."""
    out, skip = [], False
    for arg in argv:
        if skip or arg.startswith((f"-{name}=", f"--{name}=")):
            skip = False
        elif arg in (f"-{name}", f"--{name}"):
            skip = True
        else:
            out.append(arg)
    return out


# Help


def help_asked(argv: Sequence[str]) -> bool:
    """Whether the command line asks for help."""
    return any(arg in HELP for arg in argv[1:])


def program_name(argv: Sequence[str]) -> str:
    """ "rljax rl" for the console command, "python -m experiments.rl" for the script."""
    name = Path(argv[0]).name
    return f"python -m experiments.{name.removesuffix('.py')}" if name.endswith(".py") else name


def print_help(run: Callable[..., None], sections: Mapping[str, Flags], use: Use | None) -> None:
    """Print ``help_text``. A reader such as ``head`` may stop reading it."""
    with allow_closed_stdout():
        print(help_text(run, sections, use))


def help_text(run: Callable[..., None], sections: Mapping[str, Flags], use: Use | None) -> str:
    """The help of a script: its module's docstring, its flags with their defaults, and how settings are changed.

    With ``use`` None the script has no config and no workdir.
    """
    lines = [inspect.getdoc(sys.modules[run.__module__]) or "", "", f"usage: {program_name(sys.argv)} {_usage(use)}"]
    common = {} if use is None else {"config": _CONFIG_HELP[use == "read"]}
    if use in ("hold", "read", "other"):
        common["workdir"] = _WORKDIR_HELP[use]
    for title, own in ({"": common} | dict(sections)).items():
        if own:
            lines += ["", f"{title}:"] if title else [""]
            lines += [_flag_line(name, flag) for name, flag in own.items()]
    if use is not None:
        lines += ["", "Every setting of a config can be changed: --config.rl.steps=50. `rljax config NAME` lists them."]
    return "\n".join(lines)


_CONFIG_HELP = {
    False: "the config: NAME[:arguments], for example shop:short, or FILE.py[:arguments]",
    True: "the config; without it, the one that the run in the workdir was started with",
}
_WORKDIR_HELP = {"hold": "the folder of the run", "read": "the folder of a run", "other": "the folder to write to"}


def _usage(use: Use | None) -> str:
    """The flags in the usage line."""
    common = {
        "hold": "--config NAME --workdir DIR [--config.key=value ...]",
        "other": "--config NAME --workdir DIR [--config.key=value ...]",
        "read": "--workdir DIR [--config.key=value ...]",
        "none": "--config NAME [--config.key=value ...]",
        None: "",
    }
    return f"{common[use]} [--flag=value ...]".strip()


def _flag_line(name: str, flag: Flag | str | Value) -> str:
    """A line of the help, as in "  --attempts=15    how many". For config and workdir, ``flag`` is the text alone."""
    if name in ("config", "workdir"):
        return f"  --{name + '=...':<20} {flag}"
    default, text, *_ = flag if isinstance(flag, Flag) else Flag(flag)
    shown = f"{name}=... (may be repeated)" if isinstance(default, list) else f"{name}={default}"
    return f"  --{shown:<20} {text}".rstrip()
