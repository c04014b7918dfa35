"""How many stops is it to the next station of a colour? A search that pays at any length.

    from bor to red ?
    answer 108                                                      a jump
    1 mun grey red no 2 tas blue red no answer 2                    a search that gives up
    1 mun grey red no 2 tas blue red no 3 kel red red yes answer 3  a search that gets there

A ring line has ``stations`` stations. Their order and their colours stand in the textbook alone. To know the number of stops at once one would
have to know it by heart for each station and colour; a search rides along and counts. A try is five tokens: the number of stops, the
station, its colour, the colour that is looked for, and whether they are the same. Each follows from tokens at a fixed distance
before it, in the first try from those of the prompt, which has the form of a try. So nothing about a try is harder at token 900 than at token 9.

One station is golden, two are silver, four black, and so on; all that are left are red. The answer is log-uniform in 1 .. ``longest``:
twice as many tries solve about as many more problems, from the first try on to the last. A search that gives up after each failed try with chance g
solves the problems whose answer is well below 1 / g. The level of a problem is its answer in half decades.

Demonstrators jump often and give up soon, with an answer that is wrong. Rides of the textbook begin with "book" and end with the number of
their last stop. Those that arrive are short; those that end on the way, with a wrong answer, have any length. So no text shows a long
search that arrives. The numbers of station and colour have an even sum on a page and an odd one in a problem, so that no page holds a
problem.
"""

import dataclasses
import functools
import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax.errors import UserError
from rljax.structs import Array, Problems
from rljax.tasks import generate
from rljax.tasks.option_checks import check_shares
from rljax.tasks.task import Attempt, Record, Task, answer_start_fn
from rljax.text import SymbolTokenizer

WORDS = ("book", "from", "to", "?", "no", "yes", "answer")
COLOURS = ("gold", "silver", "black", "white", "grey", "green", "blue", "red")  # from rare to frequent
NAMES = tuple("".join(letters) for letters in itertools.product("bdfghklmnprst", "aeiou", "klmnrst"))  # of stations
TRY_TOKENS = 5
SHORT_RIDE = 15  # stops at most, of the rides of a page that arrive
LEVELS = (3, 10, 31, 100)  # the last answers of levels 1 to 4; all above are level 5


@dataclasses.dataclass(frozen=True)
class Options:
    """The longest search has 5 longest + 3 tokens, its stop token included."""

    stations: int = 400
    longest: int = 198  # stops to the goal, at most
    jump: float = 0.3  # share of demonstrations that only answer, with a random number
    give_up: float = 0.5  # chance to give up after each failed try

    def __post_init__(self):
        check_shares("ring", self)
        if not 2 ** len(COLOURS) <= self.stations <= len(NAMES):
            raise UserError(f"task ring: stations={self.stations} must be {2 ** len(COLOURS)} to {len(NAMES)}")
        if not 1 <= self.longest <= self.stations:
            raise UserError(f"task ring: longest={self.longest} must be 1 to stations={self.stations}")


@dataclasses.dataclass(frozen=True)
class Line:
    """The ring: the same in every run. Stations are numbers, and so are colours."""

    after: np.ndarray  # [stations] the next station
    colour: np.ndarray  # [stations]
    stops: np.ndarray  # [stations, colours] from a station to the next one of a colour, 1 at least


@functools.cache
def make_line(stations: int) -> Line:
    """A random order of the stations; the colour number c has 2^c of them, the last colour the rest."""
    rng = np.random.default_rng(stations)
    order = rng.permutation(stations)
    sizes = [2**c for c in range(len(COLOURS) - 1)]
    by_place = rng.permutation(np.repeat(np.arange(len(COLOURS)), [*sizes, stations - sum(sizes)]))
    after, colour = np.empty(stations, int), np.empty(stations, int)
    after[order], colour[order] = np.roll(order, -1), by_place
    stop = np.arange(1, stations + 1)
    ahead = by_place[(np.arange(stations)[:, None] + stop) % stations]  # [place, stop] the colour found there
    stops = np.empty((stations, len(COLOURS)), int)
    stops[order] = np.stack([(ahead == c).argmax(1) + 1 for c in range(len(COLOURS))], 1)
    return Line(after, colour, stops)


def make(options: Options) -> Task:
    """The task of these options."""
    o = options
    tokenizer = SymbolTokenizer(WORDS + COLOURS + NAMES[: o.stations], numbers=o.longest)
    return Task(
        name="ring",
        tokenizer=tokenizer,
        prompt_slots=6,
        demonstration_slots=TRY_TOKENS * o.longest + 3,
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
        content=lambda record: (record["start"], record["goal"]),
        read_prompt=lambda prompt: read_prompt(o, prompt),
        page_attempts=lambda text: page_attempts(o, text),
        verify_on_device=lambda response, mask, finished, facts: score(tokenizer, response, mask, finished, facts),
    )


# Problems


def is_problem(start: Any, goal: Any) -> Any:
    """Whether a station and a colour make a problem; else they belong to a page. Both have all stations and all colours."""
    return (start + goal) % 2 == 1


@functools.cache
def problem_shares(o: Options) -> np.ndarray:
    """The chance of each problem, [stations * colours] in order: log-uniform in the answer, the same for all that share one."""
    stops = make_line(o.stations).stops
    start, goal = np.indices(stops.shape)
    asked = is_problem(start, goal) & (stops <= o.longest)
    sharing = np.bincount(stops[asked], minlength=o.stations + 1)[stops].clip(1)  # problems with the same answer
    chance = np.where(asked, np.log1p(1 / stops) / sharing, 0)
    return (chance / chance.sum()).ravel()


def problems(o: Options, tokenizer: SymbolTokenizer, seed: int, index: Array, split: str) -> Problems:
    """Problems number ``index`` [B] of a split."""
    edges = jnp.asarray(problem_shares(o).cumsum(), jnp.float32)
    stops = jnp.asarray(make_line(o.stations).stops, jnp.int32)

    def candidate(key: Array) -> tuple[dict[str, Array], Array, Array]:
        drawn = jnp.searchsorted(edges, jax.random.uniform(key), side="right")
        start, goal = (x.astype(jnp.int32) for x in jnp.divmod(drawn, len(COLOURS)))
        start = jnp.minimum(start, o.stations - 1)  # where rounding leaves the last edge below 1
        answer = stops[start, goal]
        sound = is_problem(start, goal) & (answer <= o.longest)
        return {"start": start, "goal": goal, "answer": answer}, jnp.stack([start, goal]), sound

    facts = generate.draw_facts(candidate, seed, index, split)
    word = lambda name: jnp.full_like(facts["goal"], tokenizer.ids[name])
    station, colour = (tokenizer.ids[names[0]] + facts[fact] for names, fact in ((NAMES, "start"), (COLOURS, "goal")))
    prompt = jnp.stack([word("<bos>"), word("from"), station, word("to"), colour, word("?")], 1).astype(jnp.int32)
    return Problems(prompt=prompt, prompt_mask=jnp.ones(prompt.shape, bool), facts=facts)


def records(o: Options, facts: dict[str, Array]) -> list[Record]:
    """One record for each problem."""
    columns = (np.asarray(facts[name]).tolist() for name in ("start", "goal"))
    return [make_record(o.stations, *row) for row in zip(*columns, strict=True)]


def make_record(stations: int, start: int, goal: int) -> Record:
    """The record of a problem, with its answer and its level."""
    answer = int(make_line(stations).stops[start, goal])
    level = 1 + sum(answer > last for last in LEVELS)
    return {"start": start, "goal": goal, "stations": stations, "answer": answer, "level": level}


PROMPT = re.compile(r"\bfrom (\w+) to (\w+) ?\?")


def read_prompt(o: Options, prompt: str) -> Record | None:
    """The record of the problem in a prompt; None where there is none on this line."""
    found, names = PROMPT.search(prompt), NAMES[: o.stations]
    if not found or found[1] not in names or found[2] not in COLOURS:
        return None
    return make_record(o.stations, names.index(found[1]), COLOURS.index(found[2]))


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
    """The verdict of the text verifier, which rides along; a finished response ends in "<eos>"."""
    found = ANSWER.search(response)
    if not found or re.findall(r"\w+", response).count("answer") != 1:
        return False
    line = make_line(record["stations"])
    reached = [line.colour[at] == record["goal"] for at in passed(record, min(int(found[1]), record["stations"]))]
    return len(reached) == int(found[1]) > 0 and reached[-1] and not any(reached[:-1])


def passed(record: Record, stops: int) -> list[int]:
    """The stations of the first ``stops`` stops."""
    after, at = make_line(record["stations"]).after, record["start"]
    return [at := int(after[at]) for _ in range(stops)]


# Text to learn from


def tries_text(record: Record, count: int) -> str:
    """The first ``count`` tries of a search."""
    goal, colour = COLOURS[record["goal"]], make_line(record["stations"]).colour
    seen = [(NAMES[at], COLOURS[colour[at]]) for at in passed(record, count)]
    return " ".join(f"{n} {at} {its} {goal} {'yes' if its == goal else 'no'}" for n, (at, its) in enumerate(seen, 1))


def demonstration(o: Options, record: Record, rng: np.random.Generator) -> str:
    """A jump to a random number, or a search that gives up at random and answers with the number of stops so far."""
    if rng.random() < o.jump:
        return f"answer {rng.integers(1, o.longest + 1)}"
    tries = min(int(rng.geometric(o.give_up)) if o.give_up else o.longest, record["answer"])
    return f"{tries_text(record, tries)} answer {tries}"


def page(o: Options, tokenizer: SymbolTokenizer, rng: np.random.Generator, length: int) -> list[int]:
    """A page of raw text, cut out of a long row of rides: three in four are short and may arrive, the others are long and never do."""
    out, stops, skipped = [], make_line(o.stations).stops, int(rng.integers(TRY_TOKENS * o.longest))
    while len(out) < skipped + length:
        start, short = int(rng.integers(o.stations)), rng.random() < 0.75
        near = stops[start] <= min(SHORT_RIDE, o.longest)
        goals = [c for c in range(len(COLOURS)) if not is_problem(start, c) and near[c] == short]
        if goals:
            record = make_record(o.stations, start, goals[rng.integers(len(goals))])
            before = min(record["answer"] - 1, o.longest)  # stops at most without arriving
            arrives = short and (record["answer"] == 1 or rng.random() < 0.7)
            # of a long ride the greatest of three, else next to none would come to the large numbers
            ridden = record["answer"] if arrives else int(rng.integers(1, before + 1, 1 if short else 3).max())
            prompt = f"<bos> book from {NAMES[start]} to {COLOURS[record['goal']]} ?"
            out += tokenizer.encode(f"{prompt} {tries_text(record, ridden)} answer {ridden} <eos>", specials=True)
    return out[skipped : skipped + length]


# Reading an attempt

TRY = re.compile(r"\b(\d+) ([a-z]+) ([a-z]+) ([a-z]+) (no|yes)\b")


def describe(response: str, record: Record) -> Attempt:
    """What a response did; its strategy follows from the number of tries."""
    found = [(int(n), (at, its, goal), said == "yes") for n, at, its, goal, said in TRY.findall(response)]
    colour, goal = make_line(record["stations"]).colour, COLOURS[record["goal"]]
    longest = min(max((n for n, *_ in found), default=0), record["stations"])
    known = [(NAMES[at], COLOURS[colour[at]], goal) for at in passed(record, longest)]
    answer = ANSWER.search(response)
    return Attempt(
        strategy="retry" if len(found) > 1 else "check" if found else "jump",
        answer=answer[1] if answer else None,
        calculations=tuple(0 < n <= longest and known[n - 1] == told for n, told, _ in found),
        verdicts=tuple(((told[1] == goal) == yes, yes, n) for n, (_, told, yes) in enumerate(found)),
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
