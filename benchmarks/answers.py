r"""Speed of the verifier of answers, and the cost of a batch with hostile answers.

    python -m benchmarks.answers [--gsm8k FOLDER]

The pairs (response, right answer) are generated: some as in GSM8K (numbers), others as in MATH (formulas, intervals,
matrices; eight responses per problem, half of them correct, in different notation). Each measurement is one JSON line.
With a folder of GSM8K (train.jsonl, test.jsonl), every solution is also compared with its own answer and with 20
others.
"""

import argparse
import json
import os
import random
import time
from pathlib import Path

from rljax.verifiers import answers, numeric_evaluation, symbolic

PROBLEMS, GROUP = 250, 8
PROSE = "We add the two and divide by the third, as the question says.\n" * 8
HOSTILE = [  # answers of a policy on which algebra may never end
    r"9^{9^{9^9}}",
    "10000000!",
    r"\sum_{i=1}^{1000000000} i^i",
    r"\sqrt{" * 40 + "2" + "}" * 40,
    r"(x+y+z)^{99} > 0",
    r"\cos(x)^{99}(1+\sin(x)+\tan(2x)+y^2)^{98} > 0",
    r"(x+1)^{97}(y+z+1)^{96} \cup (1,2)",
    r"\sin(\cos(\tan(\sin(\cos(\tan(10^{50}))))))",
    r"\binom{99999}{49999}",
    "(" * 140 + "x" + ")" * 140,
    r"\begin{pmatrix}" + r"1 & x^{99} \\" * 20 + r"\end{pmatrix}",
    r"(x^{37}+y^{41}-1)^{43}(x-y)^{47} = 0",
]


def make_number_pairs(rng: random.Random) -> list[tuple[str, str]]:
    """Pairs as in GSM8K."""
    out = []
    for _ in range(PROBLEMS * GROUP):
        gold = rng.randint(1, 5000)
        said = gold + rng.choice([0, 1])
        dress = rng.choice(["#### {}", "#### ${}.00", "#### {:,} dollars", r"\boxed{{{}}}", "The answer is {}."])
        out.append((PROSE + dress.format(said), f"{gold:,}"))
    return out


def make_problem(rng: random.Random) -> tuple[str, list[str], list[str]]:
    """(right answer as in MATH, the same in other notation, wrong answers)."""
    a, b, c = rng.sample(range(2, 60), 3)
    kinds = [
        (
            f"({a}x+{b})(x-{c})",
            [f"{a}x^2 + {b - a * c}x - {b * c}", f"(x-{c})({b}+{a}x)"],
            [f"({a}x+{b})(x+{c})", f"{a}x"],
        ),
        (
            rf"\frac{{{a}\sqrt{{{b}}}}}{{{c}}}",
            [rf"\frac{{{a}}}{{{c}}}\sqrt{{{b}}}", rf"{a}\sqrt{{{b}}}/{c}"],
            [rf"\sqrt{{{b}}}", "2"],
        ),
        (
            rf"(-\infty,{a}) \cup [{a + b},{a + b + c})",
            [rf"[{a + b},{a + b + c}) \cup (-\infty,{a})"],
            [rf"(-\infty,{a}]", "(1,2)"],
        ),
        (
            rf"\begin{{pmatrix}} {a} \\ {b}/{c} \end{{pmatrix}}",
            [rf"\begin{{pmatrix}} {a} \\ \frac{{{b}}}{{{c}}} \end{{pmatrix}}"],
            ["0"],
        ),
        (f"y={a}x+{b}", [f"y = {b} + {a}x", f"{a}x - y + {b} = 0"], [f"y={a}x-{b}", f"{a}x + y + {b} = 0"]),
        (rf"\left({a}, \frac{{{b}\pi}}{{{c}}}\right)", [rf"({a}, {b}\pi/{c})"], [rf"({a}, {c}\pi/{b})", f"({a},0)"]),
        (f"{a}+{b}i", [f"{b}i + {a}"], [f"{a}-{b}i", f"{b}+{a}i"]),
        (
            rf"{a} \pm {b}\sqrt{{{c}}}",
            [rf"{a}+{b}\sqrt{{{c}}}, {a}-{b}\sqrt{{{c}}}"],
            [rf"{b} \pm {a}\sqrt{{{c}}}", f"{a}"],
        ),
        (
            f"{a} < x \\le {a + b}",
            [rf"x \in ({a},{a + b}]", f"({a}, {a + b}]"],
            [f"[{a}, {a + b}]", f"{a} \\le x \\le {a + b}"],
        ),
        (f"|x-{a}| + {b}", [f"|{a}-x| + {b}"], [f"|x+{a}| + {b}", f"x-{a}+{b}"]),
        (rf"\{{{a},{b},{c}\}}", [rf"\{{{c}, {a}, {b}\}}", f"{b}, {c}, {a}"], [f"{a},{b}", rf"\{{{a},{b},{c + 1}\}}"]),
    ]
    return rng.choice(kinds)


def make_formula_pairs(rng: random.Random) -> list[tuple[str, str]]:
    """Pairs as in MATH."""
    out = []
    for _ in range(PROBLEMS):
        gold, equal, different = make_problem(rng)
        for n in range(GROUP):
            out.append((f"{PROSE}so it is $\\boxed{{{rng.choice(equal if n % 2 else different)}}}$.", gold))
    return out


def replace_some_by_hostile(pairs: list[tuple[str, str]], rng: random.Random) -> list[tuple[str, str]]:
    """The same batch with a twentieth of the responses replaced by hostile ones."""
    out = list(pairs)
    for n in rng.sample(range(len(out)), len(out) // 20):
        out[n] = f"{PROSE}\\boxed{{{rng.choice(HOSTILE)}}}", out[n][1]
    return out


def time_batch(pairs: list[tuple[str, str]]) -> tuple[float, int]:
    """(seconds for one batch with empty caches, number of correct responses)."""
    symbolic.CACHE.clear()
    numeric_evaluation.evaluate_at_points.cache_clear()
    start = time.perf_counter()
    right = sum(j.correct is True for j in answers.grade_many(pairs))
    return time.perf_counter() - start, right


def print_measurement(what: str, **figures) -> None:
    print(json.dumps({"benchmark": f"answers: {what}", **figures, "cores": os.cpu_count()}), flush=True)


def measure() -> None:
    rng = random.Random(0)
    symbolic.check_many([(f"|x|+{n}", f"{n}+|x|") for n in range(100)])  # starts every server
    short = [(f"#### {n}", f"{n}") for n in range(10_000)]
    print_measurement("fast path", microseconds=round(time_batch(short)[0] / len(short) * 1e6, 1))
    for what, pairs in (("numbers", make_number_pairs(rng)), ("formulas", make_formula_pairs(rng))):
        clean, right = time_batch(pairs)
        dirty, _ = time_batch(replace_some_by_hostile(pairs, rng))
        figures = {"checks": len(pairs), "right": right, "per_second": round(len(pairs) / clean)}
        print_measurement(what, **figures, hostile_costs=round(dirty / clean, 2))
    todo = list({(gold, response.rpartition("boxed{")[2][:-3]) for response, gold in make_formula_pairs(rng)})
    symbolic.CACHE.clear()
    start = time.perf_counter()
    symbolic.check_many(todo)
    print_measurement(
        "math-verify alone", checks=len(todo), per_second=round(len(todo) / (time.perf_counter() - start))
    )


def measure_gsm8k(folder: Path) -> None:
    rows = [json.loads(line) for part in ("train", "test") for line in (folder / f"{part}.jsonl").open()]
    gold = [row["answer"].rpartition("####")[2].strip() for row in rows]
    value = [float(g.replace(",", "")) for g in gold]
    _, own = time_batch([(row["answer"], g) for row, g in zip(rows, gold, strict=True)])
    others = []
    rng = random.Random(0)
    for n, row in enumerate(rows):
        draw = [m for m in rng.sample(range(len(rows)), 200) if value[m] != value[n]]
        others += [(row["answer"], gold[m]) for m in draw[:20]]
    time_of_others, wrong = time_batch(others)
    figures = {"solutions": len(rows), "own_right": own, "others": len(others), "others_right": wrong}
    print_measurement("GSM8K", **figures, per_second=round(len(others) / time_of_others))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gsm8k", type=Path)
    chosen = parser.parse_args().gsm8k
    measure()
    if chosen:
        measure_gsm8k(chosen)
