"""What supervised stages read: a batch is a function of its number, and gives no held-out problem away."""

import numpy as np
import pytest

from configs import shop
from experiments import pretrain
from rljax import data, settings, tasks
from rljax.errors import UserError


def problems_on(page, task):
    """(record, response text) of each whole worked problem of a page of ids."""
    text = task.tokenizer.decode(page)
    parts = [part.strip().partition("?") for part in text.split("<bos>")[1:]]
    return [(task.read_prompt(prompt), response) for prompt, _, response in parts if response.endswith("<eos>")]


def test_worked_pages_are_training_problems_with_their_demonstrations():
    task = tasks.make("shop")
    held_out = [
        r for split in ("validation", "test") for r in task.records(task.problems(0, np.arange(500), split).facts)
    ]
    known = {(r["total"], *sorted(r["prices"])) for r in held_out}
    batch = data.with_worked(data.pages(task, 0, 7, 12, 160), task, 0, 7, 1.0)
    right = 0
    for page, mask in zip(batch["tokens"], batch["mask"], strict=True):
        assert mask.all(), "packed up to the end of the page"
        found = problems_on(page, task)
        assert found
        for record, response in found:
            assert (record["total"], *sorted(record["prices"])) not in known
            right += task.verify(response, record)
    assert right > 5


def test_a_share_of_the_pages_is_worked_and_the_others_are_as_they_were():
    task = tasks.make("shop")
    plain = data.pages(task, 0, 0, 60, 40)
    some = data.with_worked(plain, task, 0, 0, 0.4)
    changed = (plain["tokens"] != some["tokens"]).any(1)
    assert 12 <= changed.sum() <= 36
    cut = data.with_worked(data.pages(task, 0, 20, 10, 40), task, 0, 20, 0.4)
    np.testing.assert_array_equal(cut["tokens"], some["tokens"][20:30], "a page depends on its number alone")
    assert data.with_worked(plain, task, 0, 0, 0.0) is plain


def test_a_share_that_is_none_is_one_line():
    config = shop.get_config("short")
    config.pretrain.worked = 1.5
    with pytest.raises(UserError, match="pretrain.worked"):
        pretrain.make_pages(settings.resolve(config))
