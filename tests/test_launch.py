"""What a person gets wrong is answered in one line, before any long work, and costs nothing that was finished."""

import hashlib
import importlib
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import rljax
import rljax.__main__ as rljax_main
from configs import shop
from experiments import pretrain
from rljax.errors import UserError
from rljax.training import command_line, config_files, config_listing, key_synonyms, versions, workdir
from rljax.training.command_line import Flag
from rljax.training.run import resolve
from rljax.training.workdir import hold_workdir, record_config

SHORT = "--config=configs/shop.py:short"


def parse(*argv, **extra):
    return command_line.parse_command_line(["rl.py", *argv], extra)


def read(*argv, **extra):
    """As a script that looks at a run."""
    return command_line.parse_command_line(["evaluate.py", *argv], extra, "read")


def complaint(*argv) -> str:
    with pytest.raises(UserError) as e:
        parse(*argv)
    assert "\n" not in str(e.value)
    return str(e.value)


@pytest.mark.parametrize("argv", [["--budget="], ["--budget", ""], ["--stop="], ["--coordinator="]], ids=str)
def test_a_flag_without_a_value_is_told_and_not_left_out(argv):
    """--budget=$BUDGET, where the variable is not set."""
    with pytest.raises(UserError, match=f"^{argv[0].rstrip('=')}=: there is no value"):
        parse(SHORT, "--workdir=w", *argv, budget=Flag(""), stop=Flag([]), coordinator=Flag(""))
    *_, values = parse(SHORT, "--workdir=w", budget=Flag(""), stop=Flag([]))
    assert values == {"budget": "", "stop": []}
    config, *_ = parse(SHORT, "--workdir=w", "--config.rl.start=")
    assert config.rl.start == "", "a setting may be empty"


NUMBERS = dict(count=Flag(3, low=1, high=10), share=Flag(math.nan, high=1.0), problems=Flag(-1, low=-1), plain=0)


@pytest.mark.parametrize(
    "written, said",
    [
        ("--count=0", "--count=0: must be at least 1 and at most 10"),
        ("--count=11", "--count=11: must be at least 1 and at most 10"),
        (f"--plain={10**13}", f"--plain={10**13}: must be at least 0 and at most 2,147,483,647"),
        ("--plain=-1", "--plain=-1: must be at least 0"),
        ("--problems=-2", "--problems=-2: must be at least -1"),
        ("--share=nan", "--share=nan: must be a finite number"),
        ("--share=inf", "--share=inf: must be a finite number"),
        ("--share=-1", "--share=-1.0: must be at least 0 and at most 1"),
        ("--share=1.5", "--share=1.5: must be at least 0 and at most 1"),
    ],
)
def test_a_number_outside_the_range_of_its_flag_is_refused_before_any_work(written, said, capsys, monkeypatch):
    with pytest.raises(UserError) as caught:
        parse(SHORT, "--workdir=w", written, **NUMBERS)
    assert str(caught.value) == said
    monkeypatch.setattr(sys, "argv", ["x.py", written])
    with pytest.raises(SystemExit):
        command_line.main_without_config(lambda **_: print("work"), **NUMBERS)
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err == f"error: {said}\n"


def test_a_default_may_lie_outside_the_range_of_its_flag():
    *_, values = parse(SHORT, "--workdir=w", "--count=10", **NUMBERS)
    assert values["count"] == 10 and values["problems"] == -1 and math.isnan(values["share"]) and values["plain"] == 0


def test_an_unknown_key_is_answered_with_the_nearest_one():
    assert "did you mean --config.rl.group_size?" in complaint(SHORT, "--workdir=w", "--config.rl.groupsize=4")
    assert "did you mean --config.rl.optimizer.learning_rate?" in complaint(
        SHORT, "--workdir=w", "--config.rl.learning_rate=1"
    )


@pytest.mark.parametrize("name", sorted(key_synonyms.SYNONYMS))
def test_a_name_of_another_library_is_answered_with_our_key(name):
    known = list(config_files.flatten_config(config_files.load_config("gsm8k_tiny").to_dict()))
    ours = key_synonyms.SYNONYMS[name]
    assert ours in known, "the table names a key that there is"
    for spelled in (name, name.upper(), f"rl.{name}", name.replace("_", "-")):
        assert config_files.synonym_of(spelled, known) == f"--config.{ours}"


def test_a_synonym_is_answered_in_the_stage_that_was_meant():
    assert "did you mean --config.sft.optimizer.learning_rate?" in complaint(SHORT, "--workdir=w", "--config.sft.lr=1")
    assert "did you mean --config.rl.group_size?" in complaint(SHORT, "--workdir=w", "--config.rl.num_generations=4")
    assert "did you mean --config.model.layers?" in complaint(SHORT, "--workdir=w", "--config.model.n_layer=4")


def test_a_setting_given_as_a_flag_is_answered_with_its_key():
    assert "did you mean --config.rl.optimizer.learning_rate?" in complaint(SHORT, "--workdir=w", "--lr=1")
    assert "did you mean --config.rl.optimizer.learning_rate?" in complaint(SHORT, "--workdir=w", "--learning_rate=1")
    assert "did you mean --config.rl.steps?" in complaint(SHORT, "--workdir=w", "--rl.steps=1")
    assert "did you mean --workdir?" in complaint(SHORT, "--workdir=w", "--output_dir=d")


def test_a_group_of_settings_cannot_be_set():
    assert "--config.rl is a group of settings" in complaint(SHORT, "--workdir=w", "--config.rl=1")


def test_a_value_of_the_wrong_type_is_refused():
    assert "--config.rl.steps" in complaint(SHORT, "--workdir=w", "--config.rl.steps=many")


def test_a_missing_config_file_and_missing_flags_are_named():
    assert "there is no file configs/nope.py" in complaint("--config=configs/nope.py", "--workdir=w")
    assert "usage:" in complaint(SHORT)


def test_a_config_is_found_by_its_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("shop:short", "shop.py:short", "configs/shop.py:short"):
        assert config_files.load_config(name).to_dict() == shop.get_config("short").to_dict()
    assert config_files.load_config_module("ablations/selection").__doc__
    assert "did you mean shop?" in complaint("--config=shpo", "--workdir=w")
    assert "ablations/selection" in config_files.config_names() and "common" not in config_files.config_names()


def test_a_config_of_your_own_imports_the_projects_and_its_neighbours(tmp_path):
    (tmp_path / "mine.py").write_text("STEPS = 7\n")
    (tmp_path / "own.py").write_text(
        "from rljax.configs import common\nfrom . import mine\n"
        "def get_config(arg=None):\n    c = common.base()\n    c.rl.steps = mine.STEPS\n    return c\n"
    )
    assert config_files.load_config(str(tmp_path / "own.py")).rl.steps == 7
    (tmp_path / "own.py").write_text("from . import common\n")
    with pytest.raises(UserError, match="from rljax.configs import common"):
        config_files.load_config(str(tmp_path / "own.py"))


def test_a_config_of_your_own_may_take_no_argument(tmp_path):
    file = tmp_path / "own.py"
    file.write_text("from rljax.configs import shop\ndef get_config():\n    return shop.get_config('short')\n")
    assert config_files.load_config(str(file)).rl.steps == shop.get_config("short").rl.steps
    with pytest.raises(UserError, match="get_config\\(\\) takes no argument"):
        config_files.load_config(f"{file}:short")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def f(:", "cannot be loaded: line 1: SyntaxError: invalid syntax"),
        ("x = 1\nunknown", "cannot be loaded: line 2: NameError: name 'unknown' is not defined"),
        ("def get_config(arg):\n    return [][1]", "line 2: IndexError: list index out of range"),
        ("def get_config():\n    pass", "get_config must return a ConfigDict, not NoneType"),
    ],
)
def test_an_error_in_a_config_of_your_own_is_one_line_that_says_where_it_is(tmp_path, code, message):
    (tmp_path / "own.py").write_text(code)
    with pytest.raises(UserError, match=re.escape(message)):
        config_files.load_config(str(tmp_path / "own.py"))


@pytest.mark.parametrize(("key", "kind"), [("rl.steps", "a whole number"), ("rl.optimizer.learning_rate", "a number")])
def test_a_value_that_is_no_number_is_refused_in_plain_words(key, kind):
    assert f"--config.{key}=abc: must be {kind}" in complaint(SHORT, "--workdir=w", f"--config.{key}=abc")
    assert "prices must be a whole number" in complaint("--config=shop:prices=many", "--workdir=w")


def test_a_real_model_without_a_folder_says_so_before_any_data_is_read(tmp_path):
    config = config_files.load_config(f"qwen25:data={tmp_path}/missing.jsonl")
    with pytest.raises(UserError, match='rl.start="weights", but no folder is named: --config.weights=FOLDER'):
        resolve(config, "rl")


def test_a_search_for_a_setting_names_its_config():
    with pytest.raises(UserError, match="of which config"):
        config_listing.main(["--grep", "length"])


def test_a_copy_of_the_projects_configs_loads_as_a_package(tmp_path):
    shutil.copytree("configs", tmp_path / "configs")
    copied = config_files.load_config(str(tmp_path / "configs" / "ablations" / "selection.py"))
    assert copied.to_dict() == config_files.load_config("ablations/selection").to_dict()


def test_an_unknown_config_argument_names_the_known_ones():
    assert "'colour' is unknown" in complaint("--config=configs/shop.py:colour=red", "--workdir=w")


def test_a_stray_word_is_not_swallowed():
    assert "do not know what to do with 'rl.steps=3'" in complaint(SHORT, "--workdir=w", "rl.steps=3")


def test_overrides_reach_the_config_with_their_type_and_scripts_have_flags_of_their_own():
    config, workdir, more = parse(
        SHORT, "--workdir=w", "--config.rl.optimizer.learning_rate=1", "--config.rl.row.kl=k1", "--seeds=2", seeds=1
    )
    assert config.rl.optimizer.learning_rate == 1.0 and isinstance(config.rl.optimizer.learning_rate, float)
    assert (config.rl.row.kl, workdir, more) == ("k1", Path("w"), {"seeds": 2})


@pytest.mark.parametrize("name", config_files.config_names())
def test_a_config_is_rebuilt_from_what_is_recorded(name):
    config = config_files.load_config(name)
    rebuilt = config_files.config_from_record(json.loads(json.dumps(config.to_dict())))
    assert rebuilt.to_dict() == config.to_dict()
    assert rebuilt.model.get_type("window") is int, "a setting without a value keeps its type"


def test_a_script_that_reads_a_run_needs_its_workdir_alone(tmp_path, capsys):
    with hold_workdir(tmp_path, config_files.load_config("shop:short,prices=4")):
        pass
    config, folder, own = read(f"--workdir={tmp_path}", stage=Flag("rl"))
    assert (config.task.options.prices, folder, own) == (4, tmp_path, {"stage": "rl"})
    assert config.is_locked and capsys.readouterr().err == ""
    assert read(f"--workdir={tmp_path}", "--config.rl.temperature=0.5")[0].rl.temperature == 0.5
    assert capsys.readouterr().err == "not as the run was started: rl.temperature=0.5 (the run: 1.0)\n"
    assert read(f"--workdir={tmp_path}", SHORT)[0].task.options.prices == 5
    assert "task.options.prices=5 (the run: 4)" in capsys.readouterr().err


def test_a_workdir_without_a_run_says_that_a_config_is_needed(tmp_path):
    with pytest.raises(UserError, match="no config.json.*give --config"):
        read(f"--workdir={tmp_path}")
    assert read(f"--workdir={tmp_path}", SHORT)[0].rl.steps == 4


def resolved(**changes):
    config = shop.get_config("short")
    for key, value in changes.items():
        config.update_from_flattened_dict({key.replace("__", "."): value})
    return resolve(config)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"rl__group_size": 1}, "rl.group_size=1, but the advantage 'mean_center'"),
        ({"rl__algorithm": "grpoo"}, "rl.algorithm='grpoo' is unknown"),
        ({"rl__temperature": 0.0}, "rl.temperature=0.0: must be above 0"),
        ({"rl__updates": 3}, "rl.updates=3 must divide the 16 attempts"),
        ({"rl__updates": 2, "rl__row__aggregation": "prompt_mean"}, "prompt_mean averages within them"),
        ({"rl__epochs": 0}, "rl.epochs=0: must be at least 1"),
        (
            {"rl__top_p": 0.9, "rl__keep_sampling_mask": False},
            "log-probabilities are not those of the policy that learns",
        ),
        ({"rl__row__advantage": "pkpo(k=4, baseline=loo)"}, "k must be 1 to 3 at rl.group_size=4"),
        ({"rl__row__advantage": "passk_training(k=0)"}, "k must be 1 to 4"),
        ({"rl__row__advantage": "grpo(eps=1"}, "is not of the form name or name(option=value, ...)"),
        ({"rl__row__surrogate": "gspo"}, "would weigh it by length"),
        (
            {"rl__algorithm": "reinforce", "rl__group_size": 1, "rl__row__groups": "mixed"},
            "a group of one never disagrees",
        ),
        ({"rl__algorithm": "vapo", "rl__critic__trunk": "tree"}, "rl.critic.trunk='tree': must be one of"),
        ({"rl__algorithm": "vapo", "rl__critic__optimizer__name": "muon"}, "use adamw or sgd"),
        ({"rl__max_new_tokens": 500}, "need 513 columns, but the model's window is 192"),
        ({"model__heads": 3, "model__kv_heads": 2}, "heads=3 is not a multiple of kv_heads=2"),
        ({"mesh__data": 3}, "needs 3 devices"),
        ({"task__options__prices": 2}, "prices=2 of max_price=12"),
        ({"task__name": "chess"}, "task.name='chess' is unknown"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_any_work(changes, words):
    with pytest.raises(UserError) as e:
        resolved(**changes)
    assert words in str(e.value) and "\n" not in str(e.value)


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


NO_DEVICES = {"JAX_PLATFORMS": "no_such_platform"}  # JAX fails as soon as anything asks for a device


def rljax_command(*argv):
    command = [sys.executable, "-m", "rljax", *argv]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | NO_DEVICES)


def test_help_lists_every_script_with_what_it_does():
    done = rljax_command("--help")
    assert done.returncode == 0 and done.stderr == ""
    listed = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith("  ")]
    said = {words[0]: words[1] for words in listed if len(words) == 2}
    for script in (p.stem for p in Path("experiments").glob("*.py") if p.stem != "__init__"):
        assert len(said[script.replace("_", "-")]) > 20
    assert rljax_command().stdout == done.stdout


@pytest.mark.parametrize("script", sorted(p.stem for p in Path("experiments").glob("*.py") if p.stem != "__init__"))
def test_the_help_of_a_script_says_its_purpose_and_its_flags_without_starting_jax(script, monkeypatch, capsys):
    module = importlib.import_module(f"rljax.experiments.{script}")
    monkeypatch.setattr(sys, "argv", [f"rljax {script}", "--help"])
    monkeypatch.setattr(jax, "devices", None)
    module.main()
    said = capsys.readouterr().out
    assert said.startswith((module.__doc__ or "").strip().splitlines()[0])
    purpose, usage, _ = said.partition(f"usage: rljax {script}")
    assert usage, "a usage"
    assert re.search(rf"^ *rljax {script.replace('_', '-')} ", purpose, re.MULTILINE), "an example"
    assert "flags:" in said or "  --config=" in said


def test_help_needs_no_device_and_ends_with_status_0():
    done = rljax_command("sample", "--help")
    assert done.returncode == 0, done.stderr
    assert "--attempts=15" in done.stdout and "--temperature=0.6" in done.stdout


def run_without_reader(*argv) -> subprocess.CompletedProcess:
    """Python with a standard output that nobody reads any longer."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, *argv], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    return done


@pytest.mark.parametrize("command", ["-m rljax --help", "-m rljax rl --help", "-m experiments.rl --help"])
def test_help_whose_reader_stops_reading_ends_quietly(command):
    done = run_without_reader(*command.split())
    assert done.returncode == 0 and done.stderr == ""


def test_a_run_whose_reader_stops_reading_ends_quietly_and_another_broken_pipe_keeps_its_traceback():
    code = "from rljax.training.command_line import one_line_errors\nwith one_line_errors(): print('x' * 200_000)"
    closed = run_without_reader("-c", code)
    assert closed.returncode == command_line.CLOSED_STDOUT and closed.stderr == ""
    with pytest.raises(BrokenPipeError), command_line.one_line_errors():  # here the output is read
        raise BrokenPipeError


def test_the_command_rljax_runs_a_script_and_names_an_unknown_one():
    with pytest.raises(SystemExit, match="^error: there is no command 'evaluat'; did you mean evaluate?"):
        rljax_main.main(["rljax", "evaluat"])
    done = rljax_command("evaluate", "--workdir=nowhere")
    assert done.returncode == 1 and "no run in nowhere" in done.stderr and "Traceback" not in done.stderr
    assert rljax_command("--version").stdout == f"rljax {rljax.__version__}\n"


def test_the_settings_of_a_config_are_listed_and_searched(capsys):
    config_listing.main(["shop", "--grep", "LENGTH"])
    lines = capsys.readouterr().out.splitlines()
    assert all("length" in line.lower() for line in lines)
    values = {line.split()[0]: line.split()[2] for line in lines}
    assert (values["model.max_length"], values["rl.max_new_tokens"]) == ("192", "160"), "found by its key, by its help"
    config_listing.main(["shop:short"])
    assert any(line.startswith("rl.steps ") and "= 4" in line for line in capsys.readouterr().out.splitlines())
    config_listing.main([])
    assert "ablations/selection" in capsys.readouterr().out
    with pytest.raises(UserError, match="no regular expression"):
        config_listing.main(["shop", "--grep", "("])
    with pytest.raises(SystemExit, match="^error: .*did you mean shop?"):
        rljax_main.main(["rljax", "config", "shpo"])


def test_a_stage_without_the_one_before_it_says_what_to_run(tmp_path):
    command = [sys.executable, "-m", "experiments.rl", SHORT, f"--workdir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "run `rljax sft` with this config first" in done.stderr and "Traceback" not in done.stderr


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


def test_a_reward_or_an_algorithm_that_makes_no_sense_is_refused_before_any_stage():
    config = config_files.load_config("configs/shop.py:short")
    config.rl.reward = "correct + speed"
    with pytest.raises(UserError, match="'speed' is unknown"):
        resolve(config)
    config.rl.reward, config.rl.algorithm = "correct", "grpoo"
    with pytest.raises(UserError, match="rl.algorithm='grpoo'"):
        resolve(config)


def test_gdpo_needs_several_rewards_and_as_many_weights():
    config = config_files.load_config("configs/shop.py:short")
    config.rl.row.advantage = "gdpo"
    with pytest.raises(UserError, match="has 1: add a term"):
        resolve(config)
    config.rl.reward = "correct + overlong"
    resolve(config)
    config.rl.row.truncated = "soft"
    config.rl.row.advantage = "gdpo(weights=(1, 0.5))"
    with pytest.raises(UserError, match="has 3: .* as many weights"):
        resolve(config)
    config.rl.row.truncated = "keep"
    resolve(config)


def test_algorithms_that_take_a_reward_for_right_or_wrong_refuse_a_sum():
    config = config_files.load_config("configs/shop.py:short")
    config.rl.reward = "correct + format"
    for name, advantage in (("rejection_sampling", "all_correct"), ("maxrl", "maxrl")):
        config.rl.algorithm = name
        with pytest.raises(UserError, match=f"{advantage}.*right or wrong: use rl.reward=correct"):
            resolve(config)
