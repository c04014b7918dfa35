"""Which question comes when: pure functions of the index."""

from collections import Counter

import numpy as np
import pytest

from rljax.tasks import shuffle


def test_an_epoch_asks_each_question_once_and_the_next_in_another_order():
    places = [shuffle.shuffled_place(0, 1, n, 40) for n in range(80)]
    assert sorted(places[:40]) == sorted(places[40:]) == list(range(40)) and places[:40] != places[40:]
    assert places[:40] != [shuffle.shuffled_place(1, 1, n, 40) for n in range(40)]


@pytest.mark.parametrize("weights", [(1.0, 1.0), (2.0, 1.0, 0.5), (1.0, 1e-6), (3.0,)])
def test_a_mixture_holds_exactly_in_every_block_and_skips_no_question_of_any_set(weights):
    picks = [shuffle.mixture_place(0, 1, n, weights) for n in range(500)]
    share = np.array(weights) / sum(weights)
    for start in range(0, 500, shuffle.BLOCK):
        here = Counter(which for which, _ in picks[start : start + shuffle.BLOCK])
        for which, part in enumerate(share):
            assert abs(here[which] - shuffle.BLOCK * part) <= 1 and here[which] >= 1
    for which in range(len(weights)):
        numbers = [number for w, number in picks if w == which]
        assert numbers == list(range(len(numbers)))


def test_a_problem_of_a_mixture_depends_on_its_number_alone():
    weights = (2.0, 1.0)
    assert (
        shuffle.mixture_place(3, 1, 777, weights) == [shuffle.mixture_place(3, 1, n, weights) for n in range(1000)][777]
    )


def test_a_curriculum_begins_with_the_easiest_and_ends_with_all():
    place = lambda n: shuffle.curriculum_place(0, 1, n, 1000, over=5000)
    early, middle, late = ([place(n) for n in range(a, a + 400)] for a in (0, 1200, 5000))
    assert max(early) < 300 and np.mean(early) < np.mean(middle) < np.mean(late)
    assert sorted(place(n) for n in range(5000, 6000)) == list(range(1000))
    assert 300 < max(middle) < 600, "a share of sqrt(.01 + .99 * 1200 / 5000) = .50 is open"
