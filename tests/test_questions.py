"""Questions in words: their prompts, splits, filters and order, and the check of their answers."""

import json
import math
import pickle

import jax.numpy as jnp
import numpy as np
import pytest

from rljax import tasks
from rljax.errors import UserError
from rljax.tasks import batches, mixture, questions
from rljax.tasks.datasets import library, sources
from rljax.verifiers import symbolic


def gsm8k_row(n):
    a, b = n, 2 * n + 1
    answer = f"She has {a}+{b} = <<{a}+{b}={a + b}>>{a + b} clips.\n#### {a + b:,}"
    return {"question": f"Ann has {a} clips and gets {b} more. How many?", "answer": answer}


@pytest.fixture(autouse=True)
def data_dir(tmp_path_factory, monkeypatch):
    """Prepared data sets are in a temporary folder."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path_factory.mktemp("tfds")))
    library.load_rows.cache_clear()


def write_splits(folder, train, test):
    for name, rows in (("train", train), ("test", test)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return str(folder)


@pytest.fixture
def folder(tmp_path):
    return write_splits(tmp_path, [gsm8k_row(n) for n in range(300)], [gsm8k_row(n) for n in range(1000, 1040)])


def question_texts(task, split, count, seed=0):
    return [r["question"] for r in task.problems(seed, jnp.arange(count), split).facts]


def test_a_problem_has_a_prompt_and_its_demonstration_is_a_right_answer(folder):
    task = tasks.make_task("questions", path=folder)
    problems = task.problems(0, jnp.arange(8), "train")
    assert (
        problems.prompt.shape == problems.prompt_mask.shape == (8, task.prompt_slots)
        and problems.prompt.dtype == np.int32
    )
    for prompt, mask, record in zip(problems.prompt, problems.prompt_mask, task.records(problems.facts), strict=True):
        assert task.tokenizer.decode(prompt[mask]) == f"<bos>Question: {record['question']}\nAnswer: "
        assert mask[-1] and not mask[0], "padded on the left"
        text = task.demonstration(record, np.random.default_rng(0))
        assert "<<" not in text and text.splitlines()[-1].startswith("#### ")
        assert task.verify(text + "<eos>", record) and not task.verify(text + "1<eos>", record)
        assert not task.verify(text.rpartition("####")[0], record)


def test_a_question_of_the_user_is_formatted_with_the_template(folder):
    task = tasks.make_task("questions", path=folder, template="oat")
    assert task.format_question("Why?").endswith("User: Why?\nAssistant: <think>") and task.prefill == "<think>"


def test_an_epoch_has_every_question_once_and_the_next_epoch_has_another_order(folder):
    task = tasks.make_task("questions", path=folder)
    texts = question_texts(task, "test", 80)
    first, second = texts[:40], texts[40:]
    assert task.num_questions("test") == 40
    assert len(set(first)) == 40 and set(first) == set(second) and first != second
    assert first != question_texts(task, "test", 40, seed=1)


def test_a_problem_depends_on_seed_and_index_alone(folder):
    task, same_task = (tasks.make_task("questions", path=folder) for _ in range(2))
    two = same_task.problems(0, jnp.asarray([517, 3]), "train")
    many = task.problems(0, jnp.arange(600), "train")
    assert list(two.facts) == [many.facts[517], many.facts[3]]
    np.testing.assert_array_equal(two.prompt, many.prompt[[517, 3]])


def hashes_by_split(splits):
    return [{mixture.content_hash(r) for rows in splits[s].sets for r in rows} for s in tasks.SPLITS]


def test_splits_share_no_question_even_where_the_files_do(tmp_path):
    shared = [{**r, "question": f" {r['question'].upper()} "} for r in map(gsm8k_row, range(20))]
    path = write_splits(tmp_path, [gsm8k_row(n) for n in range(300)], shared + [gsm8k_row(1000)])
    train, validation, test = hashes_by_split(mixture.load_splits(mixture.Options(path=path, decontaminate=0)))
    assert not train & validation and not train & test and not validation & test
    assert (len(train) + len(validation), len(test)) == (280, 21) and 3 < len(validation) < 40


def test_a_training_question_that_shares_ten_words_with_a_test_question_is_dropped(tmp_path, caplog):
    words = "the old baker sells nine fresh loaves to each of his neighbours"
    rows = [gsm8k_row(n) for n in range(100)]
    rows[3]["question"] = f"On Monday, {words.upper()}, and then? How many?"
    test = [{"question": f"It is said: {words}. How many loaves?", "answer": "#### 9"}]
    task = tasks.make_task("questions", path=write_splits(tmp_path, rows, test))
    assert not any("BAKER" in q for q in question_texts(task, "train", 100))
    assert any("share 10 words" in m for m in caplog.messages)
    kept = tasks.make_task("questions", path=str(tmp_path), decontaminate=0)
    assert any("BAKER" in q for q in question_texts(kept, "train", 100) + question_texts(kept, "validation", 20))


def test_questions_that_are_too_long_are_dropped_and_counted(tmp_path, caplog):
    rows = [gsm8k_row(n) for n in range(60)]
    rows[7]["question"] = "Why? " * 200
    rows[8]["answer"] = "é" * 150 + "\n#### 8"  # 300 bytes and more
    task = tasks.make_task("questions", path=write_splits(tmp_path, rows, [gsm8k_row(100)]), max_response=250)
    problems = task.problems(0, jnp.arange(60), "train")
    assert all(len(r["answer"].encode()) < 250 and "Why" not in r["question"] for r in problems.facts)
    text = " ".join(caplog.messages)
    assert "1 are longer than prompt_slots=512" in text and "1 solutions than max_response=250" in text
    batch = batches.demonstration_batch(task, 0, 0, 60, 250)
    assert batch["tokens"].shape == (60, 512 + 250) and batch["loss_mask"].any(1).all()


def test_prompt_slots_follow_the_longest_question_and_one_that_is_far_too_long_is_dropped_with_a_message(
    tmp_path, caplog
):
    rows = [gsm8k_row(n) for n in range(60)]
    rows[7]["question"] = "Why? " * 60
    rows[8]["question"] = "Why? " * 400
    task = tasks.make_task("questions", path=write_splits(tmp_path, rows, [gsm8k_row(100)]), prompt_slots=0)
    longest = max(
        int(task.problems(0, jnp.arange(60), split).prompt_mask.sum(-1).max()) for split in ("train", "validation")
    )
    assert 300 < longest <= task.prompt_slots < longest + 16 and task.prompt_slots % 16 == 0
    assert "1 are longer than prompt_slots=1024" in " ".join(caplog.messages)
    with pytest.raises(UserError, match="prompt_slots=-1"):
        tasks.make_task("questions", path=str(tmp_path), prompt_slots=-1)


def test_too_few_slots_for_every_question_are_an_error(folder):
    with pytest.raises(UserError, match="prompt_slots=20"):
        tasks.make_task("questions", path=folder, prompt_slots=20)


def test_a_page_is_training_text_of_the_given_length(folder):
    task = tasks.make_task("questions", path=folder)
    ids = task.page(np.random.default_rng(0), 700)
    text = task.tokenizer.decode(ids)
    assert len(ids) == 700 and text.startswith("<bos>Question: ") and "<eos><bos>" in text and "<<" not in text
    assert ids == task.page(np.random.default_rng(0), 700)
    train = set(question_texts(task, "train", 300))
    assert all(part.partition("\n")[0] in train for part in text.split("Question: ")[1:-1])


def test_the_verifier_can_be_pickled_for_a_worker_process(folder):
    task = tasks.make_task("questions", path=folder)
    record = pickle.loads(pickle.dumps(task.problems(0, jnp.arange(1), "test").facts))[0]
    assert pickle.loads(pickle.dumps(task.verify))(f"#### {record['answer']}<eos>", record)
    assert pickle.loads(pickle.dumps(task.verify_batch))([("#### 1<eos>", record)])[0]["correct"] == 0


# Mixtures, pass rates, curriculum


def write_rows(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def addition_rows(prefix, count, **more):
    return [{"question": f"{prefix} {n}: what is {n} and one?", "answer": n + 1, **more} for n in range(count)]


def test_a_mixture_draws_from_each_file_by_its_weight_and_can_be_tested_on_another(tmp_path):
    apples, pears = (write_rows(tmp_path / f"{name}.jsonl", addition_rows(name, 60)) for name in ("apples", "pears"))
    other = tmp_path / "plums"
    other.mkdir()
    write_rows(other / "test.jsonl", addition_rows("plums", 5))
    task = tasks.make_task("questions", datasets=f"3*{apples} + {pears}", test=str(other), decontaminate=0)
    texts = question_texts(task, "train", 400)
    assert sum(q.startswith("apples") for q in texts) == 300
    assert task.num_questions("test") == 5 and all(q.startswith("plums") for q in question_texts(task, "test", 10))
    assert {r["dataset"] for r in task.problems(0, jnp.arange(5), "test").facts} == {str(other)}


@pytest.mark.parametrize("text", ["", "gsm8k +", "0*gsm8k", "-1*gsm8k", "gsm8k + gsm8k", "x*gsm8k"])
def test_a_mixture_that_is_not_valid_is_refused(text):
    with pytest.raises(UserError, match="mixture"):
        mixture.parse_mixture(text)


def test_the_error_for_an_unknown_data_set_lists_the_known_ones():
    with pytest.raises(UserError, match="'mathz'.*gsm8k.*gym/TASK"):
        tasks.make_task("questions", datasets="mathz")


@pytest.mark.parametrize("name", ["sums.jsonl", "data/sums", "~/sums.jsonl", "./gsm8k"])
def test_the_error_for_a_missing_file_says_that_it_is_a_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"data set: there is no file {name}"):
        tasks.make_task("questions", datasets=name)


def test_prepared_data_is_written_to_the_folder_of_the_option_data_dir(tmp_path):
    file = write_rows(tmp_path / "own.jsonl", addition_rows("apples", 100))
    tasks.make_task("questions", datasets=file, data_dir=str(tmp_path / "prepared"))
    assert list((tmp_path / "prepared").glob("*/*/*.array_record*"))


def test_pass_rates_choose_the_questions_to_train_on(tmp_path, caplog):
    file = write_rows(tmp_path / "own.jsonl", addition_rows("apples", 100))
    all_records = mixture.load_splits(mixture.Options(datasets=file, decontaminate=0))["train"].sets[0]
    rates = [{"question": mixture.content_hash(r), "pass_rate": n % 5 / 4} for n, r in enumerate(all_records[:-10])]
    path = write_rows(tmp_path / "rates.jsonl", rates)
    splits = mixture.load_splits(
        mixture.Options(datasets=file, decontaminate=0, pass_rates=path, min_pass_rate=0.2, max_pass_rate=0.8)
    )
    rate_of = {r["question"]: r["pass_rate"] for r in rates}
    kept = [rate_of[mixture.content_hash(r)] for r in splits["train"].sets[0]]
    assert set(kept) == {0.25, 0.5, 0.75} and "10 were never measured" in " ".join(caplog.messages)
    with pytest.raises(UserError, match="pass_rates"):
        mixture.Options(min_pass_rate=0.2)
    with pytest.raises(UserError, match="no_such_file"):
        mixture.load_splits(mixture.Options(datasets=file, pass_rates=str(tmp_path / "no_such_file")))


def test_a_curriculum_goes_from_easy_to_hard_by_level(tmp_path):
    rows = [r | {"level": f"Level {1 + n % 5}"} for n, r in enumerate(addition_rows("apples", 200))]
    file = write_rows(tmp_path / "own.jsonl", rows)
    task = tasks.make_task("questions", datasets=file, decontaminate=0, curriculum="level", curriculum_over=1000)
    levels = lambda start: [float(r["level"]) for r in task.problems(0, jnp.arange(start, start + 100), "train").facts]
    assert np.mean(levels(0)) < 1.6 < np.mean(levels(500)) < np.mean(levels(1000)) and max(levels(1000)) == 5
    with pytest.raises(UserError, match="curriculum"):
        mixture.Options(curriculum="size")


def test_files_of_the_user_without_a_test_split_are_divided_by_a_hash(tmp_path):
    file = write_rows(tmp_path / "own.jsonl", addition_rows("apples", 400))
    train, validation, test = hashes_by_split(mixture.load_splits(mixture.Options(datasets=file, decontaminate=0)))
    assert len(train | validation | test) == 400 == len(train) + len(validation) + len(test)
    assert 8 < len(validation) < 40 and 8 < len(test) < 40


def test_an_empty_split_is_an_error_before_any_work(tmp_path):
    (tmp_path / "only").mkdir()
    write_rows(tmp_path / "only" / "test.jsonl", addition_rows("plums", 5))
    task = tasks.make_task("questions", datasets=str(tmp_path / "only"))
    for use_train_split in (
        lambda: task.problems(0, jnp.arange(1), "train"),
        lambda: task.page(np.random.default_rng(0), 100),
    ):
        with pytest.raises(UserError, match="train split is empty"):
            use_train_split()


# Answers: is a response right?


def verify_responses(record, *texts):
    return [x["correct"] for x in questions.verify_batch([(r, {"prefill": "", "entry": "", **record}) for r in texts])]


def test_an_answer_of_which_algebra_gives_no_verdict_is_unscored_and_one_that_was_cut_off_is_wrong(monkeypatch):
    dead = symbolic.Server()
    monkeypatch.setattr(dead, "check", lambda pairs: [None] * len(pairs))
    monkeypatch.setattr(symbolic, "get_servers", lambda pid: (dead,))
    monkeypatch.setattr(symbolic, "CACHE", {})
    record, said = {"kind": "math", "answer": r"1+x_{n+1}"}, r"\boxed{x_{n+1}+1}"  # equal, as only algebra knows
    nan = pytest.approx(math.nan, nan_ok=True)
    assert verify_responses(record, f"{said}<eos>", said, "nothing<eos>") == [nan, 0, 0]
    record = {"kind": "math", "answer": "7"}  # decided without algebra
    assert verify_responses(record, r"\boxed{7}<eos>", r"\boxed{8}<eos>") == [1, 0]


def test_each_kind_of_question_has_its_own_check():
    assert verify_responses({"kind": "math", "answer": "1/2"}, r"\boxed{0.5}<eos>", "#### 2<eos>", "#### 0.5") == [
        1,
        0,
        0,
    ]
    countdown = {"kind": "countdown", "setup": "14 from [2, 3, 4]"}
    assert verify_responses(countdown, "<answer>2*(3+4)</answer><eos>", "<answer>14</answer><eos>", "2*(3+4)<eos>") == [
        1,
        0,
        0,
    ]
    code = {"kind": "code", "setup": "", "tests": ["assert add(2, 3) == 5", "assert add(0, 0) == 0"]}
    program = "```python\ndef add(a, b):\n    return {}\n```<eos>"
    assert verify_responses(code, program.format("a + b"), program.format("5"), "def add(a, b): return a + b<eos>") == [
        1,
        0,
        0,
    ]
    pair = {"kind": "code", "setup": "", "tests": ["3 4\n\x007\n", "1 1\n\x002\n"]}
    lines = "```python\na, b = map(int, input().split())\nprint({})\n```<eos>"
    assert verify_responses(pair, lines.format("a + b"), lines.format("7")) == [1, 0]


def test_a_program_for_human_eval_is_a_whole_function_or_its_body():
    head = 'def twice(x):\n    """Twice x."""\n'
    row = {"prompt": head, "test": "def check(candidate):\n    assert candidate(2) == 4\n", "entry_point": "twice"}
    record = sources.parse_human_eval(row | {"canonical_solution": "    return 2 * x\n"})
    fenced = lambda code: f"```python\n{code}\n```<eos>"
    assert verify_responses(record, fenced(record["answer"]), fenced("    return 2 * x"), fenced("    return x")) == [
        1,
        1,
        0,
    ]


def test_a_prefilled_thought_is_part_of_the_response():
    record = {"kind": "math", "answer": "7", "prefill": "<think>"}
    verdict = lambda text: questions.verify_batch([(text, record)])[0]["correct"]
    assert verdict("3 and 4 </think> #### 7<eos>") == 1 and verdict("3 and 4 #### 7<eos>") == 0


def test_responses_with_several_answers_or_none_are_counted():
    record = {"kind": "math", "answer": "7", "prefill": ""}
    single, several, none = questions.verify_batch(
        [(t, record) for t in ("#### 7<eos>", r"\boxed{3} \boxed{7}<eos>", "7<eos>")]
    )
    assert (single["answers/several"], several["answers/several"], none["answers/none"]) == (0, 1, 1)
    assert several["correct"] == 1
