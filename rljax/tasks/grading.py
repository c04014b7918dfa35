"""Grading responses to questions: one grader for each kind of question, each for a batch of (response, record)."""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

from rljax.tasks.datasets import gym
from rljax.tasks.datasets.sources import test_cases
from rljax.verifiers import answer_extraction, answers, arithmetic, code_blocks, sandbox
from rljax.verifiers.answers import Grade

Record = dict[str, Any]
Pairs = Sequence[tuple[str, Record]]


def grade_mathematics(pairs: Pairs) -> list[Grade]:
    """Right if the final answer is equal to the record's."""
    return answers.grade_many([(response, record["answer"]) for response, record in pairs])


def grade_code(pairs: Pairs, allow_unsafe: bool) -> list[Grade]:
    """Right if the program passes every test. The programs of a batch run at the same time."""
    sources = [code_blocks.extract_program(response) for response, _ in pairs]
    there = [n for n, source in enumerate(sources) if source]
    jobs = [sandbox_job(sources[n] or "", pairs[n][1]) for n in there]
    ran = sandbox.run_many(jobs, until_failure=True, allow_unsafe=allow_unsafe)
    passed = {n: all(o.passed for o in found) for n, found in zip(there, ran, strict=True)}
    return [
        Grade(passed.get(n, False), source, code_blocks.count_programs(response))
        for n, (source, (response, _)) in enumerate(zip(sources, pairs, strict=True))
    ]


def sandbox_job(source: str, record: Record) -> tuple[str, list[sandbox.Case]]:
    """(program, test cases) for the sandbox."""
    return code_blocks.complete_program(source, record["setup"]), test_cases(record)


def final_region_grader(right: Callable[[str, Record], bool]) -> Callable[[Pairs], list[Grade]]:
    """A grader that reads the final answer alone; ``right(answer, record)`` decides."""

    def grade(pairs: Pairs) -> list[Grade]:
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

    return grade


def reaches_target(answer: str, record: Record) -> bool:
    """Whether an expression uses the numbers of a Countdown record and equals its target."""
    target, _, numbers = record["setup"].partition(" from ")
    return arithmetic.reaches_target(answer, json.loads(numbers), int(target))


GRADERS: dict[str, Callable[[Pairs], list[Grade]]] = {
    "math": grade_mathematics,
    "countdown": final_region_grader(reaches_target),
    "gym": final_region_grader(lambda answer, record: gym.is_right(answer, record["setup"])),
}


def grade_responses(pairs: Pairs, allow_unsafe: bool = False) -> list[Grade]:
    """The judgement of each response, read with its record's ``prefill`` before it and without its stop token."""
    out: dict[int, Grade] = {}
    for kind, grade in {**GRADERS, "code": functools.partial(grade_code, allow_unsafe=allow_unsafe)}.items():
        chosen = [n for n, (_, record) in enumerate(pairs) if record["kind"] == kind]
        if chosen:
            found = grade([(pairs[n][1]["prefill"] + pairs[n][0].removesuffix("<eos>"), pairs[n][1]) for n in chosen])
            out.update(zip(chosen, found, strict=True))
    return [out[n] for n in range(len(pairs))]
