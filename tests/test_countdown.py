"""The countdown world: problems, demonstrations, and two verifiers that must agree."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import tasks
from rljax.errors import UserError
from rljax.tasks import countdown, countdown_text
from rljax.text import pad_batch

MANY, G, T = 1500, 8, 40
WORLDS = [{}, {"numbers": 4, "max_number": 4, "limit": 12}]  # few, because each compiles


@functools.cache
def world(**options):
    """(task, its compiled problems, its compiled score); ask for MANY at a time, so that each compiles once."""
    task = tasks.make_task("countdown", **options)
    assert task.verify_on_device is not None
    return task, jax.jit(task.problems, static_argnums=2), jax.jit(task.verify_on_device)


def ask(options, seed=0, split="train", count=MANY):
    """So many problems: (facts, records)."""
    task, problems, _ = world(**options)
    facts = jax.device_get(problems(seed, jnp.arange(count), split).facts)
    return facts, task.records(facts)


def device_scores(task, score, rows, facts):
    """Score rows of ids [B * G]; a row stops at its first stop token, or is cut off."""
    eos = task.tokenizer.eos
    rows = [row[: row.index(eos) + 1] if eos in row else row for row in rows]
    response, mask = pad_batch(rows, T, task.tokenizer.pad)
    finished = np.asarray([eos in row for row in rows])
    count = len(rows) // len(facts["target"])
    by_group = lambda x: jnp.asarray(x).reshape(-1, count, *x.shape[1:])
    reward = score(by_group(response), by_group(mask), by_group(finished), facts)
    return np.asarray(reward).reshape(-1), [task.tokenizer.decode(row) for row in rows]


def mutate(row, rng, size):
    """Up to two edits: a token replaced, dropped, doubled, or swapped with its neighbour."""
    row = list(row)
    for _ in range(rng.integers(3)):
        n, kind = rng.integers(len(row) - 1), rng.integers(4)
        if kind == 0:
            row[n] = int(rng.integers(size))
        elif kind == 1:
            del row[n]
        elif kind == 2:
            row.insert(n, row[n])
        else:
            row[n], row[n + 1] = row[n + 1], row[n]
    return row[:T]


@pytest.mark.parametrize("options", WORLDS)
def test_the_device_verifier_agrees_with_the_text_verifier(options):
    task, _, score = world(**options)
    rng, size = np.random.default_rng(0), task.tokenizer.size
    facts, records = ask(options, seed=1)
    facts = {name: x[:100] for name, x in facts.items()}
    records = [r for r in records[:100] for _ in range(G)]
    eos, rows = task.tokenizer.eos, []
    for n, record in enumerate(records):
        if n % G == 0:
            rows.append([int(x) for x in rng.integers(size, size=rng.integers(1, T + 1))])
        elif n % G == 1:  # random, but of the right form
            steps = countdown.random_steps(record["numbers"], record["limit"], rng)
            rows.append(mutate(task.tokenizer.encode("answer " + countdown.steps_text(steps)) + [eos], rng, size))
        else:
            right = "answer " + countdown.steps_text(record["solution"])
            lead = ["", "", "try ", "5 , answer , ", "try 1 + 1 = 2 vs 3 less "][rng.integers(5)]
            rows.append(mutate(task.tokenizer.encode(lead + right) + [eos], rng, size))
    device, texts = device_scores(task, score, rows, facts)
    text = np.asarray([task.verify(t, r) for t, r in zip(texts, records, strict=True)])
    np.testing.assert_array_equal(device, text)
    assert 0.2 < text.mean() < 0.8, "a test of one verdict only would prove nothing"


RIGHT = [
    "answer 3 + 4 = 7 , 7 * 2 = 14",
    "answer 4 + 3 = 7 , 2 * 7 = 14",
    "try 2 + 3 = 5 , 5 * 4 = 20 vs 14 more answer 3 + 4 = 7 , 7 * 2 = 14",
]
WRONG = {
    "a number used twice": "answer 3 + 4 = 7 , 7 + 7 = 14",
    "a number that is not there": "answer 5 + 9 = 14 , 14 / 1 = 14",
    "a number left over": "answer 2 * 7 = 14",
    "steps in the wrong order": "answer 7 * 2 = 14 , 3 + 4 = 7",
    "wrong arithmetic": "answer 3 + 4 = 6 , 6 * 2 = 14",
    "another result": "answer 3 + 4 = 7 , 7 + 2 = 9",
    "a fraction cut off": "answer 3 / 2 = 1 , 1 + 4 = 14",
    "something after it": "answer 3 + 4 = 7 , 7 * 2 = 14 .",
    "two answers": "answer 3 + 4 = 7 , 7 * 2 = 14 answer 3 + 4 = 7 , 7 * 2 = 14",
    "no word for it": "3 + 4 = 7 , 7 * 2 = 14",
    "no comma": "answer 3 + 4 = 7 . 7 * 2 = 14",
    "no equals sign": "answer 3 + 4 = 7 , 7 * 2 , 14",
    "a step too many": "answer 3 + 4 = 7 , 7 * 2 = 14 , 14 + 0 = 14",
}


def test_right_answers_score_and_near_misses_do_not():
    task, _, score = world()
    record = {"numbers": [2, 3, 4], "target": 14, "limit": 99}
    texts = [*RIGHT, *WRONG.values()]
    rows = [task.tokenizer.encode(t) + [task.tokenizer.eos] for t in texts]
    facts = {"numbers": jnp.asarray([[2, 3, 4]]), "target": jnp.asarray([14])}
    device, decoded = device_scores(task, score, rows, facts)
    expected = [True] * len(RIGHT) + [False] * len(WRONG)
    assert [bool(x) for x in device] == expected
    assert [task.verify(t, record) for t in decoded] == expected
    assert [task.verify(f"{t} <eos>", record) for t in texts] == expected  # as a person writes it


def test_a_truncated_answer_scores_nothing():
    task, _, score = world()
    facts = {"numbers": jnp.asarray([[2, 3, 4]]), "target": jnp.asarray([14])}
    device, decoded = device_scores(task, score, [task.tokenizer.encode(RIGHT[0])], facts)
    assert device == [0] and not task.verify(decoded[0], {"numbers": [2, 3, 4], "target": 14, "limit": 99})


def test_division_by_zero_is_no_step():
    task, _, score = world()
    text = "answer 3 - 3 = 0 , 5 / 0 = 0"
    facts = {"numbers": jnp.asarray([[3, 3, 5]]), "target": jnp.asarray([0])}
    device, decoded = device_scores(task, score, [task.tokenizer.encode(text) + [task.tokenizer.eos]], facts)
    assert device == [0] and not task.verify(decoded[0], {"numbers": [3, 3, 5], "target": 0, "limit": 99})


def test_no_problem_is_in_two_splits_even_with_its_numbers_in_another_order():
    asked = [ask({}, split=split)[1] for split in tasks.SPLITS]
    contents = [{(r["target"], *sorted(r["numbers"])) for r in records} for records in asked]
    train, validation, test = contents
    assert not train & validation and not train & test and not validation & test
    assert min(map(len, contents)) > 100


def test_a_problem_depends_on_seed_and_index_alone():
    task, problems, _ = world()
    many = problems(3, jnp.arange(MANY), "train").prompt
    few = problems(3, jnp.asarray([40, 7]), "train").prompt
    np.testing.assert_array_equal(many[np.asarray([40, 7])], few)
    assert not np.array_equal(many, problems(4, jnp.arange(MANY), "train").prompt)
    assert many.shape == (MANY, task.prompt_slots)


@pytest.mark.parametrize("options", WORLDS)
def test_every_problem_is_sound_and_its_known_solution_is_right(options):
    task, problems, _ = world(**options)
    asked = problems(5, jnp.arange(MANY), "train")
    for prompt, record in zip(np.asarray(asked.prompt), task.records(jax.device_get(asked.facts)), strict=True):
        assert task.verify(f"answer {countdown.steps_text(record['solution'])} <eos>", record)
        assert record["target"] not in record["numbers"]
        numbers = " ".join(map(str, record["numbers"]))
        assert task.tokenizer.decode(prompt) == f"<bos> make {record['target']} from {numbers}?"


# Uniform targets, of which some are kept for test problems

UNIFORM = {"numbers": 3, "max_number": 20, "limit": 60, "lowest_target": 5, "highest_target": 24, "held_targets": 0.2}


def results_of(numbers, limit):
    """All numbers that these make, each used once: by recursion, every operation on every ordered pair."""
    if len(numbers) == 1:
        return set(numbers)
    out = set()
    for a, b in itertools.permutations(range(len(numbers)), 2):
        rest = [x for n, x in enumerate(numbers) if n not in (a, b)]
        for operation in "+-*/":
            if (c := countdown_text.calculate(numbers[a], operation, numbers[b], limit)) is not None:
                out |= results_of((*rest, c), limit)
    return out


@pytest.mark.parametrize("numbers", [(1, 1, 1, 1), (2, 3, 5, 7), (9, 8, 4, 4), (6, 1, 9, 3)])
def test_all_chains_make_what_recursion_makes_and_nothing_else(numbers):
    o = countdown.Options(**UNIFORM | {"numbers": 4})
    steps, possible = jax.device_get(jax.jit(lambda x: countdown.all_chains(o, x))(jnp.asarray(numbers)))
    assert steps.shape == (1152, 3, 4)
    assert set(steps[possible][:, -1, 3].tolist()) == results_of(numbers, o.limit)
    for chain in steps[possible][::17]:
        text = countdown.steps_text([(a, countdown.OPERATIONS[n], b, c) for a, n, b, c in chain.tolist()])
        record = {"numbers": list(numbers), "target": int(chain[-1, 3]), "limit": o.limit}
        assert countdown.verify(f"answer {text} <eos>", record)


@pytest.fixture(scope="module")
def uniform():
    return {split: ask(UNIFORM, split=split, count=600) for split in tasks.SPLITS}


@pytest.mark.exhaustive  # the next test shows which targets a split has
def test_each_target_that_a_split_has_is_as_likely_as_each_other(uniform):
    known, held = countdown.split_targets(countdown.Options(**UNIFORM))
    assert len(held) == 4 and sorted(known + held) == list(range(5, 25))
    for split, shares in (("train", (1.0, 0.0)), ("test", (0.5, 0.5))):
        facts, records = uniform[split]
        for targets, share in zip((known, held), shares, strict=True):
            seen = np.array([np.mean(facts["target"] == target) for target in targets])
            assert np.abs(seen - share / len(targets)).max() < 0.04 and abs(seen.sum() - share) < 0.05
        assert len({tuple(map(tuple, r["solution"])) for r in records}) > 200
        assert all(r["target"] in results_of(tuple(r["numbers"]), 60) for r in records[:50])


def test_targets_kept_for_test_problems_are_half_of_those_and_nowhere_else(uniform):
    task, held = world(**UNIFORM)[0], countdown.split_targets(countdown.Options(**UNIFORM))[1]
    for split, (_, records) in uniform.items():
        kept = [r["target"] in held for r in records]
        assert kept == [r["dataset"] == "held_targets" for r in records]
        assert abs(np.mean(kept) - (0.5 if split == "test" else 0.0)) < 0.05
        for record in records[:200]:
            assert task.verify(f"answer {countdown.steps_text(record['solution'])} <eos>", record)
    asked = [int(t) for n in range(60) for t in re.findall(r"make (\d+)", text_of_page(task, n))]
    assert len(asked) > 60 and not set(asked) & set(held)


def text_of_page(task, seed):
    return task.tokenizer.decode(task.page(np.random.default_rng(seed), 400))


@pytest.mark.parametrize(
    "changes",
    [
        {"highest_target": 100},
        {"lowest_target": 3},
        {"held_targets": 0.01},
        {"max_number": 3, "highest_target": 28},
        {"lowest_target": 0, "highest_target": 0},
    ],
)
def test_targets_that_cannot_be_are_refused(changes):
    with pytest.raises(UserError, match="target"):
        countdown.Options(**UNIFORM | {"highest_target": 2 if "lowest_target" in changes else 24} | changes)


def test_demonstrations_jump_or_search_and_some_give_up():
    task, (_, records), rng = world()[0], ask({}), np.random.default_rng(0)
    texts = [task.demonstration(r, rng) + " <eos>" for r in records]
    read = [task.describe(t, r) for t, r in zip(texts, records, strict=True)]
    right = [task.verify(t, r) for t, r in zip(texts, records, strict=True)]
    assert {a.strategy for a in read} == {"jump", "check", "retry"}
    assert all(all(a.calculations) and all(said for said, _, _ in a.verdicts) and a.answer for a in read)
    assert all(r for a, r in zip(read, right, strict=True) if a.strategy == "jump" or any(v[1] for v in a.verdicts))
    gave_up = [r for a, r in zip(read, right, strict=True) if a.verdicts and not any(v[1] for v in a.verdicts)]
    assert gave_up and np.mean(gave_up) < 0.5


@pytest.mark.parametrize("given", WORLDS)
def test_no_demonstration_is_longer_than_the_options_say(given):
    options = countdown.Options(**given, jump=0.0, give_up=0.0)
    task, rng = countdown.make(options), np.random.default_rng(0)
    _, records = ask(given)
    lengths = [len(task.tokenizer.encode(task.demonstration(r, rng))) + 1 for r in records[:300]]
    assert max(lengths) == 6 * (options.numbers - 1) * (options.tries + 1) + 3 * options.tries + 1


def test_pages_are_right_and_show_no_answer_of_a_problem():
    task, _, _ = world()
    record, seen = {"target": 0, "limit": 99, "numbers": [1, 2, 3]}, set()
    for seed in range(40):
        ids = task.page(np.random.default_rng(seed), 200)
        text = task.tokenizer.decode(ids).rpartition(".")[0]
        assert len(ids) == 200 and all(task.describe(text, record).calculations)
        seen |= {
            word
            for word in ("+", "-", "*", "/", "less", "more", "same", "make")
            if word in text.split() or word in text
        }
        for problem in text.split("make ")[1:]:
            given = problem.partition("from ")[2].partition("?")[0].split()
            assert max(map(int, given)) > 9
    assert len(seen) == 8


def test_an_attempt_is_described_by_what_it_did():
    task, _, _ = world()
    record = {"numbers": [2, 3, 4], "target": 14, "limit": 99}
    tail = "answer 4 + 3 = 7, 7 * 2 = 14 <eos>"
    assert task.describe(tail, record) == tasks.Attempt("jump", "3 + 4 = 7 , 2 * 7 = 14", (True, True))
    assert task.describe("2 + 3 = 6, 6 * 4 = 24 " + tail, record).strategy == "steps"
    one = task.describe("try 2 + 3 = 6, 6 * 4 = 24 vs 14 less " + tail, record)
    assert (one.strategy, one.calculations, one.verdicts) == ("check", (False, True, True, True), ((False, False, 0),))
    two = task.describe("try 2 + 3 = 5, 5 * 4 = 20 vs 14 more wait 3 + 4 = 7, 7 * 2 = 14 vs 14 same " + tail, record)
    assert (two.strategy, two.verdicts) == ("retry", ((True, False, 0), (True, True, 1)))
    assert task.describe("answer answer 3 + 4 = 7 <eos>", record).answer is None


@pytest.mark.parametrize("options", [{"numbers": 5}, {"max_number": 99}, {"limit": 5}, {"tries": 0}])
def test_options_that_make_no_sense_are_named(options):
    with pytest.raises(UserError, match=next(iter(options))):
        tasks.make_task("countdown", **options)


# The four habits


def habit_texts(habits, wrong=False, count=200, **options):
    """[(demonstration, record)] of this many problems."""
    task = tasks.make_task("countdown", habits=habits, wrong=wrong, jump=0.0, give_up=0.2, **options)
    records, rng = task.records(task.problems(0, np.arange(count), "train").facts), np.random.default_rng(0)
    return task, [(task.demonstration(record, rng), record) for record in records]


@pytest.mark.parametrize("habit", countdown_text.HABITS)
def test_a_demonstration_shows_its_habit_and_no_other(habit):
    task, texts = habit_texts(habit)
    shows = {
        "verification": lambda t: " vs " in t,
        "backtracking": lambda t: " wait " in t,
        "subgoals": lambda t: " aim " in t,
        "backward_chaining": lambda t: " back " in t,
    }
    for name, is_shown in shows.items():
        shown = np.mean([is_shown(text) for text, _ in texts])
        assert (shown > 0.3) == (name == habit) and (name == habit or shown == 0), name
    for text, record in texts:
        ids = task.tokenizer.encode(text)
        assert len(ids) + 1 <= task.demonstration_slots
        assert all(task.describe(f"{text} <eos>", record).calculations)
    right = np.mean([task.verify(f"{text} <eos>", record) for text, record in texts])
    assert 0.05 < right < (0.9 if habit == "backtracking" else 0.5)


def test_without_habits_there_is_an_answer_alone_and_with_all_the_words_of_each():
    assert all(text.startswith("answer ") and "try" not in text for text, _ in habit_texts("none")[1])
    text = " ".join(text for text, _ in habit_texts("all")[1])
    assert {"vs", "wait", "aim", "back", "try"} <= set(text.split())


def test_wrong_answers_have_the_same_habits_and_are_never_right():
    task, texts = habit_texts("all", wrong=True)
    assert not any(task.verify(f"{text} <eos>", record) for text, record in texts)
    assert all(task.describe(f"{text} <eos>", record).answer for text, record in texts)  # well-formed
    text = " ".join(text for text, _ in texts)
    assert {"vs", "wait", "aim", "back", "try"} <= set(text.split()) and " same " not in text


def test_a_subgoal_is_the_result_of_the_first_step_and_the_last_step_is_undone_from_the_target():
    record = {"numbers": [2, 3, 4], "target": 14, "limit": 99}
    for last in ((7, "*", 2, 14), (2, "*", 7, 14)):
        steps = [(3, "+", 4, 7), last]
        said = countdown_text.attempt_text(steps, record, ("subgoals", "backward_chaining"))
        assert said.startswith("back 14 / 2 = 7 aim 7 3 + 4 = 7 , ")
    assert countdown_text.undo_last([(3, "+", 4, 7), (9, "-", 7, 2)], 4, 99) == "9 - 4 = 5"  # aims at 5, reaches 2
    assert countdown_text.undo_last([(3, "+", 4, 7), (7, "*", 4, 28)], 14, 99) == ""  # 14 / 4 is no whole number


def test_what_is_undone_is_no_try():
    record = {"numbers": [2, 3, 4], "target": 14, "limit": 99, "solution": []}
    text = "try back 14 / 2 = 7 aim 7 3 + 4 = 7 , 7 * 2 = 14 vs 14 same answer 3 + 4 = 7 , 7 * 2 = 14 <eos>"
    found = countdown.describe(text, record)
    assert found.strategy == "check" and found.verdicts == ((True, True, 0),)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (dict(habits="luck"), "luck is none of verification"),
        (dict(wrong=True), "wrong=True is for demonstrations of habits"),
    ],
)
def test_habits_that_do_not_exist_are_refused(options, reason):
    with pytest.raises(UserError, match=reason):
        tasks.make_task("countdown", **options)


def test_tries_may_end_with_the_operation_that_comes_nearest_to_the_target():
    task, _, _ = world(numbers=4, max_number=4, limit=12, nearest=1.0, jump=0.0, give_up=0.0, tries=10)
    _, records = ask({"numbers": 4, "max_number": 4, "limit": 12})
    rng, misses = np.random.default_rng(0), 0
    for record in records[:100]:
        searched = task.demonstration(record, rng).partition("answer")[0]
        for last in re.findall(r", (\d+ \S \d+ = \d+) vs", searched):
            a, _, b, _, c = last.split()
            results = [countdown.calculate(int(a), x, int(b), 12) for x in countdown.OPERATIONS]
            distance = min(abs(x - record["target"]) for x in results if x is not None)
            assert distance == abs(int(c) - record["target"])
            misses += distance > 0
    assert misses > 100
