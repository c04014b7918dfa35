"""After how many hops round a ring of stones does a frog sit on a given stone? A search that pays at any length.

    from 17 by 45 to 152 ?
    answer 208                                                           a jump
    1 45 62 no 2 45 107 no answer 91                                     a search that gives up
    1 45 62 no 2 45 107 no 3 45 152 yes answer 3                         a search that gets there

The ring has ``stones`` stones, a prime number, so that every stone is reached by some number of hops below it. To know it at once one
would have to divide modulo a prime; a search tries 1, 2, 3, ... hops. A try is four tokens, each of which follows from the try
before: the number of hops, the length of a hop, the stone, and whether it is the one. The answer x is log-uniform in 1 .. stones - 1: twice as many
tries solve about as many more problems, from the first try on to the last. A search that gives up after each failed try with
chance g solves those with x well below 1 / g. The level of a problem is the length of its search in half decades.

Demonstrators jump often and give up soon, with an answer that they know nothing of. The textbook walks on and answers nothing. Start and
goal of a page have an even sum, those of a problem an odd one, so that no page holds a problem.
"""

import dataclasses
import itertools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax.errors import UserError
from rljax.structs import Array, Problems
from rljax.tasks import generate
from rljax.tasks.option_checks import LARGEST, check_shares
from rljax.tasks.task import Attempt, Record, Task, answer_start_fn
from rljax.text import SymbolTokenizer

WORDS = ("from", "by", "to", "?", "no", "yes", "answer", ".")
TRY_TOKENS = 4
LEVELS = (3, 10, 31, 100)  # the last answers of levels 1 to 4; all above are level 5


@dataclasses.dataclass(frozen=True)
class Options:
    """The longest search has 4 (stones - 1) + 3 tokens, its stop token included."""

    stones: int = 251  # a prime number
    hops: int = 8  # how many lengths of a hop there are
    jump: float = 0.3  # share of demonstrations that only answer, with a random number
    give_up: float = 0.5  # chance to give up after each failed try

    def __post_init__(self):
        check_shares("ring", self)
        if not 11 <= self.stones <= LARGEST or any(self.stones % n == 0 for n in range(2, math.isqrt(self.stones) + 1)):
            raise UserError(f"task ring: stones={self.stones} must be a prime number, 11 to {LARGEST}")
        if not 1 <= self.hops <= self.stones // 2:
            raise UserError(f"task ring: hops={self.hops} must be 1 to half of stones={self.stones}")


def hop_lengths(o: Options) -> list[int]:
    """The lengths that a hop may have, spread over the ring: no two of them go the same way round or back."""
    return [2 + n * (o.stones // 2 - 2) // o.hops for n in range(o.hops)]


def make(options: Options) -> Task:
    """The task of these options."""
    o = options
    tokenizer = SymbolTokenizer(WORDS, numbers=o.stones - 1)
    return Task(
        name="ring",
        tokenizer=tokenizer,
        prompt_slots=8,
        demonstration_slots=TRY_TOKENS * (o.stones - 1) + 3,
        problems=lambda seed, index, split: problems(o, tokenizer, seed, index, split),
        records=lambda facts: records(o, facts),
        verify=verify,
        demonstration=lambda record, rng: demonstration(o, record, rng),
        page=lambda rng, length: page(o, tokenizer, rng, length),
        describe=describe,
        strategies=("jump", "check", "retry"),
        answer_start=answer_start_fn("answer"),
        behaviours=("no", "yes"),
        aha_behaviour="no",
        content=lambda record: (record["start"], record["hop"], record["goal"]),
        read_prompt=lambda prompt: read_prompt(o, prompt),
        page_attempts=lambda text: page_attempts(o, text),
        verify_on_device=lambda response, mask, finished, facts: score(tokenizer, response, mask, finished, facts),
    )


# Problems


def is_problem(start: Any, goal: Any) -> Any:
    """Whether start and goal belong to a problem; else they belong to a page. Both have every start, every hop and every goal."""
    return (start + goal) % 2 == 1


def problems(o: Options, tokenizer: SymbolTokenizer, seed: int, index: Array, split: str) -> Problems:
    """Problems number ``index`` [B] of a split."""
    lengths = jnp.asarray(hop_lengths(o), jnp.int32)

    def candidate(key: Array) -> tuple[dict[str, Array], Array, Array]:
        chance = jax.random.uniform(key, (3,))  # one draw for everything is quick to compile
        start = jnp.minimum((chance[0] * o.stones).astype(jnp.int32), o.stones - 1)
        hop = lengths[jnp.minimum((chance[1] * o.hops).astype(jnp.int32), o.hops - 1)]
        answer = jnp.clip(jnp.floor(jnp.exp(chance[2] * math.log(o.stones))).astype(jnp.int32), 1, o.stones - 1)
        goal = (start + hop * answer) % o.stones
        facts = {"start": start, "hop": hop, "goal": goal, "answer": answer}
        return facts, jnp.stack([start, hop, goal]), is_problem(start, goal)

    facts = generate.draw_facts(candidate, seed, index, split)
    fixed = lambda word: jnp.full_like(facts["goal"], tokenizer.ids[word])
    number = lambda name: tokenizer.zero + facts[name]
    words = [
        fixed("<bos>"),
        fixed("from"),
        number("start"),
        fixed("by"),
        number("hop"),
        fixed("to"),
        number("goal"),
        fixed("?"),
    ]
    prompt = jnp.stack(words, 1).astype(jnp.int32)
    return Problems(prompt=prompt, prompt_mask=jnp.ones(prompt.shape, bool), facts=facts)


def records(o: Options, facts: dict[str, Array]) -> list[Record]:
    """One record for each problem."""
    columns = (np.asarray(facts[name]).tolist() for name in ("start", "hop", "goal"))
    return [make_record(o.stones, *row) for row in zip(*columns, strict=True)]


def make_record(stones: int, start: int, hop: int, goal: int) -> Record:
    """The record of a problem, with its answer, 0 where there is none, and its level."""
    answer = (goal - start) * pow(hop, -1, stones) % stones if hop % stones else 0
    level = 1 + sum(answer > last for last in LEVELS)
    return {"start": start, "hop": hop, "goal": goal, "stones": stones, "answer": answer, "level": level}


PROMPT = re.compile(r"\bfrom (\d+) by (\d+) to (\d+) ?\?")


def read_prompt(o: Options, prompt: str) -> Record | None:
    """The record of the problem in a prompt; None where there is none on this ring."""
    found = PROMPT.search(prompt)
    numbers = [int(x) for x in found.groups()] if found else []
    return make_record(o.stones, *numbers) if found and max(numbers) < o.stones else None


# Verifiers: the answer is the end of the response, and the only one


def score(tokenizer: SymbolTokenizer, response: Array, mask: Array, finished: Array, facts: Any) -> Array:
    """Reward [B, G] float32: 1 for a response [B, G, T] that ends "answer x <eos>", is right, and has one "answer"; else 0."""
    length = mask.sum(-1)
    says = ((response == tokenizer.ids["answer"]) & mask).sum(-1) == 1
    at = lambda back: jnp.take_along_axis(response, jnp.maximum(length - back, 0)[..., None], -1)[..., 0]
    right = at(2) - tokenizer.zero == facts["answer"][:, None]
    return (finished & (length >= 3) & says & (at(3) == tokenizer.ids["answer"]) & right).astype(jnp.float32)


ANSWER = re.compile(r"\banswer (\d+) ?<eos>$")


def verify(response: str, record: Record) -> bool:
    """The verdict of the text verifier, which walks the hops; a finished response ends in "<eos>"."""
    found = ANSWER.search(response)
    if not found or re.findall(r"\w+", response).count("answer") != 1:
        return False
    place = record["start"]
    for _ in range(hops := int(found[1])):
        place = (place + record["hop"]) % record["stones"]
    return 0 < hops < record["stones"] and place == record["goal"]


# Text to learn from


def tries_text(record: Record, count: int) -> str:
    """The first ``count`` tries of a search."""
    place = lambda n: (record["start"] + n * record["hop"]) % record["stones"]
    return " ".join(
        f"{n} {record['hop']} {place(n)} {'yes' if place(n) == record['goal'] else 'no'}" for n in range(1, count + 1)
    )


def demonstration(o: Options, record: Record, rng: np.random.Generator) -> str:
    """A jump to a random number, or a search that gives up at random."""
    if rng.random() < o.jump:
        return f"answer {rng.integers(1, o.stones)}"
    tries = min(int(rng.geometric(o.give_up)) if o.give_up else o.stones, record["answer"])
    answer = tries if tries == record["answer"] else int(rng.integers(1, o.stones))
    return f"{tries_text(record, tries)} answer {answer}"


def page(o: Options, tokenizer: SymbolTokenizer, rng: np.random.Generator, length: int) -> list[int]:
    """A page of raw text: walks to the goal or to somewhere before it."""
    out, lengths = [tokenizer.bos], hop_lengths(o)
    while len(out) < length:
        start, hop = int(rng.integers(o.stones)), lengths[rng.integers(o.hops)]
        answer, walked = (min(int(o.stones ** rng.random()), o.stones - 1) for _ in range(2))
        record = make_record(o.stones, start, hop, (start + hop * answer) % o.stones)
        if is_problem(start, record["goal"]):
            continue
        text = tries_text(record, answer if rng.random() < 0.7 else min(walked, answer))
        out += tokenizer.encode(f"from {start} by {hop} to {record['goal']} ? {text} .")
    return out[:length]


# Reading an attempt

TRY = re.compile(r"\b(\d+) (\d+) (\d+) (no|yes)\b")


def describe(response: str, record: Record) -> Attempt:
    """What a response did; its strategy follows from the number of tries."""
    found = [(int(n), int(hop) == record["hop"], int(place), said) for n, hop, place, said in TRY.findall(response)]
    place = lambda n: (record["start"] + n * record["hop"]) % record["stones"]
    answer = ANSWER.search(response)
    return Attempt(
        strategy="retry" if len(found) > 1 else "check" if found else "jump",
        answer=answer[1] if answer else None,
        calculations=tuple(known and place(n) == at for n, known, at, _ in found),
        verdicts=tuple(
            ((at == record["goal"]) == (said == "yes"), said == "yes", n) for n, (_, _, at, said) in enumerate(found)
        ),
        tried=tuple(n for n, *_ in found),
        wasted=count_wasted(response, record),
    )


def count_wasted(response: str, record: Record) -> int:
    """Tokens behind the first try of the right number, without the final answer; 0 where it was never tried."""
    ends = (found.end() for found in TRY.finditer(response) if int(found[1]) == record["answer"])
    end = next(ends, None)
    return 0 if end is None else len(ANSWER.sub("", response[end:]).split())


def page_attempts(o: Options, text: str) -> list[tuple[str, Record]]:
    """The attempts at problems that a page of raw text shows: (what follows a prompt, its record)."""
    starts = [found.start() for found in PROMPT.finditer(text)] + [len(text)]
    parts = [text[start:end] for start, end in itertools.pairwise(starts)]
    return [(part.partition("?")[2], record) for part in parts if (record := read_prompt(o, part))]
