"""What a search consists of: tries, repetitions, tokens behind the right one; prunes; and what the training text does not show."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from rljax import tasks, transformer
from rljax.errors import UserError
from rljax.evaluation.estimates import lengths_by_level, search_statistics
from rljax.evaluation.forbidding import attempt_without
from rljax.tasks import Attempt, shop
from rljax.tasks.absence import search_rows
from rljax.tasks.batches import page_batch
from rljax.tasks.stage_data import PretrainingData, SFTData, pretraining_batches, sft_batches

SORTED = dict(prices=6, max_price=20, in_order=1.0, searches=1.0, jump=0.3, give_up=0.25)
SORTED.update(ascending=True, prunes=True, skip=0.15)
LIST = {"prices": [2, 5, 9, 16], "total": 14}


def words(*tries, answer=""):
    return " ".join(shop.search_sentences(list(tries), LIST["total"])) + (f" answer {answer} <eos>" if answer else "")


def test_tries_are_told_apart_whatever_their_order_and_tokens_behind_the_right_one_are_wasted():
    found = shop.describe(words((2, 5), (5, 2), (5, 9), (2, 9), answer="5 9"), LIST, prunes=True)
    assert found.tried == (frozenset({2, 5}), frozenset({2, 5}), frozenset({5, 9}), frozenset({2, 9}))
    assert found.wasted == 9  # the try of 2 and 9
    assert shop.describe(words((5, 9), answer="5 9"), LIST, prunes=True).wasted == 0
    assert shop.describe(words((5, 9), (2, 5)), LIST, prunes=True).wasted == 9  # cut off before an answer
    never_right = words((2, 5), (2, 9), answer="2 9")
    assert shop.describe(never_right, LIST, prunes=True).wasted == 0
    assert shop.describe("answer 5 9 <eos>", LIST, prunes=True).tried == ()
    assert shop.describe(words((5, 9), answer="5 9"), LIST).tried is None  # unless one looks for it


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


# Prunes


def test_a_prune_leaves_out_the_rest_of_a_prices_pairs_behind_a_total_that_is_too_low():
    count = lambda *tries: shop.count_prunes(words(*tries, answer="5 9"), LIST)
    assert count((2, 16), (2, 9), (5, 16)) == 1
    assert count((2, 16), (2, 9), (2, 5), (5, 16)) == 0  # goes on, and leaves out nothing
    assert count((2, 5), (5, 16)) == 0  # there is no price between them
    assert count((2, 16), (5, 9)) == 0  # the total was too high
    assert count((5, 9), (9, 16)) == 0  # the total, not too low
    assert count((5, 9), (2, 16)) == 0 and count((2, 9)) == 0
    assert shop.count_prunes("try 2 + 16 = 18 vs 14 less wait 5 + 16 = 21 vs 14 more", LIST) == 1  # as the attempt says
    assert shop.count_prunes("try 3 + 9 = 12 vs 14 less wait 5 + 16 = 21 vs 14 more", LIST) == 0
    once, twice = words((2, 9), (5, 9), answer="5 9"), words((2, 9), (5, 16), (2, 9), (5, 9), answer="5 9")
    assert [shop.describe(text, LIST, prunes=True).strategy for text in (once, twice)] == ["retry", "prune"]
    assert shop.describe(twice, LIST).strategy == "retry"  # unless one looks for it


def test_in_an_ascending_list_a_prune_leaves_out_only_pairs_that_are_too_low():
    task = tasks.make_task("shop", **SORTED)
    for record in task.records(task.problems(0, np.arange(40), "test").facts):
        prices = record["prices"]
        assert prices == sorted(prices) and task.content is not None
        for n, m in itertools.combinations(range(len(prices)), 2):
            if prices[n] + prices[m] < record["total"]:
                assert all(prices[n] + left_out < record["total"] for left_out in prices[n + 1 : m])


def test_searches_go_from_the_top_and_leave_out_pairs_once_at_the_most():
    options, rng = shop.Options(**SORTED), np.random.default_rng(0)
    whole = [(2, 16), (2, 9), (2, 5), (5, 16), (5, 9), (9, 16)]
    assert shop.in_order_pairs(dataclasses.replace(options, skip=0.0), LIST["prices"], 14, rng) == whole
    seen = {tuple(shop.in_order_pairs(options, LIST["prices"], 14, rng)) for _ in range(400)}
    left_out = {frozenset(whole) - set(tried) for tried in seen}
    assert left_out == {frozenset(x) for x in ((), ((2, 9), (2, 5)), ((2, 5),), ((5, 9),))}
    plain = dataclasses.replace(options, prunes=False, skip=0.0)
    assert shop.in_order_pairs(plain, LIST["prices"], 14, rng) == list(itertools.combinations(LIST["prices"], 2))


def test_lists_of_several_lengths_are_ascending_too():
    task = tasks.make_task("shop", prices=6, fewest=3, max_price=20, ascending=True)
    problems = task.problems(0, np.arange(30), "train")
    for record, prompt, mask in zip(task.records(problems.facts), problems.prompt, problems.prompt_mask, strict=True):
        assert record["prices"] == sorted(record["prices"]) and len(record["prices"]) == record["level"]
        assert task.read_prompt(task.tokenizer.decode(prompt[mask])) == {k: record[k] for k in ("prices", "total")}


# What the training text shows


def rows_of(**options):
    task = tasks.make_task("shop", **SORTED | options)
    pages = pretraining_batches(PretrainingData(length=160), task, 0)
    demonstrations = sft_batches(SFTData(max_new_tokens=144), task, 0)
    return task, pages, demonstrations


def test_no_page_and_no_demonstration_shows_a_prune_where_searches_are_in_order():
    task, pages, demonstrations = rows_of()
    for batches, rows in ((pages, 130), (demonstrations, 200)):
        seen = search_rows(task, "prune", batches, rows)
        assert (seen.rows, seen.found, seen.first) == (rows, 0, "") and seen.attempts >= rows / 3
    assert search_rows(task, "retry", pages, 64).found > 20


def test_the_search_of_the_text_finds_a_prune_where_there_is_one():
    task, pages, demonstrations = rows_of(in_order=0.0, give_up=0.0, jump=0.0)
    seen = search_rows(task, "prune", demonstrations, 64)
    assert seen.found > 10 and shop.count_prunes(seen.first, read(task, demonstrations, seen.first)) >= shop.PRUNES

    def planted(split, start, count):  # one try is taken out of one page
        batch = page_batch(task, 0, start, count, 160)
        if start == 64:
            tries = "2 + 9 = 11 vs 14 less wait 5 + 16 = 21 vs 14 more wait"
            text = f"Ben pays 14 for two of 2 5 9 16? try {tries} {tries} 5 + 9 = 14 vs 14 same."
            ids = [task.tokenizer.bos, *task.tokenizer.encode(text)]
            batch["tokens"][3, : len(ids)], batch["tokens"][3, len(ids) :] = ids, task.tokenizer.pad
            batch["mask"] = batch["loss_mask"] = batch["mask"] & (np.arange(160) < len(ids)) | (
                batch["mask"] & (np.arange(count)[:, None] != 3)
            )
        return batch

    assert search_rows(task, "prune", pages, 128).found == 0
    assert search_rows(task, "prune", planted, 128).found == 1


def read(task, batches, text):
    """The record of the first problem whose response is this text."""
    batch = batches("train", 0, 64)
    for tokens, mask, learned in zip(batch["tokens"], batch["mask"], batch["loss_mask"], strict=True):
        if task.tokenizer.decode(tokens[learned]) == text:
            return task.read_prompt(task.tokenizer.decode(tokens[mask & ~learned]))
    raise AssertionError(text)


def test_a_strategy_that_the_task_does_not_know_is_refused():
    task, pages, _ = rows_of(prunes=False, skip=0.0)
    with pytest.raises(UserError, match="strategy 'prune' is not one of task shop"):
        search_rows(task, "prune", pages, 1)
    countdown = tasks.make_task("countdown")
    with pytest.raises(UserError, match="does not say which attempts its pages show"):
        search_rows(countdown, "retry", pages, 1)


# Without a strategy


def test_forbidden_words_are_those_that_would_begin_a_prune():
    too_low = "try 2 + 9 = 11 vs 14 less wait 5 + 16 = 21 vs 14 more wait 2 + 9 = 11 vs 14 less wait"
    assert shop.prune_words(too_low, LIST) == ("5", "9", "16")
    assert shop.prune_words("try 2 + 9 = 11 vs 14 less wait", LIST) == ()  # the first one
    assert shop.prune_words(too_low.removesuffix(" wait"), LIST) == ()
    last = "2 + 9 = 11 vs 14 less wait"
    assert shop.prune_words(too_low.removesuffix(last) + "2 + 5 = 7 vs 14 less wait", LIST) == ()  # nothing between
    assert shop.prune_words(too_low.removesuffix(last) + "2 + 16 = 18 vs 14 more wait", LIST) == ()


def test_a_policy_that_would_prune_at_once_never_does_where_it_is_forbidden():
    """A task whose verifier and strategy read one word: half of all first words are forbidden, and none of them is sampled."""
    task = tasks.make_task("shop", **SORTED)
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
