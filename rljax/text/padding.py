"""Rows of ids as one padded array."""

import numpy as np

from rljax.errors import UserError


def pad_batch(rows: list[list[int]], width: int, pad: int, left: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ids as one array: (tokens [len(rows), width] int32, mask [len(rows), width] bool, True on real tokens).

    ``left``: padding on the left. Raises UserError where a row is longer than ``width``: nothing is cut off silently.
    """
    tokens = np.full((len(rows), width), pad, np.int32)
    mask = np.zeros((len(rows), width), bool)
    for n, row in enumerate(rows):
        if len(row) > width:
            raise UserError(f"text: row {n} has {len(row)} tokens, but there is room for {width} only")
        where = slice(width - len(row), width) if left else slice(0, len(row))
        tokens[n, where], mask[n, where] = row, True
    return tokens, mask
