"""The check of a task: worlds that hold what they promise pass, and each fault is found and named."""

import dataclasses
import itertools
import re

import coins
import jax.numpy as jnp
import pytest

from experiments import check_task
from rljax import tasks
from rljax.errors import UserError
from rljax.tasks import check

FEW = dict(num_problems=64, train_draws=1000)
COINS = coins.make(coins.Options())


def test_a_sound_world_has_no_fault_and_a_table_of_what_it_holds():
    report = check.check_task(COINS, **FEW)
    rows = dict(report.rows)
    assert report.faults == []
    assert (
        rows["tokens in a prompt"] == "up to 5 of 6 slots" and rows["tokens in a demonstration"] == "up to 8 of 8 slots"
    )
    assert rows["  jump"].startswith("0 of ") and rows["  steps"].endswith("100.0%")
    assert rows["test problems also in train"].startswith("0 of ") and rows["device verifier"] == "none"
    assert "all checks passed" in check.format_report(report)


def test_the_default_world_passes_with_both_verifiers():
    report = check.check_task(tasks.make_task("shop"), **FEW)
    assert report.faults == [] and dict(report.rows)["device verdict = text verdict"].startswith("256 of 256")


def pad_on_the_right(seed, index, split):
    problems = COINS.problems(seed, index, split)
    return problems.replace(prompt=problems.prompt[:, ::-1], prompt_mask=problems.prompt_mask[:, ::-1])


def verify_with_error(response, record):
    if "=" not in response:
        raise ValueError("no calculation")
    return coins.verify(response, record)


COUNT = itertools.count()
FAULTS = {
    "padding": ({"problems": pad_on_the_right}, r"padded on the left \(64 of 64\)"),
    "prompt slots": ({"prompt_slots": 9}, r"prompt has shape \(64, 6\)"),
    "state": (
        {"problems": lambda seed, index, split: COINS.problems(seed + next(COUNT), index, split)},
        r"not a function of \(seed, index\)",
    ),
    "one split": (
        {"problems": lambda seed, index, split: COINS.problems(seed, index, "train")},
        r"^test problems are also among the first 1,000 train problems \(\d+ of \d+\)",
    ),
    "records": ({"records": lambda facts: facts[1:]}, "63 records for 64 problems"),
    "demonstration slots": ({"demonstration_slots": 5}, r"demonstration_slots=5 \(\d+ of 64\)"),
    "unknown symbol": ({"demonstration": lambda record, rng: "wait"}, "drawing problems: UserError: .*'wait'"),
    "never right": ({"demonstration": lambda record, rng: "answer 0"}, "no demonstration is right"),
    "strategy": ({"strategies": ("jump",)}, r"strategy 'steps', which is not .*\(\d+ of 64\)"),
    "answer start": ({"answer_start": lambda response, record: -1}, r"answer_start .*\(64 of 64\)"),
    "verifier error": ({"verify": verify_with_error}, r"verify raises on responses .*ValueError: no calculation.*\d+ of 256"),
    "cut off": ({"verify": lambda response, record: f"answer {record['a'] + record['b']}" in response}, "cut off"),
    "prompt unread": ({"read_prompt": lambda prompt: None}, r"does not read the task's own prompts \(64 of 64\)"),
    "prompt misread": ({"read_prompt": lambda prompt: {"a": 0, "b": 0}}, "refuse a right demonstration"),
    "page": ({"page": lambda rng, length: [0] * (length + 1)}, r"have more, or none \(8 of 8\)"),
    "page ids": ({"page": lambda rng, length: [10_000] * length}, r"ids outside 0 \.\. \d+ \(8 of 8\)"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_task_is_found_and_named_in_one_line(fault):
    changes, message = FAULTS[fault]
    report = check.check_task(dataclasses.replace(COINS, **changes), **FEW)
    found = [line for line in report.faults if re.search(message, line)]
    assert found, report.faults
    assert all("\n" not in line for line in report.faults)


def test_a_device_verifier_that_disagrees_is_found_with_an_example():
    shop = tasks.make_task("shop")
    assert shop.verify_on_device is not None
    wrong = {
        "all right": lambda response, mask, finished, facts: jnp.ones(finished.shape),
        "in part": lambda *args: 0.5 * shop.verify_on_device(*args),
    }
    for name, verify in wrong.items():
        report = check.check_task(dataclasses.replace(shop, verify_on_device=verify), **FEW)
        disagree = [line for line in report.faults if line.startswith("the verifiers disagree: the device gives")]
        assert disagree and "of training problem" in disagree[0], name


def test_a_batch_verifier_that_raises_is_named_and_the_check_goes_on():
    broken = dataclasses.replace(COINS, verify_batch=lambda pairs: [{}["correct"]])
    report = check.check_task(broken, **FEW)
    assert any("verify_batch raises on demonstrations: KeyError" in line for line in report.faults)
    assert "test problems also in train" in dict(report.rows)


@pytest.fixture
def plug_in(monkeypatch):
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS, coins=coins))


def test_the_script_prints_the_table_and_ends_quietly_where_all_is_well(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    plugin = tmp_path / "my_world.py"
    plugin.write_text("import coins\nfrom rljax import tasks\n\ntasks.TASKS['my_coins'] = coins\n")
    few = ["--option=largest=12", "--problems=64", "--train_draws=300"]
    monkeypatch.setattr("sys.argv", ["rljax check-task", "my_coins", "--plugin", str(plugin), *few])
    check_task.main()
    assert "tokens in a prompt" in capsys.readouterr().out


def test_the_script_ends_with_status_one_where_something_is_wrong(plug_in, monkeypatch, capsys):
    leaky = dataclasses.replace(COINS, problems=lambda seed, index, split: COINS.problems(seed, index, "train"))
    monkeypatch.setitem(tasks.TASKS, "leaky", tasks.World(coins.Options, lambda options: leaky))
    with pytest.raises(SystemExit) as stopped:
        check_task.run("leaky", [], [], 0, 64, 300)
    assert stopped.value.code == 1 and "wrong: test problems are also among" in capsys.readouterr().out


def test_options_of_the_script_are_python_literals_or_texts():
    assert check_task.parse_option("prices=4") == ("prices", 4)
    assert check_task.parse_option("datasets=math + 0.5*gsm8k") == ("datasets", "math + 0.5*gsm8k")
    with pytest.raises(UserError, match="--option key=value"):
        check_task.parse_option("prices")
    with pytest.raises(UserError, match="--task"):
        check_task.run("", [], [], 0, 64, 300)
