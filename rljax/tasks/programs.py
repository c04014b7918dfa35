"""Which function was it? A program from two examples, run on three more in the sandbox: reinforcement learning on code.

    a 3 b 4 gives 12 , a 5 b 2 gives 6 ?
    answer def f ( a , b ) : return a * b                                                               a jump
    try a * b : 5 * 2 = 10 vs 6 no wait try b * 3 : 2 * 3 = 6 vs 6 same answer def f ( a , b ) : return b * 3

Functions are x + y, x - y or x * y of a, b and a constant. Several explain the first example; who checks the second finds
out which. Demonstrators jump to one that explains the first, or try them one by one and give up at random. Whatever stands
behind "answer" is a Python program, and is run as one: nothing else decides. The problem is its function and examples.
"""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np

from rljax.errors import UserError
from rljax.structs import Array, Problems
from rljax.tasks import Attempt, Record, Task, at_last, generate
from rljax.text import SymbolTokenizer
from rljax.verifiers import sandbox

OPERATIONS = ("+", "-", "*")
HEAD = "def f ( a , b ) : return"
WORDS = (*"a b gives , ? try : = vs no same wait answer . def f ( ) return".split(), *OPERATIONS)
EXAMPLES, HIDDEN = 2, 3
Function = tuple[str, str, str]  # x, operation, y


@dataclasses.dataclass(frozen=True)
class Options:
    """The longest demonstration has 14 tries + 13 tokens, its stop token included."""

    max_number: int = 9  # the largest a, b and constant
    jump: float = 0.5  # share of demonstrations that just answer
    give_up: float = 0.3  # chance to give up after each failed try
    tries: int = 6  # at most so many
    allow_unsafe: bool = False  # run programs even where the kernel cannot jail them

    def __post_init__(self):
        if not 3 <= self.max_number <= 20 or self.tries < 1:
            said = f"max_number={self.max_number}, tries={self.tries}"
            raise UserError(f"task programs: {said}: max_number must be 3 to 20, and tries at least 1")


def make(options: Options) -> Task:
    """The task of these options. Raises UserError where programs cannot be jailed."""
    sandbox.require_isolation(options.allow_unsafe)
    tokenizer = SymbolTokenizer(WORDS, numbers=options.max_number**2)
    ask = jax.jit(functools.partial(problems, options, tokenizer), static_argnums=2)
    return Task(
        name="programs",
        tokenizer=tokenizer,
        prompt_slots=15,
        demonstration_slots=14 * options.tries + 13,
        problems=ask,
        records=functools.partial(records, options),
        verify=functools.partial(verify, allow_unsafe=options.allow_unsafe),
        demonstration=lambda record, rng: demonstration(options, record, rng),
        page=lambda rng, length: page(options, tokenizer, rng, length),
        describe=describe,
        final=at_last("answer"),
        words=("wait", "try"),
        notes=("code/none", "code/fails"),
        read_prompt=read_prompt,
        judge=functools.partial(judge, allow_unsafe=options.allow_unsafe),
    )


# Problems


@functools.cache
def functions(o: Options) -> tuple[Function, ...]:
    """All there are: two operands, the first of them a or b, no two functions the same."""
    constants = [str(n) for n in range(2, o.max_number + 1)]
    both = [("a", "+", "b"), ("a", "*", "b"), ("a", "-", "b"), ("b", "-", "a")]
    return (*both, *((x, sign, c) for x in "ab" for sign in OPERATIONS for c in constants))


def value(function: Function, a: int, b: int) -> int:
    x, sign, y = (str({"a": a, "b": b}.get(part, part)) for part in function)
    return {"+": int(x) + int(y), "-": int(x) - int(y), "*": int(x) * int(y)}[sign]


@functools.cache
def table(o: Options) -> np.ndarray:
    """[functions, a, b] int32: every value; negative ones are not said."""
    numbers = range(o.max_number + 1)
    return np.array([[[value(f, a, b) for b in numbers] for a in numbers] for f in functions(o)], np.int32)


def problems(o: Options, tokenizer: SymbolTokenizer, seed: int, index: Array, split: str) -> Problems:
    """Problems number ``index`` [B] of a split: two examples, and three more that are not shown."""
    values = jnp.asarray(table(o))

    def candidate(key: Array) -> tuple[dict[str, Array], Array, Array]:
        one, other = jax.random.split(key)
        function = jax.random.randint(one, (), 0, values.shape[0])
        given = jax.random.randint(other, (EXAMPLES + HIDDEN, 2), 1, o.max_number + 1)
        result = values[function, given[:, 0], given[:, 1]]
        fits = (values[:, given[:EXAMPLES, 0], given[:EXAMPLES, 1]] == result[:EXAMPLES]).all(-1)
        facts = {"function": function, "given": given, "result": result}
        sound = (result >= 0).all() & (fits.sum() == 1)  # the examples say which function it is
        return facts, jnp.concatenate([function[None], given[:EXAMPLES].reshape(-1)]), sound

    facts = generate.draw(candidate, seed, index, split)
    word = lambda name: jnp.full_like(facts["function"], tokenizer.ids[name])
    number = lambda x: tokenizer.zero + x
    prompt = [word("<bos>")]
    for n in range(EXAMPLES):
        a, b = facts["given"][:, n, 0], facts["given"][:, n, 1]
        prompt += [word("a"), number(a), word("b"), number(b), word("gives"), number(facts["result"][:, n])]
        prompt.append(word("," if n < EXAMPLES - 1 else "?"))
    stacked = jnp.stack(prompt, 1)
    return Problems(prompt=stacked, prompt_mask=jnp.ones(stacked.shape, bool), facts=facts)


def records(o: Options, facts: dict[str, Array]) -> list[Record]:
    rows = zip(*(np.asarray(facts[k]).tolist() for k in ("function", "given", "result")), strict=True)
    known = functions(o)
    return [
        {"function": known[f], "examples": [(*g, r) for g, r in zip(given, result, strict=True)]}
        for f, given, result in rows
    ]


def read_prompt(prompt: str) -> Record | None:
    """The examples of a prompt; a program that agrees with both is right."""
    found = re.findall(r"a (\d+) b (\d+) gives (\d+)", prompt)
    return {"examples": [tuple(map(int, f)) for f in found]} if len(found) == EXAMPLES else None


# The verifier: run it.


def program(response: str) -> str | None:
    """What stands behind the one "answer" of a finished response."""
    said = response.removesuffix("<eos>").split("answer")
    return said[1].strip() if response.endswith("<eos>") and len(said) == 2 else None


def judge(pairs: list[tuple[str, Record]], allow_unsafe: bool = False) -> list[dict[str, float]]:
    """Right if the program agrees with every example, shown or not; those that do not run are told apart."""
    sources = [program(response) for response, _ in pairs]
    there = [n for n, source in enumerate(sources) if source]
    tests = lambda record: [sandbox.Case(test=f"assert f({a}, {b}) == {v}") for a, b, v in record["examples"]]
    jobs = [(sources[n] or "", tests(pairs[n][1])) for n in there]
    found = sandbox.run_many(jobs, until_failure=True, allow_unsafe=allow_unsafe)
    out = [{"correct": 0.0, "code/none": float(not source), "code/fails": 0.0} for source in sources]
    for n, outcomes in zip(there, found, strict=True):
        out[n]["correct"] = float(all(o.passed for o in outcomes))
        out[n]["code/fails"] = float(any(o.verdict not in ("passed", "wrong", "skipped") for o in outcomes))
    return out


def verify(response: str, record: Record, allow_unsafe: bool = False) -> bool:
    return judge([(response, record)], allow_unsafe)[0]["correct"] > 0


# Text to learn from


def written(function: Function) -> str:
    return " ".join(function)


def explaining(o: Options, a: int, b: int, result: int) -> list[Function]:
    """The functions that explain an example."""
    return [f for f in functions(o) if value(f, a, b) == result]


def tried(function: Function, a: int, b: int, result: int) -> str:
    """One try: the function, its value at the second example, and the verdict."""
    x, sign, y = (str({"a": a, "b": b}.get(part, part)) for part in function)
    found = value(function, a, b)
    # a negative value has no word: the verdict comes without it
    computed = f"{x} {sign} {y} = {found} vs {result}" if found >= 0 else f"{x} {sign} {y} vs {result}"
    return f"try {written(function)} : {computed} {'same' if found == result else 'no'}"


def demonstration(o: Options, record: Record, rng: np.random.Generator) -> str:
    """A jump to a function that explains the first example, or a search among those that do."""
    first, second = record["examples"][:EXAMPLES]
    known = explaining(o, *first)
    known = [known[i] for i in rng.permutation(len(known))]
    answer, tries = known[0], []
    if rng.random() < o.jump:
        return f"answer {HEAD} {written(answer)}"
    for function in known[: o.tries]:
        tries.append(tried(function, *second))
        right = value(function, *second[:2]) == second[2]
        if right or rng.random() < o.give_up:
            answer = function if right else known[rng.integers(len(known))]
            break
    return f"{' wait '.join(tries)} answer {HEAD} {written(answer)}"


def page(o: Options, tokenizer: SymbolTokenizer, rng: np.random.Generator, length: int) -> list[int]:
    """A page of a textbook: functions that explain an example, or a drill."""
    out = [tokenizer.bos]
    while len(out) < length:
        out += tokenizer.encode((explained if rng.random() < 0.8 else drill)(o, rng))  # a drill is four times as long
    return out[:length]


def example(o: Options, rng: np.random.Generator) -> tuple[int, int, int]:
    """Some a and b, and what some function makes of them."""
    while True:
        a, b = (int(n) for n in rng.integers(1, o.max_number + 1, 2))
        result = value(functions(o)[rng.integers(len(functions(o)))], a, b)
        if result >= 0:
            return a, b, result


def explained(o: Options, rng: np.random.Generator) -> str:
    a, b, result = example(o, rng)
    known = explaining(o, a, b, result)
    return f"a {a} b {b} gives {result} : {' , '.join(written(known[i]) for i in rng.permutation(len(known)))} ."


def drill(o: Options, rng: np.random.Generator) -> str:
    """Tries at the second of two examples that no function explains both: a page gives away no held-out answer."""
    (a, b, result), (c, d, goal) = example(o, rng), example(o, rng)
    if not set(explaining(o, a, b, result)).isdisjoint(explaining(o, c, d, goal)):
        return drill(o, rng)
    known, right = explaining(o, a, b, result), explaining(o, c, d, goal)
    pick = lambda some: some[rng.integers(len(some))]
    tries = [tried(pick(right if rng.random() < 0.3 else known), c, d, goal) for _ in range(o.tries)]
    return f"a {a} b {b} gives {result} , a {c} b {d} gives {goal} ? {' . '.join(tries)} ."


# Reading an attempt

TRY = re.compile(r"try (\w+) ([-+*]) (\w+) ?: ([0-9]+) [-+*] ([0-9]+)(?: = ([0-9]+))? vs ([0-9]+) (same|no)")


def describe(response: str, record: Record) -> Attempt:
    (_, _, _), (a, b, result) = record["examples"][:EXAMPLES]
    facts, verdicts, tries = [], [], list(TRY.finditer(response.partition("answer")[0]))
    for n, found in enumerate(tries):
        x, sign, y, said_x, said_y, said, goal, verdict = found.groups()
        right = value((said_x, sign, said_y), 0, 0)
        if said is not None:
            facts.append(int(said) == right)
        known = all(part in "ab" or part.isdigit() for part in (x, y)) and x in "ab"
        fits = known and value((x, sign, y), a, b) == result
        verdicts.append((int(goal) == result and fits == (verdict == "same"), verdict == "same", n))
    strategy = "jump" if not tries else "retry" if len(tries) > 1 else "check"
    return Attempt(strategy, program(response), tuple(facts), tuple(verdicts))
