"""Files that a run appends to: rewinding keeps every byte of what stays, and a bad line stops with one line that names it."""

import json
import shutil

import pytest
from toy_stage import train

from configs import shop
from rljax.ablation import vmapped
from rljax.errors import UserError
from rljax.json_lines import read_json_lines, read_raw_lines
from rljax.training import command_line, journal, loggers, workdir
from rljax.training.workdir import has_begun, hold_workdir, record_config

LINES = [b'{"stage": "sft", "step": 9}', b'{"stage":"rl",  "step": 1, "x": 1.50}', b'{"stage": "rl", "step": 2}']
# A line in the middle that is none of a run. Each was once passed over, with all lines after it.
BAD = {
    "empty": b"",
    "spaces": b"   ",
    "garbage": b"x?!",
    "NUL bytes": b"\0" * 64,
    "torn": b'{"stage": "rl", "st',
    "two records": b'{"stage": "rl", "step": 1}{"stage": "rl", "step": 2}',
    "a number": b"5",
    "a list": b"[]",
    "null": b"null",
    "no stage": b'{"step": 3}',
    "no step": b'{"stage": "rl"}',
    "a step of text": b'{"stage": "rl", "step": "3"}',
    "no UTF-8": b'{"stage": "rl", "step": 3, "x": "\xff"}',
    "3,000 deep": b"[" * 3000,
}


def write(path, *lines):
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


@pytest.mark.parametrize("name", journal.FILES)
@pytest.mark.parametrize("bad", BAD)
def test_a_bad_line_in_the_middle_stops_with_its_number_and_no_byte_is_changed(tmp_path, name, bad):
    path = write(tmp_path / name, LINES[0], BAD[bad], *LINES[1:])
    before = path.read_bytes()
    for use in (journal.read_records, lambda path: journal.drop_records_after(path, "rl", 1)):
        with pytest.raises(UserError, match=f"^line 2 of .*{name} is damaged") as error:
            use(path)
        assert "\n" not in str(error.value) and path.read_bytes() == before


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c"])
def test_a_string_with_any_separator_of_lines_in_it_is_one_line_and_keeps_its_bytes(tmp_path, separator):
    odd = json.dumps({"stage": "rl", "step": 1, "text": f"a{separator}b"}, ensure_ascii=False).encode()
    path = write(tmp_path / "metrics.jsonl", LINES[0], odd, LINES[2])
    journal.drop_records_after(path, "rl", 1)
    assert path.read_bytes() == LINES[0] + b"\n" + odd + b"\n"


def test_rewinding_keeps_the_bytes_of_the_lines_that_stay_wherever_they_are(tmp_path):
    path = write(tmp_path / "metrics.jsonl", *LINES, LINES[0], LINES[1])
    journal.drop_records_after(path, "rl", 1)
    assert path.read_bytes() == b"\n".join([LINES[0], LINES[1], LINES[0], LINES[1], b""])
    journal.drop_records_after(path, "sft", -1)
    assert path.read_bytes() == b"\n".join([LINES[1], LINES[1], b""])


@pytest.mark.parametrize("torn", [b'{"stage": "rl", "st', b"\0\0\0", b'{"a": "\xc3', b"  "])
def test_a_torn_last_line_alone_is_cut_off_in_place(tmp_path, torn):
    path = write(tmp_path / "metrics.jsonl", *LINES)
    whole, node = path.read_bytes(), path.stat().st_ino
    path.write_bytes(whole + torn)
    journal.drop_records_after(path, "rl", 9)
    assert path.read_bytes() == whole and path.stat().st_ino == node


def test_a_last_record_without_its_end_gets_one_before_the_next_is_appended(tmp_path):
    path = write(tmp_path / "metrics.jsonl", *LINES)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    journal.drop_records_after(path, "rl", 9)
    assert path.read_bytes() == whole


def test_the_bytes_of_all_lines_together_are_those_of_the_file(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"a":  1}', b" [2] ", b'"\xe2\x80\xa8"')
    assert b"".join(line.raw for line in read_raw_lines(path)) == path.read_bytes()
    write(path, b"1", b"", b"2")
    assert read_json_lines(path) == [1, 2], "files of the user may have blank lines"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    train(folder, steps=6)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("change", [(b"0.4", b"0.3"), (b'"eval/', b'"evil/'), (b'"step": 2', b'"step": 3')])
def test_a_record_that_was_changed_since_the_checkpoint_was_saved_stops_the_run(run, change):
    path = run / "metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(*change, 1))
    before = path.read_bytes()
    with pytest.raises(UserError, match="was changed or damaged: its lines of rl up to step 6"):
        train(run, steps=12)
    assert path.read_bytes() == before


def test_a_run_whose_records_are_gone_goes_on_and_says_so(run, caplog):
    (run / "metrics.jsonl").unlink()
    train(run, steps=8)
    assert "metrics.jsonl is missing: the run goes on without its records up to rl step 6" in caplog.text
    assert [r["step"] for r in journal.read_records(run / "metrics.jsonl")] == [7, 8, 8]


# config.json


@pytest.fixture
def held(tmp_path):
    """A workdir in which a run has begun."""
    with hold_workdir(tmp_path, shop.get_config("short")):
        pass
    write(tmp_path / "metrics.jsonl", *LINES)
    return tmp_path


BAD_CONFIGS = [
    "",
    "[]",
    "5",
    "null",
    '"a"',
    "{}",
    '{"config": []}',
    '{"config": 5}',
    '{"config": {"rl": 5}}',
    "{",
    "\0",
    "[" * 3000,
]


@pytest.mark.parametrize("text", BAD_CONFIGS)
def test_a_config_json_that_no_run_writes_is_one_line_for_everybody_who_reads_it(held, text):
    (held / "config.json").write_text(text)
    config = shop.get_config("short")
    readers = [
        lambda: record_config(held, config),
        lambda: workdir.read_config(held),
        lambda: journal.read_config(held),
        lambda: journal.read_run_id(held),
        lambda: command_line.parse_command_line(["rljax sample", f"--workdir={held}"], {}, "read"),
    ]
    for read in readers:
        with pytest.raises(UserError, match="config.json is damaged: restore it") as error:
            read()
        assert "\n" not in str(error.value)
    assert (held / "config.json").read_text() == text


def test_a_config_json_of_which_one_character_was_changed_is_not_believed(held):
    path = held / "config.json"
    text = path.read_text()
    path.write_text(text.replace('"seed": 0', '"seed": 1', 1))
    with pytest.raises(UserError, match="config.json is damaged: restore it .checkpoints/config.json is a copy"):
        record_config(held, shop.get_config("short"))
    shutil.copy(held / "checkpoints" / "config.json", path)
    assert path.read_text() == text and journal.read_config(held)["seed"] == 0


def test_a_begun_run_without_its_config_json_is_refused_and_a_copy_of_it_is_named(held):
    text = (held / "config.json").read_text()
    (held / "config.json").unlink()
    other = shop.get_config("short")
    other.seed = 7
    for config in (other, shop.get_config("short")):
        with pytest.raises(
            UserError, match="config.json is missing, but a run has begun.*copy .*checkpoints/config.json"
        ):
            record_config(held, config)
    shutil.copy(held / "checkpoints" / "config.json", held / "config.json")
    record_config(held, shop.get_config("short"))
    assert (held / "config.json").read_text() == text
    (held / "config.json").unlink()
    (held / "checkpoints" / "config.json").unlink()
    with pytest.raises(UserError, match="bring it back, or use another --workdir"):
        record_config(held, shop.get_config("short"))


def test_a_folder_without_records_and_checkpoints_has_not_begun(tmp_path):
    (tmp_path / "checkpoints" / "rl").mkdir(parents=True)
    assert not has_begun(tmp_path)
    (tmp_path / "checkpoints" / "rl" / "12").mkdir()
    assert has_begun(tmp_path)


@pytest.mark.parametrize("folder", ["checkpoints", "samples"])
def test_a_file_where_a_run_keeps_a_folder_is_refused_before_it_begins(tmp_path, folder):
    (tmp_path / folder).write_text("")
    with pytest.raises(UserError, match=f"{folder} is a file, but a run keeps a folder there: move it away"):
        with hold_workdir(tmp_path, shop.get_config("short")):
            pass


def test_a_run_keeps_its_id_and_another_run_has_another(tmp_path):
    ids = set()
    for name in ("a", "b"):
        config = shop.get_config("short")
        record_config(tmp_path / name, config)
        ids.add(journal.read_run_id(tmp_path / name))
        write(tmp_path / name / "metrics.jsonl", *LINES)
        config.workers += 1
        record_config(tmp_path / name, config)
        assert journal.read_run_id(tmp_path / name) in ids
    assert len(ids) == 2 and "" not in ids


def test_a_workdir_of_an_older_version_goes_on_although_its_config_lacks_newer_settings(held, capsys):
    path = held / "config.json"
    record = json.loads(path.read_text())
    del record["config"]["checkpoint"]["every"], record["config"]["rl"]["max_skipped"], record["run"], record["sha256"]
    path.write_text(json.dumps(record))
    record_config(held, shop.get_config("short"))
    assert json.loads(path.read_text()) == record and capsys.readouterr().out == ""
    config = shop.get_config("short")
    config.rl.max_skipped += 1
    with pytest.raises(UserError, match="rl.max_skipped"):
        record_config(held, config)


@pytest.mark.parametrize(
    "text", ["[]", "5", "{", '{"rl": []}', '{"rl": {"wandb": 5}}', '{"rl": {"wandb": {"id": 1}}}', "\0"]
)
def test_a_loggers_json_that_no_run_writes_is_one_line(tmp_path, text):
    (tmp_path / "loggers.json").write_text(text)
    with pytest.raises(UserError, match="loggers.json is damaged: remove it"):
        loggers.read_run_states(tmp_path)


@pytest.mark.parametrize("text", ["{}", "5", "[", "[1]", "\0"])
def test_a_runs_json_that_no_group_writes_is_one_line(tmp_path, text):
    (tmp_path / "runs.json").write_text(text)
    with pytest.raises(UserError, match="runs.json is damaged: bring it back"):
        vmapped.read_group(tmp_path / "runs.json")


def test_a_text_with_half_of_a_character_is_damage_and_one_with_both_halves_is_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "\\ud83d\\ude00"}\n{"text": "\\\\ud83d"}\n')
    assert [line["text"] for line in read_json_lines(path)] == ["\U0001f600", "\\ud83d"]
    for end in (b"\n", b""):  # a whole last line is not torn
        path.write_bytes(b'{"text": "a"}\n{"deep": [{"\\uD83D": 1}]}' + end)
        with pytest.raises(UserError, match="line 2 of .*a.jsonl is damaged: a text in it has half of a character"):
            read_json_lines(path)
