"""Attempts at problems of a world on the device, and what its two verifiers say of them."""

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
