"""Which runs can be one program: those that differ in numbers only. They share what is compiled, and can be vmapped.

A number may be an array with a value for each run: the seed, the temperature, the learning rate, and the options of the
algorithm that only enter formulas (a clip range, a coefficient). What decides how a program is made must be the same in all:
sizes and counts, words, yes or no, and an option that may also be None. What RL never reads may differ: the stages before it,
and what it starts from.
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

UNREAD = ("pretrain.", "sft.", "selection.", "stages", "rl.start")  # read before RL, or by another stage


def signature(config: ConfigTree) -> str:
    """A text that is equal exactly for configs whose RL can be computed together."""
    return json.dumps(fixed_settings(config), sort_keys=True)


def stack_numbers(configs: Sequence[ConfigTree]) -> tuple[ConfigTree, dict[str, np.ndarray]]:
    """(the first config, {path: [R]} of each number that is not the same in all).

    Raises UserError naming a setting in which they differ and may not.
    """
    first, *others = map(fixed_settings, configs)
    for other in others:
        if different := [k for k in {**first, **other} if first.get(k) != other.get(k)]:
            k = different[0]
            raise UserError(
                f"runs differ in {k} ({first.get(k)!r} and {other.get(k)!r}) and cannot be computed together: only "
                f"{', '.join(ARRAYS)} and numbers of rl.row may differ"
            )
    found = [number_settings(config) for config in configs]
    columns = {path: [of[path] for of in found] for path in found[0]}
    apart = {path: values for path, values in columns.items() if any(v != values[0] for v in values)}
    return configs[0], {k: np.stack(v) for k, v in apart.items()}


def number_settings(config: ConfigTree) -> dict[str, np.ndarray]:
    """{path: value, a scalar array} of everything that may differ, as ``Run.numbers`` has it."""
    algorithm = find_algorithm(config.rl.algorithm, config.rl.row.to_dict())
    values = {path: config[path] for path in ARRAYS}
    values |= {f"rl.row.{part}.{option}": x for (part, option), x in algorithm.number_options().items()}
    return {path: np.asarray(value, ARRAYS.get(path, np.float32)) for path, value in values.items()}


def fixed_settings(config: ConfigTree) -> dict[str, Any]:
    """{path: value} of everything that must be the same; of the algorithm its parts, whatever it is called."""
    algorithm, free = find_algorithm(config.rl.algorithm, config.rl.row.to_dict()), number_settings(config)
    plain = journal.to_plain(config.to_dict())
    out = {k: v for k, v in leaves(plain) if not k.startswith((*UNREAD, "rl.row."))}
    del out["rl.algorithm"]
    for part in pg.TABLES:
        name = algorithm.name(part)
        kept = {o: algorithm.option(part, o) for o in pg.choices.options(pg.TABLES[part][name])}
        kept = {o: value for o, value in kept.items() if f"rl.row.{part}.{o}" not in free}
        out[f"rl.row.{part}"] = str(pg.choices.Choice(name, kept))
    out |= {f"rl.row.{name}": getattr(algorithm, name) for name in ("sign", "off_policy_mask", "positive_nll")}
    return {k: v for k, v in out.items() if k not in free}
