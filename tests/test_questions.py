"""Questions in words: asked, divided, filtered, ordered, and their answers checked."""

import json
import pickle

import jax.numpy as jnp
import numpy as np
import pytest

from rljax import tasks
from rljax.errors import UserError
from rljax.tasks import batches, mixture, responses
from rljax.tasks import questions as room
from rljax.tasks.datasets import library, sources


def example(n):
    a, b = n, 2 * n + 1
    answer = f"She has {a}+{b} = <<{a}+{b}={a + b}>>{a + b} clips.\n#### {a + b:,}"
    return {"question": f"Ann has {a} clips and gets {b} more. How many?", "answer": answer}


@pytest.fixture(autouse=True)
def data_dir(tmp_path_factory, monkeypatch):
    """Prepared sets go where the test's other files go."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path_factory.mktemp("tfds")))
    library.load_rows.cache_clear()


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
    task = tasks.make_task("questions", path=folder)
    asked = task.problems(0, jnp.arange(8), "train")
    assert asked.prompt.shape == asked.prompt_mask.shape == (8, task.prompt_slots) and asked.prompt.dtype == np.int32
    for prompt, mask, record in zip(asked.prompt, asked.prompt_mask, task.records(asked.facts), strict=True):
        assert task.tokenizer.decode(prompt[mask]) == f"<bos>Question: {record['question']}\nAnswer: "
        assert mask[-1] and not mask[0], "padded on the left"
        text = task.demonstration(record, np.random.default_rng(0))
        assert "<<" not in text and text.splitlines()[-1].startswith("#### ")
        assert task.verify(text + "<eos>", record) and not task.verify(text + "1<eos>", record)
        assert not task.verify(text.rpartition("####")[0], record)


def test_a_question_of_the_user_is_put_in_the_template(folder):
    task = tasks.make_task("questions", path=folder, template="oat")
    assert task.format_question("Why?").endswith("User: Why?\nAssistant: <think>") and task.prefill == "<think>"


def test_one_epoch_asks_every_question_once_and_the_next_in_another_order(folder):
    task = tasks.make_task("questions", path=folder)
    two = questions(task, "test", 80)
    assert task.num_questions("test") == 40
    assert len(set(two[:40])) == 40 and set(two[:40]) == set(two[40:]) and two[:40] != two[40:]
    assert two[:40] != questions(task, "test", 40, seed=1)


def test_a_problem_depends_on_seed_and_index_alone(folder):
    one, other = tasks.make_task("questions", path=folder), tasks.make_task("questions", path=folder)
    alone = other.problems(0, jnp.asarray([517, 3]), "train")
    many = one.problems(0, jnp.arange(600), "train")
    assert list(alone.facts) == [many.facts[517], many.facts[3]]
    np.testing.assert_array_equal(alone.prompt, many.prompt[[517, 3]])


def contents(splits):
    return [{mixture.content_hash(r) for rows in splits[s].sets for r in rows} for s in tasks.SPLITS]


def test_splits_share_no_question_even_where_the_files_do(tmp_path):
    shared = [{**r, "question": f" {r['question'].upper()} "} for r in map(example, range(20))]
    path = write(tmp_path, [example(n) for n in range(300)], shared + [example(1000)])
    train, validation, test = contents(mixture.load_splits(mixture.Options(path=path, decontaminate=0)))
    assert not train & validation and not train & test and not validation & test
    assert (len(train) + len(validation), len(test)) == (280, 21) and 3 < len(validation) < 40


def test_a_training_question_that_shares_ten_words_with_a_test_question_is_dropped(tmp_path, caplog):
    words = "the old baker sells nine fresh loaves to each of his neighbours"
    rows = [example(n) for n in range(100)]
    rows[3]["question"] = f"On Monday, {words.upper()}, and then? How many?"
    test = [{"question": f"It is said: {words}. How many loaves?", "answer": "#### 9"}]
    task = tasks.make_task("questions", path=write(tmp_path, rows, test))
    assert not any("BAKER" in q for q in questions(task, "train", 100))
    assert any("share 10 words" in m for m in caplog.messages)
    kept = tasks.make_task("questions", path=str(tmp_path), decontaminate=0)
    assert any("BAKER" in q for q in questions(kept, "train", 100) + questions(kept, "validation", 20))


def test_questions_that_are_too_long_are_dropped_and_counted(tmp_path, caplog):
    rows = [example(n) for n in range(60)]
    rows[7]["question"] = "Why? " * 200
    rows[8]["answer"] = "é" * 150 + "\n#### 8"  # 300 bytes and more
    task = tasks.make_task("questions", path=write(tmp_path, rows, [example(100)]), max_response=250)
    asked = task.problems(0, jnp.arange(60), "train")
    assert all(len(r["answer"].encode()) < 250 and "Why" not in r["question"] for r in asked.facts)
    text = " ".join(caplog.messages)
    assert "1 are longer than prompt_slots=512" in text and "1 solutions than max_response=250" in text
    batch = batches.demonstration_batch(task, 0, 0, 60, 250)
    assert batch["tokens"].shape == (60, 512 + 250) and batch["loss_mask"].any(1).all()


def test_slots_that_no_question_fits_are_an_error(folder):
    with pytest.raises(UserError, match="prompt_slots=20"):
        tasks.make_task("questions", path=folder, prompt_slots=20)


def test_a_page_is_training_text_of_the_length_asked_for(folder):
    task = tasks.make_task("questions", path=folder)
    ids = task.page(np.random.default_rng(0), 700)
    text = task.tokenizer.decode(ids)
    assert len(ids) == 700 and text.startswith("<bos>Question: ") and "<eos><bos>" in text and "<<" not in text
    assert ids == task.page(np.random.default_rng(0), 700)
    train = set(questions(task, "train", 300))
    assert all(part.partition("\n")[0] in train for part in text.split("Question: ")[1:-1])


def test_the_verifier_can_be_sent_to_a_worker_process(folder):
    task = tasks.make_task("questions", path=folder)
    record = pickle.loads(pickle.dumps(task.problems(0, jnp.arange(1), "test").facts))[0]
    assert pickle.loads(pickle.dumps(task.verify))(f"#### {record['answer']}<eos>", record)
    assert pickle.loads(pickle.dumps(task.verify_batch))([("#### 1<eos>", record)])[0]["correct"] == 0


# Mixtures, difficulty, curriculum


def own_file(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def numbered(prefix, count, **more):
    return [{"question": f"{prefix} {n}: what is {n} and one?", "answer": n + 1, **more} for n in range(count)]


def test_a_mixture_asks_each_file_by_its_weight_and_tests_on_another(tmp_path):
    apples, pears = (own_file(tmp_path / f"{name}.jsonl", numbered(name, 60)) for name in ("apples", "pears"))
    other = tmp_path / "plums"
    other.mkdir()
    own_file(other / "test.jsonl", numbered("plums", 5))
    task = tasks.make_task("questions", datasets=f"3*{apples} + {pears}", test=str(other), decontaminate=0)
    asked = questions(task, "train", 400)
    assert sum(q.startswith("apples") for q in asked) == 300
    assert task.num_questions("test") == 5 and all(q.startswith("plums") for q in questions(task, "test", 10))
    assert {r["dataset"] for r in task.problems(0, jnp.arange(5), "test").facts} == {str(other)}


@pytest.mark.parametrize("text", ["", "gsm8k +", "0*gsm8k", "-1*gsm8k", "gsm8k + gsm8k", "x*gsm8k"])
def test_a_text_that_is_no_mixture_is_refused(text):
    with pytest.raises(UserError, match="mixture"):
        mixture.parse_mixture(text)


def test_an_unknown_data_set_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match="'mathz'.*gsm8k.*gym/TASK"):
        tasks.make_task("questions", datasets="mathz")


@pytest.mark.parametrize("name", ["sums.jsonl", "data/sums", "~/sums.jsonl", "./gsm8k"])
def test_a_missing_file_of_the_user_is_named_as_a_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"data set: there is no file {name}"):
        tasks.make_task("questions", datasets=name)


def test_prepared_data_lies_in_the_folder_that_the_options_name(tmp_path):
    file = own_file(tmp_path / "own.jsonl", numbered("apples", 100))
    tasks.make_task("questions", datasets=file, data_dir=str(tmp_path / "prepared"))
    assert list((tmp_path / "prepared").glob("*/*/*.array_record*"))


def test_pass_rates_choose_the_questions_to_train_on(tmp_path, caplog):
    file = own_file(tmp_path / "own.jsonl", numbered("apples", 100))
    everything = mixture.load_splits(mixture.Options(datasets=file, decontaminate=0))["train"].sets[0]
    rates = [{"question": mixture.content_hash(r), "pass_rate": n % 5 / 4} for n, r in enumerate(everything[:-10])]
    path = own_file(tmp_path / "rates.jsonl", rates)
    some = mixture.load_splits(
        mixture.Options(datasets=file, decontaminate=0, pass_rates=path, min_pass_rate=0.2, max_pass_rate=0.8)
    )
    known = {r["question"]: r["pass_rate"] for r in rates}
    kept = [known[mixture.content_hash(r)] for r in some["train"].sets[0]]
    assert set(kept) == {0.25, 0.5, 0.75} and "10 were never measured" in " ".join(caplog.messages)
    with pytest.raises(UserError, match="pass_rates"):
        mixture.Options(min_pass_rate=0.2)
    with pytest.raises(UserError, match="nowhere"):
        mixture.load_splits(mixture.Options(datasets=file, pass_rates=str(tmp_path / "nowhere")))


def test_a_curriculum_goes_from_easy_to_hard_by_level(tmp_path):
    rows = [r | {"level": f"Level {1 + n % 5}"} for n, r in enumerate(numbered("apples", 200))]
    file = own_file(tmp_path / "own.jsonl", rows)
    task = tasks.make_task("questions", datasets=file, decontaminate=0, curriculum="level", curriculum_over=1000)
    levels = lambda start: [float(r["level"]) for r in task.problems(0, jnp.arange(start, start + 100), "train").facts]
    assert np.mean(levels(0)) < 1.6 < np.mean(levels(500)) < np.mean(levels(1000)) and max(levels(1000)) == 5
    with pytest.raises(UserError, match="curriculum"):
        mixture.Options(curriculum="size")


def test_files_of_the_user_without_a_test_split_are_divided_by_a_hash(tmp_path):
    file = own_file(tmp_path / "own.jsonl", numbered("apples", 400))
    train, validation, test = contents(mixture.load_splits(mixture.Options(datasets=file, decontaminate=0)))
    assert len(train | validation | test) == 400 == len(train) + len(validation) + len(test)
    assert 8 < len(validation) < 40 and 8 < len(test) < 40


def test_an_empty_split_is_an_error_before_any_work(tmp_path):
    (tmp_path / "only").mkdir()
    own_file(tmp_path / "only" / "test.jsonl", numbered("plums", 5))
    task = tasks.make_task("questions", datasets=str(tmp_path / "only"))
    for ask in (lambda: task.problems(0, jnp.arange(1), "train"), lambda: task.page(np.random.default_rng(0), 100)):
        with pytest.raises(UserError, match="train split is empty"):
            ask()


# Checking


def judged(record, *responses):
    return [x["correct"] for x in room.verify_batch([(r, {"prefill": "", "entry": "", **record}) for r in responses])]


def test_each_kind_of_question_is_checked_in_its_own_way():
    assert judged({"kind": "math", "answer": "1/2"}, r"\boxed{0.5}<eos>", "#### 2<eos>", "#### 0.5") == [1, 0, 0]
    countdown = {"kind": "countdown", "setup": "14 from [2, 3, 4]"}
    assert judged(countdown, "<answer>2*(3+4)</answer><eos>", "<answer>14</answer><eos>", "2*(3+4)<eos>") == [1, 0, 0]
    code = {"kind": "code", "setup": "", "tests": ["assert add(2, 3) == 5", "assert add(0, 0) == 0"]}
    program = "```python\ndef add(a, b):\n    return {}\n```<eos>"
    assert judged(code, program.format("a + b"), program.format("5"), "def add(a, b): return a + b<eos>") == [1, 0, 0]
    pair = {"kind": "code", "setup": "", "tests": ["3 4\n\x007\n", "1 1\n\x002\n"]}
    lines = "```python\na, b = map(int, input().split())\nprint({})\n```<eos>"
    assert judged(pair, lines.format("a + b"), lines.format("7")) == [1, 0]


def test_human_evals_functions_are_completed_and_checked():
    head = 'def twice(x):\n    """Twice x."""\n'
    given = {"prompt": head, "test": "def check(candidate):\n    assert candidate(2) == 4\n", "entry_point": "twice"}
    record = sources.parse_human_eval(given | {"canonical_solution": "    return 2 * x\n"})
    fenced = lambda code: f"```python\n{code}\n```<eos>"
    assert judged(record, fenced(record["answer"]), fenced("    return 2 * x"), fenced("    return x")) == [1, 1, 0]


def test_a_prefilled_thought_is_part_of_the_response():
    record = {"kind": "math", "answer": "7", "prefill": "<think>"}
    verdict = lambda text: room.verify_batch([(text, record)])[0]["correct"]
    assert verdict("3 and 4 </think> #### 7<eos>") == 1 and verdict("3 and 4 #### 7<eos>") == 0


def test_responses_with_several_answers_or_none_are_counted():
    record = {"kind": "math", "answer": "7", "prefill": ""}
    one, two, none = room.verify_batch([(t, record) for t in ("#### 7<eos>", r"\boxed{3} \boxed{7}<eos>", "7<eos>")])
    assert (one["answers/several"], two["answers/several"], none["answers/none"]) == (0, 1, 1)
    assert two["correct"] == 1


# Reading


def described(response, kind="math"):
    return responses.describe(response, {"kind": kind, "prefill": ""})


def test_an_attempt_is_described_by_what_it_did():
    assert described("#### 72<eos>") == tasks.Attempt("jump", "72")
    steps = described("48/2 = 24 clips.\n48 + 24 = 73.\n#### 1,072<eos>")
    assert steps == tasks.Attempt("steps", "1072", (True, False))
    assert described("It is 7. Wait, no.\n#### 72").strategy == "retry"
    assert described("waiting\n#### 72").strategy == "steps"
    assert described("I cannot say<eos>") == tasks.Attempt("steps", None)
    assert described("<think> 3 + 4 = 7 </think> <answer> 7 </answer><eos>") == tasks.Attempt("steps", "7", (True,))
    assert described("<think> </think> <answer>7</answer>").strategy == "jump"
    assert described("Twice.\n```python\nx = 1\n```<eos>", "code") == tasks.Attempt("steps", "x = 1")
    assert described("<answer>2*(3+4)</answer><eos>", "countdown") == tasks.Attempt("jump", "2*(3+4)")


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
    assert responses.check_calculations(text) == verdicts
