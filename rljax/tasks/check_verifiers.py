"""Checks of a task's verifiers: on demonstrations, corrupted ones, random tokens, and responses that were cut off."""

from typing import Any

import jax
import numpy as np

from rljax.tasks.check_report import CheckReport, Drawn, describe_exception, share
from rljax.tasks.task import Record, Task, response_text
from rljax.text import StopStrings, pad_batch

EXTRA_SLOTS = 4  # response slots beyond the longest demonstration, for edits that make one longer
SHOWN = 80  # characters of a response in a message
KINDS = ("demonstration", "corrupted demonstration", "random tokens", "cut off demonstration")  # one of each a problem


def judge_texts(report: CheckReport, task: Task, pairs: list[tuple[str, Record]], what: str) -> list[bool]:
    """What the text verifier says of each (response, record). One that raises says False, and is a fault."""
    if task.verify_batch is not None:
        try:
            return [scores["correct"] > 0 for scores in task.verify_batch(pairs)]
        except Exception as e:
            report.add_fault(f"verify_batch raises on {what}: {describe_exception(e)}")
    out, raised = [], []
    for text, record in pairs:
        try:
            out.append(bool(task.verify(text, record)))
        except Exception as e:
            out.append(False)
            raised.append(f"verify raises on {what} such as {text[:SHOWN]!r}: {describe_exception(e)}")
    if raised:
        report.add_fault(raised[0], len(raised), len(pairs))
    return out


def check_verdicts(report: CheckReport, drawn: Drawn) -> None:
    """Both verifiers say the same of every kind of response, and neither accepts one that was cut off."""
    task, rng = drawn.task, np.random.default_rng((drawn.seed, len(drawn.records)))
    slots, stops = task.demonstration_slots + EXTRA_SLOTS, task.stops
    made = [pair for ids in drawn.ids for pair in make_responses(ids, task, slots, rng)]
    rows, finished = [row for row, _ in made], np.asarray([ended for _, ended in made])
    texts = [response_text(task.tokenizer, np.asarray(row, int), ended, stops) for row, ended in made]
    pairs = list(zip(texts, [r for r in drawn.records for _ in KINDS], strict=True))
    verdicts = np.asarray(judge_texts(report, task, pairs, "responses"))
    for n, kind in enumerate(KINDS):
        report.add_row(f"right: {kind}", share(int(verdicts[n :: len(KINDS)].sum()), len(drawn.records)))
    cut = verdicts & ~finished
    report.add_fault(
        "verify accepts responses that were cut off: their text does not end in <eos>", int(cut.sum()), len(rows)
    )
    if task.verify_on_device is None:
        report.add_row("device verifier", "none")
        return
    response, mask = pad_batch(rows, slots, task.tokenizer.pad)
    by_group = lambda x: x.reshape(-1, len(KINDS), *x.shape[1:])
    verify: Any = jax.jit(task.verify_on_device)
    device = np.asarray(verify(by_group(response), by_group(mask), by_group(finished), drawn.problems.facts))
    if device.shape != (len(drawn.records), len(KINDS)):
        report.add_fault(
            f"verify_on_device returns shape {device.shape} for [B, G] = {(len(drawn.records), len(KINDS))}"
        )
        return
    device = device.reshape(-1)
    differ = np.flatnonzero(device != verdicts.astype(np.float32))
    report.add_row("device verdict = text verdict", share(len(rows) - len(differ), len(rows)))
    if len(differ):
        n = int(differ[0])
        said = f"{KINDS[n % len(KINDS)]} {texts[n][-SHOWN:]!r} of training problem {n // len(KINDS)}"
        report.add_fault(
            f"the verifiers disagree: the device gives {device[n]:g}, the text {float(verdicts[n]):g} to the {said}",
            len(differ), len(rows),
        )  # fmt: skip


def make_responses(ids: list[int], task: Task, slots: int, rng: np.random.Generator) -> list[tuple[list[int], bool]]:
    """(response, is it finished?), one of each of ``KINDS``, made from a demonstration; each ends where the sampler ends it."""
    size = task.tokenizer.size
    random_row = rng.integers(size, size=int(rng.integers(1, slots + 1))).tolist()
    made = (ids, corrupt_ids(ids, size, rng), random_row, ids[:-1])
    return [cut_at_stop(row[:slots], task.tokenizer.stop_ids, task.stops) for row in made]


def corrupt_ids(ids: list[int], size: int, rng: np.random.Generator) -> list[int]:
    """Ids with up to two edits near the end, where answers stand: one replaced, removed, doubled, or two swapped."""
    ids = [*ids]
    for _ in range(rng.integers(3)):
        if not ids:
            break
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


def cut_at_stop(ids: list[int], stop_ids: tuple[int, ...], stops: StopStrings | None) -> tuple[list[int], bool]:
    """The ids up to the first one that is a stop token or completes a stop string, which is kept, and whether there is one."""
    token = next((n + 1 for n, i in enumerate(ids) if i in stop_ids), None)
    ends = [end for end in (token, stops.find_end(ids) if stops else None) if end is not None]
    return ids[: min(ends, default=len(ids))], bool(ends)
