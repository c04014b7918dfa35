"""Arithmetic in words: numbers, wordings and answers agree, splits share nothing, and prompts show how to answer."""

import json
import re
from collections import Counter
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest
import small_tokenizers
import tiny_folder

from experiments import check_task, sample
from rljax import tasks
from rljax.errors import UserError
from rljax.tasks import check, few_shot, fruit_text, rejection_sampling, word_problems, wordings
from rljax.tasks.curriculum import Levels, ProblemOptions, make_asker
from rljax.text import ByteTokenizer

SIZES = word_problems.Sizes(number=12, count=6, price=6)
LECTURE = "Emily buys 3 apples and 2 oranges. Each orange costs $2. The total is $13. What is the cost of an apple?"
ANSWER = {  # of each kind, by a formula
    "sum": lambda v: v["a"] + v["b"],
    "difference": lambda v: v["a"] - v["b"],
    "product": lambda v: v["a"] * v["b"],
    "chain": lambda v: v["a"] + v["b"] - v["c"],
    "two_products": lambda v: v["a"] * v["b"] + v["c"] * v["d"],
    "unknown_price": lambda v: Fraction(v["t"] - v["b"] * v["c"], v["a"]),
    "two_unknowns": lambda v: Fraction(v["t"] * v["d"] - v["u"] * v["b"], v["a"] * v["d"] - v["c"] * v["b"]),
}


def make(tokenizer=None, **options):
    return tasks.make_task("fruit_text", tokenizer, **options)


def records_of(task, split, count, seed=0, **more):
    return task.problems(seed, np.arange(count), split, **more).facts


def prompts_of(task, split, count, seed=0):
    asked = task.problems(seed, np.arange(count), split)
    return [task.tokenizer.decode(p[m]) for p, m in zip(asked.prompt, asked.prompt_mask, strict=True)]


def test_there_are_six_levels_with_six_wordings_or_more():
    assert ANSWER.keys() == word_problems.KINDS.keys() == wordings.WORDINGS.keys()
    assert {kind.level for kind in word_problems.KINDS.values()} == set(range(1, 7))
    assert all(len(set(texts)) == len(texts) >= 6 for texts in wordings.WORDINGS.values())


@pytest.mark.parametrize("kind", ANSWER)
def test_the_calculations_of_a_problem_are_right_and_end_with_its_answer(kind):
    rng = np.random.default_rng(0)
    for _ in range(200):
        numbers = word_problems.draw_numbers(kind, rng, SIZES)
        steps = word_problems.calculate(kind, numbers)
        known = set(numbers.values())
        for a, op, b, c in steps:
            assert {a, b} <= known, "of numbers of the problem and results"
            assert c == {"+": a + b, "-": a - b, "*": a * b, "/": Fraction(a, b)}[op] > 0
            known.add(c)
        assert steps[-1][3] == ANSWER[kind](numbers)


@pytest.mark.parametrize("kind", ANSWER)
def test_a_problem_is_read_back_from_its_text_in_every_wording_also_behind_other_problems(kind):
    rng, used = np.random.default_rng(1), set()
    for _ in range(150):
        numbers = word_problems.draw_numbers(kind, rng, SIZES)
        text = wordings.word_problem(kind, numbers, rng)
        assert not re.search(r"[{}]| an [^aeiou]| a [aeiou]", text)
        assert wordings.read_wording(f"Q: {LECTURE}\nA: The answer is 3.\n\nQ: {text}\nA:") == (kind, numbers)
        used |= {w for w in wordings.WORDINGS[kind] if wordings.wording_pattern(w).fullmatch(text)}
    assert used == set(wordings.WORDINGS[kind])


def test_the_lectures_question_is_a_problem_of_level_5_with_its_worked_answer():
    task = make()
    record = task.read_prompt(f"Q: {LECTURE}\nA:")
    assert (record["level"], record["answer"]) == (5, "3")
    assert task.demonstration(record, np.random.default_rng(0)) == "2 * 2 = 4. 13 - 4 = 9. 9 / 3 = 3. The answer is 3."
    assert make(jump=1.0).demonstration(record, np.random.default_rng(0)) == "The answer is 3."
    assert task.read_prompt("Emily buys 3 apples.") is None
    assert task.read_prompt(LECTURE.replace("13", "14")) is None, "no whole price"
    assert sample.known_answer(LECTURE) == "3" and sample.known_answer("Emily buys 3 apples.") == ""
    shown = task.tokenizer.decode(task.prompt_ids(LECTURE))
    assert shown.endswith(f"\n\nQ: {LECTURE}\nA: ") and shown.count("Q: ") == 4


def test_a_problem_depends_on_seed_and_index_alone():
    many, few = make(level="1-6").problems(3, np.arange(40), "train"), make(level="1-6").problems(3, [17, 2], "train")
    assert few.facts == [many.facts[17], many.facts[2]] and few.facts != records_of(make(level="1-6"), "train", 2)
    np.testing.assert_array_equal(few.prompt, many.prompt[[17, 2]])


def test_the_same_questions_are_asked_with_and_without_examples_in_every_template_and_tokenizer():
    tokenizer, _ = small_tokenizers.made("gemma")
    asked = [
        [r["question"] for r in records_of(task, "train", 30)]
        for task in (
            make(level="1-6"),
            make(level="1-6", examples=0),
            make(level="1-6", fixed_examples=True, in_steps=1.0),
            make(tokenizer, level="1-6", template="r1_zero", examples=1),
        )
    ]
    assert asked[0] == asked[1] == asked[2] == asked[3]


@pytest.mark.parametrize("level", range(1, 7))
def test_no_content_is_in_two_splits_whatever_the_words(level):
    task = make(level=level, examples=0)
    contents = {split: {task.content(r) for r in records_of(task, split, 150)} for split in tasks.SPLITS}
    assert all(contents.values()) and len(contents["test"]) > 10
    assert not any(
        contents[a] & contents[b] for a, b in (("train", "validation"), ("train", "test"), ("validation", "test"))
    )


def test_the_order_of_what_is_bought_and_the_words_do_not_make_another_problem():
    same = [("sum", dict(a=3, b=4), dict(a=4, b=3)), ("product", dict(a=3, b=4), dict(a=4, b=3)),
            ("two_products", dict(a=2, b=3, c=4, d=5), dict(a=5, b=4, c=3, d=2)),
            ("two_unknowns", dict(a=2, b=3, t=13, c=4, d=2, u=14), dict(a=4, b=2, t=14, c=2, d=3, u=13))]  # fmt: skip
    assert all(word_problems.content(kind, one) == word_problems.content(kind, other) for kind, one, other in same)
    assert word_problems.content("difference", dict(a=7, b=4)) != word_problems.content("difference", dict(a=7, b=3))


@pytest.mark.parametrize("name", ["bytes", "byte level"])
def test_every_question_fits_the_prompt_slots(name):
    tokenizer = ByteTokenizer() if name == "bytes" else small_tokenizers.made(name)[0]
    for level in range(1, 7):
        task = make(tokenizer, level=level, examples=0)
        lengths = task.problems(0, np.arange(300), "train").prompt_mask.sum(1)
        assert task.prompt_slots - 32 < lengths.max() <= task.prompt_slots


def test_a_question_that_would_not_fit_is_put_in_other_words_with_the_same_numbers():
    how, asked = fruit_text.Options(level=2, examples=0).few_shot(ByteTokenizer()), make(level=2, examples=0)
    reworded = 0
    for n, record in enumerate(records_of(asked, "train", 60)):
        found, ids = few_shot.draw_prompt(how, 66, record, (0, 0, n))
        assert len(ids) <= 66 and wordings.read_wording(found["question"]) == ("product", record["numbers"])
        assert found["question"] in asked.tokenizer.decode(ids)
        reworded += found["question"] != record["question"]
    assert 5 < reworded < 55
    with pytest.raises(UserError, match="no room in 20 slots: raise prompt_slots"):
        few_shot.draw_prompt(how, 20, record, (0, 0, 0))


# Worked examples


def blocks(prompt):
    """((question, answer) of each example, the question that is asked) of a prompt."""
    *examples, asked = prompt.removeprefix("<bos>").split("\n\n")
    read = [re.fullmatch(r"Q: (.+)\nA: (.+)", example).groups() for example in examples]
    return read, re.fullmatch(r"Q: (.+)\nA: ?", asked)[1]


@pytest.mark.parametrize("fixed", [False, True])
def test_examples_are_right_training_problems_of_the_level_and_never_the_problem_that_is_asked(fixed):
    task = make(level="1-6", examples=3, fixed_examples=fixed, max_number=9)
    for split in ("train", "test"):
        for prompt, record in zip(prompts_of(task, split, 40), records_of(task, split, 40), strict=True):
            examples, asked = blocks(prompt)
            assert asked == record["question"]
            shown = [task.read_prompt(question) for question, _ in examples]
            assert {r["level"] for r in shown} == {record["level"]}
            assert len({task.content(r) for r in [*shown, record]}) == 4
            assert all(word_problems.in_split(task.content(r), "train") for r in shown)
            assert all(task.verify(answer + "<eos>", r) for (_, answer), r in zip(examples, shown, strict=True))


def test_a_share_of_the_examples_answers_in_steps_and_the_others_at_once():
    in_steps = lambda share, count=4: [
        sum("=" in answer for _, answer in blocks(prompt)[0])
        for prompt in prompts_of(make(examples=count, in_steps=share), "train", 24)
    ]
    assert set(in_steps(1.0)) == {4} and set(in_steps(0.0)) == {0} and set(in_steps(0.75)) == {3}
    assert Counter(in_steps(0.5, 3)).keys() == {1, 2}
    last = [blocks(p)[0][-1][1] for p in prompts_of(make(examples=4, in_steps=0.5), "train", 24)]
    assert 4 < sum("=" in answer for answer in last) < 20, "neither way has the last word"


def test_fixed_examples_are_those_of_every_problem_of_the_level():
    texts = {json.dumps(blocks(p)[0]) for p in prompts_of(make(fixed_examples=True), "test", 10)}
    assert len(texts) == 1
    assert len({json.dumps(blocks(p)[0]) for p in prompts_of(make(), "test", 10)}) == 10


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompt_slots": 100}, "prompt_slots=100: these prompts need [0-9]{3}"),
        ({"template": "chat", "examples": 0}, "'\\\\n', which is inside the template's own response"),
        ({"template": "chat"}, "examples=3, but the template writes control tokens: use examples=0"),
        ({"level": "7"}, "level='7': write levels from 1 to 6"),
        ({"level": "1 + 1-2"}, "each once"),
        ({"level": "0*5"}, "write levels from 1 to 6"),
        ({"level": "1" + 400 * "0" + "*5"}, "write levels from 1 to 6"),
        (
            {"stop_strings": ("\n", " =")},
            "stop_strings has ' =', which is inside the worked answer '.* = .*': use another",
        ),
        ({"in_steps": 1.5}, "in_steps=1.5 must be between 0 and 1"),
        ({"max_number": 1000}, "max_number=1000 must be 4 to 999"),
        ({"examples": 2.5}, "examples=2.5: must be a whole number"),
        ({"level": 1, "max_number": 4}, r"max_number=4.* leave too few \w+ problems of level 1"),
        ({"level": 2, "max_number": 5, "examples": 16}, "leave too few train problems of level 2: .*fewer examples"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_is_refused_in_one_line(options, words):
    with pytest.raises(UserError, match=words) as e:
        make(tiny_folder.tokenizer(), **options).problems(0, [0], "train")
    assert "\n" not in str(e.value)


def test_a_chat_template_asks_the_question_alone():
    task = make(tiny_folder.tokenizer(), template="own", examples=0, stop_strings=())
    (prompt,), (record,) = prompts_of(task, "test", 1), records_of(task, "test", 1)
    assert prompt.startswith("<|im_start|>user\n" + record["question"]) and "\\boxed{}" in prompt
    assert task.verify(r"2 * 2 = 4 ... so \boxed{" + record["answer"] + "}<eos>", record)


# Levels


def test_levels_are_mixed_by_their_weights_and_can_be_opened_one_after_the_other():
    task = make(level="1 + 3*5", examples=0)
    assert Counter(r["level"] for r in records_of(task, "train", 200)) == {1: 50, 5: 150}
    assert task.levels == (1, 5) and make().levels is None
    assert {r["level"] for r in records_of(task, "train", 20, levels=(1, 2))} == {1}
    assert {r["level"] for r in records_of(task, "train", 20, levels=(3, 4))} == {5}, "the nearest that there is"
    assert {r["level"] for r in records_of(make(level="2-4", examples=0), "test", 40)} == {2, 3, 4}


def test_a_run_opens_the_levels_from_easy_to_hard():
    options = ProblemOptions(prompts=8, levels=Levels(rise=30))
    task = make(level="1-6", examples=0)
    options.check(task)
    ask = make_asker(options, task, 0)
    seen = [{r["level"] for n in range(4) for r in ask(jnp.int32(8 * (step + n))).facts} for step in (0, 11, 26)]
    assert seen[0] == {1} and seen[1] == {1, 2, 3} and seen[2] == {1, 2, 3, 4, 5, 6}


# Answers


@pytest.mark.parametrize(
    ("response", "right"),
    [
        (" The answer is 3.\n<eos>", True),
        (" 2 * 2 = 4. 13 - 4 = 9. 9 / 3 = 3. The answer is 3.<eos>", True),
        (" The answer is 4. No, the answer is 3.<eos>", True),
        (" The answer is $3.<eos>", True),
        (" So 3 apples cost $9.\n#### 3<eos>", True),
        (" The answer is 3.", False),
        (" The answer is 3. The answer is 4.<eos>", False),
        (" 9 / 3 = 3.\n<eos>", False),
        (" 3<eos>", False),
        (" The answer is 3 or 4.<eos>", False),
        (" The answer is 13.<eos>", False),
        (" The answer is 3.\n\nQ: Ben buys 4 pens. What is the cost?\nA: The answer is 5.\n<eos>", False),
        ("<eos>", False),
        ("", False),
    ],
)
def test_the_last_answer_of_a_finished_response_counts_and_nothing_else(response, right):
    task = make()
    assert task.verify(response, task.read_prompt(LECTURE)) is right


def test_responses_without_an_answer_or_with_several_are_counted():
    record = make().read_prompt(LECTURE)
    said = [" The answer is 3.<eos>", " 9 / 3 = 3<eos>", " The answer is 4. The answer is 3.<eos>"]
    found = make().verify_batch([(text, record) for text in said])
    assert [f["answers/none"] for f in found] == [0, 1, 0] and [f["answers/several"] for f in found] == [0, 0, 1]
    assert [f["correct"] for f in found] == [1, 0, 1]


@pytest.mark.parametrize(
    ("response", "strategy", "answer", "calculations"),
    [
        (" The answer is 3.\n<eos>", "jump", "3", ()),
        (" 2 * 2 = 4. 13 - 4 = 8. The answer is 3.<eos>", "steps", "3", (True, False)),
        (" 2 * 3 = 6. Wait, 2 * 2 = 4. The answer is 3.<eos>", "retry", "3", (True, True)),
        (" Let me see", "steps", None, ()),
    ],
)
def test_an_attempt_says_how_it_came_to_its_answer(response, strategy, answer, calculations):
    task = make()
    found = task.describe(response, task.read_prompt(LECTURE))
    assert (found.strategy, found.answer, found.calculations) == (strategy, answer, calculations)


@pytest.mark.parametrize("name", ["bytes", "byte level", "gemma"])
def test_the_task_holds_what_it_promises_with_any_tokenizer(name):
    tokenizer = ByteTokenizer() if name == "bytes" else small_tokenizers.made(name)[0]
    report = check.check_task(make(tokenizer, level="1-6", jump=0.3), num_problems=64, train_draws=200)
    assert report.faults == []
    assert dict(report.rows)["demonstrations that are right"].startswith("64 of 64")


def test_check_task_reads_a_task_with_the_tokenizer_of_a_folder(tmp_path, capsys):
    folder = str(tiny_folder.make(tmp_path))
    check_task.run("fruit_text", [], ["level=2", "examples=0"], 0, 64, 200, weights=folder)
    said = capsys.readouterr().out
    slots = make(tiny_folder.tokenizer(), level=2, examples=0).prompt_slots
    assert f"of {slots} slots" in said and "all checks passed" in said
    with pytest.raises(UserError, match="task shop: it has a vocabulary of its own"):
        check_task.run("shop", [], [], 0, 64, 200, weights=folder)


# Attempts that were sampled with worked examples, imitated without


def test_attempts_at_prompts_with_examples_are_learned_behind_the_question_alone(tmp_path, caplog):
    tokenizer = tiny_folder.tokenizer()
    asked, short = make(tokenizer), make(tokenizer, examples=0)
    lines = []
    for n, record in enumerate(records_of(asked, "train", 6)):
        text = asked.demonstration(record, np.random.default_rng(n))
        lines.append({"index": n, "response": text + "\n", "tokens": tokenizer.encode(text + "\n")})
    path = tmp_path / "kept.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows, held_out = rejection_sampling.read_sample_batches(str(path), short, 0, 128)
    prompts = [tokenizer.decode(row[: short.prompt_slots][mask[: short.prompt_slots]])
               for part in (rows, held_out) for row, mask in zip(part["tokens"], part["mask"], strict=True)]  # fmt: skip
    assert prompts == [f"Q: {r['question']}\nA:" for r in records_of(short, "train", 6)] and not caplog.text
    rejection_sampling.read_sample_batches(str(path), short, 1, 128)
    assert re.search(r"[3-6] of 6 lines of .* without a prompt answer their problem wrongly", caplog.text)
