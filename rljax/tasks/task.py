"""The types that every world shares: a task is a record of pure functions, an attempt is what a response did."""

import dataclasses
import operator
import re
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import numpy as np

from rljax.errors import UserError
from rljax.metrics.behaviours import PATTERNS
from rljax.structs import Array, Problems
from rljax.text import StopStrings, SymbolTokenizer, Tokenizer, find_stop_strings

SPLITS = ("train", "validation", "test")
Record = dict[str, Any]  # one problem in plain Python: demonstrators and text verifiers read it


@dataclasses.dataclass(frozen=True)
class Attempt:
    """What a response did, as ``Task.describe`` reads it from the text."""

    strategy: str  # one of ``Task.strategies``, such as "jump" (only an answer) or "retry" (more than one try)
    answer: str | None  # the final answer in one spelling, for majority votes; None where there is none
    calculations: tuple[bool, ...] = ()  # for each calculation in the response: is it right?
    verdicts: tuple[tuple[bool, bool, int], ...] = ()
    # for each comparison with the goal: (is it right?, does it say that the goal is reached?, number of the try)
    tried: tuple[Hashable, ...] | None = (
        None  # the candidates, in order: equal ones are equal; None: not told apart here
    )
    wasted: int = 0  # tokens behind the first right candidate, without the final answer


@dataclasses.dataclass(frozen=True)
class Task:
    """A world: its problems, demonstrations, raw text and verifiers.

    Every function is pure: problems depend on (seed, index) alone, texts on their arguments and the generator.
    B is the number of problems, G the number of attempts at each, T the number of response slots.
    """

    name: str
    tokenizer: Tokenizer
    prompt_slots: int  # P: tokens of the longest prompt
    demonstration_slots: int  # tokens of the longest demonstration, its stop token included
    problems: Callable[..., Problems]
    # (seed, index [B], split) -> B problems. Where ``levels`` is set: also (..., (lowest, highest)), each an int or []
    # Problems.facts are arrays with a leading axis B, or a list of B records where no verifier runs on the device

    records: Callable[[Any], list[Record]]  # Problems.facts -> one record for each problem
    verify: Callable[[str, Record], bool]  # (response text, record) -> is it right? A finished text ends in "<eos>"
    demonstration: Callable[[Record, np.random.Generator], str]  # a response to imitate; it may be wrong
    page: Callable[[np.random.Generator, int], list[int]]  # so many token ids of raw text, for pretraining
    describe: Callable[[str, Record], Attempt]  # (response text, record) -> what it did
    strategies: tuple[str, ...]  # the names that ``describe`` may return, in the order of the log and the figures
    behaviours: tuple[str, ...] = ()
    # what is counted in responses: names in ``rljax.metrics.behaviours.PATTERNS``; any other name counts as a word

    forbidden: Mapping[str, Callable[[str, Record], tuple[str, ...]]] = dataclasses.field(
        default_factory=dict,
        hash=False,  # a task is a key of caches
    )
    # {strategy: (response so far, record) -> the words that would begin it now}, for the strategies that can be forbidden

    aha_behaviour: str = ""  # the behaviour that the report looks for by default; "": the first of ``behaviours``
    content: Callable[[Record], Hashable] | None = None
    # what makes two problems the same to a solver, for overlap checks between splits; None: the whole record

    verify_on_device: Callable[[Array, Array, Array, Any], Array] | None = None
    # (response [B, G, T] int32, mask [B, G, T] bool, finished [B, G] bool, facts) -> reward [B, G] float32, in jnp
    # None: the text verifier is the only one

    verify_batch: Callable[[list[tuple[str, Record]]], list[dict[str, float]]] | None = None
    # ``verify`` for many responses at once: "correct" and each of ``verifier_metrics``; None: one after the other
    verifier_metrics: tuple[str, ...] = ()  # what ``verify_batch`` measures besides "correct", for the log
    slow_verifier: bool = False  # verifying takes about as long as sampling: it begins before all is sampled

    read_prompt: Callable[[str], Record | None] | None = None  # text of a prompt -> its record, None: not a problem
    page_attempts: Callable[[str], list[tuple[str, Record]]] | None = None
    # the text of a page -> the attempts at problems that it shows, each with the problem's record; None: pages show none
    format_question: Callable[[str], str] = lambda text: text  # a user's question -> the text of its prompt
    prompt_ids: Callable[[str], list[int]] | None = None
    # a user's question -> ids of its prompt; None: ``format_question``, encoded, after a <bos>
    response_ids: Callable[[Record, str], list[int]] | None = None
    # (record, its demonstration) -> ids with the stop token; None: the encoded text and an <eos>

    about_demonstrations: str = ""  # what a person should know before they are imitated: fine-tuning says it once
    answer_start: Callable[[str, Record], int] = lambda response, record: len(response)
    # where the final answer begins, in characters; the text before it is reasoning. len(response): no answer

    same_answer: Callable[[str, str], bool] = operator.eq  # do two answers of ``describe`` vote together?
    prefill: str = ""  # the end of every prompt that is also the beginning of every response
    stop_strings: tuple[str, ...] = ()
    # texts that end a response where they are completed, as a stop token does; its text ends behind them

    levels: tuple[int, int] | None = None  # lowest and highest level of difficulty; None: there are no levels
    num_questions: Callable[[str], int | None] = lambda split: None  # questions of a split; None: endless

    @property
    def on_device(self) -> bool:
        """Whether a verifier runs on the device."""
        return self.verify_on_device is not None

    @property
    def stops(self) -> StopStrings | None:
        """The stop strings, compiled for the tokenizer; None where there are none."""
        return find_stop_strings(self.tokenizer, self.stop_strings)


def check_fields(task: Task) -> None:
    """Raise UserError where the names that a task declares do not fit together."""
    where = f"task {task.name}"
    for field in ("strategies", "behaviours"):
        names = getattr(task, field)
        if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
            raise UserError(f"{where}: {field}={names!r} must be a tuple of names")
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(f"{where}: {field} names {twice[0]!r} twice")
    try:
        _ = task.stops
    except UserError as e:
        raise UserError(f"{where}: {e}") from None
    if not task.strategies:
        raise UserError(f"{where}: strategies is empty: list the names that describe may return")
    if bad := [name for name in task.strategies if not re.fullmatch(r"\w+", name)]:
        raise UserError(f"{where}: strategies: {bad[0]!r} must be one word, it becomes a part of a metric's name")
    known = set(task.tokenizer.ids) if isinstance(task.tokenizer, SymbolTokenizer) else None
    for name in task.behaviours:
        if known is not None and name not in PATTERNS and name not in known:
            raise UserError(
                f"{where}: behaviours: {name!r} is neither a word of the vocabulary nor one of {sorted(PATTERNS)}: no "
                "response could show it"
            )
    if task.aha_behaviour and task.aha_behaviour not in task.behaviours:
        raise UserError(
            f"{where}: aha_behaviour={task.aha_behaviour!r} is not counted, choose from behaviours={task.behaviours}"
        )


def select_facts(facts: Any, index: np.ndarray) -> Any:
    """The facts of problems ``index`` [K]: of a list or tuple of records, or of arrays with a leading axis."""
    if isinstance(facts, (list, tuple)) and not any(hasattr(x, "shape") for x in facts):
        return tuple(facts[int(i)] for i in index)
    return jax.tree.map(lambda x: x[index], facts)


def answer_start_fn(*words: str) -> Callable[[str, Record], int]:
    """``Task.answer_start`` of a world whose final answer begins at the last of these words."""
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})\b")
    return lambda response, record: max((m.start() for m in pattern.finditer(response)), default=len(response))


def split_number(split: str) -> int:
    """The number of a split in ``SPLITS``. Raises UserError for an unknown one."""
    if split not in SPLITS:
        raise UserError(f"task: split {split!r} is unknown, choose from {SPLITS}")
    return SPLITS.index(split)


def response_text(tokenizer: Tokenizer, ids: np.ndarray, finished: bool, stops: StopStrings | None = None) -> str:
    """The text of a response. It ends in "<eos>" if and only if it is finished, whatever the stop token is called.

    The text of a response that a stop string has ended ends with this string, whatever else its last token holds.
    """
    text = tokenizer.decode(ids)
    if finished:
        behind = stops.count_overhang(ids) if stops and ids[-1] not in tokenizer.stop_ids else None
        if behind is None:
            return text.removesuffix(tokenizer.decode(ids[-1:])) + "<eos>"
        space = " " if isinstance(tokenizer, SymbolTokenizer) else ""  # where a stop token is a word among words
        return text[: len(text) - behind] + space + "<eos>"
    while text.endswith("<eos>"):
        text = text.removesuffix("<eos>")
    return text
