"""Which coins make the amount? A world in which the way that pays is in no text.

    pay 43 with 3 15 25 ?
    43 - 15 = 28 - 15 = 13 - 15 = over                       one kind of coin
    43 - 3 = 40 - 3 = 37 - 25 = 12 short                     two kinds, changed at random, and given up
    43 - 25 = 18 - 15 = 3 - 3 = 0 paid                       three kinds: no page and no demonstration does this

Textbook and demonstrators lay down coins of one kind, or change to a second kind once, at random, whether it fits or not. Behind
each coin stands what is left to pay. Many amounts need all three kinds.

A problem is an amount and three kinds of coin that make it with ``coins`` coins or fewer. Its level is the number of kinds that it
needs. On levels 1 and 2 three kinds never make the amount. So with ``three=0`` the way that no text shows is never right: the control.
Pages offer two kinds, so that no page holds a problem.
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
from rljax.tasks.task import Attempt, Record, Task
from rljax.text import SymbolTokenizer

KINDS = (1, 2, 3, 5, 8, 10, 15, 20, 25, 30, 40, 50)
OFFERED = 3  # kinds of coin in a problem
FEWEST = 50  # problems of a level, so that each split has some
OFFERS = tuple(itertools.combinations(KINDS, OFFERED))
VERDICTS = ("short", "paid", "over")
STRATEGIES = ("no_coin", "one_kind", "two_kinds", "three_kinds")
WORDS = ("pay", "with", "?", "-", "=", ".", *VERDICTS)


@dataclasses.dataclass(frozen=True)
class Options:
    """What the problems are, and when demonstrators give up. An attempt with n coins has 4 n + 3 tokens, its stop token included."""

    largest: int = 99  # amount
    coins: int = 5  # that pay any problem; demonstrators lay down no more
    one: float = 0.2  # share of the problems that one kind of coin makes
    three: float = 0.4  # share of the problems that need all three kinds
    give_up: float = 0.1  # chance to give up after each coin
    change: float = 0.3  # chance to change to another kind after each coin, once at the most

    def __post_init__(self):
        check_shares("coins", self)
        if not 20 <= self.largest <= 400:
            raise UserError(f"task coins: largest={self.largest} must be 20 to 400")
        if not OFFERED <= self.coins <= 100:
            raise UserError(f"task coins: coins={self.coins} must be {OFFERED} to 100")
        if self.one + self.three > 1:
            raise UserError(f"task coins: one={self.one} and three={self.three} are shares: together 1 at the most")
        for level, share in enumerate((self.one, self.two, self.three), 1):
            if share > 0 and (found := int((problem_levels(self) == level).sum())) < FEWEST:
                raise UserError(
                    f"task coins: with largest={self.largest} and coins={self.coins} only {found} problems need {level} kinds, "
                    f"of {FEWEST}: set more, or a share of 0"
                )

    @property
    def two(self) -> float:
        """The share of the problems that need two kinds."""
        return max(0.0, 1 - self.one - self.three)


def make(options: Options) -> Task:
    """The task of these options."""
    o = options
    tokenizer = SymbolTokenizer(WORDS, numbers=max(o.largest, max(KINDS)))
    return Task(
        name="coins",
        tokenizer=tokenizer,
        prompt_slots=5 + OFFERED,
        demonstration_slots=4 * o.coins + 3,
        problems=lambda seed, index, split: problems(o, tokenizer, seed, index, split),
        records=lambda facts: records(o, facts),
        verify=verify,
        demonstration=lambda record, rng: demonstration(o, record, rng),
        page=lambda rng, length: page(o, tokenizer, rng, length),
        describe=describe,
        strategies=STRATEGIES,
        behaviours=VERDICTS,
        aha_behaviour="paid",
        content=lambda record: (record["amount"], *record["kinds"]),
        read_prompt=read_prompt,
        page_attempts=page_attempts,
        forbidden={"three_kinds": third_kind_words},
        verify_on_device=lambda response, mask, finished, facts: score(tokenizer, response, mask, finished, facts),
    )


# Problems


@functools.cache
def fewest_coins(kinds: tuple[int, ...], largest: int) -> tuple[float, ...]:
    """The fewest coins of these kinds that make each amount 0 .. ``largest``; inf where none do."""
    fewest = [0.0]
    for amount in range(1, largest + 1):
        fewest.append(1 + min((fewest[amount - k] for k in kinds if k <= amount), default=float("inf")))
    return tuple(fewest)


def make_level(o: Options, kinds: tuple[int, ...], amount: int) -> int:
    """How many kinds it takes to make the amount; 0 where it is no problem: nothing makes it, or both three kinds and fewer do."""
    makes = lambda some, left, coins: left >= 0 and fewest_coins(some, o.largest)[left] <= coins
    three = makes(kinds, amount - sum(kinds), o.coins - OFFERED)
    two, one = (any(makes(some, amount, o.coins) for some in itertools.combinations(kinds, n)) for n in (2, 1))
    if three:
        return 0 if two else OFFERED
    return 1 if one else 2 if two else 0


@functools.cache
def problem_levels(o: Options) -> np.ndarray:
    """The level of each offer and amount [offers, largest + 1]; 0 where they are no problem."""
    amounts = range(1, o.largest + 1)
    return np.array([[0, *(make_level(o, kinds, amount) for amount in amounts)] for kinds in OFFERS])


@functools.cache
def problem_shares(o: Options) -> np.ndarray:
    """The chance of each problem, [offers * (largest + 1)] in order: the same for all of a level."""
    levels = problem_levels(o)
    shares = {1: o.one, 2: o.two, 3: o.three}
    of_level = [share * (levels == n) / max((levels == n).sum(), 1) for n, share in shares.items()]
    chance = np.sum(of_level, 0)
    return (chance / chance.sum()).ravel()


def problems(o: Options, tokenizer: SymbolTokenizer, seed: int, index: Array, split: str) -> Problems:
    """Problems number ``index`` [B] of a split."""
    edges, offers = jnp.asarray(problem_shares(o).cumsum(), jnp.float32), jnp.asarray(OFFERS, jnp.int32)
    levels = jnp.asarray(problem_levels(o), jnp.int32)

    def candidate(key: Array) -> tuple[dict[str, Array], Array, Array]:
        drawn = jnp.searchsorted(edges, jax.random.uniform(key), side="right")
        offer, amount = (x.astype(jnp.int32) for x in jnp.divmod(drawn, o.largest + 1))
        offer = jnp.minimum(offer, len(OFFERS) - 1)  # where rounding leaves the last edge below 1
        kinds = offers[offer]
        facts = {"amount": amount, "kinds": kinds}
        return facts, jnp.concatenate([amount[None], kinds]), levels[offer, amount] > 0

    facts = generate.draw_facts(candidate, seed, index, split)
    word = lambda name: jnp.full_like(facts["amount"], tokenizer.ids[name])[:, None]
    amount, kinds = tokenizer.zero + facts["amount"][:, None], tokenizer.zero + facts["kinds"]
    prompt = jnp.concatenate([word("<bos>"), word("pay"), amount, word("with"), kinds, word("?")], 1).astype(jnp.int32)
    return Problems(prompt=prompt, prompt_mask=jnp.ones(prompt.shape, bool), facts=facts)


def records(o: Options, facts: dict[str, Array]) -> list[Record]:
    """One record for each problem."""
    amounts, offers = (np.asarray(facts[name]).tolist() for name in ("amount", "kinds"))
    levels = problem_levels(o)
    return [
        {"amount": amount, "kinds": kinds, "level": int(levels[OFFERS.index(tuple(kinds)), amount])}
        for amount, kinds in zip(amounts, offers, strict=True)
    ]


PROMPT = re.compile(r"\bpay (\d+) with ([\d ]+\d) ?\?")


def read_prompt(prompt: str) -> Record | None:
    """The record of the problem in a prompt, without its level; None where there is none."""
    found = PROMPT.search(prompt)
    return {"amount": int(found[1]), "kinds": [int(k) for k in found[2].split()]} if found else None


# Verifiers: the coins are offered, each difference is right, and nothing is left.

STEP = 4  # tokens: - coin = what is left


def score(tokenizer: SymbolTokenizer, response: Array, mask: Array, finished: Array, facts: Any) -> Array:
    """Reward [B, G] float32: 1 for a response [B, G, T] "amount - c = left ... - c = 0 paid <eos>" of offered coins and right differences."""
    length, place = mask.sum(-1), jnp.arange(response.shape[-1])
    end = length - 2  # where the verdict stands
    inside, part = place < end[..., None], (place - 1) % STEP
    number = response - tokenizer.zero
    laid = inside & (place > 0) & (part == 1)
    left = facts["amount"][:, None, None] - jnp.cumsum(jnp.where(laid, number, 0), -1)
    offered = jnp.any(number[..., None] == facts["kinds"][:, None, None], -1)
    is_word = lambda word: response == tokenizer.ids[word]
    sound = jnp.select([part == 0, part == 1, part == 2], [is_word("-"), offered, is_word("=")], number == left)
    sound = jnp.where(place > 0, sound, number == left)
    says_paid = jnp.any(is_word("paid") & (place == end[..., None]), -1)
    ends = finished & (end > 1) & ((end - 1) % STEP == 0) & says_paid
    return (ends & jnp.all(sound | ~inside, -1) & (left[..., -1] == 0)).astype(jnp.float32)


PAYMENT = re.compile(r"(\d+)(?: - \d+ = \d+)* - \d+ = 0 paid ?<eos>")
DIFFERENCE = re.compile(r"\b(?=(\d+) - (\d+) = (\d+|over)\b)")  # looks ahead: the result begins the next one


def verify(response: str, record: Record) -> bool:
    """The verdict of the text verifier; a finished response ends in "<eos>"."""
    found = PAYMENT.fullmatch(response)
    if not found or int(found[1]) != record["amount"]:
        return False
    steps = DIFFERENCE.findall(response)
    return all(is_right(*step) and int(step[1]) in record["kinds"] for step in steps)


def is_right(before: str, coin: str, left: str) -> bool:
    """Whether a difference, as it is written, is right; "over" where the coin is too large."""
    return left == str(difference) if (difference := int(before) - int(coin)) >= 0 else left == "over"


# Text to learn from


def payment(o: Options, amount: int, kinds: list[int], rng: np.random.Generator) -> str:
    """Coins until nothing is left, one is too large, or the payer gives up: of one kind or, changed at random, of two."""
    coin, second = rng.choice(kinds, 2, replace=False).tolist()
    said, left = str(amount), amount
    for _ in range(o.coins):
        left -= coin
        if left < 0:
            return f"{said} - {coin} = over"
        said += f" - {coin} = {left}"
        if left == 0:
            return f"{said} paid"
        if rng.random() < o.give_up:
            break
        coin = second if rng.random() < o.change else coin
    return f"{said} short"


def demonstration(o: Options, record: Record, rng: np.random.Generator) -> str:
    """A payment with the kinds that come to mind."""
    return payment(o, record["amount"], record["kinds"], rng)


def page(o: Options, tokenizer: SymbolTokenizer, rng: np.random.Generator, length: int) -> list[int]:
    """A page of raw text: differences, or payments with two kinds of coin."""
    out, differences = [], rng.random() < 0.3
    while len(out) < length:
        if differences:
            number, coin = int(rng.integers(o.largest + 1)), int(rng.choice(KINDS))
            left = number - coin
            out += tokenizer.encode(f"{number} - {coin} = {left if left >= 0 else 'over'} .")
            continue
        kinds = sorted(rng.choice(KINDS, OFFERED - 1, replace=False).tolist())
        made = int(rng.choice(kinds)) * int(rng.integers(1, o.coins + 1))  # one kind makes it
        amount = made if made <= o.largest and rng.random() < 0.5 else int(rng.integers(1, o.largest + 1))
        text = payment(o, amount, kinds, rng)
        out += tokenizer.encode(f"<bos> pay {amount} with {kinds[0]} {kinds[1]} ? {text} <eos>", specials=True)
    return out[:length]


# Reading an attempt

COIN = re.compile(r"- (\d+)\b")


def describe(response: str, record: Record) -> Attempt:
    """What a response did; its strategy follows from the kinds of coin that it lays down."""
    coins = COIN.findall(response)
    said = re.search(rf"\b({'|'.join(VERDICTS)})\b", response)
    paid = bool(said) and said[1] == "paid"
    reached = sum(map(int, coins)) == record["amount"]
    return Attempt(
        strategy=STRATEGIES[min(len(set(coins)), OFFERED)],
        answer=" ".join(sorted(coins, key=int)) if paid else None,
        calculations=tuple(is_right(*step) for step in DIFFERENCE.findall(response)),
        verdicts=((reached == paid, paid, len(coins)),) if said else (),
    )


def third_kind_words(response: str, record: Record) -> tuple[str, ...]:
    """The words that would begin a third kind: behind a "-", once two kinds are laid down, every other one."""
    laid = set(COIN.findall(response))
    if len(laid) < OFFERED - 1 or not response.endswith("-"):
        return ()
    return tuple(str(kind) for kind in record["kinds"] if str(kind) not in laid)


def page_attempts(text: str) -> list[tuple[str, Record]]:
    """The payments that a page of raw text shows: (what follows a prompt, its record)."""
    starts = [found.start() for found in PROMPT.finditer(text)] + [len(text)]
    parts = [text[start:end] for start, end in itertools.pairwise(starts)]
    return [(part.partition("?")[2], record) for part in parts if (record := read_prompt(part))]
