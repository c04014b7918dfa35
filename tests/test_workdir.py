"""A workdir is one run's: which other settings it goes on with, what it records, and what leaves it alone."""

import hashlib
import json
import os
import shlex
import subprocess
import sys

import pytest

import rljax
from configs import shop
from experiments import pretrain
from rljax.errors import UserError
from rljax.training import command_line, config_files, versions, workdir
from rljax.training.run import resolve
from rljax.training.workdir import hold_workdir, record_config

SHORT = "--config=configs/shop.py:short"


def test_a_workdir_in_which_nothing_began_takes_the_config_that_was_mended(tmp_path):
    config = shop.get_config("short")
    with hold_workdir(tmp_path, config):
        pass
    config.seed = 7
    with hold_workdir(tmp_path, config):
        pass
    assert json.loads((tmp_path / "config.json").read_text())["config"]["seed"] == 7


def test_a_workdir_in_which_nothing_was_trained_takes_another_config_and_keeps_its_evaluation_aside(tmp_path, capsys):
    """The first step of a run may fail, as by too little memory, after its first evaluation."""
    config, line = shop.get_config("short"), '{"stage": "rl", "step": 0}\n'
    with hold_workdir(tmp_path, config):
        (tmp_path / "metrics.jsonl").write_text(line)
    config.rl.prompts = 2
    with hold_workdir(tmp_path, config):
        assert not (tmp_path / "metrics.jsonl").exists()
    assert "nothing was trained here yet" in capsys.readouterr().out
    assert (tmp_path / ".untrained-metrics.jsonl").read_text() == line
    assert json.loads((tmp_path / "config.json").read_text())["config"]["rl"]["prompts"] == 2
    (tmp_path / "checkpoints" / "pretrain" / "10").mkdir(parents=True)  # a stage of which no record is left
    config.rl.prompts = 4
    with pytest.raises(UserError, match="holds a run with rl.prompts=2"), hold_workdir(tmp_path, config):
        pass


def test_a_run_of_a_config_whose_values_have_changed_goes_on_with_the_flags_that_the_message_names(tmp_path):
    """As of a version in which the config had other values: ``rl.packing`` was 0."""
    before = shop.get_config("short")
    before.rl.packing, before.sft.packing, before.rl.widths, before.rl.reward = 0, 0, (8, 16), "correct + 0.5*format"
    with hold_workdir(tmp_path, before):
        (tmp_path / "metrics.jsonl").write_text('{"stage": "sft", "step": 1}\n')
    again = ["rljax rl", "--config=shop:short", f"--workdir={tmp_path}"]
    with (
        pytest.raises(UserError, match=r"\(and 3 more\): .*the config that the run began with: add --config") as e,
        hold_workdir(tmp_path, command_line.parse_command_line(again, {})[0]),
    ):
        pass
    flags = shlex.split(str(e.value).partition(": add ")[2])
    config, *_ = command_line.parse_command_line([*again, *flags], {})
    with hold_workdir(tmp_path, config):
        assert config.to_dict() == before.to_dict()


def test_a_workdir_of_another_config_is_left_alone(tmp_path):
    config = shop.get_config("short")
    with hold_workdir(tmp_path, config):
        pass
    (tmp_path / "metrics.jsonl").write_text('{"stage": "sft", "step": 1}\n')  # it has begun
    before = (tmp_path / "config.json").read_bytes()
    other, rate = shop.get_config("short"), config.rl.optimizer.learning_rate
    other.rl.optimizer.learning_rate = 9.0
    with pytest.raises(UserError, match=f"holds a run with rl.optimizer.learning_rate={rate}, this one says 9.0"):
        with hold_workdir(tmp_path, other):
            pass
    assert (tmp_path / "config.json").read_bytes() == before
    about = json.loads(before)
    assert (
        about["config"]["rl"]["optimizer"]["learning_rate"] == rate and "jax" in about["versions"] and about["devices"]
    )


LONGER = {"mesh.data": 4, "workers": 3, "log": (), "checkpoint.keep_latest": 5, "rl.steps": 100}


def test_a_run_goes_on_with_other_devices_workers_and_logs_and_with_more_steps_and_notes_it(tmp_path, capsys):
    config = shop.get_config("short")
    config.rl.optimizer.schedule = "constant"
    record_config(tmp_path, config)
    (tmp_path / "metrics.jsonl").touch()  # it has begun
    before, other = config_files.flatten_config(config.to_dict()), config.copy_and_resolve_references()
    other.update_from_flattened_dict(LONGER)
    changed = [key for key, value in LONGER.items() if before[key] != value]
    assert len(changed) == len(LONGER)
    record_config(tmp_path, other)
    assert "the run goes on with other settings: " in capsys.readouterr().out
    about = json.loads((tmp_path / "config.json").read_text())
    assert about["config"]["rl"]["steps"] == 100 and set(about["changes"][0]) == set(changed)


@pytest.mark.parametrize(
    "key, schedule, value",
    [("rl.steps", "constant", 1), ("rl.steps", "cosine", 100), ("rl.prompts", "constant", 2), ("seed", "constant", 9)],
)
def test_a_run_that_has_begun_keeps_what_its_results_depend_on(key, schedule, value, tmp_path):
    config = shop.get_config("short")
    config.rl.optimizer.schedule = schedule
    record_config(tmp_path, config)
    (tmp_path / "metrics.jsonl").write_text('{"stage": "rl", "step": 1}\n')
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=f"holds a run with {key}="):
        record_config(tmp_path, config)


def test_data_prepared_from_files_of_your_own_lie_in_the_workdir(tmp_path):
    rows = [{"question": f"What is {n} and one?", "answer": str(n + 1)} for n in range(40)]
    own = tmp_path / "own.jsonl"
    own.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = config_files.load_config(f"gsm8k_tiny:short,datasets={own}")
    config.task.options.decontaminate = 0
    with hold_workdir(tmp_path / "run", config):
        resolve(workdir.keep_data_in(tmp_path / "run", config))
    assert list((tmp_path / "run" / "data").rglob("*.array_record*"))
    assert "own_data_dir" in (tmp_path / "run" / "config.json").read_text()
    assert str(tmp_path / "run") not in (tmp_path / "run" / "config.json").read_text(), "the workdir may be moved"


def test_a_command_that_is_refused_leaves_the_config_that_the_run_has(tmp_path):
    config = shop.get_config("short")
    with hold_workdir(tmp_path, config):
        (tmp_path / "metrics.jsonl").write_text('{"stage": "sft", "step": 0}\n')
    before = (tmp_path / "config.json").read_bytes()
    changed = shop.get_config("short")
    changed.workers = 3
    with pytest.raises(UserError, match="refused"), hold_workdir(tmp_path, changed):
        raise UserError("refused")
    assert (tmp_path / "config.json").read_bytes() == before
    with pytest.raises(UserError, match="stopped"), hold_workdir(tmp_path, changed):
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"stage": "sft", "step": 1}\n')
        raise UserError("stopped later")
    assert json.loads((tmp_path / "config.json").read_text())["config"]["workers"] == 3


def test_more_steps_are_refused_with_the_reason_where_the_learning_rate_depends_on_their_number(tmp_path):
    config = shop.get_config("short")
    with hold_workdir(tmp_path, config):
        (tmp_path / "metrics.jsonl").write_text('{"stage": "rl", "step": 1}\n')
    config.rl.steps += 2
    with pytest.raises(UserError, match=r"rl.steps=.*rl.optimizer.schedule='linear' the learning rate of every step"):
        record_config(tmp_path, config)


def git(folder, *command):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", *identity, *command], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_changes_beside_the_commit_are_recorded_and_other_repositories_are_not(tmp_path, monkeypatch):
    package = tmp_path / "rljax"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(rljax, "__file__", str(package / "__init__.py"))
    git(tmp_path, "init", "-q")
    assert versions.source_commit() is None, "no commit yet"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    assert versions.source_commit() == git(tmp_path, "rev-parse", "HEAD").strip()
    assert versions.source_changes() is None
    (package / "__init__.py").write_text("x = 1\n")
    diff = hashlib.sha256(git(tmp_path, "diff", "HEAD").encode()).hexdigest()
    assert versions.source_changes() == {"diff_sha256": diff, "untracked_files": False}
    (tmp_path / "new.txt").touch()
    assert versions.source_changes() == {"diff_sha256": diff, "untracked_files": True}
    installed = tmp_path / "site-packages" / "rljax"
    installed.mkdir(parents=True)
    monkeypatch.setattr(rljax, "__file__", str(installed / "__init__.py"))
    assert versions.source_commit() is None and versions.source_changes() is None


def test_a_workdir_belongs_to_one_process_at_a_time(tmp_path):
    config = shop.get_config("short")
    with hold_workdir(tmp_path, config), pytest.raises(UserError, match="in use by another process"):
        with hold_workdir(tmp_path, config):
            pass


@pytest.mark.slow
def test_a_disk_that_fills_up_costs_one_line_and_no_finished_step(tmp_path, monkeypatch):
    small = ["--config.model.layers=1", "--config.model.width=64", "--config.pretrain.batch=4"]
    limited = (  # no file may grow past 24 KiB: the first checkpoint cannot be written
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (24_000, 24_000))\n"
        "from experiments import pretrain; pretrain.main()"
    )
    command = [SHORT, f"--workdir={tmp_path}", *small]
    # No caches: their files would be cut as well, and read by the next process.
    no_cache = os.environ | {"JAX_COMPILATION_CACHE_DIR": "", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", limited, *command], capture_output=True, text=True, env=no_cache)
    assert done.returncode == 1, done.stderr[-2000:]
    assert done.stderr.strip().splitlines()[-1].startswith("error: the disk is full")
    monkeypatch.setattr(sys, "argv", ["pretrain", *command])
    pretrain.main()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if "eval/loss" in r] == [0, 10, 20]


def test_the_exact_strings_of_the_template_are_recorded(tmp_path):
    config = config_files.load_config("configs/gsm8k_tiny.py")
    config.task.options.template = "r1_zero"
    record_config(tmp_path, config)
    recorded = json.loads((tmp_path / "config.json").read_text())["template"]
    assert recorded["prompt"].endswith("User: {question} Assistant:") and recorded["prefill"] == ""
