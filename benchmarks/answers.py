r"""How fast answers are checked, and what a batch with hostile ones costs.

    python -m benchmarks.answers [--gsm8k FOLDER]

Pairs (response, right answer) are made here: like GSM8K's (numbers), and like MATH's (formulas, intervals, matrices, in
groups of eight responses to a problem, a half of them right and each written in its own way). One JSON line a
measurement. With a folder of GSM8K (train.jsonl, test.jsonl) also: every solution against its own answer and 20 others.
"""

import argparse
import json
import os
import random
import time
from pathlib import Path

from rljax.verifiers import answers, expressions, symbolic

PROBLEMS, GROUP = 250, 8
PROSE = "We add the two and divide by the third, as the question says.\n" * 8
HOSTILE = [  # what a policy might write that takes algebra for ever, or would
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


def numbers(rng: random.Random) -> list[tuple[str, str]]:
    """GSM8K-like pairs."""
    out = []
    for _ in range(PROBLEMS * GROUP):
        gold = rng.randint(1, 5000)
        said = gold + rng.choice([0, 1])
        dress = rng.choice(["#### {}", "#### ${}.00", "#### {:,} dollars", r"\boxed{{{}}}", "The answer is {}."])
        out.append((PROSE + dress.format(said), f"{gold:,}"))
    return out


def problem(rng: random.Random) -> tuple[str, list[str], list[str]]:
    """A MATH-like right answer, other ways to write it, and answers that are wrong."""
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


def formulas(rng: random.Random) -> list[tuple[str, str]]:
    """MATH-like pairs."""
    out = []
    for _ in range(PROBLEMS):
        gold, equal, different = problem(rng)
        for n in range(GROUP):
            out.append((f"{PROSE}so it is $\\boxed{{{rng.choice(equal if n % 2 else different)}}}$.", gold))
    return out


def hostile(pairs: list[tuple[str, str]], rng: random.Random) -> list[tuple[str, str]]:
    """The same batch with a twentieth of the responses replaced."""
    out = list(pairs)
    for n in rng.sample(range(len(out)), len(out) // 20):
        out[n] = f"{PROSE}\\boxed{{{rng.choice(HOSTILE)}}}", out[n][1]
    return out


def seconds(pairs: list[tuple[str, str]]) -> tuple[float, int]:
    """Time of one batch with nothing known beforehand, and how many were right."""
    symbolic.CACHE.clear()
    expressions.values.cache_clear()
    start = time.perf_counter()
    right = sum(j.right for j in answers.judge_many(pairs))
    return time.perf_counter() - start, right


def report(what: str, **figures) -> None:
    print(json.dumps({"benchmark": f"answers: {what}", **figures, "cores": os.cpu_count()}), flush=True)


def measure() -> None:
    rng = random.Random(0)
    symbolic.check_many([(f"|x|+{n}", f"{n}+|x|") for n in range(100)])  # starts every server
    short = [(f"#### {n}", f"{n}") for n in range(10_000)]
    report("fast path", microseconds=round(seconds(short)[0] / len(short) * 1e6, 1))
    for what, pairs in (("numbers", numbers(rng)), ("formulas", formulas(rng))):
        clean, right = seconds(pairs)
        dirty, _ = seconds(hostile(pairs, rng))
        figures = {"checks": len(pairs), "right": right, "per_second": round(len(pairs) / clean)}
        report(what, **figures, hostile_costs=round(dirty / clean, 2))
    todo = list({(gold, response.rpartition("boxed{")[2][:-3]) for response, gold in formulas(rng)})
    symbolic.CACHE.clear()
    start = time.perf_counter()
    symbolic.check_many(todo)
    report("math-verify alone", checks=len(todo), per_second=round(len(todo) / (time.perf_counter() - start)))


def gsm8k(folder: Path) -> None:
    rows = [json.loads(line) for part in ("train", "test") for line in (folder / f"{part}.jsonl").open()]
    gold = [row["answer"].rpartition("####")[2].strip() for row in rows]
    value = [float(g.replace(",", "")) for g in gold]
    _, own = seconds([(row["answer"], g) for row, g in zip(rows, gold, strict=True)])
    others = []
    rng = random.Random(0)
    for n, row in enumerate(rows):
        draw = [m for m in rng.sample(range(len(rows)), 200) if value[m] != value[n]]
        others += [(row["answer"], gold[m]) for m in draw[:20]]
    time_of_others, wrong = seconds(others)
    figures = {"solutions": len(rows), "own_right": own, "others": len(others), "others_right": wrong}
    report("GSM8K", **figures, per_second=round(len(others) / time_of_others))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gsm8k", type=Path)
    chosen = parser.parse_args().gsm8k
    measure()
    if chosen:
        gsm8k(chosen)
