"""The shop in two languages: responses mix them, the verifiers read both, and the share of one is known on the device."""

import jax.numpy as jnp
import numpy as np
import pytest

from rljax import rewards, tasks
from rljax.errors import UserError
from rljax.structs import Rollout
from rljax.tasks import shop
from rljax.text import pad_batch
from rljax.verifiers import text_rewards

T = 100
MIXED = tasks.make_task("shop", second=0.4)
TWO = rewards.parse_reward("correct + language(target=en)")


def attempts(task, rng, count=64):
    """(problems, their records, rows of ids): demonstrations, some with edits and some cut off."""
    asked = task.problems(0, jnp.arange(count), "train")
    records, rows = task.records(asked.facts), []
    for n, record in enumerate(records):
        ids = [*task.tokenizer.encode(task.demonstration(record, rng)), task.tokenizer.eos][:T]
        if n % 3 == 0:
            ids[rng.integers(len(ids) - 1)] = int(rng.integers(3, task.tokenizer.size))
        if n % 5 == 0:
            ids = ids[:-1] or ids
        rows.append(ids)
    return asked, records, rows


def rollout_of(task, asked, rows):
    response, mask = map(jnp.asarray, pad_batch(rows, T, task.tokenizer.pad))
    finished = jnp.asarray([row[-1] == task.tokenizer.eos for row in rows])
    return Rollout(asked.prompt, asked.prompt_mask, response, mask, 0.0 * mask, finished)


def test_without_a_second_language_the_vocabulary_has_no_word_of_it():
    assert tasks.make_task("shop").tokenizer.words == shop.WORDS
    assert tasks.make_task("shop").behaviours == ("wait", "try")


@pytest.mark.parametrize("task", [MIXED, tasks.make_task("fruit"), tasks.make_task("countdown")], ids=lambda t: t.name)
def test_device_and_text_agree_on_correctness_and_on_language(task):
    asked, _, rows = attempts(task, np.random.default_rng(1))
    rows[1] = [int(i) for i in np.random.default_rng(2).integers(0, task.tokenizer.size, T) if i != task.tokenizer.eos]
    rows[2], rows[4] = [task.tokenizer.zero] * 3, [task.tokenizer.eos]  # no word at all
    rollout = rollout_of(task, asked, rows)
    here, noted = rewards.device_verifier(task, 1, TWO)(rollout, asked)
    text, read = rewards.host_verifier(task, 1, workers=0, terms=TWO)(rollout, asked)
    np.testing.assert_array_equal(here, text)
    np.testing.assert_array_equal(noted["reward/language"], read["reward/language"])
    assert 0 < here.sum() < len(rows) and not rewards.needs_host(task, TWO)


def test_a_try_in_either_language_is_the_same_try():
    record = {"prices": [6, 3, 2, 11, 9], "total": 14}
    one = shop.describe("try 6 + 3 = 9 vs 14 less wait 3 + 11 = 14 vs 14 same answer 3 11 <eos>", record)
    two = shop.describe("试 6 + 3 = 9 对 14 少 wait 3 + 11 = 14 对 14 同 答 3 11 <eos>", record)
    assert one == two and one.strategy == "retry" and all(right for right, _, _ in one.verdicts)
    assert shop.verify("答 3 11 <eos>", record) and not shop.verify("answer 3 11 答 3 11 <eos>", record)


def test_demonstrations_and_pages_have_about_the_share_of_the_second_language():
    rng = np.random.default_rng(0)
    asked = MIXED.problems(0, jnp.arange(300), "train")
    told = [MIXED.demonstration(r, rng) for r in MIXED.records(asked.facts)]
    pages = [MIXED.tokenizer.decode(MIXED.page(rng, 160)) for _ in range(60)]
    for texts, words in ((told, shop.SECOND), (pages, ("vs", "less", "more", "same"))):
        there = sum(text.split().count(shop.SECOND[w]) for text in texts for w in words)
        here = sum(text.split().count(w) for text in texts for w in words)
        assert 0.3 < there / (there + here) < 0.5
    shares = [text_rewards.language_consistency(text) for text in told if text.count("=") > 3]
    assert sum(0 < share < 1 for share in shares) > len(shares) / 2, "most of the longer ones are mixed"


def test_a_share_above_one_is_refused_in_one_line():
    with pytest.raises(UserError, match="second"):
        tasks.make_task("shop", second=1.2)
