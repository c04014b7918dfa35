"""Worlds to learn in: a task holds problems, demonstrations, raw text and verifiers. One file is one world.

task.py                Task, Attempt: what a world consists of
shop.py fruit.py cups.py countdown.py ring.py programs.py    small worlds with a vocabulary of their own
questions.py           questions in words, from published data sets or your own files
  mixture.py             which questions: mixed, split, filtered      shuffle.py    in which order
  prompting.py           templates: question -> prompt                datasets/     where they come from
  grading.py             the verifier of each kind of question        responses.py  what a response did
fruit_text.py          arithmetic in words, for any tokenizer
  word_problems.py       their kinds, numbers and calculations        wordings.py   as text
  few_shot.py            prompts with worked examples
generate.py            problems drawn on the device, split by content
batches.py             supervised batches: demonstrations and pages
rejection_sampling.py  samples of a policy as supervised batches
check.py               does a world hold what it promises? (with check_report.py, check_verifiers.py)

``TASKS`` is the only list of worlds. A plug-in adds its own: ``tasks.TASKS["coins"] = tasks.World(Options, make)``.
"""

import dataclasses
import difflib
import importlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from rljax.errors import UserError
from rljax.tasks import check
from rljax.tasks.option_checks import check_kinds
from rljax.tasks.task import (
    SPLITS,
    Attempt,
    Record,
    Task,
    answer_start_fn,
    check_fields,
    response_text,
    select_facts,
    split_number,
)
from rljax.text import Tokenizer

OWN_VOCABULARY = (
    "it has a vocabulary of its own, the tokenizer of a model can read only task.name=questions and fruit_text"
)


class World(NamedTuple):
    """What ``TASKS`` needs to know of a world. A module with these two names serves as well."""

    Options: type  # a frozen dataclass; its fields are the keys of ``config.task.options``
    make: Callable[..., Task]  # (options) -> Task; with a second parameter, (options, tokenizer of a model) -> Task


TASKS: dict[str, Any] = {  # name -> a module's import path, a module, or a World
    "shop": "rljax.tasks.shop",
    "fruit": "rljax.tasks.fruit",
    "cups": "rljax.tasks.cups",
    "countdown": "rljax.tasks.countdown",
    "ring": "rljax.tasks.ring",
    "coins": "rljax.tasks.coins",
    "programs": "rljax.tasks.programs",
    "questions": "rljax.tasks.questions",
    "fruit_text": "rljax.tasks.fruit_text",
}


def find_world(name: str) -> Any:
    """The module or World of a task. Raises UserError for an unknown name, with the nearest one."""
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, 1)
        hint = f"did you mean {near[0]!r}? Choose" if near else "choose"
        raise UserError(f"task.name={name!r} is unknown, {hint} from {', '.join(TASKS)}")
    world = TASKS[name]
    if isinstance(world, str):
        try:
            world = importlib.import_module(world)
        except ModuleNotFoundError as e:
            raise UserError(f"task {name}: TASKS says {TASKS[name]!r}, but there is no module {e.name!r}") from None
    if missing := [part for part in World._fields if not hasattr(world, part)]:
        raise UserError(f"task {name}: {world!r} has no {missing[0]!r}: a world has Options and make(options)")
    return world


def takes_tokenizer(name: str) -> bool:
    """Whether the tokenizer of a pretrained model can read this task's texts."""
    return len(inspect.signature(find_world(name).make).parameters) > 1


def make_task(name: str, tokenizer: Tokenizer | None = None, **options: Any) -> Task:
    """A task by name; ``tokenizer`` is that of a model that was trained elsewhere.

    Raises UserError for an unknown name or option, for a tokenizer that the task cannot use, and for a task whose fields do
    not fit together. A world from outside this package has its first problems checked as well.
    """
    world = find_world(name)
    known = {f.name for f in dataclasses.fields(world.Options)}
    if unknown := set(options) - known:
        raise UserError(
            f"task.name={name}: unknown option {sorted(unknown)[0]!r}, choose from {sorted(known)}. If another task's config "
            f"set it, begin with this task's own: --config {name}"
        )
    check_kinds(world.Options, options)
    if tokenizer is not None and not takes_tokenizer(name):
        raise UserError(f"task {name}: {OWN_VOCABULARY}")
    task = world.make(world.Options(**options), *([] if tokenizer is None else [tokenizer]))
    check_fields(task)
    if not str(world.make.__module__).startswith("rljax."):  # tests check the worlds of this package
        check.check_first_problems(task)
    return task
