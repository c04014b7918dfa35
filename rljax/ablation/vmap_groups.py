"""Which runs can be one vmapped program: runs that differ only in numbers, so that they share the compiled code.

A number can be an array with a value for each run: the seed, the temperature, the learning rate, and the options of the
algorithm that only appear in formulas (a clip range, a coefficient). All other settings decide what is compiled and must be
equal: sizes, counts, names, booleans, and options that can also be None. Settings that RL does not read may differ: those of
earlier stages, and what the run starts from.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from rljax import policy_gradient as pg
from rljax.errors import UserError
from rljax.structs import ConfigTree
from rljax.training import journal
from rljax.training.run import ARRAYS, find_algorithm
from rljax.training.schema import leaves

NOT_READ_BY_RL = ("pretrain.", "sft.", "selection.", "stages", "rl.start")  # prefixes of settings


def group_signature(config: ConfigTree) -> str:
    """A text that is equal for two configs exactly if their RL runs can be one program."""
    return json.dumps(fixed_settings(config), sort_keys=True)


def stack_numbers(configs: Sequence[ConfigTree]) -> tuple[ConfigTree, dict[str, np.ndarray]]:
    """(the first config, {path: values [R]} of the numbers that differ between the R configs).

    Raises UserError if the configs differ in a setting that must be equal.
    """
    first, *others = map(fixed_settings, configs)
    for other in others:
        if different := [path for path in {**first, **other} if first.get(path) != other.get(path)]:
            path = different[0]
            raise UserError(
                f"runs differ in {path} ({first.get(path)!r} and {other.get(path)!r}) and cannot be one program: only "
                f"{', '.join(ARRAYS)} and numbers of rl.row may differ"
            )
    numbers = [number_settings(config) for config in configs]
    by_path = {path: [run_numbers[path] for run_numbers in numbers] for path in numbers[0]}
    return configs[0], {
        path: np.stack(values) for path, values in by_path.items() if any(value != values[0] for value in values)
    }


def number_settings(config: ConfigTree) -> dict[str, np.ndarray]:
    """{path: value, a scalar array} of the settings that may differ. The same paths as in ``Run.numbers``."""
    algorithm = find_algorithm(config.rl.algorithm, config.rl.row.to_dict())
    values = {path: config[path] for path in ARRAYS}
    values |= {f"rl.row.{part}.{option}": x for (part, option), x in algorithm.number_options().items()}
    return {path: np.asarray(value, ARRAYS.get(path, np.float32)) for path, value in values.items()}


def fixed_settings(config: ConfigTree) -> dict[str, Any]:
    """{path: value} of the settings that must be equal.

    Of the algorithm these are its parts. So two names of the same algorithm give the same settings.
    """
    algorithm, numbers = find_algorithm(config.rl.algorithm, config.rl.row.to_dict()), number_settings(config)
    plain = journal.to_plain(config.to_dict())
    fixed = {path: value for path, value in leaves(plain) if not path.startswith((*NOT_READ_BY_RL, "rl.row."))}
    del fixed["rl.algorithm"]
    for part in pg.TABLES:
        name = algorithm.name(part)
        options = {o: algorithm.option(part, o) for o in pg.choices.options(pg.TABLES[part][name])}
        options = {o: value for o, value in options.items() if f"rl.row.{part}.{o}" not in numbers}
        fixed[f"rl.row.{part}"] = str(pg.choices.Choice(name, options))
    fixed |= {f"rl.row.{name}": getattr(algorithm, name) for name in ("sign", "off_policy_mask", "positive_nll")}
    return {path: value for path, value in fixed.items() if path not in numbers}
