"""A small world as a plug-in would bring it: text only, its facts a list of records."""

import dataclasses

import numpy as np

from rljax.structs import Problems
from rljax.tasks import Attempt, Record, Task, answer_start_fn, split_number
from rljax.text import SymbolTokenizer, pad_batch

WORDS = ("+", "=", "?", "answer")


@dataclasses.dataclass(frozen=True)
class Options:
    largest: int = 20


def home_of(a: int, b: int) -> str:
    """The split of a problem, by its content."""
    return {0: "test", 1: "validation"}.get((3 * min(a, b) + max(a, b)) % 10, "train")


def verify(response: str, record: Record) -> bool:
    return response.endswith(f"answer {record['a'] + record['b']} <eos>") and response.count("answer") == 1


def describe(response: str, record: Record) -> Attempt:
    return Attempt("steps" if "=" in response else "jump", response.partition("answer ")[2].split(" ")[0] or None)


def make(options: Options) -> Task:
    tokenizer = SymbolTokenizer(WORDS, numbers=2 * options.largest)

    def draw_record(seed: int, index: int, split: str) -> Record:
        rng = np.random.default_rng((seed, index, split_number(split)))
        while True:
            a, b = rng.integers(1, options.largest + 1, 2).tolist()
            if home_of(a, b) == split:
                return {"a": a, "b": b}

    def problems(seed, index, split) -> Problems:
        records = [draw_record(int(seed), int(i), split) for i in np.asarray(index)]
        rows = [[tokenizer.bos, *tokenizer.encode(f"{r['a']} + {r['b']} ?")] for r in records]
        prompt, mask = pad_batch(rows, 6, tokenizer.pad, left=True)
        return Problems(prompt=prompt, prompt_mask=mask, facts=records)

    def demonstration(record: Record, rng: np.random.Generator) -> str:
        a, b = record["a"], record["b"]
        return f"{a} + {b} = {a + b} answer {a + b}" if rng.random() < 0.5 else f"answer {a}"

    return Task(
        name="coins",
        tokenizer=tokenizer,
        prompt_slots=6,
        demonstration_slots=8,
        problems=problems,
        records=list,
        verify=verify,
        demonstration=demonstration,
        page=lambda rng, length: [tokenizer.bos] + rng.integers(3, tokenizer.size, length - 1).tolist(),
        describe=describe,
        strategies=("jump", "steps"),
        behaviours=("+",),
        content=lambda record: frozenset(record.values()),
        answer_start=answer_start_fn("answer"),
    )
