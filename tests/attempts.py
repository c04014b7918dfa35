"""Attempts at problems of a world on the device: what its two verifiers say of them, and edits that make them wrong."""

import numpy as np

from rljax.text import pad_batch


def both_verdicts(task, score, facts, records, rows, group_size, slots):
    """(device, text) scores of rows of ids, a record each; a row stops at its first stop token, or is cut off."""
    eos = task.tokenizer.eos
    rows = [row[: row.index(eos) + 1] if eos in row else row for row in rows]
    response, mask = pad_batch(rows, slots, task.tokenizer.pad)
    finished = np.asarray([eos in row for row in rows])
    by_group = lambda x: x.reshape(-1, group_size, *x.shape[1:])
    device = np.asarray(score(by_group(response), by_group(mask), by_group(finished), facts)).reshape(-1)
    told = [task.tokenizer.decode(row) for row in rows]
    text = [task.verify(t, r) for t, r in zip(told, records, strict=True)]
    assert set(device.tolist()) <= {0.0, 1.0}
    return device, np.asarray(text, np.float32)


def edited(ids, size, rng):
    """Ids with up to two edits near the end, where they matter: another, one less, one twice, or two swapped."""
    ids = [*ids]
    for _ in range(rng.integers(3)):
        n, kind = rng.integers(max(0, len(ids) - 5), len(ids)), rng.integers(4)
        if kind == 0:
            ids[n] = int(rng.integers(size))
        elif kind == 1:
            del ids[n]
        elif kind == 2:
            ids.insert(n, ids[n])
        else:
            ids[n - 1], ids[n] = ids[n], ids[n - 1]
    return ids
