"""The task of programs: problems that determine one function, demonstrations that run, and verdicts from the sandbox."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from rljax import tasks
from rljax.errors import UserError
from rljax.tasks import programs

OPTIONS = programs.Options()


@pytest.fixture(scope="module")
def task():
    return tasks.make_task("programs")


@pytest.fixture(scope="module")
def records(task):
    return task.records(task.problems(0, jnp.arange(200), "train").facts)


def program(*parts):
    return f"answer {programs.HEAD} {' '.join(parts)} <eos>"


def test_a_problem_shows_two_examples_and_no_more(task):
    asked = task.problems(0, jnp.arange(5), "test")
    for prompt, record in zip(np.asarray(asked.prompt), task.records(asked.facts), strict=True):
        (a, b, r), (c, d, s) = record["examples"][:2]
        assert task.tokenizer.decode(prompt) == f"<bos> a {a} b {b} gives {r}, a {c} b {d} gives {s}?"
        assert len(record["examples"]) == 5 and asked.prompt_mask.all() and len(prompt) == task.prompt_slots


def test_the_shown_examples_leave_one_function_and_all_agree_with_it(records):
    for record in records:
        fits = [
            f
            for f in programs.all_functions(OPTIONS)
            if all(programs.evaluate_function(f, a, b) == r for a, b, r in record["examples"][:2])
        ]
        assert fits == [record["function"]]
        assert all(programs.evaluate_function(record["function"], a, b) == r >= 0 for a, b, r in record["examples"])


def test_no_problem_is_in_two_splits(task):
    content = lambda r: (r["function"], tuple(r["examples"][:2]))
    train, test = (
        {content(r) for r in task.records(task.problems(0, jnp.arange(400), s).facts)} for s in ("train", "test")
    )
    assert not train & test and len(test) > 350


def test_the_verdict_depends_only_on_what_the_program_does(task):
    record = {"examples": [(3, 4, 7), (1, 5, 6), (2, 2, 4)], "function": ("a", "+", "b")}
    judge = lambda text: task.verify_batch([(text, record)])[0]
    assert task.verify(program("a", "+", "b"), record) and task.verify(program("b", "+", "a"), record)
    assert task.verify("try a * b : 1 * 5 = 5 vs 6 no " + program("a", "+", "b"), record)
    assert not task.verify(program("a", "+", "4"), record), "explains the first example only"
    assert not task.verify(program("a", "+", "b").removesuffix(" <eos>"), record)
    assert not task.verify(program("a", "+", "b").removesuffix("<eos>") + program("a", "+", "b"), record)
    assert judge("answer def f ( ) <eos>")["code/fails"] == 1 and judge("wait <eos>")["code/none"] == 1
    assert judge(program("a", "-", "b")) == {"correct": 0, "code/none": 0, "code/fails": 0}


def test_a_program_that_only_knows_the_shown_examples_fails_the_hidden_ones(task):
    record = {"examples": [(3, 4, 7), (1, 5, 6), (2, 2, 4)], "function": ("a", "+", "b")}
    told = "answer def f ( a , b ) : return 7 <eos>"
    assert not task.verify(told, record)


def test_the_prompt_of_a_person_is_parsed(task):
    record = task.read_prompt("a 3 b 4 gives 12 , a 2 b 9 gives 18 ?")
    assert task.verify(program("a", "*", "b"), record) and not task.verify(program("a", "*", "4"), record)
    assert task.read_prompt("a 3 b 4 gives 12 ?") is None


def test_demonstrations_run_and_most_searches_find_the_right_function(task, records):
    rng = np.random.default_rng(0)
    texts = [task.demonstration(r, rng) + " <eos>" for r in records]
    scores = task.verify_batch(list(zip(texts, records, strict=True)))
    assert not any(s["code/fails"] or s["code/none"] for s in scores)
    jumped = [s["correct"] for t, s in zip(texts, scores, strict=True) if t.startswith("answer")]
    searched = [s["correct"] for t, s in zip(texts, scores, strict=True) if t.startswith("try")]
    assert 0.4 < len(jumped) / len(texts) < 0.6 and 0.3 < np.mean(jumped) < np.mean(searched) < 1
    assert max(len(task.tokenizer.encode(t, specials=True)) for t in texts) <= task.demonstration_slots


def test_an_attempt_is_described_by_its_tries_and_verdicts(task):
    record = {"examples": [(3, 4, 12), (5, 2, 6)], "function": ("b", "*", "3")}
    text = "try a * b : 5 * 2 = 10 vs 6 no wait try b * 3 : 2 * 3 = 7 vs 6 same " + program("b", "*", "3")
    found = task.describe(text, record)
    assert found.strategy == "retry" and found.answer == f"{programs.HEAD} b * 3"
    assert found.calculations == (True, False) and found.verdicts == ((True, False, 0), (True, True, 1))
    assert task.describe(program("a", "*", "b"), record).strategy == "jump"
    assert task.describe("try a + 9 : 5 + 9 = 14 vs 6 same " + program("a", "+", "9"), record).verdicts == (
        (False, True, 0),
    )


def test_no_page_of_the_corpus_contains_an_answer(task):
    text = task.tokenizer.decode(task.page(np.random.default_rng(0), 4000))
    assert text.startswith("<bos> a ") and " : " in text and "try" in text
    numbers = r"a (\d+) b (\d+) gives (\d+), a (\d+) b (\d+) gives (\d+)\?"
    pairs = [tuple(map(int, found)) for found in re.findall(numbers, text)]
    assert len(pairs) > 20
    for one in pairs:
        explained = [set(programs.explaining_functions(OPTIONS, *one[i : i + 3])) for i in (0, 3)]
        assert explained[0].isdisjoint(explained[1])


def test_impossible_options_are_refused():
    with pytest.raises(UserError, match="max_number"):
        programs.Options(max_number=2)
