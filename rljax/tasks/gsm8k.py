"""GSM8K: grade school mathematics in words, read byte by byte.

    Question: Natalia sold clips to 48 of her friends in April, ... altogether in April and May?
    Answer: Natalia sold 48/2 = 24 clips in May.
    Natalia sold 48+24 = 72 clips altogether in April and May.
    #### 72

The data comes through TensorFlow Datasets (without TensorFlow), or from a folder with train.jsonl and test.jsonl. A
twentieth of the training questions, chosen by a hash of the question, is the validation split. Questions without room
are dropped up front and counted; one epoch after the other goes through the rest, each in an order of its own.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rljax.errors import UserError
from rljax.structs import Array, Problems
from rljax.tasks import Attempt, Record, Task, split_number
from rljax.text import ByteTokenizer, pad_batch
from rljax.verifiers import answers

HINT = "give --config.task.options.path=FOLDER with train.jsonl and test.jsonl"
TOKENIZER = ByteTokenizer()
Splits = dict[str, list[Record]]


@dataclasses.dataclass(frozen=True)
class Options:
    path: str = ""  # folder that holds train.jsonl and test.jsonl; "": through TensorFlow Datasets
    data_dir: str = ""  # where TensorFlow Datasets keeps its data; "": its default
    prompt_slots: int = 512  # bytes, <bos> included; longer questions are dropped
    max_response: int = 400  # bytes of a solution, <eos> included; longer ones are dropped, except from the test split
    template: str = "Question: {question}\nAnswer: "

    def __post_init__(self):
        if "{question}" not in self.template:
            raise UserError(f"task gsm8k: template={self.template!r} must say where the {{question}} goes")


def make(options: Options) -> Task:
    """The task of these options. Raises UserError where the data cannot be had or read, or no question has room."""
    splits = load(options)
    return Task(
        name="gsm8k",
        tokenizer=TOKENIZER,
        prompt_slots=options.prompt_slots,
        demonstration_slots=options.max_response,
        problems=lambda seed, index, split: problems(options, splits, seed, index, split),
        records=list,
        verify=verify,
        demonstration=lambda record, rng: record["answer"],
        page=lambda rng, length: page(options, splits["train"], rng, length),
        describe=describe,
        words=("wait",),
    )


# Data


def load(o: Options) -> Splits:
    """The records of each split, in the order of the data; what is dropped is counted in the log."""
    read = {split: list(from_folder(o.path, split) if o.path else from_tfds(o.data_dir, split)) for split in FILES}
    asked = {content(r) for r in read["test"]}
    fresh = [r for r in read["train"] if content(r) not in asked]
    held_out = lambda r: int(content(r), 16) % 20 == 0
    all_splits = {
        "train": [r for r in fresh if not held_out(r)],
        "validation": [r for r in fresh if held_out(r)],
        "test": read["test"],
    }
    if copies := len(read["train"]) - len(fresh):
        logging.getLogger(__name__).warning(f"gsm8k: dropped {copies} training questions that the test asks too")
    return {split: with_room(o, split, found) for split, found in all_splits.items()}


def with_room(o: Options, split: str, records: list[Record]) -> list[Record]:
    """The records whose prompt fits, and whose solution does (any in the test split: it is never a demonstration)."""
    prompt_fits = [r for r in records if len(prompt_ids(o, r)) <= o.prompt_slots]
    response_fits = lambda r: split == "test" or len(TOKENIZER.encode(r["answer"])) < o.max_response
    kept = [r for r in prompt_fits if response_fits(r)]
    if len(kept) < len(records):
        logging.getLogger(__name__).warning(
            f"gsm8k: {split} keeps {len(kept)} of {len(records)} questions: {len(records) - len(prompt_fits)} are longer "
            f"than prompt_slots={o.prompt_slots}, {len(prompt_fits) - len(kept)} solutions than "
            f"max_response={o.max_response} bytes"
        )
    if records and not kept:
        raise UserError(
            f"task gsm8k: no question of the {split} split has room: raise prompt_slots={o.prompt_slots} "
            f"or max_response={o.max_response}"
        )
    return kept


FILES = {"train": "train.jsonl", "test": "test.jsonl"}


def from_folder(path: str, split: str) -> Iterator[Record]:
    """Records of a JSON lines file. Raises UserError naming the file, and the line where one is bad."""
    file = Path(path).expanduser() / FILES[split]
    try:
        lines = file.read_bytes().split(b"\n")  # not splitlines: JSON allows other line separators within a string
    except OSError as e:
        raise UserError(f"task gsm8k: cannot read {file}: {e.strerror}; {HINT}") from None
    for n, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield parse(json.loads(line))
            except (ValueError, RecursionError) as e:
                raise UserError(f"task gsm8k: {file}, line {n}: {e}") from None


def from_tfds(data_dir: str, split: str) -> Iterator[Record]:
    """The same records through TensorFlow Datasets, which downloads them once."""
    try:
        import tensorflow_datasets as tfds  # slow to import, and not needed with a folder
        import tensorflow_datasets.text  # noqa: F401  registers gsm8k

        kwargs = {"file_format": "array_record"}  # the default format needs TensorFlow
        source: Any = tfds.data_source("gsm8k", split=split, data_dir=data_dir or None, builder_kwargs=kwargs)
        rows = [source[i] for i in range(len(source))]
    except Exception as e:  # no network, no disk, a broken cache: the way out is the same
        cause = (str(e).strip() or "no reason given").splitlines()[0][:200]
        raise UserError(f"task gsm8k: TensorFlow Datasets failed ({type(e).__name__}: {cause}); {HINT}") from None
    for n, row in enumerate(rows):
        try:
            yield parse(row)
        except ValueError as e:
            raise UserError(f"task gsm8k: TensorFlow Datasets, split {split}, example {n}: {e}; {HINT}") from None


def parse(row: Any) -> Record:
    """A record from an example of either source, text or bytes. Raises ValueError, saying what is wrong."""
    text = lambda x: x.decode() if isinstance(x, bytes) else x
    question, answer = (text(row.get(k)) if isinstance(row, dict) else None for k in ("question", "answer"))
    if not (isinstance(question, str) and isinstance(answer, str) and question.strip()):
        raise ValueError('want an object with the strings "question" and "answer"')
    answer = re.sub(r"<<[^<>]*>>", "", answer).strip()  # calculator annotations: 48/2 = <<48/2=24>>24
    gold = answers.extract_answer(answer)
    if gold is None:
        raise ValueError('the answer does not end in "#### NUMBER"')
    return {"question": question.strip(), "answer": answer, "gold": gold}


def content(record: Record) -> str:
    """What makes two questions the same, whatever their case and spacing: a hexadecimal hash."""
    return hashlib.sha256(" ".join(record["question"].lower().split()).encode()).hexdigest()


# Problems and text


def prompt_ids(o: Options, record: Record) -> list[int]:
    return [TOKENIZER.bos, *TOKENIZER.encode(o.template.replace("{question}", record["question"]))]


def problems(o: Options, splits: Splits, seed: int, index: Array, split: str) -> Problems:
    """Problems number ``index`` [B] of a split; numbers past its size begin the next epoch, in another order."""
    number, kept = split_number(split), splits[split]
    if not kept:
        raise UserError(f"task gsm8k: the {split} split is empty: the data has too few questions")
    epochs, places = np.divmod(np.asarray(index), len(kept))
    chosen = [order(int(seed), number, int(e), len(kept))[p] for e, p in zip(epochs, places, strict=True)]
    facts = tuple(kept[i] for i in chosen)
    rows = [prompt_ids(o, r) for r in facts]
    prompt: Any  # numpy: a host task's arrays go to the device with the rest of the batch
    mask: Any
    prompt, mask = pad_batch(rows, o.prompt_slots, TOKENIZER.pad, left=True)
    return Problems(prompt=prompt, prompt_mask=mask, facts=facts)


@functools.lru_cache(maxsize=16)
def order(seed: int, split: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng((seed, split, epoch)).permutation(size)


def page(o: Options, train: list[Record], rng: np.random.Generator, length: int) -> list[int]:
    """Training questions and their solutions one after the other, each from <bos> to <eos>, cut to ``length``."""
    if not train:
        raise UserError("task gsm8k: the train split is empty: the data has too few questions")
    out: list[int] = []
    while len(out) < length:
        record = train[rng.integers(len(train))]
        out += [*prompt_ids(o, record), *TOKENIZER.encode(record["answer"]), TOKENIZER.eos]
    return out[:length]


# Reading a response


def verify(response: str, record: Record) -> bool:
    """Right, and finished: a truncated response counts as wrong whatever it had written."""
    return response.endswith("<eos>") and answers.verify(response.removesuffix("<eos>"), record["gold"])


# A run of numbers joined by operations, and what it is said to equal. Atomic groups (?>...) never try a shorter run: a
# long hostile text takes linear time, and "2+3+4=9" is not read as "3+4=9". No result may go on: "2*3 = 3+3", "1 1/2".
VALUE = r"\$?(?>[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?|\.[0-9]+)"
RUN = re.compile(
    rf"((?>-?{VALUE}(?: ?[-+*/x×÷] ?{VALUE})*))(?: ?= ?({VALUE})(?! ?[-+*/x×÷%] ?[.$0-9(]| ?[0-9]|[%A-Za-z]))?"
)
PARTS = re.compile(r"(-?\$?[0-9.][0-9,.]*) ?([-+*/x×÷]) ?(\$?[0-9.][0-9,.]*)")
ENDS = {*"0123456789)%+*/x×÷-"}  # what stands before a run that is the end of a longer expression


def calculations(text: str) -> list[bool]:
    """Each "a op b = c" in a text: right or not? c may be rounded to the decimals that it shows."""
    out = []
    for run in RUN.finditer(text):
        before = text[max(run.start() - 2, 0) : run.start()].rstrip()[-1:]
        pair = PARTS.fullmatch(run[1])
        if run[2] is None or pair is None or before in ENDS:
            continue
        a, b, c = (float(x.replace("$", "").replace(",", "")) for x in (pair[1], pair[3], run[2]))
        decimals = len(run[2].partition(".")[2])
        match pair[2]:
            case "+":
                exact = a + b
            case "-":
                exact = a - b
            case "*" | "x" | "×":
                exact = a * b
            case _:
                exact = a / b if b else math.nan
        slack = 0.5001 * 10.0**-decimals if decimals else 1e-9 * max(1.0, abs(c))
        out.append(abs(exact - c) <= slack < math.inf)
    return out


def describe(response: str, record: Record) -> Attempt:
    reasoning = response.rpartition("####")[0] if "####" in response else response.removesuffix("<eos>")
    waits = re.search(r"\bwait\b", reasoning, re.IGNORECASE)
    strategy = "retry" if waits else "steps" if reasoning.strip() else "jump"
    return Attempt(strategy, answers.extract_answer(response), tuple(calculations(reasoning)))
