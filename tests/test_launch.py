"""What a person gets wrong in a command or a config is answered in one line, before any long work."""

import json
import math
import re
import shutil
import sys
from pathlib import Path

import pytest

from configs import shop
from rljax.errors import UserError
from rljax.training import command_line, config_files, config_listing, key_synonyms
from rljax.training.command_line import Flag
from rljax.training.run import resolve
from rljax.training.workdir import hold_workdir

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
