"""Does a world hold what it promises? Checks of any task, to run before a model learns from it.

    report = check_task(make_task("coins"))
    print(format_report(report))          # a table, then one line for each fault
    report.faults                         # () where all is well

The checks: problems are a function of (seed, index) and fit their slots; facts and records agree; demonstrations fit their
slots, and how many are right, by strategy; the text verifier and the device verifier agree on demonstrations, on corrupted
ones and on random tokens; a response that was cut off is wrong; no verifier raises; no test problem is a training problem.
"""

import json
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax.errors import UserError
from rljax.structs import Problems
from rljax.tasks import batches
from rljax.tasks.check_report import CheckReport, Drawn, describe_exception, format_report, share
from rljax.tasks.check_verifiers import check_verdicts, judge_texts
from rljax.tasks.task import SPLITS, Record, Task, response_text

__all__ = ["CheckReport", "check_first_problems", "check_task", "format_report"]

CHUNK = 500  # problems drawn at once
ENOUGH = 64  # with so many problems, one demonstration at least should be right


def check_task(task: Task, *, seed: int = 0, num_problems: int = 256, train_draws: int = 10_000) -> CheckReport:
    """Check a task on its first ``num_problems`` training problems, and its splits over ``train_draws`` of them."""
    report = CheckReport(task.name)
    drawn = run_guarded(report, "drawing problems", draw_problems, report, task, seed, num_problems)
    if drawn is None:
        return report
    for check in (check_problems, check_demonstrations, check_verdicts, check_pages):
        run_guarded(report, check.__name__.replace("_", " "), check, report, drawn)
    run_guarded(report, "check splits", check_splits, report, drawn, train_draws)
    return report


def check_first_problems(task: Task, count: int = 4) -> None:
    """The quick checks, on the first few problems. Raises UserError with the first fault."""
    report = CheckReport(task.name)
    drawn = run_guarded(report, "drawing problems", draw_problems, report, task, 0, count)
    if drawn is not None:
        run_guarded(report, "check problems", check_problems, report, drawn)
        run_guarded(report, "check demonstrations", check_demonstrations, report, drawn)
    if report.faults:
        raise UserError(f"task {task.name}: {report.faults[0]}; `rljax check-task` shows all faults")


def run_guarded(report: CheckReport, what: str, check: Callable[..., Any], *args: Any) -> Any:
    """The result of a check. An exception in a function of the task is a fault of the task: it is noted, the result None."""
    try:
        return check(*args)
    except Exception as e:
        report.add_fault(f"{what}: {describe_exception(e)}")
        return None


# Problems and demonstrations


def draw_problems(report: CheckReport, task: Task, seed: int, count: int) -> Drawn | None:
    """The first ``count`` training problems and a demonstration of each; None where records do not fit problems."""
    problem_fn = batches.problem_fn(task)
    count = min(count, task.num_questions("train") or count)
    problems, records = draw_records(task, problem_fn, seed, np.arange(count), "train")
    if len(records) != count:
        report.add_fault(f"records returned {len(records)} records for {count} problems: it must return one for each")
        return None
    ids_of, texts, ids = batches.response_ids_fn(task), [], []
    for n, record in enumerate(records):
        texts.append(task.demonstration(record, batches.make_rng(seed, "demonstration", n)))
        ids.append(list(ids_of(record, texts[-1])))
    return Drawn(task, problem_fn, seed, problems, records, texts, ids)


def draw_records(
    task: Task, problem_fn: Any, seed: int, index: np.ndarray, split: str
) -> tuple[Problems, list[Record]]:
    """Problems number ``index`` [B] of a split on the host, and their records."""
    problems = jax.device_get(problem_fn(seed, jnp.asarray(index, jnp.int32), split))
    return problems, task.records(problems.facts)


def check_problems(report: CheckReport, drawn: Drawn) -> None:
    """Shapes, padding and ids of prompts; facts; and that a problem depends on (seed, index) alone."""
    task, count = drawn.task, len(drawn.records)
    prompt, mask = np.asarray(drawn.problems.prompt), np.asarray(drawn.problems.prompt_mask)
    report.add_row("tokens in a prompt", f"up to {mask.sum(1).max()} of {task.prompt_slots} slots")
    if prompt.shape != (count, task.prompt_slots) or mask.shape != prompt.shape:
        report.add_fault(
            f"prompt has shape {prompt.shape} and prompt_mask {mask.shape}, both must be [problems, prompt_slots] = "
            f"{(count, task.prompt_slots)}"
        )
        return
    report.add_fault("prompts must be padded on the left", int((mask[:, :-1] & ~mask[:, 1:]).any(1).sum()), count)
    report.add_fault("prompts have no token", int((~mask.any(1)).sum()), count)
    outside = (prompt < 0) | (prompt >= task.tokenizer.size)
    report.add_fault(f"prompts have ids outside 0 .. {task.tokenizer.size - 1}", int(outside.any(1).sum()), count)
    check_facts(report, drawn.problems.facts, count, task.on_device)
    backwards, records = draw_records(task, drawn.problem_fn, drawn.seed, np.arange(count)[::-1], "train")
    if (np.asarray(backwards.prompt)[::-1] != prompt).any() or content_keys(records[::-1]) != content_keys(
        drawn.records
    ):
        report.add_fault("problems are not a function of (seed, index): asked in another order, they are others")


def check_facts(report: CheckReport, facts: Any, count: int, on_device: bool) -> None:
    """Facts are arrays with a leading axis for a device verifier, else records or arrays; one for each problem."""
    leaves = [facts] if isinstance(facts, (list, tuple)) and not on_device else jax.tree.leaves(facts)
    for leaf in leaves:
        if not isinstance(leaf, (list, tuple, np.ndarray, jax.Array)):
            report.add_fault(f"facts hold a {type(leaf).__name__}: a device verifier needs arrays with a leading axis")
        elif len(leaf) != count:
            report.add_fault(f"facts hold {len(leaf)} entries for {count} problems")


def check_demonstrations(report: CheckReport, drawn: Drawn) -> None:
    """Lengths of demonstrations; how many are right, by strategy; what ``describe`` and ``read_prompt`` say of them."""
    task, count = drawn.task, len(drawn.records)
    lengths = [len(ids) for ids in drawn.ids]
    report.add_row("tokens in a demonstration", f"up to {max(lengths)} of {task.demonstration_slots} slots")
    longer = sum(length > task.demonstration_slots for length in lengths)
    report.add_fault(
        f"demonstrations have more tokens than demonstration_slots={task.demonstration_slots}", longer, count
    )
    endless = sum(not ids or ids[-1] not in task.tokenizer.stop_ids for ids in drawn.ids)
    report.add_fault(f"demonstrations do not end in a stop token, one of {task.tokenizer.stop_ids}", endless, count)
    if task.stops:  # before the stop token that ends a demonstration
        cut = sum((task.stops.find_end(ids) or len(ids)) < len(ids) - 1 for ids in drawn.ids)
        said = (
            f"demonstrations hold one of stop_strings={task.stop_strings} inside: an attempt like them would end there"
        )
        report.add_fault(said, cut, count)
    texts = [response_text(task.tokenizer, np.asarray(ids), True) for ids in drawn.ids]
    right = judge_texts(report, task, list(zip(texts, drawn.records, strict=True)), "demonstrations")
    asked, right_of, unknown, placed = Counter(), Counter(), Counter(), 0
    for text, record, correct in zip(texts, drawn.records, right, strict=True):
        strategy = task.describe(text, record).strategy
        asked[strategy] += 1
        right_of[strategy] += correct
        unknown[strategy] += strategy not in task.strategies
        placed += 0 <= task.answer_start(text, record) <= len(text)
    report.add_row("demonstrations that are right", share(sum(right), count))
    for strategy in dict.fromkeys((*task.strategies, *asked)):
        report.add_row(f"  {strategy}", share(right_of[strategy], asked[strategy]))
    for strategy, times in unknown.items():
        said = f"describe returns the strategy {strategy!r}, which is not one of strategies={task.strategies}"
        report.add_fault(said, times, count)
    report.add_fault("answer_start is not a place in the response", count - placed, count)
    if count >= ENOUGH and not any(right):
        report.add_fault("no demonstration is right: look at verify and demonstration")
    if task.read_prompt is not None:
        check_read_prompt(report, drawn, texts, right)


def check_read_prompt(report: CheckReport, drawn: Drawn, texts: list[str], right: list[bool]) -> None:
    """The record that is read from a prompt must accept what the problem's own record accepts."""
    task, unread, stricter = drawn.task, 0, 0
    prompts, masks = np.asarray(drawn.problems.prompt), np.asarray(drawn.problems.prompt_mask)
    for prompt, mask, text, correct in zip(prompts, masks, texts, right, strict=True):
        assert task.read_prompt is not None
        record = task.read_prompt(task.tokenizer.decode(prompt[mask]))
        unread += record is None
        stricter += correct and record is not None and not task.verify(text, record)
    report.add_fault("read_prompt does not read the task's own prompts", unread, len(right))
    report.add_fault("read_prompt returns records that refuse a right demonstration", stricter, len(right))


def check_pages(report: CheckReport, drawn: Drawn, count: int = 8, length: int = 96) -> None:
    """Pages of raw text have no more tokens than asked for, all of them in the vocabulary."""
    task = drawn.task
    pages = [task.page(batches.make_rng(drawn.seed, "page", n), length) for n in range(count)]
    long = sum(not 0 < len(page) <= length for page in pages)
    report.add_fault(f"pages of {length} tokens have more, or none", long, count)
    outside = sum(not all(0 <= i < task.tokenizer.size for i in page) for page in pages)
    report.add_fault(f"pages have ids outside 0 .. {task.tokenizer.size - 1}", outside, count)


# Splits


def check_splits(report: CheckReport, drawn: Drawn, train_draws: int) -> None:
    """No problem of the validation and test splits is among the first ``train_draws`` training problems, or in both."""
    task, contents = drawn.task, {}
    for split in SPLITS:
        wanted = train_draws if split == "train" else min(CHUNK, train_draws)
        contents[split] = draw_contents(drawn, split, min(wanted, task.num_questions(split) or wanted))
    for split, keys in contents.items():
        report.add_row(f"different {split} problems", f"{len(set(keys)):,} of {len(keys):,}")
    for split, other in (("validation", "train"), ("test", "train"), ("test", "validation")):
        shared = sum(key in set(contents[other]) for key in set(contents[split]))
        report.add_row(f"{split} problems also in {other}", f"{shared:,} of {len(set(contents[split])):,}")
        said = f"{split} problems are also among the first {len(contents[other]):,} {other} problems"
        report.add_fault(said, shared, len(set(contents[split])))


def draw_contents(drawn: Drawn, split: str, count: int) -> list[Hashable]:
    """What makes each of the first ``count`` problems of a split the same as another."""
    keys: list[Hashable] = []
    for start in range(0, count, CHUNK):  # always as many at once: one compiled function
        size = CHUNK if drawn.task.on_device else min(CHUNK, count - start)
        index = np.arange(start, start + size)
        _, records = draw_records(drawn.task, drawn.problem_fn, drawn.seed, index, split)
        keys += content_keys(records[: count - start], drawn.task.content)
    return keys


def content_keys(records: list[Record], content: Callable[[Record], Hashable] | None = None) -> list[Hashable]:
    """``Task.content`` of each record, or the whole record as text."""
    return [content(r) if content else json.dumps(r, sort_keys=True, default=str) for r in records]
