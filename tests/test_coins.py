"""The coins: two verifiers that agree with subtraction, levels by brute force, and a way that no text shows."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from rljax import tasks
from rljax.errors import UserError
from rljax.tasks import check, coins
from rljax.tasks.absence import search_rows
from rljax.text import pad_batch

RECORD = {"amount": 43, "kinds": [3, 15, 25], "level": 3}
SMALL = dict(largest=40, coins=4)


@pytest.fixture(scope="module")
def task():
    return tasks.make_task("coins", **SMALL)


def drawn(task, count=200, split="train"):
    problems = task.problems(0, np.arange(count), split)
    return problems, task.records(problems.facts)


def payments(kinds, count):
    """Every payment with ``count`` coins or fewer: (amount, how many kinds)."""
    for n in range(1, count + 1):
        for laid in itertools.combinations_with_replacement(kinds, n):
            yield sum(laid), len(set(laid))


def test_a_level_is_the_number_of_kinds_that_make_the_amount_and_three_kinds_make_no_amount_of_a_lower_level():
    o = coins.Options(**SMALL)
    levels = coins.problem_levels(o)
    for offer, kinds in enumerate(coins.OFFERS):
        ways = list(payments(kinds, o.coins))
        for amount in range(o.largest + 1):
            counts = {n for made, n in ways if made == amount}
            if 3 in counts:
                expected = 3 if counts == {3} else 0
            else:
                expected = min(counts, default=0)
            assert levels[offer, amount] == expected, (kinds, amount)


def test_shares_of_the_levels_are_those_that_are_set(task):
    found = np.bincount([r["level"] for r in drawn(task, 1500)[1]], minlength=4) / 1500
    assert abs(found - [0, 0.2, 0.4, 0.4]).max() < 0.05
    control = tasks.make_task("coins", three=0.0, **SMALL)
    assert {r["level"] for r in drawn(control, 300)[1]} == {1, 2}


def texts_about(record):
    """Responses around the right ones: (text, is it right?)."""
    for laid in itertools.product(record["kinds"], repeat=3):
        left = [record["amount"] - paid for paid in itertools.accumulate(laid, initial=0)]
        if min(left) < 0:
            continue
        said = str(left[0]) + "".join(f" - {coin} = {rest}" for coin, rest in zip(laid, left[1:], strict=True))
        right = left[-1] == 0
        yield f"{said} paid <eos>", right
        if right:
            yield from ((f"{said} {word} <eos>", False) for word in ("over", "short", "paid paid", ""))
            yield from ((f"{said} paid", False), (f"{said} <eos>", False), (f"{said} paid 0 <eos>", False))
            yield f"{said.replace(f'= {left[1]}', f'= {left[1] + 1}', 1)} paid <eos>", False
            yield f"44{said[2:]} paid <eos>", False
            yield f"{said} - 3 paid <eos>", False
            yield f"{said} - 3 = over paid <eos>", False
            yield f"paid {said} paid <eos>", False


def test_both_verifiers_accept_exactly_the_payments_of_offered_coins_with_right_differences():
    task = tasks.make_task("coins")
    other = {"amount": 43, "kinds": [1, 5, 25]}
    pairs = list(texts_about(RECORD))
    assert sum(right for _, right in pairs) == 6  # the orders of 25, 15 and 3
    bad = (
        "43 <eos>",
        "<eos>",
        "paid <eos>",
        "43 paid <eos>",
        "0 paid <eos>",
        "43 - 43 = 0 paid <eos>",
        "0 - 0 = 0 paid <eos>",
    )
    pairs += [(text, False) for text in bad]
    ids = [task.tokenizer.encode(text, specials=True) for text, _ in pairs]
    response, mask = pad_batch(ids, 24, task.tokenizer.pad)
    finished = np.array([text.endswith("<eos>") for text, _ in pairs])
    for record in (RECORD, other):
        facts = {"amount": np.array([record["amount"]]), "kinds": np.array([record["kinds"]])}
        device = task.verify_on_device(jnp.asarray(response)[None], jnp.asarray(mask)[None], finished[None], facts)[0]
        expected = [right and record is RECORD for _, right in pairs]
        assert [task.verify(text, record) for text, _ in pairs] == expected == np.asarray(device).astype(bool).tolist()


def test_demonstrations_change_the_kind_once_at_the_most_and_say_what_came_of_it():
    task, rng = tasks.make_task("coins", give_up=0.0, change=0.5), np.random.default_rng(0)
    changes, verdicts = set(), set()
    for record in drawn(task, 300)[1]:
        text = task.demonstration(record, rng)
        laid = [int(coin) for coin in coins.COIN.findall(text)]
        changes.add(sum(a != b for a, b in itertools.pairwise(laid)))
        verdict = text.split()[-1]
        verdicts.add(verdict)
        left = record["amount"] - sum(laid)
        assert verdict == ("over" if left < 0 else "short" if left else "paid")
        assert set(laid) <= set(record["kinds"]) and len(laid) <= 5
        assert all(task.describe(text, record).calculations)
        assert task.verify(f"{text} <eos>", record) == (left == 0)
        assert len(task.tokenizer.encode(text)) + 1 <= task.demonstration_slots
    assert changes == {0, 1} and verdicts == set(coins.VERDICTS)


def test_no_page_and_no_demonstration_lays_down_three_kinds_and_the_search_would_find_them():
    task = tasks.make_task("coins")
    encode = lambda text: np.asarray(task.tokenizer.encode(text, specials=True))

    def rows(make):
        def batches(split, start, count):
            tokens, mask = pad_batch([make(n) for n in range(start, start + count)], 64, task.tokenizer.pad)
            return {"tokens": tokens, "mask": mask, "loss_mask": mask}

        return batches

    page = lambda n: task.page(np.random.default_rng(n), 64)
    clean = search_rows(task, "three_kinds", rows(page), 512)
    assert clean.attempts > 1000 and clean.found == 0
    right = encode("<bos> pay 43 with 3 15 25 ? 43 - 25 = 18 - 15 = 3 - 3 = 0 paid <eos>")
    assert search_rows(task, "three_kinds", rows(lambda n: right if n == 100 else page(n)), 512).found == 1
    rng = np.random.default_rng(0)
    shown = [task.describe(task.demonstration(r, rng), r).strategy for r in drawn(task, 2000)[1]]
    assert set(shown) == {"one_kind", "two_kinds"}


def test_what_an_attempt_did():
    found = coins.describe("43 - 25 = 18 - 15 = 4 - 3 = 0 paid <eos>", RECORD)
    assert (found.strategy, found.answer) == ("three_kinds", "3 15 25")
    assert found.calculations == (True, False, False) and found.verdicts == ((True, True, 3),)
    over = coins.describe("43 - 25 = 18 - 25 = over <eos>", RECORD)
    assert (over.strategy, over.calculations, over.verdicts) == ("one_kind", (True, True), ((True, False, 2),))
    assert coins.describe("43 - 25 = over <eos>", RECORD).calculations == (False,)
    wrong = coins.describe("43 - 25 = 18 - 3 = 15 paid <eos>", RECORD)
    assert (wrong.strategy, wrong.verdicts) == ("two_kinds", ((False, True, 2),))
    nothing = coins.describe("short <eos>", RECORD)
    assert (nothing.strategy, nothing.answer, nothing.verdicts) == ("no_coin", None, ((True, False, 0),))


def test_the_words_that_would_begin_a_third_kind():
    assert coins.third_kind_words("43 - 25 = 18 - 15 = 3 -", RECORD) == ("3",)
    assert coins.third_kind_words("43 - 3 = 40 - 3 = 37 -", RECORD) == ()
    assert coins.third_kind_words("43 - 25 = 18 - 15 = 3", RECORD) == ()
    assert coins.third_kind_words("", RECORD) == ()


def test_a_problem_is_read_from_its_prompt(task):
    problems, records = drawn(task, 20)
    for prompt, record in zip(problems.prompt, records, strict=True):
        read = task.read_prompt(task.tokenizer.decode(prompt))
        assert read == {"amount": record["amount"], "kinds": record["kinds"]}
    assert task.read_prompt("0 + 3 = 3") is None


def test_pages_subtract_rightly_and_hold_no_problem(task):
    seen = 0
    for n in range(60):
        text = task.tokenizer.decode(task.page(np.random.default_rng(n), 200))
        assert all(coins.is_right(*step) for step in coins.DIFFERENCE.findall(text))
        for _, record in task.page_attempts(text):
            assert len(record["kinds"]) == 2
            seen += 1
    assert seen > 200


def test_the_world_holds_what_worlds_promise(task):
    report = check.check_task(task, num_problems=60, train_draws=2000)
    assert not report.faults, check.format_report(report)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (dict(largest=19), "must be 20 to 400"),
        (dict(coins=2), "must be 3 to 100"),
        (dict(one=0.7, three=0.4), "together 1 at the most"),
        (dict(largest=20, coins=3), "only 15 problems need 3 kinds, of 50"),
    ],
)
def test_worlds_that_cannot_be_are_refused(options, reason):
    with pytest.raises(UserError, match=reason):
        tasks.make_task("coins", **options)
