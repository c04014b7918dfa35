"""Which questions a task asks: sets mixed, divided into splits, and without what must not or cannot be asked.

What has no room, no readable answer, or stands in the evaluation sets too is dropped up front and counted in the log.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

from rljax.errors import UserError
from rljax.tasks import datasets, prompting
from rljax.tasks.datasets import decontamination
from rljax.tasks.prompting import PromptFormat
from rljax.tasks.task import Record
from rljax.text import ByteTokenizer, Tokenizer, templates

LOG = logging.getLogger(__name__)
GENERATED_KINDS = (
    "countdown",
    "gym",
)  # made problems say the same words around other numbers; no problem is in two splits
HARDNESS: dict[str, Callable[[Record], float]] = {
    "level": lambda r: level_number(r),
    "pass_rate": lambda r: -r.get("pass_rate", 0.0),
    "length": lambda r: len(r["question"]),
}


@dataclasses.dataclass(frozen=True)
class Options:
    datasets: str = (
        "gsm8k"  # to train on: "math + 0.5*gsm8k", names of rljax.tasks.datasets, gym/TASK, or paths to .jsonl
    )
    test: str = ""  # to evaluate on; "": the test splits of ``datasets``
    path: str = ""  # folder with the files (or a folder of them by name); "": downloaded once
    data_dir: str = ""  # where prepared sets are kept; "": TensorFlow Datasets' default
    template: str = (
        "plain"  # a name of rljax.text.templates, a text with {question} in it, or "own": the model's chat template
    )
    instruction: str = templates.STEP_BY_STEP  # for "own": said after the question
    system: str = ""  # for "own": the system message; "": what the template says by itself
    thinking: bool = True  # for "own", where it has the choice: think before answering
    prompt_slots: int = 512  # tokens, the first included; longer questions are dropped
    max_response: int = (
        400  # tokens of a demonstration, the last included; longer ones are dropped, except from the test split
    )
    decontaminate: int = 10  # drop training questions that share so many words in a row with a test question; 0: none
    pass_rates: str = ""  # file of pass rates that experiments.evaluate wrote for the training questions
    min_pass_rate: float = 0.0  # train on questions between these, where pass_rates says how hard they are
    max_pass_rate: float = 1.0
    curriculum: str = ""  # from easy to hard by "level", "pass_rate" or "length"; "": shuffled
    curriculum_over: int = 10_000  # number of problems after which all questions are open
    allow_unsafe: bool = False  # run programs even where the kernel cannot jail them

    def __post_init__(self):
        if self.curriculum not in ("", *HARDNESS):
            raise UserError(f"task questions: curriculum={self.curriculum!r}, choose from {sorted(HARDNESS)} or none")
        if (self.min_pass_rate, self.max_pass_rate) != (0.0, 1.0) and not self.pass_rates:
            raise UserError(
                "task questions: min_pass_rate and max_pass_rate need pass_rates=FILE, see experiments.evaluate"
            )
        if self.curriculum == "pass_rate" and not self.pass_rates:
            raise UserError("task questions: curriculum=pass_rate needs pass_rates=FILE, see experiments.evaluate")
        if self.template != prompting.MODEL_TEMPLATE:
            templates.find(self.template)

    def words(self, tokenizer: Tokenizer) -> PromptFormat:
        how = self.instruction, self.system, self.thinking
        return prompting.make_prompt_format(self.template, tokenizer, *how)


@dataclasses.dataclass(frozen=True)
class Split:
    """The questions of a split: one list a set, and how often each is asked."""

    sets: tuple[tuple[Record, ...], ...]
    weights: tuple[float, ...]

    @property
    def size(self) -> int:
        return sum(map(len, self.sets))


def parse_mixture(text: str) -> dict[str, float]:
    """``"math + 0.5*gsm8k"`` -> weights by name. Raises UserError for anything else."""
    out: dict[str, float] = {}
    for term in text.split("+"):
        weight, _, name = term.strip().rpartition("*")
        try:
            out[name.strip()] = float(weight or 1)
        except ValueError:
            out[name.strip()] = -1.0
    if not all(name and weight > 0 for name, weight in out.items()) or len(out) != text.count("+") + 1:
        raise UserError(f"task questions: {text!r} is no mixture: write names, each once, as in 'math + 0.5*gsm8k'")
    return out


def load_splits(o: Options, words: PromptFormat | None = None) -> dict[str, Split]:
    """The records of each split, as far as they have room in these ``words`` (by default, in bytes).

    What is dropped is counted in the log.
    """
    words = words or o.words(ByteTokenizer())
    mixture, tested = parse_mixture(o.datasets), parse_mixture(o.test or o.datasets)
    parts = {
        name: divide_splits(name, datasets.load_dataset(name, o.path, o.data_dir)) for name in {**mixture, **tested}
    }
    asked = [r["question"] for name in tested for r in parts[name]["test"]]
    sets: dict[str, dict[str, list[Record]]] = {"train": {}, "validation": {}}
    for split, kept in sets.items():
        for name in mixture:
            rows = drop_contaminated(o, f"{name} {split}", parts[name][split], asked)
            rows = filter_by_pass_rate(o, f"{name} {split}", rows) if split == "train" else rows
            kept[name] = drop_too_long(o, words, f"{name} {split}", rows, demonstrated=True)
    empty = [name for name, rows in sets["train"].items() if not rows]
    if empty and len(empty) < len(mixture):
        raise UserError(f"task questions: {empty[0]!r} has no question to train on, take it out of {o.datasets!r}")
    if o.curriculum:
        sets["train"] = {name: sorted(rows, key=HARDNESS[o.curriculum]) for name, rows in sets["train"].items()}
    test = [r for name in tested for r in drop_too_long(o, words, f"{name} test", parts[name]["test"])]
    prefill = words.template.prefill
    split_of = lambda given: Split(
        tuple(tuple({**r, "prefill": prefill} for r in rows) for rows in given.values() if rows),
        tuple(mixture.get(name, 1.0) for name, rows in given.items() if rows),
    )
    return {name: split_of(rows) for name, rows in sets.items()} | {"test": split_of({"": test})}


def divide_splits(name: str, found: dict[str, list[Record]]) -> dict[str, list[Record]]:
    """train, validation, test of a set, no question in two of them.

    A twentieth of the training questions is validation where there is none, another is the test of files of your own.
    """
    found = {split: [{**r, "dataset": name} for r in rows] for split, rows in found.items()}
    part = lambda r: int(content_hash(r), 16) % 20
    train = found.get("train", [])
    test = found["test"] if "test" in found else [r for r in train if part(r) == 1]
    tested = {content_hash(r) for r in test}
    fresh = [r for r in train if content_hash(r) not in tested]
    validation = [r for r in found.get("validation", ()) if content_hash(r) not in tested]
    held_out = (
        {content_hash(r) for r in validation}
        if "validation" in found
        else {content_hash(r) for r in fresh if part(r) == 0}
    )
    return {
        "train": [r for r in fresh if content_hash(r) not in held_out],
        "validation": validation or [r for r in fresh if content_hash(r) in held_out],
        "test": test,
    }


def content_hash(record: Record) -> str:
    """What makes two questions the same, whatever their case and spacing: a hexadecimal hash."""
    return hashlib.sha256(" ".join(record["question"].lower().split()).encode()).hexdigest()


def drop_contaminated(o: Options, what: str, rows: list[Record], asked: list[str]) -> list[Record]:
    if not o.decontaminate or not asked or (rows and rows[0]["kind"] in GENERATED_KINDS):
        return rows
    bad = decontamination.find_contaminated([r["question"] for r in rows], asked, o.decontaminate)
    if any(bad):
        LOG.warning(
            f"{what}: dropped {sum(bad)} of {len(rows)} questions that share {o.decontaminate} words in a row with a test question"
        )
    return [r for r, b in zip(rows, bad, strict=True) if not b]


def filter_by_pass_rate(o: Options, what: str, rows: list[Record]) -> list[Record]:
    """The questions whose measured pass rate lies in the range asked for; those never measured are left out."""
    if not o.pass_rates:
        return rows
    rates = read_pass_rates(o.pass_rates)
    known = [{**r, "pass_rate": rates[c]} for r in rows if (c := content_hash(r)) in rates]
    kept = [r for r in known if o.min_pass_rate <= r["pass_rate"] <= o.max_pass_rate]
    LOG.warning(
        f"{what}: {len(kept)} of {len(rows)} questions have a pass rate within {o.min_pass_rate} to {o.max_pass_rate}; "
        f"{len(rows) - len(known)} were never measured"
    )
    return kept


@functools.lru_cache(maxsize=4)
def read_pass_rates(path: str) -> dict[str, float]:
    try:
        lines = Path(path).expanduser().read_text().splitlines()
        return {row["question"]: float(row["pass_rate"]) for row in map(json.loads, lines)}
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(
            f"task questions: pass_rates={path}: {type(e).__name__}: {e}; experiments.evaluate writes it"
        ) from None


def drop_too_long(
    o: Options, words: PromptFormat, what: str, rows: list[Record], demonstrated: bool = False
) -> list[Record]:
    """The records whose prompt fits, and whose demonstration does (not in the test split: there it is never shown)."""
    prompt_fits = [r for r in rows if len(words.prompt_ids(r["question"])) <= o.prompt_slots]
    response_fits = lambda r: not demonstrated or len(response_ids(words, r)) <= o.max_response
    kept = [r for r in prompt_fits if response_fits(r)]
    if len(kept) < len(rows):
        LOG.warning(
            f"{what}: keeps {len(kept)} of {len(rows)} questions: {len(rows) - len(prompt_fits)} are longer than "
            f"prompt_slots={o.prompt_slots}, {len(prompt_fits) - len(kept)} solutions than max_response={o.max_response} tokens"
        )
    if rows and not kept:
        raise UserError(
            f"task questions: no question of {what} has room: raise prompt_slots={o.prompt_slots} "
            f"or max_response={o.max_response}"
        )
    return kept


def level_number(record: Record) -> float:
    """The number in a record's level; 0 where it has none."""
    number = re.search(r"[0-9]+", record["level"])
    return float(number[0]) if number else 0.0


def demonstration(words: PromptFormat, record: Record) -> str:
    """A solution in the template's words."""
    return "".join(part for part, _ in demonstration_parts(words, record))


def response_ids(words: PromptFormat, record: Record) -> list[int]:
    """The same as ids, with what ends it."""
    return words.response_ids(demonstration_parts(words, record))


def demonstration_parts(words: PromptFormat, record: Record) -> list[tuple[str, bool]]:
    """A solution in parts (text, trusted); a program stands in a fence, and in no box."""
    template = words.template
    if record["kind"] != "code":
        return template.parts(record["solution"], record["answer"])
    unboxed = template._replace(
        response=template.response.replace("#### {answer}", "{answer}").replace("\\boxed{{answer}}", "{answer}")
    )
    return unboxed.parts(record["solution"], f"```python\n{record['answer'].strip()}\n```")
