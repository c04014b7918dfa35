"""The questions of a task: data sets mixed, divided into splits, and filtered.

Questions that are too long, have no readable answer, or are also in the evaluation sets are dropped at the start. The log
says how many.
"""

import dataclasses
import functools
import hashlib
import logging
import re
from collections.abc import Callable

from rljax.errors import UserError
from rljax.json_lines import read_json_lines
from rljax.options import MAX_FLOAT, MAX_INT, format_value
from rljax.tasks import datasets, prompting
from rljax.tasks.datasets import decontamination
from rljax.tasks.prompting import PromptFormat
from rljax.tasks.task import Record
from rljax.text import ByteTokenizer, Tokenizer, check_stop_strings, templates

LOG = logging.getLogger(__name__)
GENERATED_KINDS = (
    "countdown",
    "gym",
)  # their texts differ in the numbers alone; the generator keeps the splits apart
HARDNESS: dict[str, Callable[[Record], float]] = {
    "level": lambda r: level_number(r),
    "pass_rate": lambda r: -r.get("pass_rate", 0.0),
    "length": lambda r: len(r["question"]),
}


LONGEST_PROMPT = 1024  # tokens: longer questions are dropped where prompt_slots=0 leaves the slots to the data
SLOT_MULTIPLE = 16
BOUNDS: dict[str, tuple[float, float]] = {
    **dict(prompt_slots=(0, 1 << 20), max_response=(1, 1 << 20), decontaminate=(0, 1000)),
    **dict(min_pass_rate=(0, 1), max_pass_rate=(0, 1), curriculum_over=(1, MAX_INT)),
}


@dataclasses.dataclass(frozen=True)
class Options:
    datasets: str = (
        "gsm8k"  # to train on: "math + 0.5*gsm8k"; names of rljax.tasks.datasets, gym/TASK, or paths of .jsonl files
    )
    test: str = ""  # to evaluate on; "": the test splits of ``datasets``
    path: str = (
        ""  # a folder with the files of the data sets, or with one folder for each; "": they are downloaded once
    )
    data_dir: str = ""  # where prepared data sets are kept; "": the default of TensorFlow Datasets
    own_data_dir: str = ""  # where those made from files of your own are kept; "": the folder data/ of a run's workdir
    template: str = (
        "plain"  # a name of rljax.text.templates, a text with {question} in it, or "own": the model's chat template
    )
    instruction: str = templates.STEP_BY_STEP  # for "own": text after the question
    system: str = ""  # for "own": the system message; "": the default of the template
    thinking: bool = True  # for "own", where the template has the choice: think before the answer
    stop_strings: tuple[str, ...] = ()  # texts that end a response where they are completed: ("\n\n", "Question:")
    prompt_slots: int = (
        512  # tokens, the first included; longer questions are dropped. 0: those of the longest question
    )
    max_response: int = (
        400  # tokens of a demonstration, the last included; longer ones are dropped, except from the test split
    )
    decontaminate: int = (
        10  # drop training questions that share this many words in a row with a test question; 0: keep all
    )
    pass_rates: str = ""  # file of pass rates that experiments.evaluate wrote for the training questions
    min_pass_rate: float = 0.0  # train on questions with a pass rate in this range, read from ``pass_rates``
    max_pass_rate: float = 1.0
    curriculum: str = ""  # from easy to hard by "level", "pass_rate" or "length"; "": shuffled
    curriculum_over: int = 10_000  # number of problems after which all questions are asked
    allow_unsafe: bool = False  # run programs even where the kernel cannot confine them

    def __post_init__(self):
        for name, (low, high) in BOUNDS.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(f"task questions: {name}={getattr(self, name)} must be {low} to {high:,}")
        if self.min_pass_rate > self.max_pass_rate:
            raise UserError(
                f"task questions: min_pass_rate={self.min_pass_rate} is above max_pass_rate={self.max_pass_rate}"
            )
        if self.curriculum not in ("", *HARDNESS):
            raise UserError(f"task questions: curriculum={self.curriculum!r}, choose from {sorted(HARDNESS)} or none")
        if (self.min_pass_rate, self.max_pass_rate) != (0.0, 1.0) and not self.pass_rates:
            raise UserError(
                "task questions: min_pass_rate and max_pass_rate need pass_rates=FILE, see experiments.evaluate"
            )
        if self.curriculum == "pass_rate" and not self.pass_rates:
            raise UserError("task questions: curriculum=pass_rate needs pass_rates=FILE, see experiments.evaluate")
        check_stop_strings(self.stop_strings)
        if self.template != prompting.MODEL_TEMPLATE:
            templates.find_template(self.template)

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt that is kept."""
        return self.prompt_slots or LONGEST_PROMPT

    def prompt_format(self, tokenizer: Tokenizer) -> PromptFormat:
        """How questions are asked with this tokenizer."""
        how = self.instruction, self.system, self.thinking
        return prompting.make_prompt_format(self.template, tokenizer, *how)


@dataclasses.dataclass(frozen=True)
class Split:
    """The questions of a split: one tuple of records for each data set, and the weight of each set."""

    sets: tuple[tuple[Record, ...], ...]
    weights: tuple[float, ...]

    @property
    def size(self) -> int:
        """The number of questions."""
        return sum(map(len, self.sets))


def parse_mixture(text: str) -> dict[str, float]:
    """``"math + 0.5*gsm8k"`` -> {name: weight}. Raises UserError for text that is no such sum."""
    out: dict[str, float] = {}
    for term in text.split("+"):
        weight, _, name = term.strip().rpartition("*")
        try:
            out[name.strip()] = float(weight or 1)
        except ValueError:
            out[name.strip()] = -1.0
    if (
        not all(name and 1 / MAX_FLOAT <= weight <= MAX_FLOAT for name, weight in out.items())
        or len(out) != text.count("+") + 1
    ):
        raise UserError(
            f"task questions: {format_value(text)} is no mixture: write names, each once, as in 'math + 0.5*gsm8k'"
        )
    return out


def load_splits(o: Options, prompt_format: PromptFormat | None = None) -> dict[str, Split]:
    """The records of each split that fit the task's slots in this format (by default, in bytes).

    The log says how many were dropped.
    """
    prompt_format = prompt_format or o.prompt_format(ByteTokenizer())
    mixture, tested = parse_mixture(o.datasets), parse_mixture(o.test or o.datasets)
    parts = {
        name: divide_splits(name, datasets.load_dataset(name, o.path, o.data_dir, o.own_data_dir))
        for name in {**mixture, **tested}
    }
    asked = [r["question"] for name in tested for r in parts[name]["test"]]
    sets: dict[str, dict[str, list[Record]]] = {"train": {}, "validation": {}}
    for split, kept in sets.items():
        for name in mixture:
            rows = drop_contaminated(o, f"{name} {split}", parts[name][split], asked)
            rows = filter_by_pass_rate(o, f"{name} {split}", rows) if split == "train" else rows
            kept[name] = drop_too_long(o, prompt_format, f"{name} {split}", rows, demonstrated=True)
    empty = [name for name, rows in sets["train"].items() if not rows]
    if empty and len(empty) < len(mixture):
        raise UserError(f"task questions: {empty[0]!r} has no question to train on, take it out of {o.datasets!r}")
    if o.curriculum:
        sets["train"] = {name: sorted(rows, key=HARDNESS[o.curriculum]) for name, rows in sets["train"].items()}
    test = [r for name in tested for r in drop_too_long(o, prompt_format, f"{name} test", parts[name]["test"])]
    prefill = prompt_format.template.prefill
    split_of = lambda given: Split(
        tuple(tuple({**r, "prefill": prefill} for r in rows) for rows in given.values() if rows),
        tuple(mixture.get(name, 1.0) for name, rows in given.items() if rows),
    )
    return {name: split_of(rows) for name, rows in sets.items()} | {"test": split_of({"": test})}


def count_prompt_slots(splits: dict[str, Split], prompt_format: PromptFormat) -> int:
    """Slots that every prompt of these questions fits, a multiple of SLOT_MULTIPLE."""
    questions = (r["question"] for split in splits.values() for rows in split.sets for r in rows)
    longest = max((len(prompt_format.prompt_ids(question)) for question in questions), default=1)
    return -(-longest // SLOT_MULTIPLE) * SLOT_MULTIPLE


def divide_splits(name: str, found: dict[str, list[Record]]) -> dict[str, list[Record]]:
    """The train, validation and test splits of a data set. No question is in two of them.

    Where there is no validation split, a twentieth of the training questions is one. Where there is no test split, another
    twentieth is one.
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
    """A hexadecimal hash of the question; case and spaces do not matter."""
    return hashlib.sha256(" ".join(record["question"].lower().split()).encode()).hexdigest()


def drop_contaminated(o: Options, what: str, rows: list[Record], asked: list[str]) -> list[Record]:
    """The records without those that share a run of words with a question in ``asked``."""
    if not o.decontaminate or not asked or (rows and rows[0]["kind"] in GENERATED_KINDS):
        return rows
    bad = decontamination.find_contaminated([r["question"] for r in rows], asked, o.decontaminate)
    if any(bad):
        LOG.warning(
            f"{what}: dropped {sum(bad)} of {len(rows)} questions that share {o.decontaminate} words in a row with a test question"
        )
    return [r for r, b in zip(rows, bad, strict=True) if not b]


def filter_by_pass_rate(o: Options, what: str, rows: list[Record]) -> list[Record]:
    """The records whose measured pass rate is in the range of the options. Records without one are left out."""
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
    """{hash of a question: pass rate} from a file that ``experiments.evaluate`` wrote."""
    try:
        rows = read_json_lines(path, "task questions: pass_rates: ")
        return {row["question"]: float(row["pass_rate"]) for row in rows if row["pass_rate"] is not None}
    except (ValueError, KeyError, TypeError) as e:
        raise UserError(
            f"task questions: pass_rates={path}: {type(e).__name__}: {e}; experiments.evaluate writes it"
        ) from None


def drop_too_long(
    o: Options, prompt_format: PromptFormat, what: str, rows: list[Record], demonstrated: bool = False
) -> list[Record]:
    """The records whose prompts fit their slots, and with ``demonstrated`` their demonstrations too."""
    prompt_fits = [r for r in rows if len(prompt_format.prompt_ids(r["question"])) <= o.longest_prompt]
    response_fits = lambda r: not demonstrated or len(response_ids(prompt_format, r)) <= o.max_response
    kept = [r for r in prompt_fits if response_fits(r)]
    if len(kept) < len(rows):
        LOG.warning(
            f"{what}: keeps {len(kept)} of {len(rows)} questions: {len(rows) - len(prompt_fits)} are longer than "
            f"prompt_slots={o.longest_prompt}, {len(prompt_fits) - len(kept)} solutions than max_response={o.max_response} tokens"
        )
    if rows and not kept:
        raise UserError(
            f"task questions: no question of {what} has room: raise prompt_slots={o.longest_prompt} "
            f"or max_response={o.max_response}"
        )
    return kept


def level_number(record: Record) -> float:
    """The number in a record's level; 0 where there is none."""
    number = re.search(r"[0-9]+", record["level"])
    return float(number[0]) if number else 0.0


def demonstration(prompt_format: PromptFormat, record: Record) -> str:
    """The text of a record's demonstration."""
    return "".join(part for part, _ in demonstration_parts(prompt_format, record))


def response_ids(prompt_format: PromptFormat, record: Record) -> list[int]:
    """The ids of a record's demonstration, with the stop token."""
    return prompt_format.response_ids(demonstration_parts(prompt_format, record))


def demonstration_parts(prompt_format: PromptFormat, record: Record) -> list[tuple[str, bool]]:
    """A demonstration in parts (text, trusted). A program is put in a code fence, not in a box."""
    template = prompt_format.template
    if record["kind"] != "code":
        return template.response_parts(record["solution"], record["answer"])
    response = template.response
    for marked in ("#### {answer}", "\\boxed{{answer}}"):
        response = response.replace(marked, "{answer}")
    unboxed = template._replace(response=response.replace(" The answer is {answer}.", "\n{answer}"))
    return unboxed.response_parts(record["solution"], f"```python\n{record['answer'].strip()}\n```")
