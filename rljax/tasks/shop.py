"""Which two prices make the total? Search with retries.

    Ben pays 14 for two of 6 3 2 11 9 ?
    answer 3 11                                                              a jump
    try 6 + 3 = 9 vs 14 less wait 11 + 9 = 20 vs 14 more answer 2 9          a search that gives up
    try 6 + 3 = 9 vs 14 less wait 3 + 11 = 14 vs 14 same answer 3 11         a search that gets there

With a second language (``second``) each try and each answer may be written in it, as in "试 6 + 3 = 9 对 14 少 wait 3 + 11 = 14 vs
14 same 答 3 11": a model that learns from such text mixes them, as DeepSeek-R1-Zero does. Prompts are in the first.

A try is nine easy tokens; an answer without a try has to compare all pairs within a single token. Demonstrators jump often
and give up at random. Two problems are the same if their totals and prices are, in any order. Exactly one pair makes the
total.
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

NAMES = ("Ben", "Emily", "Ada", "Omar", "Mia", "Leo", "Zoe", "Ravi")
WORDS = (*NAMES, "pays", "for", "two", "of", "?", "try", "+", "=", "vs", "less", "more", "same", "wait", "answer", ".")
VERDICTS = ("less", "more", "same")
SECOND = {"try": "试", "wait": "等", "vs": "对", "less": "少", "more": "多", "same": "同", "answer": "答"}
FIRST = {there: here for here, there in SECOND.items()}


@dataclasses.dataclass(frozen=True)
class Options:
    """Sizes of the problems, and what demonstrators do."""

    prices: int = 5  # how many to choose from
    fewest: int = 0  # a list has ``fewest`` to ``prices`` prices, and their number is its level; 0: always ``prices``
    max_price: int = 12
    jump: float = 0.5  # share of demonstrations that only answer
    jump_right: float = 0.0  # share of the jumps that know the answer; the others name a random pair
    give_up: float = 0.35  # chance to give up after each failed try
    in_order: float = 0.5  # share of searches that go through the pairs in order
    second: float = 0.0  # share of tries and answers in the second language; 0: there is none

    def __post_init__(self):
        check_shares("shop", self)
        if not 1 <= self.max_price <= LARGEST:
            raise UserError(f"task shop: max_price={self.max_price} must be 1 to {LARGEST}")
        if self.prices < 3 or math.comb(self.max_price, self.prices) < 100:  # each split needs some of the lists
            said = f"prices={self.prices} of max_price={self.max_price}"
            raise UserError(f"task shop: {said}: 3 prices or more are needed, and 100 different lists of them")
        if self.fewest and (not 3 <= self.fewest < self.prices or math.comb(self.max_price, self.fewest) < 100):
            raise UserError(
                f"task shop: fewest={self.fewest} must be 3 or more, below prices={self.prices}, and leave 100 different "
                f"lists of max_price={self.max_price}; or 0"
            )


def make(options: Options) -> Task:
    """The task of these options."""
    words = WORDS + (tuple(SECOND.values()) if options.second else ())
    tokenizer = SymbolTokenizer(words, numbers=2 * options.max_price)
    return Task(
        name="shop",
        tokenizer=tokenizer,
        prompt_slots=8 + options.prices,
        demonstration_slots=9 * math.comb(options.prices, 2) + 4,
        problems=lambda seed, index, split, levels=None: problems(options, tokenizer, seed, index, split, levels),
        levels=(options.fewest, options.prices) if options.fewest else None,
        records=records,
        verify=verify,
        demonstration=lambda record, rng: demonstration(options, record, rng),
        page=lambda rng, length: page(options, tokenizer, rng, length),
        describe=describe,
        strategies=("jump", "steps", "check", "retry"),
        answer_start=answer_start_fn("answer", SECOND["answer"]),
        behaviours=tuple(w for w in ("wait", "try", SECOND["wait"], SECOND["try"]) if w in words),
        aha_behaviour="wait",
        content=lambda record: (record["total"], *sorted(record["prices"])),
        read_prompt=read_prompt,
        verify_on_device=lambda response, mask, finished, facts: score(tokenizer, response, mask, finished, facts),
    )


# Problems


def problems(
    o: Options,
    tokenizer: SymbolTokenizer,
    seed: int,
    index: Array,
    split: str,
    levels: tuple[Array | int, Array | int] | None = None,
) -> Problems:
    """Problems number ``index`` [B] of a split; ``levels`` are the (fewest, most) prices. Short prompts: padded on the left."""
    pairs = np.asarray(list(itertools.combinations(range(o.prices), 2)))  # [pairs, 2]
    lowest, highest = levels or (o.fewest, o.prices)

    def candidate(key: Array) -> tuple[dict[str, Array], Array, Array]:
        noise = jax.random.bits(key, (o.max_price + 2,))  # one draw for everything is quick to compile
        prices = jnp.argsort(noise[2:])[: o.prices].astype(jnp.int32) + 1
        sums, count, more = prices[pairs].sum(-1), len(pairs), {}
        if o.fewest:  # prices past the list's end are 0, sums with them -1
            level = (lowest + (noise[1] // len(NAMES)) % (highest - lowest + 1)).astype(jnp.int32)
            prices = jnp.where(jnp.arange(o.prices) < level, prices, 0)
            inside = jnp.all(pairs < level, -1)
            sums, count, more = jnp.where(inside, sums, -1), level * (level - 1) // 2, {"level": level}
        place = noise[0] % count
        total = sums[place] if not o.fewest else sums[jnp.argmax(jnp.cumsum(sums > 0) > place)]
        name = (noise[1] % len(NAMES)).astype(jnp.int32)
        facts = {"prices": prices, "total": total, "name": name} | more
        return facts, jnp.concatenate([total[None], jnp.sort(prices)]), jnp.sum(sums == total) == 1

    facts = generate.draw_facts(candidate, seed, index, split)
    fixed = lambda word: jnp.full_like(facts["total"], tokenizer.ids[word])[:, None]
    number = lambda x: tokenizer.zero + x
    prompt = jnp.concatenate(
        [
            fixed("<bos>"),
            (tokenizer.ids[NAMES[0]] + facts["name"])[:, None],
            fixed("pays"),
            number(facts["total"])[:, None],
            fixed("for"),
            fixed("two"),
            fixed("of"),
            number(facts["prices"]),
            fixed("?"),
        ],
        1,
    ).astype(jnp.int32)
    if not o.fewest:
        return Problems(prompt=prompt, prompt_mask=jnp.ones(prompt.shape, bool), facts=facts)
    column, shift = jnp.arange(prompt.shape[1]), o.prices - facts["level"][:, None]
    end = column == prompt.shape[1] - 1 - shift  # where a shorter list ends, before the prompt moves to the right edge
    prompt = jnp.where(end, tokenizer.ids["?"], prompt)
    prompt = jnp.take_along_axis(prompt, (column - shift) % len(column), 1)
    return Problems(prompt=jnp.where(column < shift, tokenizer.pad, prompt), prompt_mask=column >= shift, facts=facts)


def records(facts: dict[str, Array]) -> list[Record]:
    """One record for each problem; its ``level``, where there are levels, is the number of prices."""
    prices, totals = np.asarray(facts["prices"]).tolist(), np.asarray(facts["total"]).tolist()
    found = [{"prices": [x for x in p if x], "total": t} for p, t in zip(prices, totals, strict=True)]
    return [r | {"level": len(r["prices"])} for r in found] if "level" in facts else found


PROMPT = re.compile(r"pays (\d+) for two of ([\d ]+\d)")


def read_prompt(prompt: str) -> Record | None:
    """The record of the problem in a prompt; None where there is none."""
    found = PROMPT.search(prompt)
    return {"prices": [int(p) for p in found.group(2).split()], "total": int(found.group(1))} if found else None


# Verifiers: the answer is the end of the response, and the only one, in either language.

ANSWERS = ("answer", SECOND["answer"])


def score(tokenizer: SymbolTokenizer, response: Array, mask: Array, finished: Array, facts: Any) -> Array:
    """Reward [B, G] float32: 1 for a response [B, G, T] that ends "answer a b <eos>", is right, and has one "answer"; else 0."""
    length = mask.sum(-1)
    answers = jnp.asarray([tokenizer.ids[w] for w in ANSWERS if w in tokenizer.ids])
    is_answer = lambda ids: jnp.any(ids[..., None] == answers, -1)
    says = is_answer(response) & mask
    at = lambda back: jnp.take_along_axis(response, jnp.maximum(length - back, 0)[..., None], -1)[..., 0]
    ends = finished & (length >= 4) & (says.sum(-1) == 1) & is_answer(at(4))
    a, b = at(3) - tokenizer.zero, at(2) - tokenizer.zero
    offered = lambda x: (x > 0) & jnp.any(facts["prices"][:, None] == x[..., None], -1)  # 0: no price
    right = offered(a) & offered(b) & (a != b) & (a + b == facts["total"][:, None])
    return (ends & right).astype(jnp.float32)


ANSWER = re.compile(r"(?:answer|答) (\d+) (\d+) ?<eos>$")


def verify(response: str, record: Record) -> bool:
    """The verdict of the text verifier; a finished response ends in "<eos>"."""
    found = ANSWER.search(response)
    if not found or sum(word in ANSWERS for word in re.findall(r"\w+", response)) != 1:
        return False
    a, b = map(int, found.groups())
    return a != b and {a, b} <= set(record["prices"]) and a + b == record["total"]


# Text to learn from


def compare(a: int, b: int) -> str:
    """The verdict on a against b: less, more or same."""
    return VERDICTS[int(a >= b) + int(a == b)]


def try_text(pair: tuple[int, int], total: int) -> str:
    """One try: a pair, its sum, and the comparison with the total."""
    a, b = pair
    return f"{a} + {b} = {a + b} vs {total} {compare(a + b, total)}"


def translate_some(o: Options, sentence: str, rng: np.random.Generator) -> str:
    """A try or an answer, in one of the two languages. Draws nothing where there is only one language."""
    return " ".join(SECOND.get(w, w) for w in sentence.split()) if o.second and rng.random() < o.second else sentence


def demonstration(o: Options, record: Record, rng: np.random.Generator) -> str:
    """A jump to a pair, or a search that tries pairs and gives up at random."""
    prices, total = record["prices"], record["total"]
    pairs: list[tuple[int, int]] = list(itertools.combinations(prices, 2))
    right = next(p for p in pairs if sum(p) == total)
    if rng.random() < o.jump:
        a, b = right if rng.random() < o.jump_right else pairs[rng.integers(len(pairs))]
        return translate_some(o, f"answer {a} {b}", rng)
    if rng.random() >= o.in_order:
        pairs = [pairs[i] for i in rng.permutation(len(pairs))]
    tries, answer = [], right
    for pair in pairs:
        tries.append(try_text(pair, total))
        if pair == right:
            break
        if rng.random() < o.give_up:
            answer = pairs[rng.integers(len(pairs))]
            break
    sentences = [f"{'wait' if n else 'try'} {t}" for n, t in enumerate(tries)] + [f"answer {answer[0]} {answer[1]}"]
    return " ".join(translate_some(o, sentence, rng) for sentence in sentences)


def page(o: Options, tokenizer: SymbolTokenizer, rng: np.random.Generator, length: int) -> list[int]:
    """A page of raw text: sums and comparisons, or drills that compare pairs of a list with a total."""
    number, draws = tokenizer.zero, rng.integers(1, o.max_price + 1, (length, 2))
    plus, equals, vs, dot = (tokenizer.ids[w] for w in ("+", "=", "vs", "."))
    verdict = [tokenizer.ids[w] for w in VERDICTS]
    other = {tokenizer.ids[w]: tokenizer.ids[there] for w, there in SECOND.items()} if o.second else {}
    out = [tokenizer.bos]
    if rng.random() < 0.5:
        for a, b in draws.tolist():
            s, t = a + b, int(rng.integers(2, 2 * o.max_price + 1))
            t = s if rng.random() < 0.25 else t
            sentence = [
                number + a,
                plus,
                number + b,
                equals,
                number + s,
                vs,
                number + t,
                verdict[int(s >= t) + int(s == t)],
                dot,
            ]
            there = bool(other) and rng.random() < o.second
            out += [other[i] if there and i in other else i for i in sentence]
            if len(out) >= length:
                return out[:length]
    while len(out) < length:
        count = int(rng.integers(o.fewest, o.prices + 1)) if o.fewest else o.prices
        prices = (rng.permutation(o.max_price)[:count] + 1).tolist()
        pairs = list(itertools.combinations(prices, 2))
        total = drill_total(o, [sum(p) for p in pairs], rng)
        name = NAMES[rng.integers(len(NAMES))]
        out += tokenizer.encode(f"{name} pays {total} for two of {' '.join(map(str, prices))} ?")
        for i in rng.permutation(len(pairs)):
            out += tokenizer.encode(translate_some(o, try_text(pairs[i], total), rng)) + [tokenizer.ids["."]]
    return out[:length]


def drill_total(o: Options, sums: list[int], rng: np.random.Generator) -> int:
    """A total that several pairs make, or none: no problem has one, so no page shows a held-out answer."""
    several = sorted({s for s in sums if sums.count(s) > 1})
    never = sorted(set(range(3, 2 * o.max_price)) - set(sums))
    choices = several if several and rng.random() < 0.75 else never or several
    return choices[rng.integers(len(choices))]


# Reading an attempt

TRY = re.compile(r"(\d+) \+ (\d+) = (\d+)(?: (?:vs|对) (\d+) (less|more|same|少|多|同))?")


def describe(response: str, record: Record) -> Attempt:
    """What a response did; its strategy follows from the number of tries."""
    found = TRY.findall(response)
    facts = tuple(int(a) + int(b) == int(c) for a, b, c, _, _ in found)
    verdicts = tuple(
        (int(t) == record["total"] and compare(int(c), int(t)) == FIRST.get(v, v), FIRST.get(v, v) == "same", n)
        for n, (_, _, c, t, v) in enumerate(found)
        if v
    )
    strategy = "jump" if not found else "retry" if len(found) > 1 else "check" if verdicts else "steps"
    answer = ANSWER.search(response)
    return Attempt(strategy, " ".join(sorted(answer.groups())) if answer else None, facts, verdicts)
