"""How the answer to a question is checked, by the question's kind: batches of (response, record) -> what became of each."""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

from rljax.tasks.datasets import gym
from rljax.tasks.datasets.sources import PAIR
from rljax.verifiers import answer_extraction, answers, arithmetic, code_blocks, sandbox
from rljax.verifiers.answers import Grade

Record = dict[str, Any]
Pairs = Sequence[tuple[str, Record]]


def mathematics(pairs: Pairs) -> list[Grade]:
    return answers.grade_many([(response, record["answer"]) for response, record in pairs])


def code(pairs: Pairs, allow_unsafe: bool) -> list[Grade]:
    """Right if the program passes every test. All programs of a batch run at once."""
    sources = [code_blocks.extract_program(response) for response, _ in pairs]
    there = [n for n, source in enumerate(sources) if source]
    jobs = [job(sources[n] or "", pairs[n][1]) for n in there]
    ran = sandbox.run_many(jobs, until_failure=True, allow_unsafe=allow_unsafe)
    passed = {n: all(o.passed for o in found) for n, found in zip(there, ran, strict=True)}
    return [
        Grade(passed.get(n, False), source, code_blocks.count_programs(response))
        for n, (source, (response, _)) in enumerate(zip(sources, pairs, strict=True))
    ]


def job(source: str, record: Record) -> tuple[str, list[sandbox.Case]]:
    """(program, cases) of a record's tests: assert statements, or stdin and stdout."""
    setup, cases = record["setup"], []
    for test in record["tests"]:
        stdin, pair, stdout = test.partition(PAIR)
        cases.append(
            sandbox.Case(stdin=stdin, stdout=stdout)
            if pair
            else sandbox.Case(test=test, setup=setup, entry=record["entry"])
        )
    return code_blocks.complete_program(source, setup), cases


def one_by_one(right: Callable[[str, Record], bool]) -> Callable[[Pairs], list[Grade]]:
    """A check of the final region alone."""

    def check(pairs: Pairs) -> list[Grade]:
        out = []
        for response, record in pairs:
            said = answer_extraction.text_after_thinking(response)
            region = answer_extraction.extract_final_region(said)
            answer = region.strip() if region and region.strip() else None
            out.append(
                Grade(
                    answer is not None and right(answer, record), answer, answer_extraction.count_marked_answers(said)
                )
            )
        return out

    return check


def countdown(answer: str, record: Record) -> bool:
    target, _, numbers = record["setup"].partition(" from ")
    return arithmetic.reaches_target(answer, json.loads(numbers), int(target))


CHECKS: dict[str, Callable[[Pairs], list[Grade]]] = {
    "math": mathematics,
    "countdown": one_by_one(countdown),
    "gym": one_by_one(lambda answer, record: gym.right(answer, record["setup"])),
}


def judge(pairs: Pairs, allow_unsafe: bool = False) -> list[Grade]:
    """What became of each response, its record's ``prefill`` before it and its stop token left out."""
    out: dict[int, Grade] = {}
    for kind, check in {**CHECKS, "code": functools.partial(code, allow_unsafe=allow_unsafe)}.items():
        chosen = [n for n, (_, record) in enumerate(pairs) if record["kind"] == kind]
        if chosen:
            found = check([(pairs[n][1]["prefill"] + pairs[n][0].removesuffix("<eos>"), pairs[n][1]) for n in chosen])
            out.update(zip(chosen, found, strict=True))
    return [out[n] for n in range(len(pairs))]
