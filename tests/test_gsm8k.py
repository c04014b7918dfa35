"""GSM8K from a folder or through TensorFlow Datasets, read byte by byte."""

import json
import pickle

import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds

from rljax import data, tasks
from rljax.errors import UserError
from rljax.tasks import gsm8k


def example(n):
    a, b = n, 2 * n + 1
    answer = f"She has {a}+{b} = <<{a}+{b}={a + b}>>{a + b} clips.\n#### {a + b:,}"
    return {"question": f"Ann has {a} clips and gets {b} more. How many?", "answer": answer}


def write(folder, train, test):
    for name, rows in (("train", train), ("test", test)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return str(folder)


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path, [example(n) for n in range(300)], [example(n) for n in range(1000, 1040)])


def questions(task, split, count, seed=0):
    return [r["question"] for r in task.problems(seed, jnp.arange(count), split).facts]


def test_a_problem_is_asked_and_its_demonstration_verifies(folder):
    task = tasks.make("gsm8k", path=folder)
    asked = task.problems(0, jnp.arange(8), "train")
    assert asked.prompt.shape == asked.prompt_mask.shape == (8, task.prompt_slots) and asked.prompt.dtype == np.int32
    for prompt, mask, record in zip(asked.prompt, asked.prompt_mask, task.records(asked.facts), strict=True):
        assert task.tokenizer.decode(prompt[mask]) == f"<bos>Question: {record['question']}\nAnswer: "
        assert mask[-1] and not mask[0], "padded on the left"
        text = task.demonstration(record, np.random.default_rng(0))
        assert "<<" not in text and text.splitlines()[-1].startswith("#### ")
        assert task.verify(text + "<eos>", record) and not task.verify(text + "1<eos>", record)
        assert not task.verify(text.rpartition("####")[0], record)


def test_one_epoch_asks_every_question_once_and_the_next_in_another_order(folder):
    task = tasks.make("gsm8k", path=folder)
    two = questions(task, "test", 80)
    assert len(set(two[:40])) == 40 and set(two[:40]) == set(two[40:]) and two[:40] != two[40:]
    assert two[:40] != questions(task, "test", 40, seed=1)


def test_a_problem_depends_on_seed_and_index_alone(folder):
    one, other = tasks.make("gsm8k", path=folder), tasks.make("gsm8k", path=folder)
    alone = other.problems(0, jnp.asarray([517, 3]), "train")
    many = one.problems(0, jnp.arange(600), "train")
    assert list(alone.facts) == [many.facts[517], many.facts[3]]
    np.testing.assert_array_equal(alone.prompt, many.prompt[[517, 3]])


def test_pitfall_17_splits_share_no_question_even_where_the_files_do(tmp_path):
    shared = [{**r, "question": f" {r['question'].upper()} "} for r in map(example, range(20))]
    path = write(tmp_path, [example(n) for n in range(300)], shared + [example(1000)])
    splits = gsm8k.load(gsm8k.Options(path=path))
    train, validation, test = ({gsm8k.content(r) for r in splits[s]} for s in tasks.SPLITS)
    assert not train & validation and not train & test and not validation & test
    assert (len(train) + len(validation), len(test)) == (280, 21) and 3 < len(validation) < 40


def test_pitfall_10_what_has_no_room_is_dropped_and_counted(tmp_path, caplog):
    rows = [example(n) for n in range(60)]
    rows[7]["question"] = "Why? " * 200
    rows[8]["answer"] = "é" * 150 + "\n#### 8"  # 300 bytes and more
    task = tasks.make("gsm8k", path=write(tmp_path, rows, [example(100)]), max_response=250)
    asked = task.problems(0, jnp.arange(60), "train")
    assert all(len(r["answer"].encode()) < 250 and "Why" not in r["question"] for r in asked.facts)
    text = " ".join(caplog.messages)
    assert "1 are longer than prompt_slots=512" in text and "1 solutions than max_response=250" in text
    batch = data.demonstrations(task, 0, 0, 60, 250)
    assert batch["tokens"].shape == (60, 512 + 250) and batch["learn"].any(1).all()


def test_no_room_for_any_question_is_an_error(folder):
    with pytest.raises(UserError, match="prompt_slots=20"):
        tasks.make("gsm8k", path=folder, prompt_slots=20)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "Expecting"),
        ('["question"]', '"question"'),
        ('{"question": "Why?", "answer": 7}', '"answer"'),
        ('{"question": "Why?", "answer": "I do not know"}', "#### NUMBER"),
        ('{"question": "Why?", "answer": "#### seven"}', "#### NUMBER"),
        ("[" * 100_000, "recursion"),
        (b"\xff", "utf-8"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(folder, tmp_path, line, said):
    file = tmp_path / "train.jsonl"
    lines = file.read_bytes().splitlines()
    lines[4] = line if isinstance(line, bytes) else line.encode()
    file.write_bytes(b"\n".join(lines))
    with pytest.raises(UserError, match=r"train\.jsonl, line 5") as error:
        tasks.make("gsm8k", path=folder)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_named_with_the_way_out(tmp_path):
    with pytest.raises(UserError, match=r"train\.jsonl.*path=FOLDER"):
        tasks.make("gsm8k", path=str(tmp_path))


def test_both_sources_give_the_same_records(folder, monkeypatch):
    rows = {"train": [example(n) for n in range(300)], "test": [example(n) for n in range(1000, 1040)]}
    asked = []

    def source(name, split, data_dir, builder_kwargs):
        asked.append((name, split, data_dir, builder_kwargs))
        return [{k: v.encode() for k, v in row.items()} for row in rows[split]]

    monkeypatch.setattr(tfds, "data_source", source)
    assert gsm8k.load(gsm8k.Options(data_dir="/there")) == gsm8k.load(gsm8k.Options(path=folder))
    assert asked[0] == ("gsm8k", "train", "/there", {"file_format": "array_record"})


def test_a_failed_download_says_how_to_do_without(monkeypatch):
    def source(*args, **kwargs):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(tfds, "data_source", source)
    with pytest.raises(UserError, match=r"ConnectionError: no route\); give .*path=FOLDER") as error:
        tasks.make("gsm8k")
    assert "\n" not in str(error.value)


def test_a_page_is_training_text_of_the_length_asked_for(folder):
    task = tasks.make("gsm8k", path=folder)
    ids = task.page(np.random.default_rng(0), 700)
    text = task.tokenizer.decode(ids)
    assert len(ids) == 700 and text.startswith("<bos>Question: ") and "<eos><bos>" in text and "<<" not in text
    assert ids == task.page(np.random.default_rng(0), 700)
    train = set(questions(task, "train", 300))
    assert all(part.partition("\n")[0] in train for part in text.split("Question: ")[1:-1])


def test_the_verifier_can_be_sent_to_a_worker_process(folder):
    task = tasks.make("gsm8k", path=folder)
    record = pickle.loads(pickle.dumps(task.problems(0, jnp.arange(1), "test").facts))[0]
    assert pickle.loads(pickle.dumps(task.verify))(record["answer"] + "<eos>", record)


def test_an_attempt_is_described_by_what_it_did():
    record = {"gold": "72"}
    assert gsm8k.describe("#### 72<eos>", record) == tasks.Attempt("jump", "72")
    steps = gsm8k.describe("48/2 = 24 clips.\n48 + 24 = 73.\n#### 1,072<eos>", record)
    assert steps == tasks.Attempt("steps", "1072", (True, False))
    assert gsm8k.describe("It is 7. Wait, no.\n#### 72", record).strategy == "retry"
    assert gsm8k.describe("waiting\n#### 72", record).strategy == "steps"
    assert gsm8k.describe("I cannot say<eos>", record) == tasks.Attempt("steps", None)


@pytest.mark.parametrize(
    ("text", "verdicts"),
    [
        ("$1,000 x 2 = $2,000", [True]),
        (".5*2=1 and 10/3=3.33 but 10/3=3", [True, True, False]),
        ("-3+5=2, 5/0=3", [True, False]),
        ("2+3+4=9, (1+2)*4=12, 4*(1+2)=12", []),
        ("2*3=3+3, 3/2=1 1/2, 5-3 is 2", []),
        ("4/2=2 and 2=2", [True]),
    ],
)
def test_calculations_are_read_whole_or_not_at_all(text, verdicts):
    assert gsm8k.calculations(text) == verdicts
