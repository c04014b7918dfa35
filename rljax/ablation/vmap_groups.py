"""Which runs are of one program: those that differ in numbers only. They share what is compiled, and can be computed together.

A number may be an array with a value for each run: the seed, the temperature, the learning rate, and the options of the
algorithm's choices that only enter formulas (a clip range, a coefficient). What decides how a program is made must be the
same in all: sizes and counts, words, yes or no, and an option that may also be None. What RL never looks at may differ: the
stages before it, and what it starts from.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from rljax import policy_gradient as pg
from rljax.errors import UserError
from rljax.structs import ConfigTree
from rljax.training import journal, launch, settings

ELSEWHERE = ("pretrain.", "sft.", "selection.", "stages", "rl.start")  # read before RL, or by another stage
COUNTS = {"k", "cap", "rounds", "ddof"}  # options that are whole numbers
# gamma: whether it is 1 says whether advantages differ by token, which not every surrogate allows
WITHIN = {("rf_pp", "gamma")}


def signature(config: ConfigTree) -> str:
    """A text that is equal exactly for configs whose RL can be computed together. Raises UserError as ``settings.algorithm``."""
    return json.dumps(structure(config), sort_keys=True)


def stacked(configs: Sequence[ConfigTree]) -> tuple[ConfigTree, dict[str, np.ndarray]]:
    """(the first config, {path: [R]} of each number that is not the same in all): what ``Settings.numbers`` has of each run.

    Raises UserError naming a setting in which they differ and may not.
    """
    first, *others = map(structure, configs)
    for other in others:
        if different := [k for k in {**first, **other} if first.get(k) != other.get(k)]:
            k = different[0]
            raise UserError(
                f"runs differ in {k} ({first.get(k)!r} and {other.get(k)!r}) and cannot be computed together: only "
                f"{', '.join(settings.ARRAYS)} and numbers of rl.row may differ"
            )
    found = [numbers(config) for config in configs]
    columns = {path: [of[path] for of in found] for path in found[0]}
    apart = {path: values for path, values in columns.items() if any(v != values[0] for v in values)}
    return configs[0], {k: np.stack(v) for k, v in apart.items()}


def numbers(config: ConfigTree) -> dict[str, np.ndarray]:
    """{path: value, a scalar array} of everything that may differ."""
    row = settings.algorithm(config.rl)
    options = {(f, o): row.option(f, o) for f in pg.TABLES for o in pg.choices.options(pg.TABLES[f][row.name(f)])}
    of_row = {f"rl.row.{f}.{o}": value for (f, o), value in options.items() if may_vary(row, f, o)}
    values = {path: config[path] for path in settings.ARRAYS} | of_row
    return {path: np.asarray(value, settings.ARRAYS.get(path, np.float32)) for path, value in values.items()}


def may_vary(row: pg.Algorithm, field: str, option: str) -> bool:
    """Whether an option of the row's choice only enters formulas."""
    name, value = row.name(field), row.option(field, option)
    default = pg.choices.options(pg.TABLES[field][name])[option]
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and default is not None
    return number and option not in COUNTS and (name, option) not in WITHIN


def structure(config: ConfigTree) -> dict[str, Any]:
    """{path: value} of everything that must be the same; of the algorithm what it is made of, whatever it is called."""
    row, free = settings.algorithm(config.rl), numbers(config)
    out = {
        k: v
        for k, v in launch.flatten(journal.to_plain(config.to_dict())).items()
        if not k.startswith((*ELSEWHERE, "rl.row."))
    }
    del out["rl.algorithm"]
    for field in pg.TABLES:
        name = row.name(field)
        kept = {o: row.option(field, o) for o in pg.choices.options(pg.TABLES[field][name])}
        kept = {o: value for o, value in kept.items() if f"rl.row.{field}.{o}" not in free}
        out[f"rl.row.{field}"] = str(pg.choices.Choice(name, kept))
    out |= {f"rl.row.{name}": getattr(row, name) for name in ("sign", "off_policy_mask", "positive_nll")}
    return {k: v for k, v in out.items() if k not in free}
