"""Reach a number from three or four others with + - * /, each used exactly once: a search with retries.

    make 14 from 2 3 4 ?
    answer 3 + 4 = 7 , 7 * 2 = 14                                                                       a jump
    try 2 + 3 = 5 , 5 * 4 = 20 vs 14 more wait 3 + 4 = 7 , 7 * 2 = 14 vs 14 same answer 3 + 4 = 7 , 7 * 2 = 14

A step takes two of the numbers that are left and puts back its result, an integer within 0 .. limit. The last result must be
the target. Demonstrators jump often, try at random, and give up at random with an arbitrary attempt. Two problems are the
same if target and numbers are, in any order. Every solution of a problem is right.

The target of a problem is the result of random steps, or uniform among ``lowest_target`` .. ``highest_target`` and the numbers are
drawn until they can make it. Some of these targets may be kept for test problems (the protocol of Stream of Search, arXiv
2404.03683, which has 10 .. 100 and keeps a tenth).
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax.errors import UserError
from rljax.structs import Array, Problems
from rljax.tasks import generate
from rljax.tasks.countdown_text import (
    HABIT_WORDS,
    HABITS,
    OPERATIONS,
    VERDICTS,
    Step,
    calculate,
    compare,
    compared_text,
    habit_demonstration,
    parse_habits,
    random_steps,
    steps_text,
)
from rljax.tasks.option_checks import LARGEST, check_shares
from rljax.tasks.task import Attempt, Record, Task, answer_start_fn
from rljax.text import SYMBOL, SymbolTokenizer

WORDS = ("make", "from", "?", "try", *OPERATIONS, "=", ",", "vs", *VERDICTS, "wait", "answer", ".")
STEP_TOKENS = 6  # a + b = c and the comma or stop token after it


@dataclasses.dataclass(frozen=True)
class Options:
    """The longest demonstration has 6 (numbers - 1) (tries + 1) + 3 tries + 1 tokens, its stop token included."""

    numbers: int = 3  # given in each problem: 3 or 4
    max_number: int = 9  # the largest given number
    limit: int = 99  # the largest result of a step
    jump: float = 0.5  # share of demonstrations that only answer
    give_up: float = 0.35  # chance to give up after each failed try
    tries: int = 6  # the known solution is one of the first ``tries`` tries
    nearest: float = 0.0  # share of the other tries whose last operation is the one that comes nearest to the target
    habits: str = ""  # names of countdown_text.HABITS joined by "+", all or none; "": the demonstrations shown above
    wrong: bool = False  # demonstrations of habits never reach the target
    lowest_target: int = 0  # 0: the target is the result of random steps; else targets are uniform from here ...
    highest_target: int = 0  # ... to here
    held_targets: float = 0.0  # share of the targets that no training problem has; half of the test problems have one

    def __post_init__(self):
        check_shares("countdown", self)
        if self.numbers not in (3, 4) or not 1 <= self.tries <= LARGEST:
            said = f"numbers={self.numbers}, tries={self.tries}"
            raise UserError(f"task countdown: {said}: numbers must be 3 or 4, and tries 1 to {LARGEST}")
        if not 3 <= self.max_number < self.limit <= 999:
            said = f"max_number={self.max_number}, limit={self.limit}"
            raise UserError(f"task countdown: {said}: 3 <= max_number < limit <= 999 must hold")
        try:
            parse_habits(self.habits or "none")
        except ValueError as e:
            known = ", ".join(HABITS)
            raise UserError(f"task countdown: habits={self.habits!r}: {e} is none of {known}, all, none") from None
        most = min(
            self.limit, self.max_number**self.numbers
        )  # what steps can make: else no problem would ever be found
        if self.lowest_target and not 1 <= self.lowest_target <= self.highest_target <= most:
            said = f"lowest_target={self.lowest_target}, highest_target={self.highest_target}"
            raise UserError(
                f"task countdown: {said}: 1 <= lowest_target <= highest_target <= {most} must hold, the largest result of steps"
            )
        if not self.lowest_target and (self.highest_target or self.held_targets):
            raise UserError(
                "task countdown: highest_target and held_targets are for uniform targets: set lowest_target"
            )
        if self.held_targets and not all(len(targets) for targets in split_targets(self)):
            raise UserError(
                f"task countdown: held_targets={self.held_targets} leaves no target on one of the two sides"
            )
        if self.wrong and not self.habits:
            raise UserError("task countdown: wrong=True is for demonstrations of habits: name some, or all or none")


@functools.cache
def split_targets(o: Options) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The targets that training problems have, and those that only test problems have, both in order. Empty: random steps."""
    targets = range(o.lowest_target, o.highest_target + 1) if o.lowest_target else range(0)
    held = set(np.random.default_rng(0).permutation(targets)[: round(o.held_targets * len(targets))].tolist())
    return tuple(t for t in targets if t not in held), tuple(sorted(held))


def make(options: Options) -> Task:
    """The task of these options."""
    words = WORDS + (HABIT_WORDS if options.habits else ())
    tokenizer = SymbolTokenizer(words, numbers=options.limit)
    in_attempt = 8 if options.habits else 0  # "aim 7" and "back 14 / 2 = 7"
    return Task(
        name="countdown",
        tokenizer=tokenizer,
        prompt_slots=5 + options.numbers,
        demonstration_slots=6 * (options.numbers - 1) * (options.tries + 1) + (3 + in_attempt) * options.tries + 1,
        problems=lambda seed, index, split: problems(options, tokenizer, seed, index, split),
        records=lambda facts: records(options, facts),
        verify=verify,
        demonstration=lambda record, rng: demonstration(options, record, rng),
        page=lambda rng, length: page(options, tokenizer, rng, length),
        describe=describe,
        strategies=("jump", "steps", "check", "retry"),
        answer_start=answer_start_fn("answer"),
        behaviours=("wait", "try", *(HABIT_WORDS if options.habits else ())),
        aha_behaviour="wait",
        content=lambda record: (record["target"], *sorted(record["numbers"])),
        verify_on_device=lambda response, mask, finished, facts: score(
            options, tokenizer, response, mask, finished, facts
        ),
    )


# Problems


def problems(o: Options, tokenizer: SymbolTokenizer, seed: int, index: Array, split: str) -> Problems:
    """Problems number ``index`` [B] of a split."""
    candidate = uniform_target(o, split) if o.lowest_target else result_of_steps(o)
    facts = generate.draw_facts(candidate, seed, index, split)
    fixed = lambda word: jnp.full_like(facts["target"], tokenizer.ids[word])[:, None]
    target, numbers = tokenizer.zero + facts["target"][:, None], tokenizer.zero + facts["numbers"]
    prompt = jnp.concatenate([fixed("<bos>"), fixed("make"), target, fixed("from"), numbers, fixed("?")], 1)
    return Problems(prompt=prompt, prompt_mask=jnp.ones(prompt.shape, bool), facts=facts)


Candidate = Callable[[Array], tuple[dict[str, Array], Array, Array]]  # key -> facts, content, whether it is a problem


def result_of_steps(o: Options) -> Candidate:
    """Random numbers, and the result of random steps as their target."""

    def candidate(key: Array) -> tuple[dict[str, Array], Array, Array]:
        chances = jax.random.uniform(key, (4 * o.numbers,))  # one draw for everything is quick to compile
        numbers = 1 + pick_number(chances[: o.numbers], o.max_number)
        solution, possible = random_chain(o, numbers, chances[o.numbers :].reshape(o.numbers, 3))
        target = solution[-1, 3]
        facts = {"numbers": numbers, "target": target, "solution": solution}
        sound = possible & jnp.all(numbers != target)  # a target among the numbers needs no search
        return facts, jnp.concatenate([target[None], jnp.sort(numbers)]), sound

    return candidate


TRIALS = 1000  # numbers that are drawn for a target; then another target is taken, since a small split may have none that make it


def uniform_target(o: Options, split: str) -> Candidate:
    """A target that the split may have, each as likely, and random numbers that make it. The solution is any of all."""
    known, held = (jnp.asarray(targets or (0,), jnp.int32) for targets in split_targets(o))
    content_of = lambda target, numbers: jnp.concatenate([target[None], jnp.sort(numbers)])

    def candidate(key: Array) -> tuple[dict[str, Array], Array, Array]:
        chances = jax.random.uniform(key, (3,))
        target = known[pick_number(chances[0], len(known))]
        if split == "test" and o.held_targets:
            target = jnp.where(chances[1] < 0.5, target, held[pick_number(chances[0], len(held))])

        def draw_numbers(trial: Array) -> Array:
            return 1 + pick_number(jax.random.uniform(jax.random.fold_in(key, trial), (o.numbers,)), o.max_number)

        def next_in_split(trial: Array) -> Array:  # quick: most candidates of a small split are of another one
            outside = lambda trial: ~generate.in_split(content_of(target, draw_numbers(trial)), split)
            return jax.lax.while_loop(lambda n: (n < TRIALS) & outside(n), lambda n: n + 1, trial + 1)

        def try_all(trial: Array) -> tuple[Array, Array, Array]:
            steps, possible = all_chains(o, draw_numbers(trial))
            found = possible & (steps[:, -1, 3] == target)
            place = jnp.argmax(jnp.cumsum(found) > pick_number(chances[2], found.sum()))
            return trial, steps[place], found.any()

        missing = lambda carry: ~carry[2] & (carry[0] < TRIALS)
        start = jnp.int32(-1), jnp.zeros((o.numbers - 1, 4), jnp.int32), jnp.asarray(False)
        trial, solution, found = jax.lax.while_loop(missing, lambda carry: try_all(next_in_split(carry[0])), start)
        numbers = draw_numbers(trial)
        facts = {"numbers": numbers, "target": target, "solution": solution}
        return facts, content_of(target, numbers), found

    return candidate


def pick_number(chance: Array, count: Array | int) -> Array:
    """An int32 within 0 .. count - 1 for each chance in [0, 1)."""
    return jnp.minimum((chance * count).astype(jnp.int32), count - 1)


def random_chain(o: Options, left: Array, chances: Array) -> tuple[Array, Array]:
    """Random steps: ([n - 1, 4] of a, number of the operation, b, result; [] bool, whether each had a legal operation).

    ``left`` [n] are the numbers, ``chances`` [n, 3] are uniform in [0, 1).
    """
    steps, possible = [], jnp.asarray(True)
    for n in range(o.numbers - 1):
        i, j = pick_number(chances[n, 0], len(left)), pick_number(chances[n, 1], len(left) - 1)
        j += j >= i
        results, legal = step_results(o, left[i], left[j])
        operation = jnp.argmax(jnp.cumsum(legal) > pick_number(chances[n, 2], legal.sum()))
        steps.append(jnp.stack([left[i], operation, left[j], results[operation]]))
        possible &= legal.any()
        left = put_back(left, i, j, results[operation])
    return jnp.stack(steps).astype(jnp.int32), possible


def all_chains(o: Options, numbers: Array) -> tuple[Array, Array]:
    """All ways to take steps until one number is left: steps [C, n - 1, 4] as in ``random_chain``, and whether all are legal [C].

    Each step takes two of the numbers, the larger one first, and one of four operations: C is 1,152 for four numbers. A result
    that they can make is the result of one of these.
    """
    left, steps, possible = numbers[None], jnp.zeros((1, 0, 4), jnp.int32), jnp.ones(1, bool)
    beside = lambda x, y: jnp.concatenate([jnp.broadcast_to(x, (len(OPERATIONS), *x.shape)), y], 2)
    for size in range(o.numbers, 1, -1):
        grown = []
        for i, j in itertools.combinations(range(size), 2):
            a, b = jnp.maximum(left[:, i], left[:, j]), jnp.minimum(left[:, i], left[:, j])
            results, legal = step_results(o, a, b)  # [4, C]
            operation = jnp.broadcast_to(jnp.arange(len(OPERATIONS))[:, None], results.shape)
            taken = jnp.stack([*jnp.broadcast_arrays(a, operation, b, results)], -1)  # [4, C, 4]
            rest = left[:, [k for k in range(size) if k not in (i, j)]]
            grown.append((beside(rest, results[..., None]), beside(steps, taken[:, :, None]), possible & legal))
        left, steps, possible = (jnp.concatenate(x).reshape(-1, *x[0].shape[2:]) for x in zip(*grown, strict=True))
    return steps.astype(jnp.int32), possible


def step_results(o: Options, a: Array, b: Array) -> tuple[Array, Array]:
    """The results [4, ...] of the operations on a and b [...], and which of them are legal."""
    results = jnp.stack([a + b, a - b, a * b, a // jnp.maximum(b, 1)])
    whole = (b > 0) & (results[3] * b == a)
    always = jnp.ones_like(whole)
    return results, (0 <= results) & (results <= o.limit) & jnp.stack([always, always, always, whole])


def put_back(left: Array, i: Array, j: Array, result: Array) -> Array:
    """The numbers [n - 1] that are left when those in places i and j have become ``result``."""
    left = left.at[i].set(result)
    return left.at[j].set(left[-1])[:-1]


def records(o: Options, facts: dict[str, Array]) -> list[Record]:
    """One record for each problem. With ``held_targets`` its data set says whether training problems have its target."""
    known = lambda solution: [(a, OPERATIONS[operation], b, c) for a, operation, b, c in solution]
    rows = zip(*(np.asarray(facts[k]).tolist() for k in ("numbers", "target", "solution")), strict=True)
    held = set(split_targets(o)[1])
    of_split = lambda target: {"dataset": "held_targets" if target in held else "known_targets"} if held else {}
    return [{"numbers": n, "target": t, "limit": o.limit, "solution": known(s)} | of_split(t) for n, t, s in rows]


# Verifiers: the answer is the end of the response, and the only one


def score(o: Options, tokenizer: SymbolTokenizer, response: Array, mask: Array, finished: Array, facts: Any) -> Array:
    """Reward [B, G] float32: 1 for a response [B, G, T] that ends "answer STEP , ... STEP <eos>", is right, and has one
    "answer"; else 0.
    """
    steps, ids = o.numbers - 1, tokenizer.ids
    width, length = STEP_TOKENS * steps, mask.sum(-1)
    places = (length - width)[..., None] + jnp.arange(-1, width)  # the word "answer", then the steps
    tail = jnp.take_along_axis(response, jnp.clip(places, 0, response.shape[-1] - 1), -1)
    says = ((response == ids["answer"]) & mask).sum(-1)
    right = finished & (length > width) & (says == 1) & (tail[..., 0] == ids["answer"])
    left = jnp.broadcast_to(facts["numbers"][:, None], (*response.shape[:2], o.numbers))
    for n in range(steps):
        a, operation, b, equals, result, end = jnp.moveaxis(tail[..., 1 + STEP_TOKENS * n :][..., :STEP_TOKENS], -1, 0)
        a, b, result = (x - tokenizer.zero for x in (a, b, result))
        left, had_a = replace_number(left, a, jnp.full_like(a, GONE))
        left, had_b = replace_number(left, b, jnp.full_like(b, GONE))
        left, _ = replace_number(left, jnp.full_like(a, GONE), result)
        right &= (
            had_a & had_b & equation_holds(operation - ids["+"], a, b, result) & (0 <= result) & (result <= o.limit)
        )
        right &= (equals == ids["="]) & (end == (tokenizer.eos if n == steps - 1 else ids[","]))
    result = tail[..., -2] - tokenizer.zero
    return (right & (result == facts["target"][:, None])).astype(jnp.float32)


GONE = -(1 << 20)  # marks a number that was used: less than any token id minus ``zero``


def replace_number(left: Array, old: Array, new: Array) -> tuple[Array, Array]:
    """Replace the first ``old`` [B, G] in ``left`` [B, G, n] by ``new`` [B, G]: (left, [B, G] bool, whether there was one)."""
    found = left == old[..., None]
    first = found & (jnp.cumsum(found, -1) == 1)
    return jnp.where(first, new[..., None], left), found.any(-1)


def equation_holds(operation: Array, a: Array, b: Array, c: Array) -> Array:
    """Whether a OPERATION b = c, for the number of an operation; False for any other number. All [B, G]."""
    cases = [a + b == c, a - b == c, a * b == c, (b > 0) & (b * c == a)]
    return functools.reduce(jnp.logical_or, [(operation == n) & case for n, case in enumerate(cases)])


WHOLE = re.compile(r"0|[1-9][0-9]{0,8}")


def final_steps(response: str, numbers: int) -> list[Step] | None:
    """The steps of the final answer, for a response that ends in a well-formed one; else None."""
    symbols, width = SYMBOL.findall(response), STEP_TOKENS * (numbers - 1)
    if symbols.count("answer") != 1 or symbols[-width - 1 : -width] != ["answer"]:
        return None
    tail, steps = symbols[-width:], []
    if tail[5::STEP_TOKENS] != [","] * (numbers - 2) + ["<eos>"]:
        return None
    for n in range(numbers - 1):
        a, operation, b, equals, c, _ = tail[STEP_TOKENS * n :][:STEP_TOKENS]
        if equals != "=" or operation not in OPERATIONS or not all(WHOLE.fullmatch(x) for x in (a, b, c)):
            return None
        steps.append((int(a), operation, int(b), int(c)))
    return steps


def verify(response: str, record: Record) -> bool:
    """The verdict of the text verifier; a finished response ends in "<eos>"."""
    steps, left = final_steps(response, len(record["numbers"])), list(record["numbers"])
    for a, operation, b, c in steps or ():
        for used in (a, b):
            if used not in left:
                return False
            left.remove(used)
        if calculate(a, operation, b, record["limit"]) != c:
            return False
        left.append(c)
    return steps is not None and left == [record["target"]]


# Text to learn from


def demonstration(o: Options, record: Record, rng: np.random.Generator) -> str:
    """A jump to a solution, or a search that tries, compares, and gives up at random."""
    if o.habits:
        return habit_demonstration(record, parse_habits(o.habits), o.tries, o.give_up, o.wrong, rng)
    numbers, target = record["numbers"], record["target"]
    answer, tries = record["solution"], []
    if rng.random() < o.jump:
        return f"answer {steps_text(answer)}"
    known = rng.integers(o.tries)  # the try that is the known solution, if the search lasts so long
    for n in range(o.tries):
        aim = (
            target if o.nearest and rng.random() < o.nearest else None
        )  # without the option no draw: the same text as ever
        steps = record["solution"] if n == known else random_steps(numbers, o.limit, rng, aim)
        tries.append(compared_text(steps, target))
        reached = steps[-1][3] == target
        if reached or rng.random() < o.give_up:
            answer = steps if reached else random_steps(numbers, o.limit, rng)
            break
    return f"try {' wait '.join(tries)} answer {steps_text(answer)}"


def page(o: Options, tokenizer: SymbolTokenizer, rng: np.random.Generator, length: int) -> list[int]:
    """A page of raw text: calculations compared with a number, or attempts at random problems."""
    write = statement if rng.random() < 0.5 else drill
    out = [tokenizer.bos]
    while len(out) < length:
        out += tokenizer.encode(write(o, rng))
    return out[:length]


def statement(o: Options, rng: np.random.Generator) -> str:
    """A sum, difference, product or quotient, each equally likely, and a comparison of its result."""
    c, kind, other = (int(rng.integers(n)) for n in (o.limit + 1, 4, o.limit + 1))
    a = int(rng.integers(c + 1))
    pairs = products(o.limit)
    x, y = pairs[rng.integers(len(pairs))]
    step = ((a, "+", c - a, c), (c, "-", a, c - a), (x, "*", y, x * y), (x * y, "/", x, y))[kind]
    return compared_text([step], step[3] if rng.random() < 0.25 else other) + " ."


@functools.cache
def products(limit: int) -> list[tuple[int, int]]:
    """All (a, b) with a >= 1, b >= 0 and a * b <= limit."""
    return [(a, b) for a in range(1, limit + 1) for b in range(limit // a + 1)]


def drill(o: Options, rng: np.random.Generator) -> str:
    """Attempts at a problem with a number larger than problems have, so no page shows a held-out answer or target."""
    held = split_targets(o)[1]
    numbers = rng.integers(1, o.max_number + 1, o.numbers).tolist()
    numbers[rng.integers(o.numbers)] = int(rng.integers(o.max_number + 1, min(o.limit, 3 * o.max_number) + 1))
    attempts = [random_steps(numbers, o.limit, rng) for _ in range(6)]
    while (target := attempts[rng.integers(6)][-1][3]) in held:
        attempts = [random_steps(numbers, o.limit, rng) for _ in range(6)]
    return (
        f"make {target} from {' '.join(map(str, numbers))} ? {' . '.join(compared_text(a, target) for a in attempts)} ."
    )


# Reading an attempt

CALCULATION = re.compile(r"\b([0-9]{1,9}) ([-+*/]) ([0-9]{1,9}) = ([0-9]{1,9})\b")
ONE = r"\b[0-9]{1,9} [-+*/] [0-9]{1,9} = [0-9]{1,9}\b"
UNDONE = re.compile(rf"\bback {ONE} ?")  # aims at a number, tries none
CHAIN = re.compile(rf"{ONE}(?: ?, {ONE})*(?: vs ([0-9]{{1,9}}) (less|more|same))?")


def describe(response: str, record: Record) -> Attempt:
    """What a response did; its strategy follows from the tries before the answer."""
    read = lambda text: [(int(a), x, int(b), int(c)) for a, x, b, c in CALCULATION.findall(text)]
    facts = tuple(calculate(a, x, b, record["limit"]) == c for a, x, b, c in read(response))
    tries = list(CHAIN.finditer(UNDONE.sub("", response.partition("answer")[0])))
    verdicts = []
    for n, found in enumerate(tries):
        if verdict := found[2]:
            right = int(found[1]) == record["target"] and compare(read(found[0])[-1][3], int(found[1])) == verdict
            verdicts.append((right, verdict == "same", n))
    strategy = "jump" if not tries else "retry" if len(tries) > 1 else "check" if verdicts else "steps"
    final = final_steps(response, len(record["numbers"]))
    ordered = lambda a, x, b, c: (b, x, a, c) if x in "+*" and b < a else (a, x, b, c)  # 4 + 3 and 3 + 4 vote together
    answer = None if final is None else steps_text([ordered(*step) for step in final])
    return Attempt(strategy, answer, facts, tuple(verdicts))
