"""Where scalars go beside metrics.jsonl, what a continued run logs, and the sign of life of a silent run."""

import contextlib
import contextvars
import io
import json
import logging
import math
import queue
import sys
import threading
import types

import numpy as np
import pytest

from rljax.errors import UserError
from rljax.pretrained.config_fields import Fields
from rljax.tasks import datasets
from rljax.training import heartbeat, journal, loggers, quiet
from rljax.training.journal import Journal

PACKAGES = ("wandb", "trackio")


class FakeRun:
    """One run of a fake package. It keeps what was logged, as its server would."""

    url, offline = "https://example.org/run", True

    def __init__(self, kept: list, **settings):
        self.kept, self.settings, self.open = kept, settings, True

    def log(self, scalars, step):
        assert self.open
        self.kept += [(step, name, value) for name, value in scalars.items()]

    def finish(self):
        if "resume" in self.settings and "id" not in self.settings:  # trackio
            print("* Run finished. Uploading logs (please wait...)")
        self.open = False


def fake_package(monkeypatch, name):
    """Put a stand-in for wandb or trackio into sys.modules. Returns (runs that were started, {run id or name: logged})."""
    started, logged, current = [], {}, contextvars.ContextVar("current_run", default=None)

    def init(**settings):
        if name == "trackio":
            print("* Trackio project initialized: " + settings["project"])
        run = FakeRun(logged.setdefault(settings["id"] if name == "wandb" else settings["name"], []), **settings)
        started.append(run)
        current.set(run)
        return run

    module = types.ModuleType(name)
    module.__dict__.update(init=init, Settings=lambda **settings: settings, finish=lambda: current.get().finish())
    module.__dict__["context_vars"] = types.SimpleNamespace(current_run=current)
    module.__spec__ = types.SimpleNamespace(origin=f"{name}/__init__.py", name=name)
    monkeypatch.setitem(sys.modules, name, module)
    return started, logged


without_alarms = lambda printed: "".join(x for x in printed.splitlines(keepends=True) if "ALARM" not in x)


def train(workdir, first, last, log, checkpoint=None, **settings):
    """Steps ``first`` to ``last`` as the loop writes them: a training record a step, an evaluation every second one."""
    stage = Journal(workdir, "rl", -1 if checkpoint is None else checkpoint, 8, False, log, settings)
    if checkpoint is None:
        stage.write_metrics(0, {"eval/pass@1": 0.0}, evaluation=True)
    for step in range(first, last + 1):
        stage.update_progress(step, 100.0, {"loss": 1.0})
        stage.write_metrics(
            step, {"train/loss": 1 / step, "train/bad": float("nan")}, logger_only={"train/learning_rate": 0.1}
        )
        if step % 2 == 0:
            stage.write_metrics(step, {"eval/pass@1": step / 10}, evaluation=True)
    stage.close()


def read_tensorboard(workdir):
    """(start steps, [(step, name, value)]) of the event files of a workdir, the oldest file first."""
    from tensorboardX.proto import event_pb2

    starts, scalars = [], []
    for path in sorted((workdir / "tensorboard" / "rl").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
            at += 12 + size + 4
            if event.HasField("session_log"):
                starts.append(event.step)
            scalars += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
    return starts, scalars


def test_tensorboard_gets_the_learning_rate_the_speed_and_names_without_an_at_sign(tmp_path):
    train(tmp_path, 1, 4, ("tensorboard",))
    _, scalars = read_tensorboard(tmp_path)
    assert {name for _, name, _ in scalars} == {
        "train/loss",
        "train/learning_rate",
        "train/tokens_per_second",
        "eval/pass_at_1",
    }
    assert [(step, round(value, 6)) for step, name, value in scalars if name == "eval/pass_at_1"] == [
        (0, 0.0),
        (2, 0.2),
        (4, 0.4),
    ]
    assert all(value > 0 for _, name, value in scalars if name == "train/tokens_per_second")


def test_names_that_tensorboard_would_rewrite_are_mapped_and_all_others_are_kept():
    names = {
        "eval/pass@1": "eval/pass_at_1",
        "eval/pass@1/se": "eval/pass_at_1/se",
        "eval/level/3/pass@1": "eval/level/3/pass_at_1",
        "train/response_length/mean": "train/response_length/mean",
        "eval/behaviour/let me": "eval/behaviour/let_me",
    }
    assert {name: loggers.metric_to_logger_name(name) for name in names} == names
    from tensorboardX.summary import _clean_tag

    assert all(_clean_tag(name) == name for name in names.values())


def test_a_continued_run_tells_tensorboard_to_forget_the_steps_after_its_checkpoint_only(tmp_path):
    train(tmp_path, 1, 5, ("tensorboard",))
    train(tmp_path, 5, 8, ("tensorboard",), checkpoint=4)
    assert read_tensorboard(tmp_path)[0] == [0, 5]


def test_the_lines_of_metrics_jsonl_do_not_depend_on_the_loggers(tmp_path, monkeypatch):
    for name in PACKAGES:
        fake_package(monkeypatch, name)
    for folder, log in (("one", ()), ("two", ("tensorboard", *PACKAGES))):
        train(tmp_path / folder, 1, 2, log)
    lines = [
        '{"stage": "rl", "step": 0, "eval/pass@1": 0.0}',
        '{"stage": "rl", "step": 1, "train/loss": 1.0, "train/bad": null}',
        '{"stage": "rl", "step": 2, "train/loss": 0.5, "train/bad": null}',
        '{"stage": "rl", "step": 2, "eval/pass@1": 0.2}',
    ]
    assert (tmp_path / "one" / "metrics.jsonl").read_text() == "\n".join(lines) + "\n"
    assert (tmp_path / "two" / "metrics.jsonl").read_bytes() == (tmp_path / "one" / "metrics.jsonl").read_bytes()
    assert not (tmp_path / "one" / "tensorboard").exists() and not (tmp_path / "one" / "loggers.json").exists()


@pytest.mark.parametrize("name", PACKAGES)
def test_a_fake_package_gets_project_name_and_config_and_every_finite_scalar(tmp_path, monkeypatch, name):
    started, logged = fake_package(monkeypatch, name)
    train(tmp_path / "shop", 1, 2, (name,), project="counting", config={"seed": 0})
    (run,) = started
    assert run.settings["project"] == "counting" and run.settings["config"] == {"seed": 0} and not run.open
    assert run.settings["name"].startswith("shop-rl") and run.settings["group"] == "shop"
    (values,) = logged.values()
    kept = [(step, key, value) for step, key, value in values if key != "train/tokens_per_second"]
    rate = "train/learning_rate"
    assert kept == [
        (0, "eval/pass_at_1", 0.0),
        *[(1, "train/loss", 1.0), (1, rate, 0.1)],
        *[(2, "train/loss", 0.5), (2, rate, 0.1), (2, "eval/pass_at_1", 0.2)],
    ]


@pytest.mark.parametrize("name", PACKAGES)
def test_a_continued_run_appends_to_the_same_run_of_a_fake_package_and_logs_no_step_twice(tmp_path, monkeypatch, name):
    started, logged = fake_package(monkeypatch, name)
    train(tmp_path, 1, 5, (name,))  # killed after step 5, at a checkpoint of step 2
    train(tmp_path, 3, 3, (name,), checkpoint=2)  # killed again, earlier
    train(tmp_path, 3, 8, (name,), checkpoint=2)
    (values,) = logged.values()
    assert len(started) == 3
    pairs = [(step, key) for step, key, _ in values]
    assert len(pairs) == len(set(pairs))
    assert [step for step, key in pairs if key == "train/loss"] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [step for step, key in pairs if key == "eval/pass_at_1"] == [0, 2, 4, 6, 8]


def test_an_evaluation_that_a_kill_cut_off_from_its_step_is_still_logged_by_a_fake_package(tmp_path, monkeypatch):
    _, logged = fake_package(monkeypatch, "wandb")
    stage = Journal(tmp_path, "rl", -1, 8, False, ("wandb",))
    stage.write_metrics(4, {"train/loss": 1.0})
    stage.close()
    stage = Journal(tmp_path, "rl", 2, 8, False, ("wandb",))
    stage.write_metrics(4, {"train/loss": 1.0})
    stage.write_metrics(4, {"eval/pass@1": 0.5}, evaluation=True)
    stage.close()
    (values,) = logged.values()
    assert [(s, k) for s, k, _ in values if "tokens" not in k] == [(4, "train/loss"), (4, "eval/pass_at_1")]


def test_a_logger_added_to_a_continued_run_logs_every_step_from_there_on(tmp_path, monkeypatch):
    logged = {name: fake_package(monkeypatch, name)[1] for name in PACKAGES}
    train(tmp_path, 1, 5, ("wandb",))
    train(tmp_path, 3, 8, PACKAGES, checkpoint=2)
    steps = {
        name: [s for values in logged[name].values() for s, k, _ in values if k == "train/loss"] for name in PACKAGES
    }
    assert steps == {"wandb": [1, 2, 3, 4, 5, 6, 7, 8], "trackio": [3, 4, 5, 6, 7, 8]}


def test_each_stage_is_a_run_of_its_own_of_a_fake_package(tmp_path, monkeypatch):
    started, logged = fake_package(monkeypatch, "wandb")
    for stage in ("sft", "rl"):
        opened = Journal(tmp_path, stage, -1, 1, False, ("wandb",))
        opened.write_metrics(1, {"train/loss": 1.0})
        opened.close()
    assert len(logged) == 2 and [run.settings["job_type"] for run in started] == ["sft", "rl"]
    assert set(json.loads((tmp_path / "loggers.json").read_text())) == {"sft", "rl"}


def test_what_a_fake_trackio_prints_about_itself_is_not_shown(tmp_path, monkeypatch, capsys):
    fake_package(monkeypatch, "trackio")
    train(tmp_path, 1, 2, ("trackio",))
    assert without_alarms(capsys.readouterr().out) == ""


def test_a_logger_that_is_unknown_or_not_installed_is_one_line_before_the_run(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"^log: 'wndb' is unknown, choose from \['tensorboard', 'trackio', 'wandb'\]$"):
        loggers.check_loggers(("tensorboard", "wndb"))
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=r"^log: 'wandb' needs the package: pip install 'rljax\[wandb\]'$"):
        Journal(tmp_path, "rl", -1, 1, False, ("wandb",))
    folder_only = types.SimpleNamespace(origin=None)  # the ./wandb that W&B leaves is importable as a namespace
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda package: folder_only)
    with pytest.raises(UserError, match="needs the package"):
        loggers.check_loggers(("wandb",))


def test_a_fake_package_that_cannot_start_ends_the_run_in_one_line_and_keeps_its_records(tmp_path, monkeypatch):
    train(tmp_path, 1, 4, ())
    before = (tmp_path / "metrics.jsonl").read_bytes()
    fake_package(monkeypatch, "wandb")

    def fail(**settings):
        raise RuntimeError("api_key not configured (no-tty)\nsecond line")

    monkeypatch.setattr(sys.modules["wandb"], "init", fail)
    with pytest.raises(UserError, match=r"^log: 'wandb' could not be started \(api_key not configured \(no-tty\)\)"):
        Journal(tmp_path, "rl", 2, 8, False, ("wandb",))
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_fake_logger_that_could_not_start_before_misses_no_step_when_it_starts(tmp_path, monkeypatch):
    train(tmp_path, 1, 5, ())
    _, logged = fake_package(monkeypatch, "wandb")
    with monkeypatch.context() as broken, pytest.raises(UserError):
        broken.setitem(loggers.LOGGERS, "wandb", loggers.Logger("wandb", lambda run, run_id: 1 / 0))
        train(tmp_path, 3, 8, ("wandb",), checkpoint=2)
    train(tmp_path, 3, 8, ("wandb",), checkpoint=2)
    (values,) = logged.values()
    assert [s for s, k, _ in values if k == "train/loss"] == [3, 4, 5, 6, 7, 8]


def test_the_address_of_an_online_run_of_a_fake_wandb_is_printed_once(tmp_path, monkeypatch, capsys):
    fake_package(monkeypatch, "wandb")
    monkeypatch.setattr(FakeRun, "offline", False)
    train(tmp_path, 1, 2, ("wandb",))
    assert without_alarms(capsys.readouterr().out) == "rl: wandb is at https://example.org/run\n"


def test_a_damaged_loggers_json_is_named(tmp_path, monkeypatch):
    fake_package(monkeypatch, "wandb")
    (tmp_path / "loggers.json").write_text("{")
    with pytest.raises(UserError, match=r"loggers\.json is damaged: remove it"):
        train(tmp_path, 1, 2, ("wandb",))


def test_a_logger_of_the_users_own_is_one_entry_of_the_table(tmp_path, monkeypatch):
    kept = []
    mine = lambda run, run_id: loggers.OpenLogger(
        lambda step, scalars: kept.append((step, dict(scalars))), lambda: None
    )
    monkeypatch.setitem(loggers.LOGGERS, "mine", loggers.Logger("json", mine))
    opened = Journal(tmp_path, "rl", -1, 1, False, ("mine",))
    opened.write_metrics(1, {"eval/pass@1": 0.5}, evaluation=True)
    opened.close()
    assert kept == [(1, {"eval/pass_at_1": 0.5})]


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def make_heartbeat():
    clock, lines = Clock(), []
    return heartbeat.Heartbeat(lines.append, clock), clock, lines


def test_a_silent_phase_says_what_it_is_every_30_seconds_and_not_before():
    beat, clock, lines = make_heartbeat()
    with beat.phase("evaluating 128 problems x 16 attempts"):
        for second in range(100):
            clock.now = second
            beat.check()
    assert lines == [f"evaluating 128 problems x 16 attempts, {s} s so far" for s in (30, 60, 90)]


def test_any_output_begins_the_30_seconds_anew():
    beat, clock, lines = make_heartbeat()
    for second in range(200):
        clock.now = second
        if second % 29 == 0:
            beat.note_output()
        beat.check()
    assert lines == []


def test_short_phases_one_after_another_are_not_silent_for_more_than_30_seconds():
    beat, clock, lines = make_heartbeat()
    for second in range(100):
        clock.now = second
        with beat.phase(f"phase {second // 20}"):
            beat.check()
    assert len(lines) == 3 and lines[0].startswith("phase 1")


def test_an_inner_phase_gives_way_to_the_progress_of_the_outer_one():
    beat, clock, lines = make_heartbeat()
    with beat.phase("rl step 1 of 40: compiling and running the first step"):
        clock.now = 30
        beat.check()
        beat.update(lambda: "rl 1/40")
        with beat.phase("evaluating"):
            clock.now = 60
            beat.check()
        clock.now = 90
        beat.check()
    first = "rl step 1 of 40: compiling and running the first step, 30 s so far"
    assert lines == [first, "evaluating, 30 s so far", "rl 1/40"]


def test_a_phase_that_ends_by_an_exception_is_left():
    beat, clock, lines = make_heartbeat()
    with pytest.raises(KeyError), beat.phase("outer"), beat.phase("inner"):
        raise KeyError
    clock.now = 30
    beat.check()
    assert lines == ["starting, 30 s so far"]


def run_thread(speaks):
    """Lines that the thread prints while it is woken at 10, 30, 45 and 60 seconds."""
    clock, lines, waits, woken, stopped = Clock(), [], [], queue.Queue(), threading.Event()

    def wait(seconds):
        waits.append(seconds)
        now = woken.get(timeout=60)
        if now is None:
            stopped.set()
            return True
        clock.now = now
        return False

    with heartbeat.start_heartbeat(speaks, lines.append, clock, wait=wait) as beat, beat.phase("reading weights"):
        for now in (10, 30, 45, 60, None):
            woken.put(now)
        assert not speaks or stopped.wait(60)
    return lines, waits


def test_the_thread_sleeps_until_a_line_is_due_and_prints_it():
    lines, waits = run_thread(speaks=True)
    assert lines == ["reading weights, 30 s so far", "reading weights, 60 s so far"]
    assert waits == [30, 20, 30, 15, 30]


def test_only_the_process_that_speaks_prints_signs_of_life():
    assert run_thread(speaks=False) == ([], [])


def test_a_journal_without_a_terminal_tells_its_progress_and_with_its_lines_counts_as_output(tmp_path, capsys):
    beat, clock, lines = make_heartbeat()
    stage = Journal(tmp_path, "rl", -1, 40, True, (), heartbeat=beat)
    assert stage.bar.disable
    stage.update_progress(12, 5.0, {"loss": 0.1234})
    clock.now = 20
    stage.print_line("rl 12/40 pass@1 0.5")
    clock.now = 49
    beat.check()
    assert not lines
    clock.now = 50
    beat.check()
    stage.close()
    (line,) = lines
    assert line.startswith("rl 12/40, loss 0.123, ") and line.endswith(" left")
    assert capsys.readouterr().out == "rl 12/40 pass@1 0.5\n"


def test_a_progress_line_has_the_step_the_loss_the_pace_and_the_time_left():
    line = heartbeat.progress_line("rl", 12, 40, {"loss": 0.1234, "kl": 1.0}, 4.1)
    assert line == "rl 12/40, loss 0.123, 4.1 s a step, about 2 min left"
    assert heartbeat.progress_line("sft", 1, 3, {}, float("nan")) == "sft 1/3"
    durations = {0.4: "0 s", 99: "99 s", 100: "2 min", 3540: "59 min", 3900: "1 h 5 min"}
    assert {s: heartbeat.format_duration(s) for s in durations} == durations


def test_a_line_of_the_heartbeat_is_printed_where_standard_output_is_redirected_later(capsys):
    write = heartbeat.line_writer()
    with contextlib.redirect_stdout(io.StringIO()) as other:
        write("still here")
    assert capsys.readouterr().out == "still here\n" and other.getvalue() == ""


def test_our_logged_lines_are_sentences_and_other_packages_are_quiet(monkeypatch, capsys):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    levels = {name: logging.getLogger(name).level for name in quiet.LEVELS}
    try:
        quiet.quiet_third_parties()
        logging.getLogger("rljax.tasks.mixture").warning("gsm8k train: dropped %d questions", 3)
        logging.getLogger("absl").warning("a traceback")
        logging.getLogger("other").warning("something real")
        logging.getLogger("other").info("chatter")
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    assert capsys.readouterr().err == "warning: gsm8k train: dropped 3 questions\nWARNING:other:something real\n"


def test_a_field_of_a_model_folder_that_cannot_matter_is_not_warned_about():
    about = {"unk_token_id": 0, "decoder_start_token_id": 1, "temperature": 0.7, "sparkle_layers": 3}
    assert Fields(about, "config.json").unread_names() == ["sparkle_layers"]


def test_preparing_a_data_set_prints_nothing_of_the_library(tmp_path, capfd):
    (tmp_path / "train.jsonl").write_text('{"question": "What is 2 + 3?", "answer": "5"}\n' * 2)
    datasets.load_dataset(str(tmp_path / "train.jsonl"), data_dir=str(tmp_path / "data"))
    assert capfd.readouterr().out == ""


def test_records_of_other_stages_and_of_earlier_steps_survive_a_continued_stage(tmp_path):
    rows = [{"stage": "sft", "step": 9}, {"stage": "rl", "step": 2}, {"stage": "rl", "step": 3}]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"stage": "rl", "st')
    journal.drop_records_after(path, "rl", 2)
    assert journal.read_records(path) == rows[:2]


def test_a_damaged_line_in_the_middle_of_the_records_is_an_error_that_names_file_and_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"stage": "rl", "step": 1}\n{"stage": "rl", "st\n{"stage": "rl", "step": 3}\n')
    with pytest.raises(UserError, match=r"line 2 of .*metrics\.jsonl is damaged"):
        journal.read_records(path)
    with pytest.raises(UserError, match=r"line 2 of .*metrics\.jsonl is damaged"):
        journal.drop_records_after(path, "rl", 1)
    assert path.read_text().count("\n") == 3  # nothing was dropped


def test_a_last_line_that_is_whole_but_for_its_newline_counts(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    assert journal.read_records(path) == [{"step": 1}, {"step": 2}]
    path.write_text('{"step": 1}\n{"step": 2}\n{')
    assert journal.read_records(path) == [{"step": 1}, {"step": 2}]
    path.write_bytes(b'{"step": 1}\n{"text": "\xc3')  # torn inside a character
    assert journal.read_records(path) == [{"step": 1}]


def test_samples_with_any_separator_of_lines_in_their_text_are_read_back_whole(tmp_path):
    texts = ["a\u2028b", "a\u2029b", "a\u0085b", "a\x0bb", "a\x1cb", "a\r\nb", "a\nb"]
    written = [{"problem": n, "response": text, "reward": 1.0} for n, text in enumerate(texts)]
    record = Journal(tmp_path, "rl", -1, 10, bar=False, loggers=())
    record.write_samples(3, written)
    record.close()
    assert journal.read_samples(tmp_path, "rl", 3) == written


def test_an_attempt_without_a_verdict_is_null_in_the_file_and_nan_when_it_is_read(tmp_path):
    record = Journal(tmp_path, "rl", -1, 10, bar=False, loggers=())
    record.write_samples(3, [{"response": "a", "reward": math.nan}, {"response": "b", "reward": 1.0}])
    record.close()
    assert '"reward": null' in journal.samples_path(tmp_path, "rl", 3).read_text()
    first, second = journal.read_samples(tmp_path, "rl", 3)
    assert math.isnan(first["reward"]) and second["reward"] == 1.0


def test_small_numbers_keep_their_digits_in_the_records(tmp_path):
    record = Journal(tmp_path, "rl", -1, 10, bar=False, loggers=())
    values = {"kl": 4e-7, "single": float(np.float32(0.1)), "tiny": 1.2345678e-30, "count": 123456789.0, "huge": 1e300}
    record.write_metrics(1, values)
    record.close()
    (row,) = journal.read_records(tmp_path / "metrics.jsonl")
    assert row["kl"] == 4e-7 and row["single"] == 0.1 and row["count"] == 123456789.0
    assert row["tiny"] == pytest.approx(1.2345678e-30, rel=1e-8) and row["huge"] == 1e300


@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1e-7, 1.0, 1e7, 1e37])
def test_every_float32_is_read_back_from_the_records_as_itself(scale):
    for x in np.random.default_rng(0).standard_normal(500).astype(np.float32) * np.float32(scale):
        assert np.float32(journal.round_metric(float(x))) == x
