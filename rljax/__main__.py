"""The command ``rljax``: ``rljax rl --config shop --workdir runs/shop`` runs experiments/rl.py. Every script has a command."""

import ast
import contextlib
import difflib
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import rljax
from rljax.errors import UserError, allow_closed_stdout

USAGE = """rljax: reinforcement learning for reasoning language models in JAX

usage: rljax COMMAND [--flag=value ...]      rljax COMMAND --help      rljax --version

commands:
{commands}

examples:
  rljax reproduce --config shop --workdir runs/shop      the main job: pretraining, SFT, RL, report
  rljax sample --workdir runs/shop --attempts 15         attempts of the trained policy
  rljax config shop --grep length                        settings of a config"""


def find_commands() -> dict[str, str]:
    """{command: what it does}, of every script in experiments/, by the first line of its docstring."""
    folder = Path(next(iter(importlib.import_module("rljax.experiments").__path__)))
    found = {}
    for file in sorted(folder.glob("*.py")):
        if not file.stem.startswith("_"):
            text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
            found[file.stem.replace("_", "-")] = text.partition("\n")[0]
    return found | {"config": "The settings of a config, with their values and what they mean."}


def main(argv: list[str] | None = None) -> None:
    """Run the command that the command line names. Exits with status 1 and one line where there is no such command."""
    command, *rest = (sys.argv if argv is None else argv)[1:] or ["--help"]
    name = command.replace("_", "-")
    if name in ("-h", "--help", "help", "-V", "--version", "config"):
        with allow_closed_stdout():
            show(name, rest)
        return
    commands = find_commands()
    if name not in commands:
        near = difflib.get_close_matches(name, commands, 1, 0.4)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(commands)}"
        sys.exit(f"error: there is no command {command!r}; {hint} (`rljax --help` says what they do)")
    sys.argv = [f"rljax {name}", *rest]
    with end_with_line():
        script = importlib.import_module(f"rljax.experiments.{name.replace('-', '_')}")
    script.main()


@contextlib.contextmanager
def end_with_line() -> Iterator[None]:
    """While the libraries are imported, a signal to stop ends the program with one line. The script handles them later."""

    def end(number: int, frame: object) -> None:
        print(f"stopped by {signal.Signals(number).name} before the start: run the same command again", file=sys.stderr)
        os._exit(130)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as it is under nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def show(name: str, arguments: list[str]) -> None:
    """``rljax --help``, ``--version`` and ``config``, which need no script."""
    if name == "config":
        list_config(arguments)
    elif name in ("-V", "--version"):
        print(f"rljax {rljax.__version__}")
    else:
        print(USAGE.format(commands="\n".join(f"  {name:<12} {text}" for name, text in find_commands().items())))


def list_config(arguments: list[str]) -> None:
    """``rljax config``, with errors of one line like the scripts."""
    from rljax.training import config_listing

    try:
        config_listing.main(arguments)
    except UserError as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main()
