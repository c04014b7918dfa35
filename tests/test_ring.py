"""The ring: problems that exist once, two verifiers that agree with walking, a textbook that holds no problem."""

import jax.numpy as jnp
import numpy as np
import pytest

from rljax import tasks
from rljax.errors import UserError
from rljax.tasks import check, ring
from rljax.text import pad_batch

SMALL = dict(stones=31, hops=4)
RECORD = ring.make_record(251, 17, 45, 152)


@pytest.fixture(scope="module")
def task():
    return tasks.make_task("ring", **SMALL)


def drawn(task, count=300, split="train"):
    problems = task.problems(0, np.arange(count), split)
    return problems, task.records(problems.facts)


def walk(record, hops):
    place = record["start"]
    for _ in range(hops):
        place = (place + record["hop"]) % record["stones"]
    return place


def test_a_problem_is_answered_by_the_first_visit_of_its_goal(task):
    problems, records = drawn(task)
    for record, answer in zip(records, np.asarray(problems.facts["answer"]).tolist(), strict=True):
        assert [n for n in range(1, 31) if walk(record, n) == record["goal"]] == [answer] == [record["answer"]]
    assert {(r["start"] + r["goal"]) % 2 for r in records} == {1} and {r["start"] % 2 for r in records} == {0, 1}


def test_answers_are_log_uniform_and_levels_are_half_decades():
    task = tasks.make_task("ring")
    _, records = drawn(task, 2000)
    answers = np.array([r["answer"] for r in records])
    for below in (2, 10, 100):  # P(x < n) = log n / log stones
        assert abs((answers < below).mean() - np.log(below) / np.log(251)) < 0.04
    for record in records:
        assert record["level"] == 1 + int(np.sum(record["answer"] > np.array([3, 10, 31, 100])))
    assert set(np.bincount([r["level"] for r in records])[1:] > 250) == {True}


def test_both_verifiers_accept_exactly_the_right_answer_at_the_end_and_alone(task):
    problems, records = drawn(task, 4, "test")
    for n, record in enumerate(records):
        right = record["answer"]
        texts = [f"answer {x} <eos>" for x in range(31)]
        texts += [f"1 2 3 no answer {right} <eos>", f"answer {right} answer {right} <eos>", f"answer {right} no <eos>"]
        texts += [
            f"{right} <eos>",
            f"answer {right}",
            "<eos>",
            f"answer {right} {right} <eos>",
            f"no answer {right} . <eos>",
        ]
        ids = [task.tokenizer.encode(text, specials=True) for text in texts]
        response, mask = pad_batch(ids, 12, task.tokenizer.pad)
        finished = np.array([text.endswith("<eos>") for text in texts])
        facts = {name: np.asarray(x)[n : n + 1] for name, x in problems.facts.items()}
        device = task.verify_on_device(jnp.asarray(response)[None], jnp.asarray(mask)[None], finished[None], facts)[0]
        expected = [text in (f"answer {right} <eos>", f"1 2 3 no answer {right} <eos>") for text in texts]
        assert [task.verify(text, record) for text in texts] == expected == np.asarray(device).astype(bool).tolist()


def test_demonstrations_jump_or_give_up_at_random_and_only_a_search_that_arrives_knows_the_answer():
    task, rng = tasks.make_task("ring", jump=0.3, give_up=0.5), np.random.default_rng(0)
    _, records = drawn(task, 600)
    texts = [task.demonstration(record, rng) for record in records]
    found = [task.describe(f"{text} <eos>", record) for text, record in zip(texts, records, strict=True)]
    assert abs(np.mean([a.strategy == "jump" for a in found]) - 0.3) < 0.06
    assert all(all(a.calculations) and all(right for right, _, _ in a.verdicts) for a in found)
    arrived = [r["answer"] in (a.tried or ()) for a, r in zip(found, records, strict=True)]
    right = [task.verify(f"{text} <eos>", record) for text, record in zip(texts, records, strict=True)]
    assert all(r for r, a in zip(right, arrived, strict=True) if a)
    assert np.mean([r for r, a in zip(right, arrived, strict=True) if not a]) < 0.03
    assert max(len(task.tokenizer.encode(text)) + 1 for text in texts) <= task.demonstration_slots
    never = tasks.make_task("ring", jump=0.0, give_up=0.0, **SMALL)
    record = next(r for r in drawn(never)[1] if r["answer"] > 25)
    assert never.verify(never.demonstration(record, rng) + " <eos>", record)


def test_pages_walk_rightly_and_hold_no_problem(task):
    kept = {task.content(record) for split in tasks.SPLITS for record in drawn(task, 200, split)[1]}
    seen = 0
    for n in range(60):
        text = task.tokenizer.decode(task.page(np.random.default_rng(n), 200))
        assert "answer" not in text
        for shown, record in task.page_attempts(text):
            assert (record["start"] + record["goal"]) % 2 == 0 and task.content(record) not in kept
            attempt = task.describe(shown, record)
            assert all(attempt.calculations) and all(right for right, _, _ in attempt.verdicts)
            seen += 1
    assert seen > 100


def test_what_an_attempt_did():
    found = ring.describe("1 45 62 no 2 45 107 no 3 45 152 yes 4 45 197 no answer 3 <eos>", RECORD)
    assert (found.strategy, found.answer, found.tried, found.wasted) == ("retry", "3", (1, 2, 3, 4), 4)
    assert found.calculations == (True,) * 4 and [right for right, _, _ in found.verdicts] == [True] * 4
    wrong = ring.describe("1 45 62 yes 2 45 106 no", RECORD)
    assert wrong.calculations == (True, False) and wrong.verdicts == ((False, True, 0), (True, False, 1))
    assert (wrong.answer, wrong.wasted) == (None, 0)
    assert ring.describe("answer 3 <eos>", RECORD).strategy == "jump"


def test_a_problem_is_read_from_its_prompt(task):
    problems, records = drawn(task, 20)
    for prompt, record in zip(problems.prompt, records, strict=True):
        assert task.read_prompt(task.tokenizer.decode(prompt)) == record
    assert task.read_prompt("from 3 by 2 to 31 ?") is None and task.read_prompt("answer 3") is None


def test_the_world_holds_what_worlds_promise(task):
    report = check.check_task(task, num_problems=60, train_draws=2000)
    assert not report.faults, check.format_report(report)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (dict(stones=33), "must be a prime number"),
        (dict(stones=1009), "11 to 999"),
        (dict(hops=200), "must be 1 to half"),
    ],
)
def test_rings_that_cannot_be_walked_are_refused(options, reason):
    with pytest.raises(UserError, match=reason):
        tasks.make_task("ring", **options)
