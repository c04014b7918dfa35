"""Estimators over attempts: golden values, brute force, and the conventions that are easy to get wrong."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from rljax import metrics
from rljax.metrics import intervals

CASES = json.loads(Path(__file__).with_name("golden_losses.json").read_text())["cases"]
GOLDEN = next(c for c in CASES if c["id"] == "eval_metrics")


def brute_force(attempts, k):
    """Share of the k-subsets of attempts that hold a right one."""
    subsets = list(itertools.combinations(attempts, k))
    return sum(any(s) for s in subsets) / len(subsets)


def attempts(n, c):
    """[1, n] with the first c right."""
    return (np.arange(n) < c)[None].astype(float)


def test_golden_pass_at_1_and_its_error_over_questions():
    by_question = metrics.pass_at_k(np.asarray(GOLDEN["inputs"]["acc"]), 1)
    np.testing.assert_allclose(by_question, [0.75, 0, 1, 0.25, 0.5])
    assert by_question.mean() == pytest.approx(GOLDEN["expected"]["pass_at_1"])
    error = metrics.standard_error(by_question)
    assert error == pytest.approx(GOLDEN["expected"]["se_over_questions_ddof1"])
    for wrong in ("WRONG_pooled_binomial_se", "clustered_se_no_small_sample_correction"):
        assert abs(error - GOLDEN["expected"][wrong]) > 0.01


def test_golden_pass_at_k():
    for (n, c, k), expected in zip(GOLDEN["inputs"]["n_c_k"], GOLDEN["expected"]["pass_at_k"], strict=True):
        assert metrics.pass_at_k(attempts(n, c), k)[0] == pytest.approx(expected, abs=1e-12), (n, c, k)


def test_golden_pass_at_2_is_the_mean_over_questions():
    mean = metrics.pass_at_k(np.asarray(GOLDEN["inputs"]["acc"]), 2).mean()
    assert mean == pytest.approx(GOLDEN["expected"]["pass_at_2_mean_over_questions"])


def test_golden_majority_of_4():
    votes = metrics.cons_at_k(GOLDEN["inputs"]["answers"], GOLDEN["inputs"]["gold"], 4)
    np.testing.assert_allclose(votes, GOLDEN["expected"]["maj_at_4_expected_over_ties"])


def test_pass_at_k_is_the_share_of_subsets_with_a_right_attempt():
    for n in range(1, 7):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            row = attempts(n, c)
            assert metrics.pass_at_k(row, k)[0] == pytest.approx(brute_force(row[0], k), abs=1e-12), (n, c, k)


def test_pass_at_2_with_one_right_of_four_is_one_half():
    assert metrics.pass_at_k(np.array([[0, 1, 0, 0]]), 2)[0] == 0.5  # the biased 1 - (1 - c/n)^k says 0.4375


def test_pass_at_k_stays_exact_for_many_attempts():
    assert metrics.pass_at_k(attempts(10_000, 1), 5_000)[0] == pytest.approx(0.5)


@pytest.mark.parametrize("k", [0, 5])
def test_pass_at_k_refuses_k_outside_one_to_n(k):
    with pytest.raises(ValueError, match="n=4"):
        metrics.pass_at_k(attempts(4, 2), k)


def test_a_tie_of_two_answers_counts_one_half():
    assert metrics.cons_at_k([["7", "5", "5", "7"]], ["7"], 4)[0] == 0.5


def test_a_tie_of_three_answers_counts_one_third_whatever_their_order():
    for order in itertools.permutations(["7", "5", "3"]):
        assert metrics.cons_at_k([order], ["7"], 3)[0] == pytest.approx(1 / 3)


def test_a_tie_of_wrong_answers_counts_nothing():
    assert metrics.cons_at_k([["1", "2", "7", "1", "2"]], ["7"], 5)[0] == 0


def test_attempts_without_an_answer_do_not_vote():
    assert metrics.cons_at_k([[None, None, "7", None]], ["7"], 4)[0] == 1


def test_no_vote_at_all_counts_nothing():
    assert metrics.cons_at_k([[None, None]], ["7"], 2)[0] == 0


def test_every_whole_block_of_k_attempts_votes_and_their_mean_is_taken():
    row = ["7", "5", "5"]
    assert metrics.cons_at_k([row], ["7"], 1)[0] == pytest.approx(1 / 3)
    assert metrics.cons_at_k([row], ["7"], 2)[0] == 0.5, "the third is not a whole block"
    assert metrics.cons_at_k([row], ["7"], 3)[0] == 0
    assert metrics.cons_at_k([["7", "7", "5", "5", "7", "5"]], ["7"], 2)[0] == 0.5


def test_the_key_of_cons_at_k_is_the_one_with_the_largest_k():
    assert metrics.find_cons_key(["eval/cons@8", "eval/cons@16", "eval/cons@16/se", "eval/pass@32"]) == "eval/cons@16"
    assert metrics.find_cons_key(["eval/pass@1"]) == ""


def test_cons_at_k_refuses_too_few_attempts():
    with pytest.raises(ValueError, match="cons@3"):
        metrics.cons_at_k([["7", "7"]], ["7"], 3)


def test_standard_error_divides_the_sample_deviation_by_root_n():
    assert metrics.standard_error(np.array([0.0, 1.0])) == pytest.approx(0.5)  # deviation 0.7071 / 1.4142
    assert metrics.standard_error(np.array([1.0, 1.0, 1.0])) == 0


def test_standard_error_of_one_question_is_unknown():
    assert math.isnan(metrics.standard_error(np.array([1.0])))


def test_lengths_are_mean_median_p95_and_max():
    out = metrics.length_statistics(np.arange(1, 102) ** 2)  # squares: mean and median differ
    assert out["median"] == 51**2 and out["max"] == 101**2 and out["p95"] == 96**2
    assert out["mean"] == pytest.approx(sum(i * i for i in range(1, 102)) / 101)


def test_a_half_width_is_students_quantile_times_the_standard_error_for_any_number_of_questions():
    assert metrics.half_width(0.1, 5) == pytest.approx(0.2776, abs=1e-4), "four degrees of freedom"
    assert metrics.half_width(0.1, 100) == pytest.approx(0.1984, abs=1e-4)
    assert metrics.half_width(0.1, None) == pytest.approx(0.1960, abs=1e-4), "a large number that is not known"
    assert math.isnan(metrics.half_width(0.1, 1)) and math.isnan(metrics.half_width(float("nan"), 9))


def test_the_interval_of_three_seeds_holds_the_true_mean_95_percent_of_the_time():
    rng = np.random.default_rng(0)
    for seeds in (3, 5):
        found = [intervals.confidence_interval(rng.normal(size=seeds)) for _ in range(4000)]
        covered = np.mean([e.low <= 0 <= e.high for e in found])
        assert covered == pytest.approx(0.95, abs=0.012), (seeds, covered)


def test_an_interval_is_the_mean_and_its_half_width_and_leaves_out_what_is_nan():
    e = intervals.confidence_interval(np.array([0.2, 0.3, np.nan, 0.4]))
    half = 4.302653 * 0.1 / math.sqrt(3)  # t of 2 degrees of freedom at .975
    assert e.seeds == 3 and e.mean == pytest.approx(0.3)
    assert e.low == pytest.approx(0.3 - half) and e.high == pytest.approx(0.3 + half)
    assert e.half_width == pytest.approx(half)
    assert e.half_width == pytest.approx(metrics.half_width(metrics.standard_error(np.array([0.2, 0.3, 0.4])), 3))
    assert e.excludes_zero is True and not intervals.confidence_interval(np.array([-0.1, 0.1, 0.3])).excludes_zero


def test_one_seed_has_a_mean_but_no_interval_and_no_seed_has_neither():
    one, none = intervals.confidence_interval(np.array([2.0, np.nan])), intervals.confidence_interval(np.array([]))
    assert one.mean == 2.0 and math.isnan(one.low) and math.isnan(one.half_width) and not one.excludes_zero
    assert none.seeds == 0 and math.isnan(none.mean)


def test_the_interval_of_a_curve_is_that_of_each_of_its_points():
    values = np.array([[0.1, 0.5], [0.2, np.nan], [0.4, 0.9]])
    mean, low, high = intervals.confidence_bands(values)
    for n in range(2):
        assert (mean[n], low[n], high[n]) == intervals.confidence_interval(values[:, n])[:3]
