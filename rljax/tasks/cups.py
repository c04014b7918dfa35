"""Which cup is it under? The shell game: how many swaps in a row can a model follow within one token?

    Omar hides it under B : AB CE AD where ?
    answer D                                    a jump
    at A at A at D answer D                     steps: the place after every ``stride`` swaps, then the answer

AB swaps the cups A and B, so the object moves from B to A; CE does not move it; AD moves it to D. Swaps must be followed one
after the other: the place after a swap decides what the next swap does. A model has a fixed number of layers for each token,
so it can follow a limited number of swaps within one token. If it writes the places down, it follows ``stride`` swaps at a
time. Demonstrators jump or write steps, and always know the answer: only the computation makes them hard to imitate. A swap
is one word, so reading it takes little computation.

Two problems are the same if the first place and the swaps, in order, are the same; the name does not matter. Where problems
have different numbers of swaps, short prompts are padded on the left, and the number of swaps is the ``level`` of a record.

The raw text shows no answer to a problem: its drills ("B AB at A .") have fewer swaps than any problem, and its games stop
before the place after the last swap.
"""

import dataclasses
import itertools
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

NAMES = ("Ben", "Emily", "Ada", "Omar", "Mia", "Leo", "Zoe", "Ravi")
CUPS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
WORDS = ("hides", "it", "under", ":", "where", "?", "at", "answer", ".")
HEAD, TAIL = 7, 2  # words of "<bos> Omar hides it under B :" and "where ?"


@dataclasses.dataclass(frozen=True)
class Options:
    """The longest demonstration has 2 (swaps // stride) + 3 tokens, its stop token included; a jump has 3."""

    cups: int = 6
    swaps: int = 8  # in a problem, at most
    fewest: int = 0  # a problem has ``fewest`` to ``swaps`` swaps, each number equally often; 0: always ``swaps``
    stride: int = 1  # demonstrators write the place after every ``stride`` swaps; 0, or at least ``swaps``: jumps only
    jump: float = 0.0  # share of the demonstrations that jump instead
    drill: int = 1  # swaps of the longest drill in the raw text

    def __post_init__(self):
        check_shares("cups", self)
        if not 3 <= self.cups <= len(CUPS):
            raise UserError(f"task cups: cups={self.cups} must be 3 to {len(CUPS)}")
        if self.stride < 0:
            raise UserError(f"task cups: stride={self.stride} must be at least 0")
        if not 0 <= self.fewest <= self.swaps <= LARGEST:
            raise UserError(
                f"task cups: fewest={self.fewest} must be 0 to swaps={self.swaps}, which is at most {LARGEST}"
            )
        if self.cups * len(swap_words(self.cups)) ** self.shortest < 100:  # each split needs some of every level
            said = f"cups={self.cups} with {self.shortest} swaps"
            raise UserError(f"task cups: {said} makes fewer than 100 problems: raise cups, or swaps and fewest")
        if not 1 <= self.drill < self.shortest:
            raise UserError(
                f"task cups: drill={self.drill} must be at least 1 and below the {self.shortest} swaps of the shortest "
                "problem, or the raw text would show answers of problems"
            )

    @property
    def shortest(self) -> int:
        """Swaps of the shortest problem."""
        return self.fewest or self.swaps

    @property
    def jumps_only(self) -> bool:
        """Whether every demonstration is a jump."""
        return not 0 < self.stride < self.swaps


def swap_words(cups: int) -> list[str]:
    """The word for each swap of two different cups."""
    return [a + b for a, b in itertools.combinations(CUPS[:cups], 2)]


def make(options: Options) -> Task:
    """The task of these options."""
    o = options
    tokenizer = SymbolTokenizer((*CUPS[: o.cups], *swap_words(o.cups), *NAMES, *WORDS), numbers=0)
    return Task(
        name="cups",
        tokenizer=tokenizer,
        prompt_slots=HEAD + o.swaps + TAIL,
        demonstration_slots=3 if o.jumps_only else 2 * (o.swaps // o.stride) + 3,
        problems=lambda seed, index, split: problems(o, tokenizer, seed, index, split),
        records=lambda facts: records(o, facts),
        verify=verify,
        demonstration=lambda record, rng: demonstration(o, record, rng),
        page=lambda rng, length: page(o, tokenizer, rng, length),
        describe=lambda response, record: describe(o, response, record),
        strategies=("jump", "steps"),
        answer_start=answer_start_fn("answer"),
        behaviours=("at",),
        aha_behaviour="at",
        content=lambda record: (record["start"], *record["swaps"]),
        read_prompt=lambda prompt: read_prompt(o, prompt),
        verify_on_device=lambda response, mask, finished, facts: score(tokenizer, response, mask, finished, facts),
    )


# Problems: the first place, the swaps, their number, the last place, and a name. A place is the number of a cup, a swap the
# number of a pair. Swaps beyond the end of a shorter problem are -1.


def problems(o: Options, tokenizer: SymbolTokenizer, seed: int, index: Array, split: str) -> Problems:
    """Problems number ``index`` [B] of a split; short ones are padded on the left."""
    known = swap_words(o.cups)

    def candidate(key: Array) -> tuple[dict[str, Array], Array, Array]:
        noise = jax.random.bits(key, (3 + o.swaps,))  # one draw for everything is quick to compile
        below = lambda bits, n: (bits % n).astype(jnp.int32)
        count = o.shortest + below(noise[0], o.swaps - o.shortest + 1)
        start, name = below(noise[1], o.cups), below(noise[2], len(NAMES))
        swaps = jnp.where(jnp.arange(o.swaps) < count, below(noise[3:], len(known)), -1)
        facts = {"start": start, "swaps": swaps, "count": count, "place": follow(o, start, swaps), "name": name}
        return facts, jnp.concatenate([start[None], swaps]), jnp.ones((), bool)

    facts = generate.draw_facts(candidate, seed, index, split)
    ids, size = tokenizer.ids, facts["start"].shape[0]
    fixed = lambda *words: jnp.broadcast_to(jnp.asarray([ids[w] for w in words]), (size, len(words)))
    name, start = (ids[NAMES[0]] + facts["name"])[:, None], (ids[CUPS[0]] + facts["start"])[:, None]
    head = [fixed("<bos>"), name, fixed("hides", "it", "under"), start, fixed(":")]
    told = jnp.concatenate([*head, ids[known[0]] + facts["swaps"]], 1)  # [B, HEAD + swaps], missing swaps at the end
    place = jnp.arange(told.shape[1]) - (o.swaps - facts["count"])[:, None]  # moved to the right by their number
    told = jnp.where(place >= 0, jnp.take_along_axis(told, jnp.maximum(place, 0), 1), tokenizer.pad)
    prompt = jnp.concatenate([told, fixed("where", "?")], 1).astype(jnp.int32)
    mask = jnp.concatenate([place >= 0, jnp.ones((size, TAIL), bool)], 1)
    return Problems(prompt=prompt, prompt_mask=mask, facts=facts)


def follow(o: Options, start: Array, swaps: Array) -> Array:
    """The place [] of the object after swaps [S], which begins at ``start`` []. Negative swaps change nothing."""
    cups = jnp.asarray(list(itertools.combinations(range(o.cups), 2)))  # [pairs, 2]

    def apply_swap(at: Array, swap: Array) -> tuple[Array, None]:
        a, b = cups[swap]
        return jnp.where(swap < 0, at, jnp.where(at == a, b, jnp.where(at == b, a, at))), None

    return jax.lax.scan(apply_swap, start, swaps)[0]


def records(o: Options, facts: dict[str, Array]) -> list[Record]:
    """One record for each problem."""
    known, columns = swap_words(o.cups), (np.asarray(facts[k]).tolist() for k in ("start", "swaps", "count"))
    return [make_record(CUPS[start], [known[s] for s in swaps[:n]]) for start, swaps, n in zip(*columns, strict=True)]


def make_record(start: str, swaps: list[str]) -> Record:
    """The record of a problem; its level is the number of swaps."""
    return {"start": start, "swaps": swaps, "place": place_after(start, swaps), "level": len(swaps)}


def place_after(at: str, swaps: list[str]) -> str:
    """The place of the object after these swaps, if it begins at ``at``."""
    for swap in swaps:
        at = swap[1 - swap.index(at)] if at in swap else at
    return at


PROMPT = re.compile(r"\bunder ([A-Z]) ?:((?: [A-Z]{2})+) where\b")


def read_prompt(o: Options, prompt: str) -> Record | None:
    """The record of the problem in a prompt; None where there is none with these cups."""
    found = PROMPT.search(prompt)
    if not found:
        return None
    start, swaps = found.group(1), found.group(2).split()
    return make_record(start, swaps) if start in CUPS[: o.cups] and set(swaps) <= set(swap_words(o.cups)) else None


# Verifiers: the answer is the end of the response, and the only one


def score(tokenizer: SymbolTokenizer, response: Array, mask: Array, finished: Array, facts: Any) -> Array:
    """Reward [B, G] float32: 1 for a response [B, G, T] that ends "answer X <eos>", is right, and has one "answer"; else 0."""
    length = mask.sum(-1)
    says = ((response == tokenizer.ids["answer"]) & mask).sum(-1) == 1
    at = lambda back: jnp.take_along_axis(response, jnp.maximum(length - back, 0)[..., None], -1)[..., 0]
    right = at(2) - tokenizer.ids[CUPS[0]] == facts["place"][:, None]
    return (finished & (length >= 3) & says & (at(3) == tokenizer.ids["answer"]) & right).astype(jnp.float32)


ANSWER = re.compile(r"answer ([A-Z]) <eos>$")


def verify(response: str, record: Record) -> bool:
    """The verdict of the text verifier; a finished response ends in "<eos>"."""
    found = ANSWER.search(response)
    said = re.findall(r"\w+", response).count("answer")
    return bool(found) and said == 1 and found.group(1) == record["place"]


# Text to learn from


def places_after(start: str, swaps: list[str], stride: int) -> list[str]:
    """The places after every ``stride`` swaps; swaps that are left over have none."""
    return [place_after(start, swaps[:n]) for n in range(stride, len(swaps) + 1, stride)]


def demonstration(o: Options, record: Record, rng: np.random.Generator) -> str:
    """A jump or steps, drawn by the options; always right."""
    jumps = o.jumps_only or rng.random() < o.jump or len(record["swaps"]) <= o.stride
    steps = [] if jumps else [f"at {p}" for p in places_after(record["start"], record["swaps"], o.stride)]
    return " ".join([*steps, f"answer {record['place']}"])


def page(o: Options, tokenizer: SymbolTokenizer, rng: np.random.Generator, length: int) -> list[int]:
    """A page of raw text: drills of a few swaps, or games that stop before the last place."""
    tell = drill if o.jumps_only or rng.random() < 0.5 else game
    out = [tokenizer.bos]
    while len(out) < length:
        out += tokenizer.encode(tell(o, rng))
    return out[:length]


def draw_swaps(o: Options, rng: np.random.Generator, count: int) -> tuple[str, list[str]]:
    """A random place and ``count`` random swaps."""
    known = swap_words(o.cups)
    return CUPS[rng.integers(o.cups)], [known[n] for n in rng.integers(len(known), size=count)]


def drill(o: Options, rng: np.random.Generator) -> str:
    """A place, a few swaps and the place after them; fewer swaps than any problem has."""
    start, swaps = draw_swaps(o, rng, int(rng.integers(1, o.drill + 1)))
    return f"{start} {' '.join(swaps)} at {place_after(start, swaps)} ."


def game(o: Options, rng: np.random.Generator) -> str:
    """The prompt of a problem and the places on the way, without the one after the last swap."""
    start, swaps = draw_swaps(o, rng, int(rng.integers(o.shortest, o.swaps + 1)))
    name, steps = (
        NAMES[rng.integers(len(NAMES))],
        "".join(f"at {p} " for p in places_after(start, swaps[:-1], o.stride)),
    )
    return f"{name} hides it under {start} : {' '.join(swaps)} where ? {steps}."


# Reading an attempt


def describe(o: Options, response: str, record: Record) -> Attempt:
    """What a response did. Each written place counts as a calculation from the place written before it."""
    stride, at, facts = max(o.stride, 1), record["start"], []
    for n, place in enumerate(re.findall(r"\bat ([A-Z])\b", response)):
        between = record["swaps"][n * stride : (n + 1) * stride]
        facts.append(len(between) == stride and place_after(at, between) == place)
        at = place
    answer = ANSWER.search(response)
    return Attempt("steps" if facts else "jump", answer.group(1) if answer else None, tuple(facts))
