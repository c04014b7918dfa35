"""The shell game: verifiers that agree, splits that share nothing, right demonstrations, pages that tell nothing."""

import collections
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
from rljax.evaluation import estimates
from rljax.tasks import batches, check_verifiers, cups

MANY, ASKED, G, T = 2000, 200, 8, 24  # problems in a batch; of those, the ones attempted, and the attempts at each
WORLDS = {"eight": {}, "varied": {"swaps": 6, "fewest": 3, "stride": 2, "jump": 0.5, "drill": 2}}
BOTH = pytest.mark.parametrize("name", WORLDS)


@functools.cache
def world(name):
    """(task, its compiled problems, its compiled score); always ask for MANY, so that each split compiles once."""
    task = tasks.make_task("cups", **WORLDS[name])
    return task, batches.problem_fn(task), jax.jit(task.verify_on_device)


@functools.cache
def ask(name, split="train", seed=0):
    """MANY problems: (Problems, records)."""
    task, problems, _ = world(name)
    asked = jax.device_get(problems(seed, jnp.arange(MANY), split))
    return asked, task.records(asked.facts)


def prompts(name, split="train"):
    """The prompts as text, without their padding."""
    asked = ask(name, split)[0]
    decode = world(name)[0].tokenizer.decode
    return [decode(row[mask]) for row, mask in zip(asked.prompt, asked.prompt_mask, strict=True)]


def content(record):
    """What makes two problems the same."""
    return record["start"], *record["swaps"]


def followed(start, swaps):
    """The place after the swaps, by moving all cups' contents about."""
    under = {cup: cup == start for cup in "ABCDEFGH"}
    for a, b in swaps:
        under[a], under[b] = under[b], under[a]
    return next(cup for cup, there in under.items() if there)


# ---------------------------------------------------------------------------------------------------------------------
# Verifiers.


def verdicts(name, rows):
    """(device, text) scores of ASKED * G rows of ids."""
    task, _, score = world(name)
    asked, records = ask(name)
    return both_verdicts(task, score, jax.tree.map(lambda x: x[:ASKED], asked.facts), each_attempt(records), rows, G, T)


def each_attempt(records):
    return [r for r in records[:ASKED] for _ in range(G)]


def random_rows(name, rng):
    """Rows of any symbols, and rows of the few that matter to the verifier, the right cup among them."""
    task = world(name)[0]
    for n, record in enumerate(each_attempt(ask(name)[1])):
        ids = [*task.tokenizer.encode(f"answer {record['place']}"), task.tokenizer.eos]
        if n % 4 == 0:
            yield rng.integers(task.tokenizer.size, size=rng.integers(T)).tolist()
            continue
        others = [task.tokenizer.ids["at"], task.tokenizer.pad, int(rng.integers(task.tokenizer.size))]
        start = rng.integers(len(ids) + 1)  # the right beginning, then anything, then the right end
        middle = rng.choice(ids + others, size=rng.integers(5)).tolist()
        yield ids[:start] + middle + ids[rng.integers(len(ids) + 1) :]


def mutated_demonstrations(name, rng):
    """Demonstrations with up to two edits."""
    task = world(name)[0]
    for record in each_attempt(ask(name)[1]):
        ids = [*task.tokenizer.encode(task.demonstration(record, rng)), task.tokenizer.eos]
        yield check_verifiers.corrupt_ids(ids, task.tokenizer.size, rng)[:T]


@BOTH
@pytest.mark.parametrize("rows", [random_rows, mutated_demonstrations])
def test_device_and_text_verifiers_agree(name, rows):
    device, text = verdicts(name, list(rows(name, np.random.default_rng(0))))
    assert (device == text).all()
    assert device.sum() >= 100 and (device == 0).sum() >= 100


@BOTH
@pytest.mark.parametrize(
    "change, right",
    [
        (lambda x: f"answer {x} <eos>", True),
        (lambda x: f"at {x} at A answer {x} <eos>", True),  # how it was found is not judged
        (lambda x: f"answer {x}", False),  # truncated
        (lambda x: f"answer {x} answer {x} <eos>", False),
        (lambda x: f"answer answer {x} <eos>", False),
        (lambda x: f"answer {x} . <eos>", False),  # not the end
        (lambda x: f"answer {x} <pad> <eos>", False),
        (lambda x: f"at {x} <eos>", False),
        (lambda x: f"answer {'A' if x != 'A' else 'B'} <eos>", False),
        (lambda x: "answer 0 <eos>", False),
        (lambda x: f"<eos> answer {x} <eos>", False),
        (lambda x: "", False),
    ],
)
def test_one_right_answer_at_the_end_scores_and_nothing_else_does(name, change, right):
    tokenizer = world(name)[0].tokenizer
    texts = [change(r["place"]) for r in each_attempt(ask(name)[1])]
    for scores in verdicts(name, [tokenizer.encode(t, specials=True) for t in texts]):
        assert (scores == right).all()


# ---------------------------------------------------------------------------------------------------------------------
# Problems.


@BOTH
def test_no_problem_is_in_two_splits(name):
    contents = {split: {content(r) for r in ask(name, split)[1]} for split in tasks.SPLITS}
    for a, b in itertools.combinations(tasks.SPLITS, 2):
        assert not contents[a] & contents[b]
    assert min(len(c) for c in contents.values()) > MANY / 4


@BOTH
def test_a_problem_depends_on_its_seed_and_index_only(name):
    _, problems, _ = world(name)
    usual = ask(name)[0]
    backwards = jax.device_get(problems(0, jnp.arange(MANY)[::-1], "train"))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[::-1]), usual, backwards)
    other = jax.device_get(problems(1, jnp.arange(MANY), "train"))
    assert (usual.prompt != other.prompt).any(-1).mean() > 0.99


@BOTH
def test_the_place_is_where_the_swaps_take_it(name):
    asked, records = ask(name)
    for record, place in zip(records, asked.facts["place"], strict=True):
        assert record["place"] == followed(record["start"], record["swaps"]) == cups.CUPS[place]


@BOTH
def test_all_cups_swaps_and_places_are_equally_frequent(name):
    records = ask(name)[1]
    swaps = collections.Counter(s for r in records for s in r["swaps"])
    assert len(swaps) == 15 and max(swaps.values()) < 1.2 * min(swaps.values())
    for part in ("start", "place"):
        counts = collections.Counter(r[part] for r in records)
        assert len(counts) == 6 and max(counts.values()) < 1.4 * min(counts.values())


@BOTH
def test_the_prompt_states_the_record(name):
    for text, record in zip(prompts(name), ask(name)[1], strict=True):
        pattern = rf"<bos> \w+ hides it under {record['start']} : {' '.join(record['swaps'])} where\?"
        assert re.fullmatch(pattern, text)


@BOTH
def test_a_prompt_read_back_is_the_record(name):
    task = world(name)[0]
    for text, record in zip(prompts(name)[:300], ask(name)[1], strict=False):
        assert task.read_prompt(text) == record


def test_a_prompt_that_states_no_problem_is_not_read():
    read_prompt = world("eight")[0].read_prompt
    assert read_prompt("Ben hides it under A : AB BC where ?")["place"] == "C"
    for text in ("", "where?", "Ben hides it under A : where ?", "Ben hides it under Z : AB where ?"):
        assert read_prompt(text) is None
    for swap in ("AA", "A", "AY", "BA"):
        assert read_prompt(f"Ben hides it under A : {swap} where ?") is None


def test_short_prompts_are_padded_on_the_left():
    task, (asked, records) = world("varied")[0], ask("varied")
    assert asked.prompt.shape[1] == task.prompt_slots
    padding = task.prompt_slots - asked.prompt_mask.sum(1)
    np.testing.assert_array_equal(padding, [6 - r["level"] for r in records])
    for row, mask, n in zip(asked.prompt, asked.prompt_mask, padding, strict=True):
        assert not mask[:n].any() and mask[n:].all()
        assert (row[:n] == task.tokenizer.pad).all() and row[n] == task.tokenizer.bos
    assert ask("eight")[0].prompt_mask.all()


def test_the_level_of_a_record_is_its_number_of_swaps_and_all_levels_are_equally_frequent():
    assert {r["level"] for r in ask("eight")[1]} == {8}
    records = ask("varied")[1]
    assert all(r["level"] == len(r["swaps"]) for r in records)
    levels = collections.Counter(r["level"] for r in records)
    assert set(levels) == {3, 4, 5, 6} and min(levels.values()) > MANY / 5
    assert {f"eval/level/{n}/pass@1" for n in levels} <= set(estimates.pass_rates_by_field(np.ones(MANY), records))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"cups": 2}, "cups=2"),
        ({"cups": 27}, "cups=27"),
        ({"swaps": 1}, "fewer than 100 problems"),
        ({"fewest": 1}, "fewer than 100 problems"),
        ({"fewest": 9}, "fewest=9"),
        ({"fewest": -1}, "fewest=-1"),
        ({"stride": -1}, "stride=-1"),
        ({"jump": 1.5}, "jump=1.5"),
        ({"drill": 0}, "drill=0"),
        ({"drill": 8}, "would show answers"),
        ({"fewest": 2, "drill": 2}, "would show answers"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        tasks.make_task("cups", **options)


# ---------------------------------------------------------------------------------------------------------------------
# Demonstrations and pages.


def demonstrate(name, count=500, **options):
    """(text with its stop token, record, attempt as described) by a task with these options changed."""
    task = tasks.make_task("cups", **WORLDS[name] | options)
    for n, record in enumerate(ask(name)[1][:count]):
        ids = [*task.tokenizer.encode(task.demonstration(record, np.random.default_rng(n))), task.tokenizer.eos]
        assert len(ids) <= task.demonstration_slots
        text = task.tokenizer.decode(ids)
        assert task.verify(text, record)
        yield text, record, task.describe(text, record)


@BOTH
@pytest.mark.parametrize("stride", [0, 1, 2, 3, 5, 8])
def test_demonstrations_write_every_stride_th_place_and_are_right(name, stride):
    lengths = []
    for text, record, attempt in demonstrate(name, stride=stride, jump=0.0):
        n = record["level"]
        written = [followed(record["start"], record["swaps"][:k]) for k in range(stride, n + 1, stride or n)]
        written = written if 0 < stride < n else []
        assert re.findall(r"at ([A-H])", text) == written
        assert attempt.strategy == ("steps" if written else "jump") and attempt.answer == record["place"]
        assert attempt.calculations == (True,) * len(written)
        lengths.append(2 * len(written) + 3)
    assert max(lengths) == tasks.make_task("cups", **WORLDS[name] | {"stride": stride}).demonstration_slots


def test_a_share_of_the_demonstrators_jumps_as_the_options_say():
    for share in (0.0, 0.5, 1.0):
        strategies = [attempt.strategy for _, _, attempt in demonstrate("eight", count=1000, jump=share)]
        assert strategies.count("jump") / 1000 == pytest.approx(share, abs=0.04)


def test_a_written_place_is_judged_given_the_place_written_before_it():
    record = cups.make_record("A", ["AB", "BC", "CD", "DE"])
    describe = lambda text, stride: cups.describe(cups.Options(stride=stride), text, record)
    attempt = describe("at B at A at A at A answer A <eos>", 1)
    assert attempt.strategy == "steps" and attempt.answer == "A"
    assert attempt.calculations == (True, False, True, True)  # A is wrong after B; from there on nothing moves it
    assert describe("at C at E answer E <eos>", 2).calculations == (True, True)
    assert describe("at D at E answer E <eos>", 3).calculations == (True, False)  # no three swaps are left
    assert describe("answer", 1) == tasks.Attempt("jump", None)


def pages(options, count=40, length=200):
    task, rng = tasks.make_task("cups", **options), np.random.default_rng(0)
    return [task.page(rng, length) for _ in range(count)], task.tokenizer


@BOTH
def test_pages_begin_a_text_and_never_end_it(name):
    found, tokenizer = pages(WORLDS[name])
    for page in found:
        assert len(page) == 200 and page[0] == tokenizer.bos
        assert tokenizer.eos not in page and 0 <= min(page) <= max(page) < tokenizer.size


@pytest.mark.parametrize("options", [*WORLDS.values(), {"stride": 0, "drill": 4}, {"stride": 4, "drill": 7}])
def test_pages_are_true_and_show_no_answer_of_a_problem(options):
    """Drills are shorter than any problem; a game stops before the place after its last swap, and has no answer."""
    drills, games, o = 0, 0, cups.Options(**options)
    for page in pages(options)[0]:
        text = tasks.make_task("cups", **options).tokenizer.decode(page)
        assert "answer" not in text
        for told in text.removeprefix("<bos>").split(".")[:-1]:  # the last one is cut off
            swaps, places = re.findall(r"[A-H]{2}", told), re.findall(r"at (.)", told)
            if "where" in told:
                start = re.search(r"under (.)", told)[1]
                every = [followed(start, swaps[:k]) for k in range(o.stride, len(swaps), o.stride)]
                assert places == every and o.shortest <= len(swaps) <= o.swaps
                games += 1
            else:
                assert places == [followed(told.split()[0], swaps)] and 1 <= len(swaps) <= o.drill < o.shortest
                drills += 1
    assert drills > 30 and (games > 30) == (not o.jumps_only)


def test_no_page_shows_the_last_place_of_a_held_out_problem():
    """A game may be a problem of any split; the places that it writes stop before the last swap."""
    held_out = {content(r): r for split in ("validation", "test") for r in ask("varied", split)[1]}
    seen = 0
    for page in pages(WORLDS["varied"], count=100)[0]:
        for told in world("varied")[0].tokenizer.decode(page).split("."):
            record = world("varied")[0].read_prompt(told)
            if record and content(record) in held_out:
                assert 2 * len(re.findall(r"at (.)", told)) < record["level"]
                seen += 1
    assert seen > 0


def test_options_change_the_vocabulary_and_the_length_of_prompts():
    task = tasks.make_task("cups", cups=7, swaps=3)
    asked = jax.device_get(batches.problem_fn(task)(0, jnp.arange(MANY), "train"))
    assert asked.prompt.shape[1] == task.prompt_slots == world("eight")[0].prompt_slots - 5
    assert task.tokenizer.size == world("eight")[0].tokenizer.size + 1 + 6
    assert {r["place"] for r in task.records(asked.facts)} == set("ABCDEFG")
