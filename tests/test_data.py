"""What supervised stages read: a batch is a function of its number, and gives no held-out problem away."""

import json

import numpy as np
import pytest

from configs import shop
from rljax import json_lines, tasks
from rljax.errors import UserError
from rljax.tasks import batches, rejection_sampling
from rljax.training.run import resolve


def problems_on(page, task):
    """(record, response text) of each whole worked problem of a page of ids."""
    text = task.tokenizer.decode(page)
    parts = [part.strip().partition("?") for part in text.split("<bos>")[1:]]
    return [(task.read_prompt(prompt), response) for prompt, _, response in parts if response.endswith("<eos>")]


def test_worked_pages_are_training_problems_with_their_demonstrations():
    task = tasks.make_task("shop")
    held_out = [
        r for split in ("validation", "test") for r in task.records(task.problems(0, np.arange(500), split).facts)
    ]
    known = {(r["total"], *sorted(r["prices"])) for r in held_out}
    batch = batches.add_worked_problems(batches.page_batch(task, 0, 7, 12, 160), task, 0, 7, 1.0)
    right = 0
    for page, mask in zip(batch["tokens"], batch["mask"], strict=True):
        assert mask.all(), "packed up to the end of the page"
        found = problems_on(page, task)
        assert found
        for record, response in found:
            assert (record["total"], *sorted(record["prices"])) not in known
            right += task.verify(response, record)
    assert right > 5


def test_a_share_of_the_pages_is_replaced_by_worked_problems_and_the_others_stay():
    task = tasks.make_task("shop")
    plain = batches.page_batch(task, 0, 0, 60, 40)
    some = batches.add_worked_problems(plain, task, 0, 0, 0.4)
    changed = (plain["tokens"] != some["tokens"]).any(1)
    assert 12 <= changed.sum() <= 36
    cut = batches.add_worked_problems(batches.page_batch(task, 0, 20, 10, 40), task, 0, 20, 0.4)
    np.testing.assert_array_equal(cut["tokens"], some["tokens"][20:30], "a page depends on its number alone")
    assert batches.add_worked_problems(plain, task, 0, 0, 0.0) is plain


def test_pages_among_the_rows_of_sft_count_in_the_loss_and_the_other_rows_stay():
    task = tasks.make_task("shop")
    plain = batches.demonstration_batch(task, 0, 0, 60, 100)
    some = batches.add_page_rows(plain, task, 0, 0, 0.4)
    whole = some["loss_mask"].all(1)
    assert 12 <= whole.sum() <= 36 and not plain["loss_mask"].all(1).any()
    for name in plain:
        np.testing.assert_array_equal(some[name][~whole], plain[name][~whole])
    assert batches.add_page_rows(plain, task, 0, 0, 0.0) is plain


def test_a_share_above_one_is_refused_in_one_line():
    config = shop.get_config("short")
    config.pretrain.worked = 1.5
    with pytest.raises(UserError, match="pretrain.worked=1.5: must be at least 0 and at most 1"):
        resolve(config)
    config.pretrain.worked, config.sft.general = 0.0, 1.5
    with pytest.raises(UserError, match="sft.general=1.5"):
        resolve(config)


# Samples of a file


def written(path, *lines):
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return str(path)


def test_sft_learns_the_responses_of_a_file_and_their_stop_token(tmp_path):
    task = tasks.make_task("shop")
    records = task.records(task.problems(3, np.arange(40), "train").facts)
    said = [{"index": n, "response": task.demonstration(r, np.random.default_rng(n))} for n, r in enumerate(records)]
    rows, held_out = rejection_sampling.read_sample_batches(written(tmp_path / "some.jsonl", *said), task, 3, 100)
    assert len(rows["tokens"]) == 38 and len(held_out["tokens"]) == 2, "a twentieth of the problems is held out"
    epoch = rejection_sampling.sample_batch(rows, 3, 38, 38)
    asked = task.problems(3, np.arange(38), "train")
    expected = {(task.tokenizer.decode(p), said[n]["response"] + " <eos>") for n, p in enumerate(asked.prompt)}
    slots = task.prompt_slots
    found = set()
    for tokens, mask, learn in zip(*epoch.values(), strict=True):
        np.testing.assert_array_equal(learn, mask & (np.arange(len(mask)) >= slots))
        found.add((task.tokenizer.decode(tokens[:slots]), task.tokenizer.decode(tokens[learn])))
    assert found == expected, "each once an epoch"
    assert (rejection_sampling.sample_batch(rows, 3, 0, 38)["tokens"] != epoch["tokens"]).any(), (
        "in another order each time"
    )


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "empty"),
        ([{"index": 3}], "line 1 of .* has no .response."),
        ([{"index": 3, "response": "answer 3 4"}, {"index": "3", "response": "answer 3 4"}], "line 2"),
        ([{"index": 3, "response": "answr 3 4"}], "line 1 .*answr.*did you mean 'answer'"),
        ([{"index": 3, "response": "wait " * 100}], r"101 tokens .*more than sft.max_new_tokens=100"),
        ([{"index": 3, "response": "answer 3 4", "prompt": "Ben pays 99?"}], "another prompt"),
        ([{"index": 3, "response": "answer 3 4"}] * 5, "at least two"),
    ],
)
def test_a_file_without_usable_samples_is_refused_in_one_line(tmp_path, lines, words):
    with pytest.raises(UserError, match=words):
        rejection_sampling.read_sample_batches(
            written(tmp_path / "some.jsonl", *lines), tasks.make_task("shop"), 0, 100
        )
    with pytest.raises(UserError, match="cannot read"):
        rejection_sampling.read_sample_batches(str(tmp_path / "none.jsonl"), tasks.make_task("shop"), 0, 100)


def test_kept_attempts_are_right_in_the_language_and_length_asked_for_and_not_repeated():
    said = lambda problem, response, reward=1.0, length=9: {
        "problem": problem, "prompt": "p", "response": response, "reward": reward, "length": length
    }  # fmt: skip
    good = [said(0, "try answer <eos>"), said(0, "wait answer <eos>"), said(1, "try answer <eos>")]
    bad = {
        "unfinished": said(0, "try answer", 0.0),
        "unscored": said(0, "some answer <eos>", float("nan")),
        "wrong": said(0, "try less answer <eos>", 0.0),
        "in another language": said(0, "try 少 answer <eos>"),
        "short": said(0, "answer <eos>", length=2),
        "long": said(0, "try try answer <eos>", length=40),
        "with ids that are no token": said(0, "wait wait answer <eos>") | {"tokens": [3, 99, 2]},
        "repeated": said(0, "try answer <eos>"),
        "more": said(0, "more answer <eos>"),
    }
    keep = rejection_sampling.AttemptFilter(language=1.0, at_least=5, at_most=20, per_problem=2)
    lines, dropped = rejection_sampling.filter_attempts([*good, *bad.values()], keep, 99)
    assert [(line["index"], line["response"]) for line in lines] == [
        (0, "try answer "), (0, "wait answer "), (1, "try answer ")
    ]  # fmt: skip
    assert dropped == dict.fromkeys(bad, 1)
    assert (
        len(rejection_sampling.filter_attempts([*good, *bad.values()], rejection_sampling.AttemptFilter())[0]) == 8
    ), "right ones, no pair twice"


def test_a_file_of_samples_may_hold_any_separator_of_lines_in_its_responses(tmp_path):
    rows = [{"index": n, "response": f"a{separator}b"} for n, separator in enumerate("\u2028\u2029\u0085\x0b\x1c\r")]
    path = tmp_path / "good.jsonl"
    path.write_text(json_lines.format_json_lines(rows), encoding="utf-8", newline="")
    assert "\u2028" in path.read_text(encoding="utf-8")  # written as it is, as collect writes it
    assert rejection_sampling.read_sample_lines(str(path)) == [*enumerate(rows, 1)]


def test_a_damaged_line_of_a_file_of_samples_is_named(tmp_path):
    path = tmp_path / "good.jsonl"
    path.write_text('{"index": 1, "response": "a"}\n{"index": 2, "resp\n{"index": 3, "response": "b"}\n')
    with pytest.raises(UserError, match=r"sft.file: line 2 of .*good\.jsonl is damaged"):
        rejection_sampling.read_sample_lines(str(path))


def test_an_attempt_that_could_not_be_scored_is_not_kept_for_sft():
    attempt = {"problem": 0, "prompt": "p", "response": "right<eos>", "length": 2, "reward": float("nan")}
    kept, dropped = rejection_sampling.filter_attempts([attempt], rejection_sampling.AttemptFilter())
    assert kept == [] and dropped["unscored"] == 1


@pytest.mark.parametrize(
    "x, said", [(-4.1234567e-6, -4.12346e-6), (-1e-30, -1e-30), (-12.3456789, -12.3457), (0.0, 0.0)]
)
def test_a_shortened_number_keeps_its_significant_digits_however_small_it_is(x, said):
    assert json_lines.shorten_float(x) == said == json_lines.shorten_float(np.float64(x))
