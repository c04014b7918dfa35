"""Audit of reasoning-gym: which tasks are fit for training? A table, and the tuple rljax.tasks.datasets.gym.ALLOWED.

    python -m tools.audit_gym [--out FILE] [--tasks chain_sum,lcm] [--size 50] [--seconds 120]

It needs reasoning-gym, and no JAX. A task passes if its problems depend on the seed alone, if its own answers earn full marks
as a training run would score them, and if its scorer gives full marks to no junk, runs no part of an answer as code, never
raises and is quick. Each task is audited in its own process, so a task that hangs is reported.
"""

import argparse
import ast
import contextlib
import hashlib
import importlib
import inspect
import json
import multiprocessing
import os
import random
import re
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import Any

from rljax.errors import UserError
from rljax.tasks.datasets import gym
from rljax.verifiers import answer_extraction
from tools.gym_probes import CONSTANTS, MARK, make_probes, normalize_answer

SEED = 20_011
ITEM_MS, SCORE_MS = 100.0, 50.0
DRAWN, DISTINCT = sum(gym.ROWS.values()), 0.5  # share of so many questions that are new: few are learnt by heart
DRAWING = 10.0  # seconds for that
LARGEST = 1 << 16  # bytes of setup a record
CONSTANT = 0.75  # share of problems that one and the same answer may solve
RUNS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "parse_expr",
    "sympify",
    "parse_latex",
    "system",
    "Popen",
    "check_output",
}
CLOCK = re.compile(r"\b(?:date|datetime)\.(?:today|now|utcnow)\(|\btime\.time\(")

# What a check may report and is fine all the same, with the reason.
HARMLESS = {
    "bitwise_arithmetic": "evaluates the problem that it made itself, never the answer",
}
# Tasks with several right answers, or ways to write them: what solves another problem, or differs in one place, or has
# more in it, may be right too. It was looked at whether it is.
SEVERAL = {
    "cryptarithm": "checks the sum that the digits make",
    "jugs": "carries out the moves, and any that measure the amount are right",
    "knights_knaves": "reads names and roles, whatever word joins them",
    "power_function": "compares three significant digits, as the question asks",
    "quantum_lock": "carries out the buttons, and any shortest sequence is right",
    "shortest_path": "walks the path, and any shortest one is right",
}


def audit_task(name: str, size: int) -> dict[str, Any]:
    """The report on one task: {"task", "reasons", "digest", measurements}. It passed if there are no reasons."""
    module = gym.import_reasoning_gym()
    report: dict[str, Any] = {"task": name, "reasons": []}
    say = lambda reason: report["reasons"].append(reason) if reason not in report["reasons"] else None
    runs = [] if name in HARMLESS else called_names(gym_tasks()[name], RUNS)
    if runs:
        say(f"its scorer runs text as code ({', '.join(runs)})")
        return report  # the rest would run our junk as code
    if CLOCK.search(inspect.getsource(sys.modules[gym_tasks()[name].__module__])):
        say("its problems depend on the date")
    make = lambda n: module.create_dataset(name, seed=SEED, size=n)
    state = global_random_state()
    task, times, items = make(size), [], []
    for i in range(size):
        start = time.perf_counter()
        items.append(task[i])
        times.append(1e3 * (time.perf_counter() - start))
    report["ms/item"] = round(statistics.median(times), 2)
    if report["ms/item"] > ITEM_MS:
        say(f"{report['ms/item']:.0f} ms to make a problem")
    if global_random_state() != state:
        say("making problems changes the global random state")
    if not all(isinstance(x["question"], str) and isinstance(x["answer"], str) and x["answer"].strip() for x in items):
        say("has problems without an answer in text")
        return report
    if any(len(x["question"].split()) < 3 for x in items):
        say("has questions that do not say the task")
    try:
        setups = [gym.pack_setup(name, x) for x in items]
    except (TypeError, ValueError) as e:
        say(f"its problems cannot be kept as JSON ({e})")
        return report
    report["bytes"] = max(map(len, setups))
    if report["bytes"] > LARGEST:
        say(f"needs {report['bytes']} bytes to score an answer")
    text = lambda x: json.dumps([x["question"], x["answer"], gym.pack_setup(name, x)], sort_keys=True)
    report["digest"] = hashlib.sha256("".join(map(text, items)).encode()).hexdigest()
    again, larger = make(size), make(4 * size)
    if any(text(again[i]) != text(items[i]) for i in reversed(range(size))):
        say("its problems are not a function of the seed")
    if any(text(larger[i]) != text(items[i]) for i in range(size)):
        say("its problems depend on the size")
    report["distinct"] = distinct_share(make(DRAWN))
    if report["distinct"] < DISTINCT:
        say(f"only {report['distinct']:.0%} of its questions are different")
    check_own_answers(task, items, setups, say)
    check_junk(task, items, setups, report, say)
    return report


def distinct_share(task: Any) -> float:
    """The share of problems with a question that did not come before."""
    seen, drawn, end = set(), 0, time.monotonic() + DRAWING
    while drawn < DRAWN and time.monotonic() < end:
        seen.add(task[drawn]["question"])
        drawn += 1
    return len(seen) / drawn


def check_own_answers(task: Any, items: list[Any], setups: list[str], say: Callable[[str], None]) -> None:
    """Check that its own answers earn full marks, directly and after a response and a record in JSON."""
    for item, setup in zip(items, setups, strict=True):
        answer = item["answer"]
        given, error, _ = score_probe(task, answer, item)
        if error or given is None or not gym.FULL <= given <= 2 - gym.FULL:
            say("does not give 1 to its own answer")
        for wrapped in (
            f"<answer>{answer}</answer>",
            f"So: <answer>\n{answer}\n</answer>",
            f"<answer>  {answer} </answer>",
        ):
            region = (answer_extraction.extract_final_region(wrapped) or "").strip()
            if len(region) > gym.LONGEST:
                say(f"has answers longer than {gym.LONGEST} characters")
            elif not gym.FULL <= gym.score_answer(region, setup) <= 2 - gym.FULL:
                say("its own answer earns less once it is stripped, or has been through JSON")


def check_junk(
    task: Any, items: list[Any], setups: list[str], report: dict[str, Any], say: Callable[[str], None]
) -> None:
    """Check that junk earns no full marks, is not run as code, raises nothing, and is scored fast and the same from a record."""
    rng, compiled, answers = random.Random(SEED), [], [x["answer"] for x in items]
    sys.addaudithook(lambda event, args: compiled.append(args) if event == "compile" else None)
    slowest, partial, near, lucky, tried = (0.0, "", items[0]), 0.0, [0, 0], 0, 0
    solved = dict.fromkeys([*CONSTANTS, *answers], 0)
    for item, setup in zip(items, setups, strict=True):
        right = item["answer"]
        for kind, probe in make_probes(item, answers, rng):
            del compiled[:]
            given, error, ms = score_probe(task, probe, item)
            if error:
                say(f"its scorer raises {error} on {probe[:24]!r}")
                continue
            if any(MARK[3:] in str(args[0]) for args in compiled) and MARK[3:] in probe:
                say("its scorer runs the answer as code")
            slowest = max(slowest, (ms, probe, item), key=lambda x: x[0])
            if given is None or not 0 <= given <= 1 + 1e-9:
                say(f"gives {given} to {probe[:24]!r}")
                continue
            if len(probe) <= gym.LONGEST and score_or_none(lambda p=probe, s=setup: gym.score_answer(p, s)) != given:
                say("scores otherwise once a problem has been through JSON")
            full = given >= gym.FULL
            if kind in ("constant", "hostile"):
                partial = max(partial, 0 if full else given)
            if normalize_answer(probe) == normalize_answer(right):
                continue
            if kind == "near":
                near = [near[0] + full, near[1] + 1]
                if full and report["task"] not in SEVERAL:
                    say("gives full marks to an answer that is off in one place")
                if full:
                    report.setdefault("near as", f"{probe[:40]!r} for {right[:40]!r}")
            elif kind == "other":
                lucky, tried = lucky + full, tried + 1
                if full and report["task"] not in SEVERAL:
                    say("gives full marks to another problem's answer")
                    report.setdefault("other as", f"{probe[:40]!r} for {right[:40]!r}")
            elif full and not (kind == "grown" and report["task"] in SEVERAL):
                say(f"gives full marks to {kind} {probe[:24] if kind in ('constant', 'hostile') else 'answers'!r}")
                report.setdefault("junk as", f"{probe[:60]!r} for {right[:60]!r}")
        for answer in solved:
            solved[answer] += (score_probe(task, answer, item)[0] or 0) >= gym.FULL
    ms, probe, item = slowest
    report["ms/score"] = round(
        min([ms] + [score_probe(task, probe, item)[2] for _ in range(3)]), 2
    )  # others use the machine too
    if report["ms/score"] > SCORE_MS:
        say(f"{report['ms/score']:.0f} ms to score {probe[:24]!r}")
    best = max(solved, key=lambda a: solved[a])
    report |= {"constant": solved[best] / len(items), "constant is": best[:40], "partial": round(partial, 3)}
    report |= {"near": near[0] / max(near[1], 1), "others": lucky / max(tried, 1)}
    if report["constant"] > CONSTANT:
        say(f"the one answer {best[:24]!r} solves {report['constant']:.0%} of its problems")


def score_probe(task: Any, answer: str, item: Any) -> tuple[float | None, str, float]:
    """(score, name of the exception, milliseconds) of one answer."""
    start = time.perf_counter()
    try:
        given, error = float(task.score_answer(answer, item)), ""
    except Exception as e:
        given, error = None, type(e).__name__
    return given, error, 1e3 * (time.perf_counter() - start)


def score_or_none(f: Callable[[], float]) -> float | None:
    """The score; None where the scorer raises."""
    try:
        return f()
    except Exception:
        return None


def called_names(cls: type, wanted: set[str]) -> list[str]:
    """Which of these names the scorer of a task calls, directly or through functions of reasoning_gym."""
    todo: list[Any] = [cls.score_answer]
    seen, found = set(), set()
    while todo:
        function = todo.pop()
        if function in seen:
            continue
        seen.add(function)
        module = inspect.getmodule(function)
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        except OSError:  # made by a decorator, such as a dataclass's own methods
            continue
        for node in ast.walk(tree):
            name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
            target = getattr(module, name, None) or getattr(cls, name, None)
            if name in wanted and not is_reasoning_gym(target):  # propositional_logic has a parse_expr of its own
                found.add(name)
            if inspect.isfunction(target) and is_reasoning_gym(target):
                todo.append(target)
            elif inspect.isclass(target) and is_reasoning_gym(target) and not issubclass(target, tuple):
                todo += [f for f in vars(target).values() if inspect.isfunction(f) and is_reasoning_gym(f)]
    return sorted(found)


def is_reasoning_gym(target: Any) -> bool:
    """Whether this is defined in reasoning_gym."""
    return (getattr(target, "__module__", "") or "").startswith("reasoning_gym")


def global_random_state() -> object:
    """The state of the global random numbers of Python and NumPy."""
    numpy = importlib.import_module("numpy")
    return random.getstate(), str(numpy.random.get_state())


def gym_tasks() -> dict[str, type]:
    """{name: class} of every task of reasoning-gym."""
    gym.import_reasoning_gym()
    return {name: pair[0] for name, pair in importlib.import_module("reasoning_gym.factory").DATASETS.items()}


def audit_in_process(name: str, size: int, seconds: float) -> dict[str, Any]:
    """``audit_task`` in a process of its own; a process that hangs or dies is a reason."""
    context = multiprocessing.get_context("fork")  # reasoning-gym takes seconds to import
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=send_audit, args=(name, size, send))
    process.start()
    send.close()
    try:
        report = receive.recv() if receive.poll(seconds) else {"reasons": [f"is not done after {seconds:.0f} s"]}
    except EOFError:
        report = {"reasons": ["ended the process"]}
    process.kill()
    process.join()
    return {"task": name} | report


def send_audit(name: str, size: int, send: Any) -> None:
    """The child process: audit a task and send the report."""
    with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        try:
            report = audit_task(name, size)
        except Exception as e:
            report = {"reasons": [f"cannot be audited ({type(e).__name__}: {str(e)[:80]})"]}
    send.send(report)


def run_audits(tasks: Sequence[str], size: int, seconds: float, out: str) -> None:
    """Audit these tasks twice, in processes with different string hashes, and print the results."""
    names = sorted(gym_tasks())
    unknown = [t for t in tasks if t not in names]
    if unknown:
        raise UserError(f"--tasks: reasoning-gym has no task {unknown[0]}; it has {', '.join(names)}")
    chosen = list(tasks) or names
    command = [sys.executable, "-m", "tools.audit_gym", "--digests", "--tasks", ",".join(chosen)]
    command += ["--size", str(size), "--seconds", str(seconds)]
    environment = os.environ | {"PYTHONHASHSEED": "4242"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as other:
        reports = [audit_in_process(name, size, seconds) for name in chosen]
        digests = json.loads(other.communicate()[0] or "{}")
    for report in reports:
        if report.get("digest") != digests.get(report["task"]):
            report["reasons"].append("another process makes other problems of the same seed")
        report["passed"] = not report["reasons"]
    print(f"{'task':<26} {'passed':<6} {'ms/item':>8} {'ms/score':>8} {'constant':>8} {'near':>5}  reason")
    for r in reports:
        numbers = f"{r.get('ms/item', 0):8.2f} {r.get('ms/score', 0):8.2f} {r.get('constant', 0):8.2f} {r.get('near', 0):5.2f}"
        print(f"{r['task']:<26} {'yes' if r['passed'] else 'no':<6} {numbers}  {'; '.join(r['reasons'])}")
    if out:
        with open(out, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(r) + "\n" for r in reports)
    passed = [r["task"] for r in reports if r["passed"]]
    print(f"\n{len(passed)} of {len(reports)} passed; for rljax/tasks/datasets/gym.py:\n\nALLOWED: tuple[str, ...] = (")
    print(
        textwrap.fill(" ".join(f'"{name}",' for name in passed), 116, initial_indent="    ", subsequent_indent="    ")
    )
    print(")")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", default="", help="a file for the reports, one JSON object a line")
    parser.add_argument("--tasks", default="", help="names, with commas between; all where left out")
    parser.add_argument("--size", type=int, default=50, help="problems of each task")
    parser.add_argument("--seconds", type=float, default=120, help="patience with one task")
    parser.add_argument("--digests", action="store_true", help=argparse.SUPPRESS)  # what run asks of the other process
    asked = parser.parse_args()
    tasks = [t for t in asked.tasks.split(",") if t]
    try:
        if asked.digests:
            print(json.dumps({t: audit_in_process(t, asked.size, asked.seconds).get("digest") for t in tasks}))
        else:
            run_audits(tasks, asked.size, asked.seconds, asked.out)
    except UserError as e:  # as command_line.one_line_errors has it, which needs JAX
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main()
