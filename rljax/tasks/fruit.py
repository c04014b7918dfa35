"""One token holds only little computation: the lecture's question in thousands of forms.

    Emily buys 3 apples and 2 oranges. Each orange costs $2. The total cost is $13. What does one apple cost?
    answer 3                                                                        a jump
    2 * 2 = 4, 13 - 4 = 9, 9 / 3 = 3, answer 3                                      steps
    2 * 2 = 4, 13 - 4 = 9, 9 / 3 = 3, check 3 * 3 = 9, 9 + 4 = 13 vs 13 same answer 3   steps and a check
    try 5, 3 * 5 = 15, 15 + 4 = 19 vs 13 more wait try 3 ... same answer 3          guess and check

A jump has to compute all the products, the sum, the difference and the quotient within one token. With ``kinds=3`` there is
a third fruit, and one more product and sum. Two problems are the same if all counts and prices are. Demonstrators who jump
know the right answer: the computation is what makes a jump hard to learn, not the data.
"""

import dataclasses
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

NAMES = ("Emily", "Ben", "Ada", "Omar", "Mia", "Leo", "Zoe", "Ravi")
FRUITS = ("apple", "orange", "pear", "plum", "lemon", "peach", "mango", "lime")
PLURALS = tuple(f + ("es" if f == "peach" else "s") for f in FRUITS)
WORDS = (
    *NAMES,
    *FRUITS,
    *PLURALS,
    *("buys", "and", "Each", "one", "costs", "cost", "The", "total", "is", "What", "does"),
    *("try", "wait", "check", "vs", "less", "more", "same", "answer"),
    *("$", ".", ",", "?", "+", "-", "*", "/", "="),
)
VERDICTS = ("less", "more", "same")


@dataclasses.dataclass(frozen=True)
class Options:
    """Sizes of the problems, and what demonstrators do."""

    kinds: int = 3  # of fruit bought; the price of the first is the answer
    max_count: int = 6  # of one fruit, at least 2
    max_price: int = 9  # of one fruit, at least 2
    jump: float = 0.6  # shares of the demonstrations; the rest guess and check
    steps: float = 0.2
    check: float = 0.1
    give_up: float = 0.35  # chance to answer at random after a failed guess

    def __post_init__(self):
        check_shares("fruit", self)
        if not 2 <= self.kinds <= 4 or self.max_count < 4 or self.max_price < 4:
            raise UserError(f"task fruit: kinds={self.kinds} must be 2 to 4, max_count and max_price at least 4")
        if max(self.max_count, self.max_price) > 99:
            raise UserError(f"task fruit: max_count={self.max_count} and max_price={self.max_price} must be at most 99")
        if self.jump + self.steps + self.check > 1 + 1e-9:
            raise UserError("task fruit: the shares jump + steps + check are more than 1")


def make(options: Options) -> Task:
    """The task of these options."""
    o = options
    tokenizer = SymbolTokenizer(WORDS, numbers=o.kinds * o.max_count * o.max_price)
    template = prompt_words(o)
    return Task(
        name="fruit",
        tokenizer=tokenizer,
        prompt_slots=len(template),
        demonstration_slots=12 * (o.kinds - 1) - 6 + 18 * (o.max_price - 1) + 4,
        problems=lambda seed, index, split: problems(o, tokenizer, seed, index, split),
        records=records,
        verify=verify,
        demonstration=lambda record, rng: demonstration(o, record, rng),
        page=lambda rng, length: page(o, tokenizer, rng, length),
        describe=describe,
        strategies=("jump", "steps", "check", "retry"),
        answer_start=answer_start_fn("answer"),
        behaviours=("wait", "check", "try"),
        aha_behaviour="wait",
        content=content,
        read_prompt=read_prompt,
        verify_on_device=lambda response, mask, finished, facts: score(tokenizer, response, mask, finished, facts),
    )


# Problems: counts, prices, kinds of fruit and a name; the first price is the answer


def prompt_words(o: Options) -> list[str]:
    """The prompt as words; "{n}" is a count, "{p}" a price, "{f}" a fruit, "{fs}" its plural, numbered by kind."""
    bought = []
    for k in range(o.kinds):
        bought += (["and"] if k == o.kinds - 1 else [","] if k else []) + [f"{{n{k}}}", f"{{fs{k}}}"]
    prices = [w for k in range(1, o.kinds) for w in ("Each", f"{{f{k}}}", "costs", "$", f"{{p{k}}}", ".")]
    tail = ["The", "total", "cost", "is", "$", "{total}", ".", "What", "does", "one", "{f0}", "cost", "?"]
    return ["<bos>", "{name}", "buys", *bought, ".", *prices, *tail]


def problems(o: Options, tokenizer: SymbolTokenizer, seed: int, index: Array, split: str) -> Problems:
    """Problems number ``index`` [B] of a split."""

    def candidate(key: Array) -> tuple[dict[str, Array], Array, Array]:
        keys = jax.random.split(key, 4)
        counts = jax.random.randint(keys[0], (o.kinds,), 2, o.max_count + 1)
        prices = jax.random.randint(keys[1], (o.kinds,), 2, o.max_price + 1)
        fruits = jax.random.permutation(keys[2], len(FRUITS))[: o.kinds]
        name = jax.random.randint(keys[3], (), 0, len(NAMES))
        facts = {"counts": counts, "prices": prices, "total": counts @ prices, "fruits": fruits, "name": name}
        # Another order of the fruits with known prices does not make another problem.
        others = jnp.sort(counts[1:] * (o.max_price + 1) + prices[1:])
        return facts, jnp.concatenate([counts[:1], prices[:1], others]), jnp.ones((), bool)

    facts = generate.draw_facts(candidate, seed, index, split)
    values = {"{total}": tokenizer.zero + facts["total"], "{name}": tokenizer.ids[NAMES[0]] + facts["name"]}
    for k in range(o.kinds):
        values[f"{{n{k}}}"] = tokenizer.zero + facts["counts"][:, k]
        values[f"{{p{k}}}"] = tokenizer.zero + facts["prices"][:, k]
        values[f"{{f{k}}}"] = tokenizer.ids[FRUITS[0]] + facts["fruits"][:, k]
        values[f"{{fs{k}}}"] = tokenizer.ids[PLURALS[0]] + facts["fruits"][:, k]
    size = facts["total"].shape
    columns = [values[w] if w in values else jnp.full(size, tokenizer.ids[w]) for w in prompt_words(o)]
    prompt = jnp.stack(columns, 1).astype(jnp.int32)
    return Problems(prompt=prompt, prompt_mask=jnp.ones(prompt.shape, bool), facts=facts)


def records(facts: dict[str, Array]) -> list[Record]:
    """One record for each problem."""
    counts, prices = np.asarray(facts["counts"]).tolist(), np.asarray(facts["prices"]).tolist()
    totals = np.asarray(facts["total"]).tolist()
    return [{"counts": c, "prices": p, "total": t} for c, p, t in zip(counts, prices, totals, strict=True)]


def read_prompt(prompt: str) -> Record | None:
    """The record of the problem in a prompt; None where there is none, or none with a whole positive answer."""
    text = prompt.lower()
    bought = {FRUITS[PLURALS.index(f)]: int(n) for n, f in BOUGHT.findall(text)}
    costs = {f: int(p) for f, p in COSTS.findall(text)}
    total, asked = TOTAL.search(text), ASKED.search(text)
    wanted = asked.group(1) or asked.group(2) if asked else None
    if not total or wanted not in bought or set(bought) != set(costs) | {wanted}:
        return None
    rest = int(total.group(1)) - sum(bought[f] * p for f, p in costs.items())
    n = bought.pop(wanted)
    if n == 0 or rest <= 0 or rest % n:
        return None
    others = list(costs)
    return {
        "counts": [n, *(bought[f] for f in others)],
        "prices": [rest // n, *(costs[f] for f in others)],
        "total": int(total.group(1)),
    }


BOUGHT = re.compile(rf"(\d+) ({'|'.join(PLURALS)})\b")
COSTS = re.compile(rf"each ({'|'.join(FRUITS)}) costs \$ ?(\d+)")
TOTAL = re.compile(r"total cost (?:of all (?:the )?fruit )?is \$ ?(\d+)")
ASKED = re.compile(rf"\b(?:one|each|an?) ({'|'.join(FRUITS)}) cost\b|cost of (?:one|each|an?) ({'|'.join(FRUITS)})\b")


def content(record: Record) -> tuple[tuple[int, int], ...]:
    """What makes two problems the same: (count, price) of the fruit asked for, then of the others, sorted."""
    asked, *others = zip(record["counts"], record["prices"], strict=True)
    return asked, *sorted(others)


# Verifiers: the answer is the end of the response, and the only one


def score(tokenizer: SymbolTokenizer, response: Array, mask: Array, finished: Array, facts: Any) -> Array:
    """Reward [B, G] float32: 1 for a response [B, G, T] that ends "answer x <eos>", is right, and has one "answer"; else 0."""
    length = mask.sum(-1)
    says = ((response == tokenizer.ids["answer"]) & mask).sum(-1) == 1
    at = lambda back: jnp.take_along_axis(response, jnp.maximum(length - back, 0)[..., None], -1)[..., 0]
    right = at(2) - tokenizer.zero == facts["prices"][:, None, 0]
    return (finished & (length >= 3) & says & (at(3) == tokenizer.ids["answer"]) & right).astype(jnp.float32)


ANSWER = re.compile(r"answer (\d+) <eos>$")


def verify(response: str, record: Record) -> bool:
    """The verdict of the text verifier; a finished response ends in "<eos>"."""
    found = ANSWER.search(response)
    said = re.findall(r"\w+", response).count("answer")
    return bool(found) and said == 1 and int(found.group(1)) == record["prices"][0]


# Text to learn from


def compare(a: int, b: int) -> str:
    """The verdict on a against b: less, more or same."""
    return VERDICTS[int(a >= b) + int(a == b)]


def known_cost(record: Record) -> tuple[list[str], int]:
    """The steps that add up what the fruits with known prices cost, and the sum."""
    steps, total = [], 0
    for k, (n, p) in enumerate(zip(record["counts"][1:], record["prices"][1:], strict=True)):
        steps.append(f"{n} * {p} = {n * p}")
        if k:
            steps.append(f"{total} + {n * p} = {total + n * p}")
        total += n * p
    return steps, total


def demonstration(o: Options, record: Record, rng: np.random.Generator) -> str:
    """A jump, steps, steps with a check, or guess and check: drawn by the shares of the options."""
    n, right, total = record["counts"][0], record["prices"][0], record["total"]
    steps, known = known_cost(record)
    kind = rng.random()
    if kind < o.jump:
        return f"answer {right}"
    if kind < o.jump + o.steps + o.check:
        steps += [f"{total} - {known} = {total - known}", f"{total - known} / {n} = {right}"]
        if kind >= o.jump + o.steps:
            steps += [f"check {n} * {right} = {n * right}", f"{n * right} + {known} = {total} vs {total} same"]
        return ", ".join(steps) + f" answer {right}"
    tries, answer = [], right
    for guess in rng.permutation(np.arange(2, o.max_price + 1)).tolist():
        cost = n * guess
        tries.append(
            f"try {guess}, {n} * {guess} = {cost}, {cost} + {known} = {cost + known} vs {total} {compare(cost + known, total)}"
        )
        if guess == right:
            break
        if rng.random() < o.give_up:
            answer = int(rng.integers(2, o.max_price + 1))
            break
    return ", ".join(steps) + ", " + " wait ".join(tries) + f" answer {answer}"


def page(o: Options, tokenizer: SymbolTokenizer, rng: np.random.Generator, length: int) -> list[int]:
    """A page of raw text: stories with guesses, or calculations with numbers of the size that problems have."""
    if rng.random() < 0.6:
        out = [tokenizer.bos]
        while len(out) < length:
            out += tokenizer.encode(story(o, rng))
        return out[:length]
    number, symbol = tokenizer.zero, {w: tokenizer.ids[w] for w in (*"+-*/=,", "vs", *VERDICTS)}
    counts = rng.integers(2, o.max_count + 1, (length, o.kinds)).tolist()
    prices = rng.integers(2, o.max_price + 1, (length, o.kinds)).tolist()
    out = [tokenizer.bos]
    for i, kind in enumerate(rng.integers(0, 5, length).tolist()):
        n, p = counts[i][0], prices[i][0]
        products = [n * p for n, p in zip(counts[i], prices[i], strict=True)]
        first, some = products[0], sum(products[1 : 1 + int(rng.integers(1, o.kinds))])
        both = first + some
        if kind == 4:
            other = both if rng.random() < 0.3 else sum(n * p for n, p in zip(counts[-i], prices[-i], strict=True))
            fact = [both, "vs", other, compare(both, other)]
        else:
            fact = ([n, "*", p, "=", first], [first, "/", n, "=", p], [first, "+", some, "=", both],
                    [both, "-", some, "=", first])[kind]  # fmt: skip
        out += [symbol[x] if isinstance(x, str) else number + x for x in fact] + [symbol[","]]
        if len(out) >= length:
            break
    return out[:length]


def story(o: Options, rng: np.random.Generator) -> str:
    """A shopping story with a total that no whole price explains, and guesses that are compared with it.

    It trains reading counts, prices and the total from a prompt. It is no problem of any split, because it has no answer.
    """
    counts = rng.integers(2, o.max_count + 1, o.kinds).tolist()
    prices = rng.integers(2, o.max_price + 1, o.kinds).tolist()
    steps, known = known_cost({"counts": counts, "prices": prices})
    rests = [r for r in range(4, o.max_count * o.max_price) if r % counts[0] or not 2 <= r // counts[0] <= o.max_price]
    total = known + rests[rng.integers(len(rests))]
    fruits = rng.permutation(len(FRUITS))
    values = {"{total}": str(total), "{name}": NAMES[rng.integers(len(NAMES))], "<bos>": ""}
    for k in range(o.kinds):
        values |= {f"{{n{k}}}": str(counts[k]), f"{{p{k}}}": str(prices[k])}
        values |= {f"{{f{k}}}": FRUITS[fruits[k]], f"{{fs{k}}}": PLURALS[fruits[k]]}
    prompt = " ".join(values.get(w, w) for w in prompt_words(o))
    steps.append(f"{total} - {known} = {total - known}")
    for guess in rng.integers(2, o.max_price + 1, int(rng.integers(1, 5))).tolist():
        cost = counts[0] * guess
        verdict = compare(cost + known, total)
        steps.append(f"{counts[0]} * {guess} = {cost}, {cost} + {known} = {cost + known} vs {total} {verdict}")
    return f"{prompt} {', '.join(steps)} ."


# Reading an attempt

STEP = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)(?: vs (\d+) (less|more|same))?")
HOLDS = {
    "+": lambda a, b, c: a + b == c,
    "-": lambda a, b, c: a - b == c,
    "*": lambda a, b, c: a * b == c,
    "/": lambda a, b, c: b * c == a,
}


def describe(response: str, record: Record) -> Attempt:
    """What a response did: guesses make it a retry, a comparison a check, a calculation steps."""
    found = STEP.findall(response)
    facts = tuple(HOLDS[op](int(a), int(b), int(c)) for a, op, b, c, _, _ in found)
    said = [(int(c), int(t), v) for _, _, _, c, t, v in found if v]
    verdicts = tuple((t == record["total"] and compare(c, t) == v, v == "same", n) for n, (c, t, v) in enumerate(said))
    words = re.findall(r"\w+", response)
    guessed = words.count("try") > 1 or "wait" in words
    strategy = "retry" if guessed else "check" if verdicts else "steps" if found else "jump"
    answer = ANSWER.search(response)
    return Attempt(strategy, answer.group(1) if answer else None, facts, verdicts)
