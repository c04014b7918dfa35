"""Problems of reasoning-gym: a stand-in for it here, the package itself where it is installed."""

import importlib.metadata
import importlib.util
import json
import logging
import sys
import types

import pytest

from rljax.errors import UserError
from rljax.tasks.datasets import gym, sources
from rljax.verifiers import answer_extraction


class Sums:
    """The stand-in's one task: a sum, right only with both of its terms named; junk may make it raise."""

    def __init__(self, seed: int, size: int, largest: int = 10_000):
        assert largest > 0, "largest must be positive"
        self.seed, self.size, self.largest = seed, size, largest

    def __getitem__(self, i: int) -> dict:
        a, b = (self.seed + 7 * i) % self.largest, i % 13
        return {"question": f"What is {a} + {b}?", "answer": f" {a + b} ", "metadata": {"terms": (a, b), "sum": a + b}}

    def score_answer(self, answer: str, entry: dict) -> float:
        assert isinstance(entry["metadata"]["terms"], list), "a record is JSON"
        off = abs(int(answer) - entry["metadata"]["sum"])
        return 1.0 if off == 0 else 0.9


def forget() -> None:
    for cached in (gym.import_reasoning_gym, gym.check_version, gym.scoring_task):
        cached.cache_clear()


@pytest.fixture
def package(monkeypatch):
    """reasoning_gym, of the audited version, with the task "sums"; ``made`` counts how often one was made."""
    made = []

    def create_dataset(name: str, **options):
        made.append(name)
        return {"sums": Sums}[name](**options)

    module = types.ModuleType("reasoning_gym")
    module.__dict__.update(create_dataset=create_dataset, made=made)
    monkeypatch.setitem(sys.modules, "reasoning_gym", module)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: gym.AUDITED)
    monkeypatch.setattr(gym, "ALLOWED", ("sums",))
    monkeypatch.setattr(gym, "REFUSED", {"halting": "rewards junk"})
    forget()
    yield module
    forget()


def test_a_split_has_its_number_of_rows_and_each_is_a_record(package):
    for split, wanted in gym.ROWS.items():
        rows = list(gym.make_rows("sums", split))
        assert len(rows) == wanted and len({r["id"] for r in rows}) == wanted
        assert all(tuple(r) == sources.FIELDS for r in rows)
        assert {(r["kind"], r["subject"]) for r in rows} == {("gym", "sums")}
        assert rows[3]["answer"] == rows[3]["answer"].strip()


def test_rows_are_the_same_every_time(package):
    assert list(gym.make_rows("sums", "train")) == list(gym.make_rows("sums", "train"))


def test_no_question_is_asked_twice_nor_in_both_splits(package):
    options = {"largest": 450}  # so few numbers that the splits' draws overlap
    train, test = ([r["question"] for r in gym.make_rows("sums", split, options)] for split in ("train", "test"))
    drawn = {Sums(gym.SEEDS["train"], 0, **options)[i]["question"] for i in range(2_000)}
    assert drawn & set(test), "this case proves nothing"
    assert len(set(train)) == len(train) and len(set(test)) == len(test) and not set(train) & set(test)


def test_a_task_with_too_few_questions_says_how_many_it_found(package):
    with pytest.raises(UserError, match=r"gym task sums: found 39 different problems for test, want 200"):
        list(gym.make_rows("sums", "test", {"largest": 3}))


def test_only_full_marks_are_right_and_junk_is_wrong(package):
    row = next(gym.make_rows("sums", "test"))
    good = row["answer"]
    assert gym.is_right(good, row["setup"]) and gym.is_right(f"\n {good} ", row["setup"])
    for wrong in (str(int(good) + 1), "", "junk", f"{good} or 7", "0" * 5_000 + good, "9" * 10_000):
        assert not gym.is_right(wrong, row["setup"])
    assert not gym.is_right(good, "no JSON")


def test_a_problem_that_its_own_answer_does_not_solve_is_left_out(package, monkeypatch):
    made = Sums.__getitem__
    monkeypatch.setattr(Sums, "__getitem__", lambda task, i: made(task, i) | ({"answer": ""} if i % 2 else {}))
    rows = list(gym.make_rows("sums", "test"))
    assert len(rows) == gym.ROWS["test"] and all(gym.is_right(r["answer"], r["setup"]) for r in rows)


def test_scoring_uses_the_options_that_made_the_problem_and_makes_its_task_once(package):
    row = next(gym.make_rows("sums", "test", {"largest": 700}))
    assert json.loads(row["setup"])["options"] == {"largest": 700}
    forget()
    del package.made[:]
    assert all(gym.is_right(row["answer"], row["setup"]) for _ in range(5))
    assert package.made == ["sums"]


def test_options_that_do_not_fit_are_one_line(package):
    for options in ({"smallest": 1}, {"largest": -1}, {"seed": 3}):
        with pytest.raises(UserError, match="gym task sums: options .* do not fit it") as raised:
            list(gym.make_rows("sums", "test", options))
        assert "\n" not in str(raised.value)


def test_a_task_that_failed_the_audit_is_refused_with_the_reason_also_from_a_file(package):
    with pytest.raises(UserError, match=r"halting failed the audit of reasoning-gym .*rewards junk; choose one of"):
        list(gym.make_rows("halting", "train"))
    with pytest.raises(UserError, match="halting failed the audit"):
        gym.is_right("zzz", json.dumps({"task": "halting", "entry": {}}))
    assert package.made == []


def test_an_unknown_task_is_refused_with_the_nearest_name(package):
    with pytest.raises(UserError, match="'sum' is not among those audited, did you mean sums"):
        list(gym.make_rows("sum", "train"))


def test_without_the_package_the_message_says_how_to_install_it(package, monkeypatch):
    row = next(gym.make_rows("sums", "test"))
    forget()
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    for ask in (lambda: list(gym.make_rows("sums", "train")), lambda: gym.is_right("1", row["setup"])):
        with pytest.raises(UserError, match=r"pip install -r requirements-gym\.txt"):
            ask()


def test_another_version_than_the_audited_one_is_warned_of_once(package, monkeypatch, caplog):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            next(gym.make_rows("sums", "test"))
    assert len(caplog.records) == 1
    assert "reasoning-gym 9.9" in caplog.text and "tools.audit_gym" in caplog.text


def test_the_allow_list_and_the_refusals_are_apart_and_sorted():
    assert list(gym.ALLOWED) == sorted(set(gym.ALLOWED)) and not set(gym.ALLOWED) & set(gym.REFUSED)
    assert all(gym.REFUSED.values())


LIVE = ("chain_sum", "mini_sudoku", "knights_knaves", "shortest_path", "word_sequence_reversal")
LACKS = pytest.mark.skipif(
    not importlib.util.find_spec("reasoning_gym"),
    reason="reasoning-gym is an extra: `make gym` installs it and runs this",
)


@LACKS
@pytest.mark.parametrize("name", [name for name in LIVE if name in gym.ALLOWED])
def test_the_package_itself_rewards_its_answers_and_no_junk(name):
    forget()
    rows = list(gym.make_rows(name, "test"))
    assert len({r["question"] for r in rows}) == gym.ROWS["test"]
    for row in rows[:20]:
        said = answer_extraction.extract_final_region(f"So it is <answer>\n{row['answer']}\n</answer>")
        assert said is not None and gym.is_right(said, row["setup"])
        assert not any(gym.is_right(junk, row["setup"]) for junk in ("", "zzz", "nan", row["question"], "[]"))


@LACKS
def test_the_package_knows_every_task_of_both_lists():
    known = set(importlib.import_module("reasoning_gym.factory").DATASETS)
    assert known == set(gym.ALLOWED) | set(gym.REFUSED)
