"""Counting behaviours in responses, and the first aha, on hand-made texts and records."""

import re

import pytest

from rljax import tasks
from rljax.metrics import behaviours
from rljax.report.records import read_series

KEY = "eval/behaviour/wait"


def rates(name: str, texts: list[str], tokens: list[int] | None = None) -> behaviours.BehaviourRates:
    return behaviours.behaviour_rates(texts, tokens or [10] * len(texts), behaviours.compile_patterns([name]))[name]


def times(name: str, text: str) -> int:
    return behaviours.count_matches(text, behaviours.compile_patterns([name])[name])


def test_a_word_is_counted_whole_and_in_any_case():
    found = rates("wait", ["Wait, wait. await the waiter", "no such word", "WAIT!"], [10, 10, 20])
    assert found == (pytest.approx(2 / 3), pytest.approx(1.0), pytest.approx(1000 * 3 / 40))
    assert rates("verify", ["wait"]) == (0, 0, 0)


def test_a_hyphen_ends_a_word_and_letters_or_digits_go_on_with_it():
    assert times("check", "double-check, check-up; checked, checks, recheck, check2, check_") == 2


def test_responses_of_no_tokens_and_no_responses_at_all_count_nothing():
    assert rates("wait", [""], [0]) == (0, 0, 0)
    assert behaviours.behaviour_rates([], [], behaviours.compile_patterns(["wait"]))["wait"] == (0, 0, 0)


def test_texts_without_as_many_lengths_are_refused():
    with pytest.raises(ValueError, match="2 texts, but 1 lengths"):
        behaviours.behaviour_rates(["a", "b"], [1], behaviours.compile_patterns(["wait"]))


def test_a_seventeen_times_longer_answer_with_six_times_the_count_is_a_falling_rate():
    short = rates("wait", ["wait " * 2 + "so " * 98], [100])
    long = rates("wait", ["wait " * 12 + "so " * 1688], [1700])
    assert long.per_response == 6 * short.per_response
    assert long.per_1k == pytest.approx(6 / 17 * short.per_1k) and long.per_1k < short.per_1k
    assert long.share == short.share == 1


def test_reflection_sums_the_ten_words_of_r1():
    assert times("reflection", "Wait, but that is wrong; however, let me verify: check the error.") == 7
    assert times("reflection", "butter, errors, evaluated, waiting, mistaken") == 0
    each = [times("reflection", word.upper()) for word in behaviours.REFLECTION]
    assert each == [1] * 10


def test_the_keywords_of_oat_zero_match_within_words_and_overlaps_count_once():
    assert times("self_reflection", "I am Rechecking. We reconsidered and double-checked.") == 3
    assert times("self_reflection", "Let me check it, think, verify.") == 0
    assert times("self_reflection", "recheck again") == 1, "recheck and check again share a word"
    assert times("self_reflection", "re-evaluate, reevaluation, reevaluate") == 3
    assert all(times("self_reflection", f"so I {word} now") == 1 for word in behaviours.SELF_REFLECTION)
    assert len(behaviours.SELF_REFLECTION) == 15


@pytest.mark.parametrize(
    "name, shown, not_shown",
    [
        ("verification_proxy", "Let me check. 3 * 13 = 39, which is not 40. I verify", "checkout; is 39 what it is?"),
        ("backtracking_proxy", "Try another way, instead of this; that’s not it", "tries anothers; steady"),
        ("subgoals_proxy", "First, add. Then get to a multiple of 10.", "the first one; at first sight"),
        ("backward_chaining_proxy", "Working backwards, or work backward", "walking backwards; framework backward"),
    ],
)
def test_the_four_behaviours_are_found_by_their_phrases(name, shown, not_shown):
    assert times(name, shown) == {"verification_proxy": 3, "backtracking_proxy": 3}.get(name, 2)
    assert times(name, not_shown) == 0


def test_a_behaviour_counted_instead_of_a_judge_has_proxy_in_its_name():
    exact = {"reflection", "self_reflection"}
    assert {n for n in behaviours.SENTENCE_BEHAVIOURS if not n.endswith("_proxy")} == exact


def test_a_long_hostile_text_is_read_to_its_end_without_a_match():
    text = "= " + "1," * 100_000 + "first " * 10_000 + "that's " * 10_000
    assert sum(behaviours.count_matches(text, p) for p in behaviours.PATTERNS.values()) == 0


@pytest.mark.parametrize("name", [n for n in tuple(tasks.TASKS) if not tasks.takes_tokenizer(n)])
def test_the_small_worlds_count_their_own_words(name):
    task = tasks.make_task(name, **({"allow_unsafe": True} if name == "programs" else {}))
    searches = {"cups": {"at"}, "ring": {"no"}, "coins": {"paid"}}.get(name, {"wait", "try"})
    assert searches <= set(task.behaviours) <= set(task.tokenizer.ids)


def records(*shares: float | None, stage: str = "rl") -> list[dict]:
    return [{"stage": stage, "step": 10 * n} | ({} if v is None else {KEY: v}) for n, v in enumerate(shares)]


def aha(*shares: float | None) -> int | None:
    return behaviours.first_aha_step(read_series(records(*shares), KEY), 0.5)


def test_the_first_aha_is_where_a_behaviour_passes_the_threshold_and_stays():
    assert aha(0.3, 0.4, 0.6, 0.7, 0.9) == 20
    assert aha(0.3, 0.5, 0.5, 0.1) == 10, "at the threshold is enough, and what comes after the next does not matter"


def test_a_behaviour_that_passes_once_and_falls_back_is_no_aha_until_it_stays():
    assert aha(0.3, 0.6, 0.4, 0.6, 0.7) == 30
    assert aha(0.3, 0.6, 0.4) is None


def test_the_last_evaluation_alone_confirms_nothing():
    assert aha(0.3, 0.4, 0.9) is None and aha(0.9) is None and aha() is None


def test_a_behaviour_that_never_passes_has_no_first_aha():
    assert aha(0.1, 0.2, 0.49) is None


def test_a_behaviour_that_was_there_before_has_its_first_aha_at_step_zero():
    assert aha(0.8, 0.9) == 0


def test_only_evaluations_of_the_stage_count_and_of_two_records_of_a_step_the_later():
    mixed = [*records(0.9, 0.9, stage="sft"), *records(0.1, 0.9, None, 0.9), {"stage": "rl", "step": 30}]
    mixed.append({"stage": "rl", "step": 10, KEY: 0.2})
    found = read_series(mixed, KEY)
    assert behaviours.first_aha_step(found, 0.5) is None
    assert behaviours.share_before(found, 30) == 0.2
    assert behaviours.share_before(found, 0) is None


def attempt(response: str, reward: float, final: int | None = None) -> dict:
    return {"response": response, "reward": reward} | ({} if final is None else {"final": final})


def test_the_example_is_the_first_right_attempt_that_shows_the_behaviour_before_its_answer():
    wait = re.compile("wait")
    wrong, late = attempt("no wait answer 1", 0.0, 8), attempt("answer 2 wait", 1.0, 0)
    good, other = attempt("try wait answer 2", 1.0, 9), attempt("wait answer 2", 1.0, 5)
    silent = attempt("answer 2", 1.0, 0)
    assert behaviours.find_example([silent, wrong, late, good, other], wait) is good
    assert behaviours.find_example([silent, wrong, late], wait) is wrong, "the first that shows it, where none fits"
    assert behaviours.find_example([silent], wait) is None
    assert behaviours.find_example([attempt("wait answer 2", 1.0)], wait) is not None, "old samples do not say where"
