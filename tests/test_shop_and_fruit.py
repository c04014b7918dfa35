"""The shop and the fruit world: two verifiers that agree, splits that share nothing, demonstrations that are what they say."""

import collections
import dataclasses
import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attempts import both_verdicts

from rljax import tasks
from rljax.errors import UserError
from rljax.tasks import check_verifiers, fruit, shop

MANY, ASKED, G, T = 3000, 400, 8, 24  # problems in a batch; of those, the ones attempted, and the attempts at each
WORLDS = {"shop": shop, "fruit": fruit}
BOTH = pytest.mark.parametrize("name", WORLDS)


@functools.cache
def world(name):
    """(task, its compiled problems, its compiled score); always ask for MANY, so that each split compiles once."""
    task = tasks.make_task(name)
    return task, jax.jit(task.problems, static_argnums=2), jax.jit(task.verify_on_device)


@functools.cache
def ask(name, split="train", seed=0):
    """MANY problems: (Problems, records)."""
    task, problems, _ = world(name)
    asked = jax.device_get(problems(seed, jnp.arange(MANY), split))
    return asked, task.records(asked.facts)


def right_pair(record):
    return next(p for p in itertools.combinations(record["prices"], 2) if sum(p) == record["total"])


def right_answer(record):
    """The shop's record has no counts."""
    return f"answer {record['prices'][0]}" if "counts" in record else "answer {} {}".format(*right_pair(record))


def content(record):
    """What makes two problems the same, whatever their order."""
    if "counts" not in record:
        return record["total"], *sorted(record["prices"])
    pairs = list(zip(record["counts"], record["prices"], strict=True))
    return pairs[0], *sorted(pairs[1:])


# ---------------------------------------------------------------------------------------------------------------------
# Verifiers.


def verdicts(name, rows):
    """(device, text) scores of ASKED * G rows of ids."""
    task, _, score = world(name)
    asked, records = ask(name)
    return both_verdicts(task, score, jax.tree.map(lambda x: x[:ASKED], asked.facts), each_attempt(records), rows, G, T)


def each_attempt(records):
    return [r for r in records[:ASKED] for _ in range(G)]


def padded(texts, name):
    """Texts as rows, in the shape that is compiled: repeated until there are ASKED * G."""
    tokenizer = world(name)[0].tokenizer
    rows = [tokenizer.encode(t, specials=True) for t in texts]
    return [row for row, _ in zip(itertools.cycle(rows), range(ASKED * G), strict=False)]


def random_rows(name, rng):
    """Rows of the few symbols that matter to the verifier, the right numbers among them."""
    tokenizer = world(name)[0].tokenizer
    for record in each_attempt(ask(name)[1]):
        ids = [*tokenizer.encode(right_answer(record)), tokenizer.eos]
        others = [tokenizer.ids["?"], tokenizer.ids["."], tokenizer.pad, int(rng.integers(tokenizer.size))]
        start = rng.integers(len(ids) + 1)  # the right beginning, then anything, then the right end
        middle = rng.choice(ids + others, size=rng.integers(5)).tolist()
        yield ids[:start] + middle + ids[rng.integers(len(ids) + 1) :]


def mutated_answers(name, rng):
    """Right answers, after a demonstration's reasoning or none, with up to two edits."""
    task = world(name)[0]
    for record in each_attempt(ask(name)[1]):
        reasoning = task.demonstration(record, rng).rpartition("answer")[0]
        ids = (
            task.tokenizer.encode(reasoning)[: T - 6]
            + task.tokenizer.encode(right_answer(record))
            + [task.tokenizer.eos]
        )
        yield check_verifiers.corrupt_ids(ids, task.tokenizer.size, rng)[:T]


@BOTH
@pytest.mark.parametrize("rows", [random_rows, mutated_answers])
def test_device_and_text_verifiers_agree(name, rows):
    device, text = verdicts(name, list(rows(name, np.random.default_rng(0))))
    assert (device == text).all()
    assert device.sum() >= 100 and (device == 0).sum() >= 100


@BOTH
def test_the_right_answer_scores_whatever_stands_before_it(name):
    records = each_attempt(ask(name)[1])
    before = itertools.cycle(["", "wait", "3 = 4 ,"[: 5 if name == "shop" else None], "? ? ?"])
    rows = [padded([f"{b} {right_answer(r)} <eos>"], name)[0] for b, r in zip(before, records, strict=False)]
    for scores in verdicts(name, rows):
        assert (scores == 1).all()


@BOTH
@pytest.mark.parametrize(
    "change",
    [
        lambda answer: answer,  # truncated
        lambda answer: f"{answer} {answer} <eos>",  # two answers, though the same
        lambda answer: f"answer 2 9 {answer} <eos>",
        lambda answer: f"{answer} answer 2 9 <eos>",
        lambda answer: f"answer {answer} <eos>",
        lambda answer: f"{answer} ? <eos>",  # not the end
        lambda answer: f"{answer} <pad> <eos>",
        lambda answer: f"{answer.removeprefix('answer')} <eos>",
        lambda answer: f"{answer.rpartition(' ')[0]} <eos>",  # a number short
        lambda answer: f"{answer.rpartition(' ')[0]} 0 <eos>",
        lambda answer: "<eos>",
        lambda answer: f"<eos> {answer} <eos>",
        lambda answer: "",
    ],
)
def test_anything_but_one_right_answer_at_the_end_scores_nothing(name, change):
    texts = [change(right_answer(r)) for r in each_attempt(ask(name)[1])]
    for scores in verdicts(name, [padded([t], name)[0] for t in texts]):
        assert (scores == 0).all()


def test_a_shop_answer_may_name_its_prices_in_either_order():
    rows = [padded(["answer {1} {0} <eos>".format(*right_pair(r))], "shop")[0] for r in each_attempt(ask("shop")[1])]
    for scores in verdicts("shop", rows):
        assert (scores == 1).all()


def test_shop_numbers_that_are_no_prices_or_one_price_twice_score_nothing():
    def wrong(record):
        """A pair with the right total that is not offered, or the same price twice."""
        total, prices = record["total"], record["prices"]
        pairs = [
            (a, total - a) for a in range(1, total) if a not in prices or total - a not in prices or 2 * a == total
        ]
        return pairs[len(prices) % len(pairs)] if pairs else (0, total)

    rows = [padded(["answer {} {} <eos>".format(*wrong(r))], "shop")[0] for r in each_attempt(ask("shop")[1])]
    for scores in verdicts("shop", rows):
        assert (scores == 0).all()


def test_two_answers_in_the_shop_score_nothing():
    record, task = {"prices": [3, 11, 2, 9, 6], "total": 14}, world("shop")[0]
    assert task.verify("answer 3 11 <eos>", record)
    for text in ("answer 3 11 answer 2 9 <eos>", "answer 2 9 answer 3 11 <eos>", "answer 3 11", "answer 2 9 <eos>"):
        assert not task.verify(text, record)


# ---------------------------------------------------------------------------------------------------------------------
# Problems.


@BOTH
def test_no_problem_is_in_two_splits(name):
    contents = {split: {content(r) for r in ask(name, split)[1]} for split in tasks.SPLITS}
    for a, b in itertools.combinations(tasks.SPLITS, 2):
        assert not contents[a] & contents[b]
    # An eighth as many contents are held out in each split as there are to train on.
    assert len(contents["train"]) > 1500 and min(len(c) for c in contents.values()) > 300


@BOTH
def test_a_problem_depends_on_its_seed_and_index_only(name):
    _, problems, _ = world(name)
    usual = ask(name)[0]
    backwards = jax.device_get(problems(0, jnp.arange(MANY)[::-1], "train"))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[::-1]), usual, backwards)
    other = jax.device_get(problems(1, jnp.arange(MANY), "train"))
    assert (usual.prompt != other.prompt).any(-1).mean() > 0.99


@BOTH
def test_problems_are_nearly_all_different(name):
    """A fair sample: among 3,000 draws, few problems turn up often."""
    counts = collections.Counter(content(r) for r in ask(name)[1])
    assert max(counts.values()) < 30


def test_exactly_one_pair_of_different_prices_makes_the_total():
    for split in tasks.SPLITS:
        for record in ask("shop", split)[1]:
            sums = [sum(p) for p in itertools.combinations(record["prices"], 2)]
            assert sums.count(record["total"]) == 1
            assert len(set(record["prices"])) == 5 and 1 <= min(record["prices"]) <= max(record["prices"]) <= 12


def test_the_right_pair_can_stand_anywhere_in_the_shop():
    places = collections.Counter(tuple(sorted(r["prices"].index(p) for p in right_pair(r))) for r in ask("shop")[1])
    assert len(places) == 10 and min(places.values()) > MANY / 20


def test_the_shop_prompt_states_the_record():
    asked, records = ask("shop")
    tokenizer = world("shop")[0].tokenizer
    for row, record in zip(asked.prompt, records, strict=True):
        pattern = r"<bos> \w+ pays {total} for two of {prices}\?"
        prices = " ".join(map(str, record["prices"]))
        assert re.fullmatch(pattern.format(total=record["total"], prices=prices), tokenizer.decode(row))
    assert asked.prompt.shape[1] == world("shop")[0].prompt_slots and asked.prompt_mask.all()


def test_the_fruit_prompt_has_what_its_solution_needs():
    asked, records = ask("fruit")
    tokenizer = world("fruit")[0].tokenizer
    for row, record in zip(asked.prompt, records, strict=True):
        text = tokenizer.decode(row)
        bought = {f: int(n) for n, f in re.findall(r"(\d+) (\w+)", text.split(".")[0])}
        plural = lambda f: f + ("es" if f == "peach" else "s")
        known = {plural(f): int(p) for f, p in re.findall(r"Each (\w+) costs \$(\d+)\.", text)}
        total, asked_for = re.search(r"The total cost is \$(\d+)\. What does one (\w+) cost\?$", text).groups()
        assert len(bought) == 3 and set(bought) == {*known, plural(asked_for)}
        rest = int(total) - sum(bought[f] * p for f, p in known.items())
        assert divmod(rest, bought[plural(asked_for)]) == (record["prices"][0], 0)
        assert 2 <= min(record["counts"]) <= max(record["counts"]) <= 6
        assert 2 <= min(record["prices"]) <= max(record["prices"]) <= 9


@BOTH
def test_a_prompt_read_back_is_the_record(name):
    task, (asked, records) = world(name)[0], ask(name)
    for row, record in zip(asked.prompt[:500], records, strict=False):
        assert task.read_prompt(task.tokenizer.decode(row)) == record


@BOTH
def test_a_prompt_that_states_no_problem_is_not_read(name):
    for text in ("", "what is the time?", "Ben pays for two of", "Emily buys 3 apples. The total cost is $13."):
        assert world(name)[0].read_prompt(text) is None


def test_a_prompt_that_buys_none_of_what_it_asks_for_is_not_read():
    text = "Emily buys 0 apples and 2 oranges. Each orange costs $2. The total cost is $13. What does one apple cost?"
    assert world("fruit")[0].read_prompt(text) is None


@pytest.mark.parametrize(
    "name, options, most", [("shop", {"prices": 4, "max_price": 20}, 20), ("fruit", {"kinds": 2, "max_price": 15}, 15)]
)
def test_options_change_the_problems(name, options, most):
    task = tasks.make_task(name, **options)
    asked = jax.device_get(jax.jit(task.problems, static_argnums=2)(0, jnp.arange(MANY), "train"))
    prices = np.asarray(asked.facts["prices"])
    assert prices.max() == most and prices.shape[1] == options.get("prices", options.get("kinds"))
    assert asked.prompt.shape[1] == task.prompt_slots < world(name)[0].prompt_slots
    assert asked.prompt.max() < task.tokenizer.size
    counts = asked.facts.get("counts", np.zeros(1))
    largest = 2 * most - 1 if name == "shop" else counts.max() * most * options["kinds"]
    assert task.tokenizer.encode(str(largest))  # every number that can come up has a symbol


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("shop", {"prices": 2}, "prices=2"),
        ("shop", {"prices": 9, "max_price": 8}, "max_price=8"),
        ("shop", {"price": 5}, "unknown option 'price'"),
        ("fruit", {"kinds": 1}, "kinds=1"),
        ("fruit", {"kinds": 5}, "kinds=5"),
        ("fruit", {"max_count": 1}, "max_count"),
        ("fruit", {"max_price": 1}, "max_price"),
        ("fruit", {"jump": 0.9}, "more than 1"),
        ("bakery", {}, "'bakery' is unknown"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        tasks.make_task(name, **options)


def test_an_unknown_split_is_refused():
    with pytest.raises(UserError, match="'dev' is unknown"):
        tasks.split_number("dev")


# ---------------------------------------------------------------------------------------------------------------------
# Demonstrations and pages.

KINDS = {  # options that leave one kind of demonstrator, and the strategies that its text may be described as
    "jump": ("shop", {"jump": 1.0}, {"jump"}),
    "search": ("shop", {"jump": 0.0}, {"check", "retry"}),
    "fruit jump": ("fruit", {"jump": 1.0, "steps": 0.0, "check": 0.0}, {"jump"}),
    "steps": ("fruit", {"jump": 0.0, "steps": 1.0, "check": 0.0}, {"steps"}),
    "check": ("fruit", {"jump": 0.0, "steps": 0.0, "check": 1.0}, {"check"}),
    "guess": ("fruit", {"jump": 0.0, "steps": 0.0, "check": 0.0}, {"check", "retry"}),
}


def demonstrate(name, options, count=500):
    """[(text with its stop token, record, attempt as described)]; the text goes through ids and back."""
    task, rng = world(name)[0], np.random.default_rng(0)
    options = dataclasses.replace(WORLDS[name].Options(), **options)
    for record in ask(name)[1][:count]:
        text = WORLDS[name].demonstration(options, record, rng)
        text = task.tokenizer.decode([*task.tokenizer.encode(text), task.tokenizer.eos])
        yield text, record, task.describe(text, record)


@pytest.mark.parametrize("kind", KINDS)
def test_a_demonstration_is_described_as_what_it_is(kind):
    name, options, strategies = KINDS[kind]
    seen = set()
    for text, _, attempt in demonstrate(name, options):
        seen.add(attempt.strategy)
        tries = text.count("try") if name == "fruit" else text.count(" vs ")
        if tries:
            assert attempt.strategy == ("retry" if text.count("wait") else "check")
        assert len(attempt.verdicts) == text.count(" vs ") and len(attempt.calculations) == text.count("=")
        assert all(attempt.calculations) and all(
            right for right, _, _ in attempt.verdicts
        )  # demonstrators calculate well
        given = re.search(r"answer ([\d ]+) <eos>$", text)[1].split()
        assert sorted(attempt.answer.split()) == sorted(given)
    assert seen == strategies


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_that_finds_the_pair_is_right_and_one_that_gives_up_is_seldom_right(kind):
    name, options, _ = KINDS[kind]
    verify, got_there, gave_up = world(name)[0].verify, [], []
    for text, record, attempt in demonstrate(name, options):
        knew = kind in ("fruit jump", "steps") or any(said_same for _, said_same, _ in attempt.verdicts)
        (got_there if knew else gave_up).append(verify(text, record))
    assert all(got_there)
    if kind in ("jump", "search", "guess"):
        assert len(gave_up) > 100 and 0.02 < np.mean(gave_up) < 0.3
    else:
        assert not gave_up


def test_a_jump_that_knows_the_answer_is_right():
    for text, record, _ in demonstrate("shop", {"jump": 1.0, "jump_right": 1.0}):
        assert world("shop")[0].verify(text, record)


def test_the_default_demonstrators_mix_their_strategies_as_the_options_say():
    for name, jump in (("shop", 0.5), ("fruit", 0.6)):
        strategies = collections.Counter(attempt.strategy for _, _, attempt in demonstrate(name, {}, count=2000))
        assert strategies["jump"] / 2000 == pytest.approx(jump, abs=0.04)
        assert set(strategies) == ({"jump", "check", "retry"} | ({"steps"} if name == "fruit" else set()))


def test_wrong_calculations_and_verdicts_are_described_as_wrong():
    record = {"prices": [3, 11, 2, 9, 6], "total": 14}
    attempt = shop.describe("try 3 + 9 = 13 vs 14 more wait 3 + 2 = 5 vs 15 less answer 2 9 <eos>", record)
    assert attempt.strategy == "retry" and attempt.answer == "2 9"
    assert attempt.calculations == (False, True)
    assert attempt.verdicts == ((False, False, 0), (False, False, 1))  # 13 is not more than 14; 15 is not the total
    record = {"counts": [3, 2], "prices": [3, 2], "total": 13}
    attempt = fruit.describe("2 * 2 = 5, 13 - 4 = 9, 9 / 3 = 3, check 3 * 3 = 9, 9 + 4 = 13 vs 13 same", record)
    assert attempt.strategy == "check" and attempt.answer is None
    assert attempt.calculations == (False, True, True, True, True) and attempt.verdicts == ((True, True, 0),)


def pages(name, count=30, length=200):
    task, rng = world(name)[0], np.random.default_rng(0)
    return [task.page(rng, length) for _ in range(count)]


@BOTH
def test_pages_begin_a_text_and_never_end_it(name):
    tokenizer = world(name)[0].tokenizer
    for page in pages(name):
        assert len(page) == 200 and page[0] == tokenizer.bos
        assert tokenizer.eos not in page and 0 <= min(page) <= max(page) < tokenizer.size


@BOTH
def test_everything_on_a_page_is_true(name):
    holds = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b}
    facts = comparisons = 0
    for page in pages(name):
        text = world(name)[0].tokenizer.decode(page)
        for a, operation, b, c in re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", text):
            assert holds[operation](int(a), int(b)) == int(c)
            facts += 1
        for a, b, verdict in re.findall(r"(\d+) vs (\d+) (\w+)", text):
            assert verdict == ("less" if int(a) < int(b) else "more" if int(a) > int(b) else "same")
            comparisons += 1
    assert facts > 300 and comparisons > 100


@pytest.mark.parametrize("name", ["shop", "fruit"])
def test_pages_show_every_verdict(name):
    words = re.findall(r"\w+", world(name)[0].tokenizer.decode(sum(pages(name), [])))
    assert min(words.count(verdict) for verdict in ("less", "more", "same")) > 5


def test_no_shop_page_shows_the_answer_of_a_problem():
    """Every drill has a total that several pairs make, or none: no problem has one."""
    drills = 0
    for page in pages("shop", count=60):
        for record in map(shop.read_prompt, re.findall(r"pays[^?]+\?", world("shop")[0].tokenizer.decode(page))):
            sums = [sum(p) for p in itertools.combinations(record["prices"], 2)]
            assert sums.count(record["total"]) != 1
            drills += 1
    assert drills > 30
