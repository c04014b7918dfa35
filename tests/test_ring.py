"""The ring: problems that exist once, two verifiers that agree with riding along, a textbook that holds no problem."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from rljax import tasks
from rljax.errors import UserError
from rljax.tasks import check, ring
from rljax.text import pad_batch

SMALL = dict(stations=256, longest=40)
LINE = ring.make_line(400)
START = 17
RECORD = ring.make_record(400, START, int(LINE.colour[ring.passed(dict(stations=400, start=START), 3)[-1]]))


@pytest.fixture(scope="module")
def task():
    return tasks.make_task("ring", **SMALL)


def drawn(task, count=300, split="train"):
    problems = task.problems(0, np.arange(count), split)
    return problems, task.records(problems.facts)


def test_the_line_goes_once_through_every_station_and_is_the_same_in_every_run():
    line = ring.make_line(256)
    rides = ring.passed(dict(stations=256, start=5), 256)
    assert sorted(rides) == list(range(256)) and rides[-1] == 5
    assert line.after[:6].tolist() == [187, 211, 122, 64, 18, 8]
    assert np.bincount(line.colour).tolist() == [1, 2, 4, 8, 16, 32, 64, 129]


def test_a_problem_is_answered_by_the_first_station_of_its_colour(task):
    problems, records = drawn(task)
    line = ring.make_line(256)
    for record, answer in zip(records, np.asarray(problems.facts["answer"]).tolist(), strict=True):
        colours = line.colour[ring.passed(record, 40)].tolist()
        assert colours.index(record["goal"]) + 1 == answer == record["answer"]
    assert {(r["start"] + r["goal"]) % 2 for r in records} == {1} and {r["start"] % 2 for r in records} == {0, 1}


def test_answers_are_log_uniform_and_levels_are_half_decades():
    task = tasks.make_task("ring")
    _, records = drawn(task, 4000)
    answers = np.array([r["answer"] for r in records])
    for below in (2, 10, 100):  # P(x < n) = log n / log(longest + 1), where every answer exists
        assert abs((answers < below).mean() - np.log(below) / np.log(199)) < 0.06
    for record in records:
        assert record["level"] == 1 + int(np.sum(record["answer"] > np.array([3, 10, 31, 100])))
    assert min(np.bincount([r["level"] for r in records])[1:]) > 400 and answers.max() <= 198


def test_both_verifiers_accept_exactly_the_right_answer_at_the_end_and_alone(task):
    problems, records = drawn(task, 6, "test")
    for n, record in enumerate(records):
        right = record["answer"]
        texts = [f"answer {x} <eos>" for x in range(41)]
        texts += [f"1 bak red red no answer {right} <eos>", f"answer {right} answer {right} <eos>"]
        texts += [f"answer {right} no <eos>", f"{right} <eos>", f"answer {right}", "<eos>"]
        texts += [f"answer {right} {right} <eos>", f"no answer {right} no <eos>"]
        ids = [task.tokenizer.encode(text, specials=True) for text in texts]
        response, mask = pad_batch(ids, 12, task.tokenizer.pad)
        finished = np.array([text.endswith("<eos>") for text in texts])
        facts = {name: np.asarray(x)[n : n + 1] for name, x in problems.facts.items()}
        device = task.verify_on_device(jnp.asarray(response)[None], jnp.asarray(mask)[None], finished[None], facts)[0]
        expected = [text in (f"answer {right} <eos>", f"1 bak red red no answer {right} <eos>") for text in texts]
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
    record = max(drawn(never)[1], key=lambda r: r["answer"])
    assert record["answer"] > 30 and never.verify(never.demonstration(record, rng) + " <eos>", record)


def test_pages_ride_rightly_and_hold_no_problem(task):
    kept = {task.content(record) for split in tasks.SPLITS for record in drawn(task, 200, split)[1]}
    seen = 0
    for n in range(60):
        text = task.tokenizer.decode(task.page(np.random.default_rng(n), 200))
        for shown, record in task.page_attempts(text):
            assert (record["start"] + record["goal"]) % 2 == 0 and task.content(record) not in kept
            attempt = task.describe(shown, record)
            assert all(attempt.calculations) and all(right for right, _, _ in attempt.verdicts)
            seen += 1
    assert seen > 100


def test_pages_know_no_number_above_the_longest_ride():
    for longest in (1, 5):
        task = tasks.make_task("ring", longest=longest)
        assert len(task.page(np.random.default_rng(0), 2000)) == 2000


def test_long_rides_of_pages_never_arrive_and_each_is_answered_with_its_last_stop(task):
    answers = {True: 0, False: 0}
    for n in range(40):
        text = task.tokenizer.decode(task.page(np.random.default_rng(n), 400))
        for shown, record in task.page_attempts(text):
            assert "yes" not in shown or record["answer"] <= ring.SHORT_RIDE
            if found := re.search(r"answer (\d+) ?<eos>", shown):
                assert int(found[1]) == max(task.describe(shown, record).tried)
                assert (int(found[1]) == record["answer"]) == ("yes" in shown)
                answers["yes" in shown] += 1
    assert min(answers.values()) > 50


def test_pages_come_to_every_number(task):
    rng, zero = np.random.default_rng(0), task.tokenizer.zero
    tokens = np.concatenate([task.page(rng, 200) for _ in range(200)])
    numbers = np.bincount(tokens[tokens >= zero] - zero, minlength=41)
    behind_answer = np.bincount(tokens[1:][tokens[:-1] == task.tokenizer.ids["answer"]] - zero, minlength=41)
    assert min(numbers[1:]) > 5 and min(behind_answer[1:40]) > 0


def test_every_token_of_a_first_try_stands_as_far_behind_the_prompt_as_that_of_a_later_try(task):
    """A station five tokens behind the last one, the colour that is looked for five behind the last one."""
    _, records = drawn(task, 20)
    searching = tasks.make_task("ring", jump=0.0, give_up=0.0, **SMALL)
    for record in records:
        prompt = f"<bos> from {ring.NAMES[record['start']]} to {ring.COLOURS[record['goal']]} ?"
        words = prompt.split() + searching.demonstration(record, np.random.default_rng(0)).split()
        tries = words[2 : words.index("answer")]
        assert len(tries) % 5 == 4
        assert {tries[i] for i in range(2, len(tries), 5)} == {ring.COLOURS[record["goal"]]}
        stations = [ring.NAMES.index(word) for word in tries[::5]]
        assert stations == [record["start"], *ring.passed(record, len(stations) - 1)]


def test_what_an_attempt_did():
    tries = ring.tries_text(RECORD, 4)
    right = RECORD["answer"]
    found = ring.describe(f"{tries} answer {right} <eos>", RECORD)
    assert (found.strategy, found.answer, found.tried) == ("retry", str(right), (1, 2, 3, 4))
    assert found.wasted == 5 * (4 - right)
    assert found.calculations == (True,) * 4 and [right for right, _, _ in found.verdicts] == [True] * 4
    goal, other = ring.COLOURS[RECORD["goal"]], "gold"
    assert goal != other
    wrong = ring.describe(f"1 bak {other} {goal} yes 900 bak {goal} {goal} no", RECORD)
    assert wrong.calculations == (False, False) and wrong.verdicts == ((False, True, 0), (False, False, 1))
    assert (wrong.answer, wrong.wasted) == (None, 0)
    assert ring.describe("answer 3 <eos>", RECORD).strategy == "jump"


def test_a_problem_is_read_from_its_prompt(task):
    problems, records = drawn(task, 20)
    for prompt, record in zip(problems.prompt, records, strict=True):
        assert task.read_prompt(task.tokenizer.decode(prompt)) == record
    assert task.read_prompt("from bak to pink ?") is None and task.read_prompt("answer 3") is None


def test_the_world_holds_what_worlds_promise(task):
    report = check.check_task(task, num_problems=60, train_draws=2000)
    assert not report.faults, check.format_report(report)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (dict(stations=255), "must be 256 to 455"),
        (dict(stations=456), "must be 256 to 455"),
        (dict(longest=401), "must be 1 to stations=400"),
    ],
)
def test_lines_that_cannot_be_ridden_are_refused(options, reason):
    with pytest.raises(UserError, match=reason):
        tasks.make_task("ring", **options)
