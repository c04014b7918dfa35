"""Worlds by name: one dict of them, plug-ins in it, names that are checked, and facts that are a list of records."""

import dataclasses
import json
import sys

import coins
import jax
import numpy as np
import pytest

from rljax import evaluation, tasks, transformer
from rljax.errors import UserError
from rljax.tasks import World, batches, rejection_sampling, select_facts

SMALL = ("shop", "fruit", "cups", "countdown", "programs")


@pytest.fixture
def worlds(monkeypatch):
    """The dict of worlds, which a test may change."""
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    return tasks.TASKS


@pytest.mark.parametrize(
    "world",
    [coins, World(coins.Options, coins.make), "coins"],
    ids=["a module", "a World", "the import path of a module"],
)
def test_a_world_is_registered_by_an_entry_in_the_dict(worlds, world):
    worlds["pence"] = world
    task = tasks.make_task("pence", largest=12)
    assert task.name == "coins" and task.tokenizer.numbers == 24


def test_an_unknown_world_is_answered_with_the_nearest_name():
    with pytest.raises(UserError, match="'shopp' is unknown, did you mean 'shop'.*questions"):
        tasks.make_task("shopp")


def test_an_entry_that_is_no_world_is_refused_in_one_line(worlds):
    worlds["empty"], worlds["lost"] = sys, "rljax.tasks.lost"
    with pytest.raises(UserError, match="task empty: .* has no 'Options'"):
        tasks.make_task("empty")
    with pytest.raises(UserError, match="there is no module 'rljax.tasks.lost'"):
        tasks.make_task("lost")


def test_only_a_world_whose_make_has_a_second_parameter_takes_a_tokenizer(worlds):
    worlds["coins"] = coins
    assert [name for name in worlds if tasks.takes_tokenizer(name)] == ["questions", "fruit_text"]
    with pytest.raises(UserError, match="vocabulary of its own"):
        tasks.make_task("coins", tasks.make_task("shop").tokenizer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategies": ()}, "strategies is empty"),
        ({"strategies": ("jump", "jump")}, "strategies names 'jump' twice"),
        ({"strategies": "jump"}, "must be a tuple"),
        ({"strategies": ("jump", "two words")}, "'two words' must be one word"),
        ({"strategies": ("jump",)}, r"describe returns the strategy 'steps'.*\('jump',\)"),
        ({"behaviours": ("wiat",)}, "'wiat' is neither a word of the vocabulary"),
        ({"aha_behaviour": "wait"}, r"aha_behaviour='wait' is not counted.*\('\+',\)"),
        ({"demonstration_slots": 3}, "more tokens than demonstration_slots=3"),
        ({"records": lambda facts: facts[1:]}, "3 records for 4 problems"),
        ({"describe": lambda response, record: record["c"]}, "KeyError"),
    ],
)
def test_a_plug_in_that_does_not_fit_together_is_refused_when_it_is_made(worlds, changes, message):
    worlds["coins"] = World(coins.Options, lambda options: dataclasses.replace(coins.make(options), **changes))
    with pytest.raises(UserError, match=message):
        tasks.make_task("coins")


@pytest.mark.parametrize("name", SMALL)
def test_every_demonstration_of_a_world_has_one_of_its_declared_strategies(name):
    task = tasks.make_task(name, **({"allow_unsafe": True} if name == "programs" else {}))
    asked = jax.device_get(batches.problem_fn(task)(0, np.arange(100), "train"))
    rng = np.random.default_rng(0)
    found = {task.describe(task.demonstration(r, rng) + " <eos>", r).strategy for r in task.records(asked.facts)}
    assert found <= set(task.strategies) and task.aha_behaviour in task.behaviours


# Facts that are a list of records


def test_facts_are_selected_from_lists_tuples_and_arrays():
    records = [{"a": n} for n in range(5)]
    assert (
        select_facts(records, np.array([4, 0]))
        == select_facts(tuple(records), np.array([4, 0]))
        == ({"a": 4}, {"a": 0})
    )
    arrays = {"a": np.arange(5), "b": [np.arange(10).reshape(5, 2)]}
    picked = select_facts(arrays, np.array([4, 0]))
    assert picked["a"].tolist() == [4, 0] and picked["b"][0].tolist() == [[8, 9], [0, 1]]


@pytest.fixture
def coin_task(worlds):
    worlds["coins"] = coins
    task = tasks.make_task("coins")
    assert isinstance(task.problems(0, np.arange(2), "train").facts, list)
    return task


def test_demonstrations_and_worked_pages_are_made_of_problems_whose_facts_are_a_list(coin_task):
    batch = batches.demonstration_batch(coin_task, 0, 0, 6, 10)
    assert batch["tokens"].shape == (6, coin_task.prompt_slots + 10) and batch["loss_mask"].any(1).all()
    pages = batches.add_worked_problems(batches.page_batch(coin_task, 0, 0, 4, 30), coin_task, 0, 0, 1.0)
    assert "answer" in coin_task.tokenizer.decode(pages["tokens"][0])


def test_samples_of_a_file_fit_problems_whose_facts_are_a_list(coin_task, tmp_path):
    lines = [{"index": n, "response": "answer 3"} for n in range(4)]
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows, held_out = rejection_sampling.read_sample_batches(str(tmp_path / "some.jsonl"), coin_task, 0, 10)
    assert len(rows["tokens"]) == 3 and len(held_out["tokens"]) == 1


def test_an_evaluation_asks_problems_whose_facts_are_a_list_in_parts_of_one_shape(coin_task):
    model = transformer.Config(vocab_size=coin_task.tokenizer.size, layers=1, width=16, head_width=8, ff_width=32)
    options = evaluation.EvaluationOptions(problems=5, attempts=2, rows=4)
    evaluate = evaluation.make_evaluator(coin_task, model, options, seed=0, max_new_tokens=6, workers=0)
    metrics, samples = evaluate(transformer.init(model, jax.random.key(0)))
    assert {k for k in metrics if k.startswith("eval/strategy/")} == {"eval/strategy/jump", "eval/strategy/steps"}
    assert len(samples) == 10 and {s["strategy"] for s in samples} <= {"jump", "steps"}
