"""``rljax config NAME``: the settings of a config with their values and what they mean."""

import argparse
import ast
import re

from rljax.errors import UserError
from rljax.training import config_files, schema


def list_settings(name: str, pattern: str = "") -> list[str]:
    """A line for each setting of a config whose key or help matches ``pattern``: key, value, help.

    Raises UserError for an unknown config or a pattern that is no regular expression.
    """
    try:
        matches = re.compile(pattern, re.IGNORECASE).search
    except re.error as e:
        raise UserError(f"--grep={pattern}: no regular expression: {e}") from None
    settings = config_files.flatten_config(config_files.load_config(name).to_dict())
    rows = [(key, repr(value), schema.help_for(key)) for key, value in settings.items()]
    rows = [(key, value, text) for key, value, text in rows if matches(key) or matches(text)]
    wide = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
    return [f"{key:<{wide[0]}} = {value:<{min(wide[1], 24)}}  {text}".rstrip() for key, value, text in rows]


def list_configs() -> list[str]:
    """A line for each config of the project: its name and the first line of its docstring."""
    names = config_files.config_names()
    wide = max(map(len, names))
    folder = config_files.configs_folder()
    texts = [ast.get_docstring(ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))) for name in names]
    return [
        f"{name:<{wide}}  {(text or '').partition(chr(10))[0]}".rstrip()
        for name, text in zip(names, texts, strict=True)
    ]


def main(arguments: list[str]) -> None:
    """Print the settings of one config, or the names of all configs."""
    parser = argparse.ArgumentParser(
        "rljax config",
        description="List the settings of a config, with their values and what they mean.",
        epilog="examples:\n  rljax config\n  rljax config shop\n  rljax config shop:short --grep length",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", default="", help="NAME[:arguments] or FILE.py; without it: list all configs")
    parser.add_argument("--grep", default="", metavar="PATTERN", help="only settings whose key or help matches")
    asked = parser.parse_args(arguments)
    if asked.grep and not asked.name:
        raise UserError(f"--grep={asked.grep}: of which config? For example `rljax config shop --grep {asked.grep}`")
    print("\n".join(list_settings(asked.name, asked.grep) if asked.name else list_configs()))
