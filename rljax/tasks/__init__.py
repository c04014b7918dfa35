"""Worlds to practise in. A task is a record of pure functions; each world is one file."""

import dataclasses
import importlib
import operator
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from rljax.errors import UserError
from rljax.structs import Array, Problems
from rljax.text import Tokenizer

SPLITS = ("train", "validation", "test")
NAMES = ("shop", "fruit", "cups", "countdown", "programs", "questions")
IN_WORDS = ("questions",)  # those that any tokenizer can read
OWN_VOCABULARY = "its vocabulary is its own, a model's tokenizer can only read task.name=questions"
Record = dict[str, Any]  # one problem in plain Python: what a demonstrator or a text verifier reads


@dataclasses.dataclass(frozen=True)
class Attempt:
    """What a response did, read from its text. ``verdicts``: (said so rightly, said "yes", number of the try)."""

    strategy: str  # jump | steps | check | retry
    answer: str | None  # canonical form, for votes; None where none can be read
    facts: tuple[bool, ...] = ()  # each calculation it wrote: right or wrong
    verdicts: tuple[tuple[bool, bool, int], ...] = ()


@dataclasses.dataclass(frozen=True)
class Task:
    """A world: problems, demonstrations, raw text and verifiers. Everything is a pure function of (seed, index)."""

    name: str
    tokenizer: Tokenizer
    prompt_slots: int  # P
    demonstration_slots: int  # tokens of the longest demonstration, its stop token included
    problems: Callable[..., Problems]
    # (seed, index [B], split) -> B problems; where there are ``levels`` also (..., (lowest, highest)), each an int or []

    records: Callable[[Any], list[Record]]  # Problems.facts -> one record a problem
    verify: Callable[[str, Record], bool]  # (response text, record) -> right?
    demonstration: Callable[[Record, np.random.Generator], str]  # a response worth imitating, or not
    page: Callable[[np.random.Generator, int], list[int]]  # raw text to pretrain on, of about this many tokens
    describe: Callable[[str, Record], Attempt]
    words: tuple[str, ...] = ()  # what is counted in responses: names of ``rljax.metrics.behaviours``, else whole words
    score: Callable[[Array, Array, Array, Any], Array] | None = None
    # (response [B, G, T], mask [B, G, T], finished [B, G], facts) -> reward [B, G] float32, in jnp; None: text only

    judge: Callable[[list[tuple[str, Record]]], list[dict[str, float]]] | None = None
    # ``verify`` for a whole batch: "correct", and the ``notes`` by name; None: one by one
    notes: tuple[str, ...] = ()  # what ``judge`` says besides "correct", worth a line in the log

    read_prompt: Callable[[str], Record | None] | None = None  # a person's prompt -> its record, where it can be read
    wrap: Callable[[str], str] = lambda text: text  # a person's question -> the prompt that asks it
    prompt_ids: Callable[[str], list[int]] | None = None  # the same as ids; None: wrapped, encoded, after a <bos>
    response_ids: Callable[[Record, str], list[int]] | None = None
    # (record, its demonstration) -> ids, with what ends it; None: encoded, before an <eos>

    final: Callable[[str, Record], int] = lambda response, record: len(response)
    # where the final answer begins, in characters; what stands before is thought. The length: there is none

    same: Callable[[str, str], bool] = operator.eq  # do two answers of ``describe`` vote together?
    prefill: str = ""  # the end of every prompt that is the beginning of every response
    levels: tuple[int, int] | None = None  # lowest and highest level of difficulty; None: problems are of one kind
    size: Callable[[str], int | None] = lambda split: None  # questions of a split; None: there is no end to them

    @property
    def on_device(self) -> bool:
        return self.score is not None


def make(name: str, tokenizer: Tokenizer | None = None, **options: Any) -> Task:
    """Build a task by name; ``tokenizer`` is that of a model that was trained elsewhere.

    Raises UserError for an unknown name or option, or a world whose vocabulary is its own.
    """
    if name not in NAMES:
        raise UserError(f"task: {name!r} is unknown, choose from {NAMES}")
    module = importlib.import_module(f"rljax.tasks.{name}")
    known = {f.name for f in dataclasses.fields(module.Options)}
    if unknown := set(options) - known:
        raise UserError(f"task {name}: unknown option {sorted(unknown)[0]!r}, choose from {sorted(known)}")
    if tokenizer is None:
        return module.make(module.Options(**options))
    if name not in IN_WORDS:
        raise UserError(f"task {name}: {OWN_VOCABULARY}")
    return module.make(module.Options(**options), tokenizer)


def at_last(*words: str) -> Callable[[str, Record], int]:
    """``Task.final`` of a world whose final answer begins with one of these words."""
    whole = re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})\b")
    return lambda response, record: max((m.start() for m in whole.finditer(response)), default=len(response))


def split_number(split: str) -> int:
    if split not in SPLITS:
        raise UserError(f"task: split {split!r} is unknown, choose from {SPLITS}")
    return SPLITS.index(split)
