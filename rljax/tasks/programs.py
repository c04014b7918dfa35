"""Which function is it? A program from two examples, run on three more in the sandbox: reinforcement learning on code.

    a 3 b 4 gives 12 , a 5 b 2 gives 6 ?
    answer def f ( a , b ) : return a * b                                                               a jump
    try a * b : 5 * 2 = 10 vs 6 no wait try b * 3 : 2 * 3 = 6 vs 6 same answer def f ( a , b ) : return b * 3

Functions are x + y, x - y or x * y of a, b and a constant. Several of them explain the first example; the second example
tells which is right. Demonstrators jump to one that explains the first, or try them one by one and give up at random. The
text after "answer" is run as a Python program, and its results alone decide. Two problems are the same if their function and
examples are.
"""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np

from rljax.errors import UserError
from rljax.structs import Array, Problems
from rljax.tasks import generate
from rljax.tasks.option_checks import LARGEST, check_shares
from rljax.tasks.task import Attempt, Record, Task, answer_start_fn
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
    jump: float = 0.5  # share of demonstrations that only answer
    give_up: float = 0.3  # chance to give up after each failed try
    tries: int = 6  # at most, in a demonstration
    allow_unsafe: bool = False  # run programs even where the kernel cannot confine them

    def __post_init__(self):
        check_shares("programs", self)
        if not 3 <= self.max_number <= 20 or not 1 <= self.tries <= LARGEST:
            said = f"max_number={self.max_number}, tries={self.tries}"
            raise UserError(f"task programs: {said}: max_number must be 3 to 20, and tries 1 to {LARGEST}")


def make(options: Options) -> Task:
    """The task of these options. Raises UserError where programs cannot be confined."""
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
        strategies=("jump", "check", "retry"),
        answer_start=answer_start_fn("answer"),
        behaviours=("wait", "try"),
        aha_behaviour="wait",
        content=lambda record: (record["function"], *record["examples"][:EXAMPLES]),
        verifier_metrics=("code/none", "code/fails"),
        read_prompt=read_prompt,
        verify_batch=functools.partial(verify_batch, allow_unsafe=options.allow_unsafe),
        slow_verifier=True,
    )


# Problems


@functools.cache
def all_functions(o: Options) -> tuple[Function, ...]:
    """Every function: two operands, the first of them a or b; no function twice."""
    constants = [str(n) for n in range(2, o.max_number + 1)]
    both = [("a", "+", "b"), ("a", "*", "b"), ("a", "-", "b"), ("b", "-", "a")]
    return (*both, *((x, sign, c) for x in "ab" for sign in OPERATIONS for c in constants))


def evaluate_function(function: Function, a: int, b: int) -> int:
    """The value of a function at (a, b)."""
    x, sign, y = (str({"a": a, "b": b}.get(part, part)) for part in function)
    return {"+": int(x) + int(y), "-": int(x) - int(y), "*": int(x) * int(y)}[sign]


@functools.cache
def value_table(o: Options) -> np.ndarray:
    """Every value, [functions, a, b] int32. Functions with negative values at the examples are not asked."""
    numbers = range(o.max_number + 1)
    return np.array(
        [[[evaluate_function(f, a, b) for b in numbers] for a in numbers] for f in all_functions(o)], np.int32
    )


def problems(o: Options, tokenizer: SymbolTokenizer, seed: int, index: Array, split: str) -> Problems:
    """Problems number ``index`` [B] of a split: two examples, and three more that are not shown."""
    values = jnp.asarray(value_table(o))

    def candidate(key: Array) -> tuple[dict[str, Array], Array, Array]:
        function_key, examples_key = jax.random.split(key)
        function = jax.random.randint(function_key, (), 0, values.shape[0])
        given = jax.random.randint(examples_key, (EXAMPLES + HIDDEN, 2), 1, o.max_number + 1)
        result = values[function, given[:, 0], given[:, 1]]
        fits = (values[:, given[:EXAMPLES, 0], given[:EXAMPLES, 1]] == result[:EXAMPLES]).all(-1)
        facts = {"function": function, "given": given, "result": result}
        sound = (result >= 0).all() & (fits.sum() == 1)  # the examples say which function it is
        return facts, jnp.concatenate([function[None], given[:EXAMPLES].reshape(-1)]), sound

    facts = generate.draw_facts(candidate, seed, index, split)
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
    """One record for each problem: the function, and (a, b, value) of all examples."""
    rows = zip(*(np.asarray(facts[k]).tolist() for k in ("function", "given", "result")), strict=True)
    known = all_functions(o)
    return [
        {"function": known[f], "examples": [(*g, r) for g, r in zip(given, result, strict=True)]}
        for f, given, result in rows
    ]


def read_prompt(prompt: str) -> Record | None:
    """The examples in a prompt; a program is right if it agrees with both."""
    found = re.findall(r"a (\d+) b (\d+) gives (\d+)", prompt)
    return {"examples": [tuple(map(int, f)) for f in found]} if len(found) == EXAMPLES else None


# The verifier runs the program


def extract_program(response: str) -> str | None:
    """The program after the only "answer" of a finished response; None where there is none."""
    said = response.removesuffix("<eos>").split("answer")
    return said[1].strip() if response.endswith("<eos>") and len(said) == 2 else None


def verify_batch(pairs: list[tuple[str, Record]], allow_unsafe: bool = False) -> list[dict[str, float]]:
    """Right if the program agrees with every example, in the prompt or not; and whether it is missing or fails to run."""
    sources = [extract_program(response) for response, _ in pairs]
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
    """The verdict on one response."""
    return verify_batch([(response, record)], allow_unsafe)[0]["correct"] > 0


# Text to learn from


def function_text(function: Function) -> str:
    """ "a * b"."""
    return " ".join(function)


def explaining_functions(o: Options, a: int, b: int, result: int) -> list[Function]:
    """The functions with this result at (a, b)."""
    return [f for f in all_functions(o) if evaluate_function(f, a, b) == result]


def try_text(function: Function, a: int, b: int, result: int) -> str:
    """One try: a function, its value at the second example, and the verdict."""
    x, sign, y = (str({"a": a, "b": b}.get(part, part)) for part in function)
    found = evaluate_function(function, a, b)
    # negative numbers are not in the vocabulary: the value is left out
    computed = f"{x} {sign} {y} = {found} vs {result}" if found >= 0 else f"{x} {sign} {y} vs {result}"
    return f"try {function_text(function)} : {computed} {'same' if found == result else 'no'}"


def demonstration(o: Options, record: Record, rng: np.random.Generator) -> str:
    """A jump to a function that explains the first example, or a search among those that do."""
    first, second = record["examples"][:EXAMPLES]
    known = explaining_functions(o, *first)
    known = [known[i] for i in rng.permutation(len(known))]
    answer, tries = known[0], []
    if rng.random() < o.jump:
        return f"answer {HEAD} {function_text(answer)}"
    for function in known[: o.tries]:
        tries.append(try_text(function, *second))
        right = evaluate_function(function, *second[:2]) == second[2]
        if right or rng.random() < o.give_up:
            answer = function if right else known[rng.integers(len(known))]
            break
    return f"{' wait '.join(tries)} answer {HEAD} {function_text(answer)}"


def page(o: Options, tokenizer: SymbolTokenizer, rng: np.random.Generator, length: int) -> list[int]:
    """A page of raw text: functions that explain an example, or tries at two examples."""
    out = [tokenizer.bos]
    while len(out) < length:
        out += tokenizer.encode(
            (explanation_sentence if rng.random() < 0.8 else drill)(o, rng)
        )  # a drill is four times as long
    return out[:length]


def draw_example(o: Options, rng: np.random.Generator) -> tuple[int, int, int]:
    """Random a and b, and the value of a random function, which is not negative."""
    while True:
        a, b = (int(n) for n in rng.integers(1, o.max_number + 1, 2))
        result = evaluate_function(all_functions(o)[rng.integers(len(all_functions(o)))], a, b)
        if result >= 0:
            return a, b, result


def explanation_sentence(o: Options, rng: np.random.Generator) -> str:
    """An example and all the functions that explain it."""
    a, b, result = draw_example(o, rng)
    known = explaining_functions(o, a, b, result)
    return f"a {a} b {b} gives {result} : {' , '.join(function_text(known[i]) for i in rng.permutation(len(known)))} ."


def drill(o: Options, rng: np.random.Generator) -> str:
    """Tries at two examples that no single function explains, so no page shows a held-out answer."""
    (a, b, result), (c, d, goal) = draw_example(o, rng), draw_example(o, rng)
    if not set(explaining_functions(o, a, b, result)).isdisjoint(explaining_functions(o, c, d, goal)):
        return drill(o, rng)
    known, right = explaining_functions(o, a, b, result), explaining_functions(o, c, d, goal)
    pick = lambda some: some[rng.integers(len(some))]
    tries = [try_text(pick(right if rng.random() < 0.3 else known), c, d, goal) for _ in range(o.tries)]
    return f"a {a} b {b} gives {result} , a {c} b {d} gives {goal} ? {' . '.join(tries)} ."


# Reading an attempt

TRY = re.compile(r"try (\w+) ([-+*]) (\w+) ?: ([0-9]+) [-+*] ([0-9]+)(?: = ([0-9]+))? vs ([0-9]+) (same|no)")


def describe(response: str, record: Record) -> Attempt:
    """What a response did; its strategy follows from the number of tries."""
    (_, _, _), (a, b, result) = record["examples"][:EXAMPLES]
    facts, verdicts, tries = [], [], list(TRY.finditer(response.partition("answer")[0]))
    for n, found in enumerate(tries):
        x, sign, y, said_x, said_y, said, goal, verdict = found.groups()
        right = evaluate_function((said_x, sign, said_y), 0, 0)
        if said is not None:
            facts.append(int(said) == right)
        known = all(part in "ab" or part.isdigit() for part in (x, y)) and x in "ab"
        fits = known and evaluate_function((x, sign, y), a, b) == result
        verdicts.append((int(goal) == result and fits == (verdict == "same"), verdict == "same", n))
    strategy = "jump" if not tries else "retry" if len(tries) > 1 else "check"
    return Attempt(strategy, extract_program(response), tuple(facts), tuple(verdicts))
