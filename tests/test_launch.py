"""What a person gets wrong is answered in one line, before any long work, and costs nothing that was finished."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from configs import shop
from rljax.errors import UserError
from rljax.training import launch, settings

SHORT = "--config=configs/shop.py:short"


def parse(*argv, **extra):
    return launch.parse(["rl.py", *argv], extra)


def complaint(*argv) -> str:
    with pytest.raises(UserError) as e:
        parse(*argv)
    assert "\n" not in str(e.value)
    return str(e.value)


def test_an_unknown_key_is_answered_with_the_nearest_one():
    assert "did you mean --config.rl.group_size?" in complaint(SHORT, "--workdir=w", "--config.rl.groupsize=4")
    assert "did you mean --config.rl.optimizer.learning_rate?" in complaint(
        SHORT, "--workdir=w", "--config.rl.learning_rate=1"
    )


def test_a_group_of_settings_cannot_be_set():
    assert "--config.rl is a group of settings" in complaint(SHORT, "--workdir=w", "--config.rl=1")


def test_a_value_of_the_wrong_type_is_refused():
    assert "--config.rl.steps" in complaint(SHORT, "--workdir=w", "--config.rl.steps=many")


def test_a_missing_config_file_and_missing_flags_are_named():
    assert "there is no file configs/nope.py" in complaint("--config=configs/nope.py", "--workdir=w")
    assert "usage:" in complaint(SHORT)


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


def resolved(**changes):
    config = shop.get_config("short")
    for key, value in changes.items():
        config.update_from_flattened_dict({key.replace("__", "."): value})
    return settings.resolve(config), settings.algorithm(config.rl)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"rl__group_size": 1}, "rl.group_size=1, but the advantage 'mean_center'"),
        ({"rl__algorithm": "grpoo"}, "rl.algorithm='grpoo' is unknown"),
        ({"rl__temperature": 0.0}, "a greedy policy has no gradient"),
        ({"rl__updates": 3}, "rl.updates=3, rl.epochs=1: updates must divide the 16 attempts"),
        ({"rl__updates": 2, "rl__row__aggregation": "prompt_mean"}, "prompt_mean averages within them"),
        ({"rl__epochs": 0}, "both be at least 1"),
        ({"rl__top_p": 0.9}, "log-probabilities are not those of the policy that learns"),
        ({"rl__row__advantage": "pkpo(k=4, baseline=loo)"}, "k must be 1 to 3 at rl.group_size=4"),
        ({"rl__row__advantage": "passk_training(k=0)"}, "k must be 1 to 4"),
        ({"rl__row__advantage": "grpo(eps=1"}, "is not of the form name or name(option=value, ...)"),
        ({"rl__row__surrogate": "gspo"}, "would weigh it by length"),
        (
            {"rl__algorithm": "reinforce", "rl__group_size": 1, "rl__row__groups": "mixed"},
            "a group of one never disagrees",
        ),
        ({"rl__algorithm": "vapo", "rl__critic__trunk": "tree"}, "rl.critic.trunk='tree' is unknown"),
        ({"rl__algorithm": "vapo", "rl__critic__optimizer__name": "muon"}, "use adamw or sgd"),
        ({"rl__max_new_tokens": 500}, "need 513 columns, but the model's window is 192"),
        ({"model__heads": 3, "model__kv_heads": 2}, "heads=3 is not a multiple of kv_heads=2"),
        ({"mesh__data": 3}, "needs 3 devices"),
        ({"task__options__prices": 2}, "prices=2 of max_price=12"),
        ({"task__name": "chess"}, "task: 'chess' is unknown"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_any_work(changes, words):
    with pytest.raises(UserError) as e:
        resolved(**changes)
    assert words in str(e.value) and "\n" not in str(e.value)


def test_a_workdir_in_which_nothing_began_takes_the_config_that_was_mended(tmp_path):
    config = shop.get_config("short")
    with launch.own(tmp_path, config):
        pass
    config.seed = 7
    with launch.own(tmp_path, config):
        pass
    assert json.loads((tmp_path / "config.json").read_text())["config"]["seed"] == 7


def test_a_workdir_of_another_config_is_left_alone(tmp_path):
    config = shop.get_config("short")
    with launch.own(tmp_path, config):
        pass
    (tmp_path / "metrics.jsonl").touch()  # it has begun
    before = (tmp_path / "config.json").read_bytes()
    other, rate = shop.get_config("short"), config.rl.optimizer.learning_rate
    other.rl.optimizer.learning_rate = 9.0
    with pytest.raises(UserError, match=f"holds a run with rl.optimizer.learning_rate={rate}, this one says 9.0"):
        with launch.own(tmp_path, other):
            pass
    assert (tmp_path / "config.json").read_bytes() == before
    about = json.loads(before)
    assert (
        about["config"]["rl"]["optimizer"]["learning_rate"] == rate and "jax" in about["versions"] and about["devices"]
    )


def test_a_workdir_belongs_to_one_process_at_a_time(tmp_path):
    config = shop.get_config("short")
    with launch.own(tmp_path, config), pytest.raises(UserError, match="in use by another process"):
        with launch.own(tmp_path, config):
            pass


def run(script, workdir, *more, **options):
    command = [sys.executable, "-m", f"experiments.{script}", SHORT, f"--workdir={workdir}", *more]
    return subprocess.run(command, capture_output=True, text=True, **options)


def test_a_stage_without_the_one_before_it_says_what_to_run(tmp_path):
    done = run("rl", tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "run `python -m experiments.sft`" in done.stderr and "Traceback" not in done.stderr


def test_a_disk_that_fills_up_costs_one_line_and_no_finished_step(tmp_path):
    def small_files():  # no file may grow past 24 KiB: the first checkpoint cannot be written
        resource.setrlimit(resource.RLIMIT_FSIZE, (24_000, 24_000))

    done = run("pretrain", tmp_path, preexec_fn=small_files)
    assert done.returncode == 1, done.stderr[-2000:]
    assert done.stderr.strip().splitlines()[-1].startswith("error: the disk is full")
    again = run("pretrain", tmp_path)
    assert again.returncode == 0, again.stderr[-2000:]
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if "eval/loss" in r] == [0, 10, 20]


def test_the_exact_strings_of_the_template_are_recorded(tmp_path):
    config = launch.load_config("configs/gsm8k_tiny.py")
    config.task.options.template = "r1_zero"
    launch.record_config(tmp_path, config)
    recorded = json.loads((tmp_path / "config.json").read_text())["template"]
    assert recorded["prompt"].endswith("User: {question} Assistant:") and recorded["prefill"] == ""


def test_a_reward_or_a_row_that_makes_no_sense_is_refused_before_any_stage():
    config = launch.load_config("configs/shop.py:short")
    config.rl.reward = "correct + speed"
    with pytest.raises(UserError, match="'speed' is unknown"):
        settings.resolve(config)
    config.rl.reward, config.rl.algorithm = "correct", "grpoo"
    with pytest.raises(UserError, match="rl.algorithm='grpoo'"):
        settings.resolve(config)


def test_gdpo_needs_several_rewards_and_as_many_weights():
    config = launch.load_config("configs/shop.py:short").rl
    config.row.advantage = "gdpo"
    with pytest.raises(UserError, match="has 1: add a term"):
        settings.algorithm(config)
    config.reward = "correct + overlong"
    settings.algorithm(config)
    config.row.truncated = "soft"
    config.row.advantage = "gdpo(weights=(1, 0.5))"
    with pytest.raises(UserError, match="has 3: .* as many weights"):
        settings.algorithm(config)
    config.row.truncated = "keep"
    settings.algorithm(config)


def test_rows_that_take_a_reward_for_right_or_wrong_refuse_a_sum():
    config = launch.load_config("configs/shop.py:short").rl
    config.reward = "correct + format"
    for name in ("rejection_sampling", "maxrl"):
        config.algorithm = name
        with pytest.raises(UserError, match=f"{name}.*right or wrong: use rl.reward=correct"):
            settings.algorithm(config)
