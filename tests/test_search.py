"""What a search consists of: tries, repetitions, tokens behind the right one; strategies that are looked for in text, or forbidden."""

import dataclasses

import jax
import numpy as np
import pytest

from rljax import tasks, transformer
from rljax.errors import UserError
from rljax.evaluation.estimates import lengths_by_level, search_statistics
from rljax.evaluation.forbidding import attempt_without
from rljax.tasks import Attempt
from rljax.tasks.absence import search_rows
from rljax.tasks.stage_data import PretrainingData, SFTData, pretraining_batches, sft_batches


def test_the_statistics_of_searches_by_hand():
    attempts = [
        Attempt("retry", None, tried=("a", "b", "a"), wasted=4),
        Attempt("jump", None, tried=()),
        Attempt("retry", None, tried=("c",), wasted=2),
    ]
    found = search_statistics(attempts, np.array([30, 3, 27]))
    assert found == {
        "eval/tries": pytest.approx(4 / 3),
        "eval/repeated": 0.25,
        "eval/wasted": 2.0,
        "eval/wasted/share": pytest.approx(0.1),
    }
    assert search_statistics([Attempt("jump", None)], np.array([3])) == {}


def test_lengths_are_told_apart_by_level_and_by_outcome():
    length, reward = np.array([[4, 6], [10, 30]]), np.array([[1.0, 0.0], [0.0, 0.0]])
    assert lengths_by_level(length, reward, [{"level": 3}, {"level": 5}]) == {
        "eval/level/3/response_length": 5,
        "eval/level/3/response_length/correct": 4,
        "eval/level/3/response_length/wrong": 6,
        "eval/level/5/response_length": 20,
        "eval/level/5/response_length/wrong": 20,
    }
    assert lengths_by_level(length, reward, [{"level": 3}, {"level": 3}]) == {}


# What the training text shows


def test_all_pages_and_all_demonstrations_are_searched_for_a_strategy():
    task = tasks.make_task("coins")
    pages = pretraining_batches(PretrainingData(length=160), task, 0)
    demonstrations = sft_batches(SFTData(max_new_tokens=23), task, 0)
    for batches, rows in ((pages, 130), (demonstrations, 200)):
        seen = search_rows(task, "three_kinds", batches, rows)
        assert (seen.rows, seen.found, seen.first) == (rows, 0, "") and seen.attempts >= rows
        shown = search_rows(task, "two_kinds", batches, rows)
        assert 20 < shown.found < shown.attempts == seen.attempts
        assert task.describe(shown.first, {"amount": 0}).strategy == "two_kinds"


def test_a_strategy_that_the_task_does_not_know_is_refused():
    task = tasks.make_task("coins")
    pages = pretraining_batches(PretrainingData(length=160), task, 0)
    with pytest.raises(UserError, match="strategy 'prune' is not one of task coins"):
        search_rows(task, "prune", pages, 1)
    countdown = tasks.make_task("countdown")
    with pytest.raises(UserError, match="does not say which attempts its pages show"):
        search_rows(countdown, "retry", pages, 1)


# Without a strategy


def test_what_a_policy_would_do_at_once_it_never_does_where_it_is_forbidden():
    """A task whose verifier and strategy read one word: half of all first words are forbidden, and none of them is sampled."""
    task = tasks.make_task("shop", max_price=20)
    odd = tuple(str(n) for n in range(1, 41, 2))
    is_odd = lambda text: text.split(" ")[0] in odd
    task = dataclasses.replace(
        task,
        forbidden={"odd": lambda said, record: () if said else odd},
        describe=lambda text, record: Attempt("odd" if is_odd(text) else "jump", None),
        verify=lambda text, record: is_odd(text),
    )
    model = transformer.Config(vocab_size=task.tokenizer.size, layers=1, width=16, heads=1, kv_heads=1, head_width=16)
    params = transformer.init(model, jax.random.key(0))
    problems = task.problems(0, np.arange(4), "test")
    settings = dict(attempts=16, max_new_tokens=2, temperature=1.0, seed=0)
    free = attempt_without(params, model, task, problems, "", **settings)
    without = attempt_without(params, model, task, problems, "odd", **settings)
    assert free.reward.shape == (4, 16) and free.reward.mean() > 0.1 and free.forbidden.sum() == 0
    assert without.reward.sum() == 0 and not without.shows.any() and (without.forbidden == 1).all()
    likeliest = attempt_without(params, model, task, problems, "odd", **settings | {"temperature": 0.0})
    cold = attempt_without(params, model, task, problems, "odd", **settings | {"temperature": 1e-6})
    assert not likeliest.shows.any() and (likeliest.forbidden == cold.forbidden).all()
    with pytest.raises(UserError, match="temperature=-1"):
        attempt_without(params, model, task, problems, "odd", **settings | {"temperature": -1.0})
    with pytest.raises(UserError, match="strategy 'even' cannot be forbidden"):
        attempt_without(params, model, task, problems, "even", **settings)
