"""Rows of ids as one array; nothing is ever cut silently."""

import numpy as np

from rljax.errors import UserError


def pad_batch(rows: list[list[int]], width: int, pad: int, left: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ids as one array: (tokens [len(rows), width] int32, mask bool, True on real tokens).

    Raises UserError where a row is longer than ``width``: nothing is ever cut silently.
    """
    tokens = np.full((len(rows), width), pad, np.int32)
    mask = np.zeros((len(rows), width), bool)
    for n, row in enumerate(rows):
        if len(row) > width:
            raise UserError(f"text: row {n} has {len(row)} tokens, more than the {width} there is room for")
        where = slice(width - len(row), width) if left else slice(0, len(row))
        tokens[n, where], mask[n, where] = row, True
    return tokens, mask
