"""Data sets: read, downloaded, checked, kept in array_record files, and decontaminated."""

import functools
import gzip
import hashlib
import http.server
import json
import subprocess
import sys
import threading

import pytest
import tensorflow_datasets as tfds

from rljax.errors import UserError
from rljax.tasks import datasets
from rljax.tasks.datasets import builder, decontamination, library, sources
from rljax.tasks.datasets.sources import File, Source
from rljax.verifiers import answers, arithmetic, case_validation
from rljax.verifiers.sandbox import Case

ROWS = [{"question": f"What is {n} and one?", "answer": f"One more.\n#### {n + 1}"} for n in range(30)]


@pytest.fixture(autouse=True)
def data_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    library.load_rows.cache_clear()


def lines(rows):
    return "".join(json.dumps(r) + "\n" for r in rows).encode()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train.jsonl").write_bytes(lines(ROWS))
    (tmp_path / "mine" / "test.jsonl").write_bytes(lines(ROWS[:4]))
    return tmp_path / "mine"


@pytest.fixture
def site(tmp_path):
    """A folder served on the loopback address: (folder, url)."""
    (tmp_path / "site").mkdir()
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *a: None})
    handler = functools.partial(quiet, directory=str(tmp_path / "site"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tmp_path / "site", f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def published(site, name, data, sha256=None):
    """A set with one test file on the site."""
    folder, url = site
    (folder / "test.jsonl").write_bytes(data)
    checksum = sha256 or hashlib.sha256(data).hexdigest()
    return Source("About.", {"test": File("test.jsonl", f"{url}/test.jsonl", len(data), checksum)}, sources.parse_gsm8k)


def test_a_folder_of_the_user_is_read_whole_and_in_order(folder):
    found = datasets.load_dataset("gsm8k", str(folder))
    assert [r["question"] for r in found["train"]] == [r["question"] for r in ROWS]
    assert found["test"][3] | {"id": ""} == {
        **dict.fromkeys(sources.FIELDS, ""), "question": "What is 3 and one?", "answer": "4", "solution": "One more.",
        "kind": "math", "tests": [], "number": 3,
    }  # fmt: skip


def test_a_file_that_changes_is_prepared_again(folder):
    datasets.load_dataset("gsm8k", str(folder))
    (folder / "test.jsonl").write_bytes(lines(ROWS[5:6]))
    library.load_rows.cache_clear()
    assert [r["answer"] for r in datasets.load_dataset("gsm8k", str(folder))["test"]] == ["6"]


def test_a_folder_may_hold_folders_by_name(folder, tmp_path):
    (tmp_path / "all").mkdir()
    folder.rename(tmp_path / "all" / "gsm8k")
    assert len(datasets.load_dataset("gsm8k", str(tmp_path / "all"))["train"]) == 30


def test_a_set_is_downloaded_once_and_its_checksum_compared(site, monkeypatch):
    monkeypatch.setitem(library.SOURCES, "served", published(site, "served", lines(ROWS)))
    assert len(datasets.load_dataset("served")["test"]) == 30
    library.load_rows.cache_clear()
    (site[0] / "test.jsonl").unlink()
    assert len(datasets.load_dataset("served")["test"]) == 30


def test_a_download_that_is_not_the_published_file_is_refused_with_a_hint(site, monkeypatch):
    monkeypatch.setitem(library.SOURCES, "forged", published(site, "forged", lines(ROWS), sha256="0" * 64))
    with pytest.raises(UserError, match=r"forged.*hecksum.*path=FOLDER \(test.jsonl\)") as error:
        datasets.load_dataset("forged")
    assert "\n" not in str(error.value)


def test_a_machine_without_a_network_is_told_so_at_once(monkeypatch):
    def nowhere(host, port):
        raise OSError("Name or service not known")

    monkeypatch.setattr(builder.socket, "getaddrinfo", nowhere)
    monkeypatch.setattr(builder.urllib.request, "getproxies", dict)
    for name in ("gsm8k", "math"):
        with pytest.raises(UserError, match=rf"{name}: could not be downloaded .*not known.*path=FOLDER"):
            datasets.load_dataset(name)


def test_a_failed_download_says_how_to_do_without(site, monkeypatch):
    gone = File("test.jsonl", f"{site[1]}/gone.jsonl", 10, "0" * 64)
    monkeypatch.setitem(library.SOURCES, "gone", Source("About.", {"test": gone}, sources.parse_gsm8k))
    with pytest.raises(UserError, match=r"data set gone: could not be downloaded .*404.*path=FOLDER") as error:
        datasets.load_dataset("gone")
    assert "\n" not in str(error.value)


def test_a_file_that_differs_from_the_published_one_is_used_with_a_warning(folder, caplog):
    datasets.load_dataset("gsm8k", str(folder))
    assert any("test.jsonl is not the published file" in m for m in caplog.messages)


def test_a_missing_file_is_named_with_a_hint(tmp_path):
    with pytest.raises(UserError, match=r"test\.jsonl.*path=FOLDER"):
        datasets.load_dataset("gsm8k", str(tmp_path))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "Expecting"),
        ('["question"]', '"question"'),
        ('{"question": "Why?", "answer": 7}', "#### NUMBER"),
        ('{"question": 7, "answer": "#### 7"}', '"question"'),
        ('{"question": "Why?", "answer": "I do not know"}', "#### NUMBER"),
        ('{"question": "Why?", "answer": "#### seven"}', "#### NUMBER"),
        ("[" * 100_000, "recursion"),
        (b"\xff", "utf-8"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(folder, line, said):
    file = folder / "train.jsonl"
    rows = file.read_bytes().splitlines()
    rows[4] = line if isinstance(line, bytes) else line.encode()
    file.write_bytes(b"\n".join(rows))
    with pytest.raises(UserError, match=r"train\.jsonl, line 5") as error:
        datasets.load_dataset("gsm8k", str(folder))
    assert said in str(error.value) and "\n" not in str(error.value)


GOOD_TESTS = {"question": "Add.", "tests": ["assert add(1, 2) == 3"]}
BAD_TESTS = {
    "no Python": ({"tests": ["assert add(1, 2) == 3", "assert add(1, == 3"]}, "not valid Python"),
    "nothing is asserted": ({"tests": ["add(1, 2) == 3"]}, "asserts nothing"),
    "brackets, 3,000 deep": ({"tests": ["assert " + "(" * 3000 + "add(1, 2)" + ")" * 3000]}, "nested"),
    "signs, 30,000 deep": ({"tests": ["assert " + "-" * 30_000 + "add(1, 2)"]}, "not valid Python"),
    "a sum of 100,000 terms": ({"tests": ["assert " + "1+" * 100_000 + "add(1, 2)"]}, "not valid Python"),
    "blocks, 3,000 deep": (
        {"tests": ["".join(f"{' ' * n}if 1:\n" for n in range(3000)) + " " * 3000 + "assert 1"]},
        "not valid Python",
    ),
    "a setup that is no Python": ({"setup": "def ("}, "not valid Python"),
    "a setup that is a list": ({"setup": ["import math"]}, "setup"),
    "an entry that is no name": ({"entry": "add(1)"}, "name of a function"),
    "check without a call": ({"tests": ["def check(f):\n assert f(1, 2) == 3"]}, "does not call it"),
    "a return outside of a function": ({"tests": ["assert add(1, 2) == 3\nreturn"]}, "not valid Python"),
    "NUL": ({"tests": ["assert add(1, 2) == '\0'"]}, "NUL"),
    "NUL in stdin": ({"tests": [["1\0", "2"]]}, "pairs"),
    "a lone surrogate": ({"question": "\ud800"}, "surrogate"),
    "lists, 3,000 deep": (None, "recursion"),
}


@pytest.mark.parametrize("what", BAD_TESTS)
def test_a_row_whose_tests_cannot_work_is_named_when_the_data_is_loaded(what, tmp_path):
    """Also after good rows and an empty line, which counts as a line of the file."""
    change, said = BAD_TESTS[what]
    bad = "[" * 3000 + "]" * 3000 if change is None else json.dumps(GOOD_TESTS | change)
    (tmp_path / "own.jsonl").write_text("\n".join([json.dumps(GOOD_TESTS)] * 2 + ["", bad, json.dumps(GOOD_TESTS)]))
    with pytest.raises(UserError, match=r"own\.jsonl, line 4: ") as error:
        datasets.load_dataset(str(tmp_path / "own.jsonl"))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_tests_are_parsed_in_a_child_process_so_that_one_that_kills_it_costs_no_run(monkeypatch):
    good, asserted = [Case(test="assert f() == 1")], []
    assert case_validation.find_invalid_test([good] * 3) is None
    kill = "import os, sys; line = sys.stdin.buffer.readline(); print('\"\"', flush=True); os.kill(os.getpid(), {})"
    for signal_number, said in [(27, "too much time"), (9, "too much memory")]:
        monkeypatch.setattr(case_validation, "START_CODE", kill.format(signal_number))
        asserted.append(case_validation.find_invalid_test([good] * 3))
        assert asserted[-1] and asserted[-1][0] == 1 and said in asserted[-1][1]


def test_a_question_whose_right_answer_cannot_be_read_is_dropped_and_named(folder, caplog):
    given = [{"id": "a", "problem": "1?", "answer": "1"}, {"id": "b", "problem": "2?", "answer": "\\frac{"}]
    given += [
        {"id": "c", "problem": "3?", "answer": ""},
        {"id": "d", "problem": "4?", "solution": "no box", "answer": None},
    ]
    (folder / "own.jsonl").write_bytes(lines(given))
    assert [r["id"] for r in datasets.load_dataset(str(folder / "own.jsonl"))["train"]] == ["a"]
    assert any("dropped 3 of 4 train questions" in m and "b, c, d" in m for m in caplog.messages)


def test_packed_files_and_lists_of_rows_are_read_too(folder):
    (folder / "own.jsonl.gz").write_bytes(gzip.compress(lines([{"question": "1?", "answer": 1}])))
    (folder / "own.json").write_text(json.dumps([{"question": "2?", "answer": 2.0}]))
    found = [
        datasets.load_dataset(str(folder / f"own.{ending}"))["train"][0]["answer"] for ending in ("jsonl.gz", "json")
    ]
    assert found == ["1", "2"]


def test_gsm8k_comes_through_the_builder_of_tensorflow_datasets(folder, monkeypatch):
    asked = []

    def source(name, split, data_dir, builder_kwargs):
        asked.append((name, split, data_dir, builder_kwargs))
        rows = {"train": ROWS, "test": ROWS[:4]}[split]
        return [{k: v.encode() for k, v in row.items()} | {"annotation": b""} for row in rows]

    monkeypatch.setattr(tfds, "data_source", source)
    monkeypatch.setattr(builder, "check_network", lambda source: None)
    assert datasets.load_dataset("gsm8k", data_dir="/there") == datasets.load_dataset("gsm8k", str(folder))
    assert asked[0] == ("gsm8k", "train", "/there", {"file_format": "array_record"})


def test_a_failed_download_of_gsm8k_says_how_to_do_without(monkeypatch):
    def source(*args, **kwargs):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(tfds, "data_source", source)
    monkeypatch.setattr(builder, "check_network", lambda source: None)
    with pytest.raises(UserError, match=r"ConnectionError: no route\); give .*path=FOLDER") as error:
        datasets.load_dataset("gsm8k")
    assert "\n" not in str(error.value)


def test_tensorflow_is_never_imported(folder):
    code = (
        "import sys; from rljax.tasks import datasets; "
        f"datasets.load_dataset('gsm8k', {str(folder)!r}, {str(folder / 'kept')!r}); sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert list(folder.glob("kept/*/*/*.array_record*"))


def test_records_are_kept_for_random_access(folder):
    made = builder.prepare_dataset("gsm8k", library.SOURCES["gsm8k"], str(folder))
    source = made.as_data_source(split="train")
    assert len(source) == 30 and {int(source[n]["number"]) for n in (29, 0, 7)} <= set(range(30))


# How rows read


def test_the_published_sets_read_as_they_are_published():
    math = {"problem": "2+2?", "level": "Level 5", "type": "Algebra", "solution": r"$\boxed{3}$ no, $\boxed{4}$."}
    assert sources.parse_mathematics(math) | {"id": ""} == sources.make_row(
        "2+2?", "4", solution=math["solution"], level="5", subject="Algebra"
    )
    math500 = {"problem": "2?", "solution": "s", "answer": "p - q", "level": 2, "unique_id": "test/7.json"}
    assert (
        sources.parse_mathematics(math500)["level"] == "2" and sources.parse_mathematics(math500)["id"] == "test/7.json"
    )
    assert sources.parse_mathematics({"problem": "?", "level": "Level ?", "answer": "1"})["level"] == ""
    aime25 = {"id": "aime25-0", "problem": "b?", "expected_answer": "70", "reference_solution": "r"}
    assert (sources.parse_mathematics(aime25)["answer"], sources.parse_mathematics(aime25)["solution"]) == ("70", "r")
    assert sources.parse_mathematics({"id": 0, "problem": "far?", "answer": 27.0})["answer"] == "27"
    assert (
        sources.parse_gsm8k({"question": "?", "answer": "48/2 = <<48/2=24>>24\n#### 1,024"})["solution"] == "48/2 = 24"
    )
    mbpp = {"text": "Add.", "code": "def f(x):\r\n  return x", "task_id": 11, "test_list": ["assert f(1) == 1"]}
    found = sources.parse_mbpp(mbpp | {"test_setup_code": "import math"})
    assert found["question"].endswith("test:\nassert f(1) == 1") and found["setup"] == "import math"
    assert found["answer"] == "def f(x):\n  return x" and found["tests"] == ["assert f(1) == 1"]
    assert (
        sources.parse_mbpp({"prompt": "Add.", "test_imports": ["import math"], **mbpp, "text": None})["setup"]
        == "import math"
    )


def test_mbpp_is_split_by_number():
    select = library.SOURCES["mbpp"].select
    assert select is not None
    splits = {
        n: [s for s in ("train", "validation", "test") if select(s, {"task_id": n})] for n in (1, 11, 510, 511, 601)
    }
    assert splits == {1: [], 11: ["test"], 510: ["test"], 511: ["validation"], 601: ["train"]}


def test_rows_of_the_user_have_answers_or_tests():
    assert sources.parse_own({"question": "?", "answer": 7})["answer"] == "7"
    assert sources.parse_own({"prompt": "?", "answer": "so\n#### 7"})["solution"] == "so"
    code = sources.parse_own({"question": "?", "tests": [["1\n", "2\n"], "assert f(1) == 2"]})
    assert code["kind"] == "code" and code["tests"] == ["1\n\x002\n", "assert f(1) == 2"]
    for bad in ({"question": "?", "tests": []}, {"question": "?", "tests": [1]}, {"question": "?"}, {"answer": 7}):
        with pytest.raises(ValueError, match="want"):
            sources.parse_own(bad)


def test_every_published_file_is_pinned_and_has_a_checksum():
    for name, source in library.SOURCES.items():
        assert source.generate or "test" in source.files, name
        for file in source.files.values():
            commit = next(part for part in file.url.split("/") if len(part) == 40)
            assert int(commit, 16) and len(file.sha256) == 64 and int(file.sha256, 16) and file.size > 0


def test_countdown_is_generated_the_same_everywhere_and_every_answer_reaches_its_target(monkeypatch):
    monkeypatch.setattr(sources, "COUNTDOWN_ROWS", {"train": 300, "test": 60})
    train, test = list(sources.generate_countdown("train")), list(sources.generate_countdown("test"))
    assert train == list(sources.generate_countdown("train")) and len(train) == 300
    for r in train + test:
        target, _, numbers = r["setup"].partition(" from ")
        assert arithmetic.reaches_target(r["answer"], json.loads(numbers), int(target)) and target in r["question"]
    problem = lambda r: (sorted(json.loads(r["setup"].partition(" from ")[2])), r["setup"].partition(" ")[0])
    assert not [r for r in test if problem(r) in [problem(t) for t in train]]
    known = hashlib.sha256(json.dumps(train[:3]).encode()).hexdigest()
    assert (sources.VERSION, known) == ("1.0.0", "49a2d85adf47a81fd2036373a0f76d91f7734af9573c1be046df7032cf90eeef"), (
        "rows read otherwise: raise VERSION"
    )


# Decontamination


def test_ten_words_in_a_row_are_a_shared_run_whatever_their_case_and_punctuation():
    asked = "A robe takes two bolts of blue fiber and half that much white fiber."
    same = "say: a robe takes TWO bolts, of blue fiber -- and half"
    nine = "a robe takes two bolts of blue fiber and nothing else at all"
    assert decontamination.find_contaminated([same, nine, ""], [asked]) == [True, False, False]
    assert decontamination.find_contaminated(["what is one?"], ["What is ONE"]) == [True], "a short question is one run"
    assert decontamination.find_contaminated(["what is one and two?"], ["What is ONE"]) == [False]


def test_gold_answers_of_the_field_are_readable():
    assert all(
        map(answers.is_readable, ["72", "1,024", r"\frac{1}{2}", "p - q", r"\text{Evelyn}", "(3, \\frac{\\pi}{2})"])
    )
