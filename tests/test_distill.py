"""Distillation as a script, without training: the config of each model, and the table."""

import pytest

from configs import distillation, shop
from experiments import distill
from rljax.errors import UserError


def result(arm, seed, before, after):
    curves = {
        "eval/pass@1": [before, after],
        "eval/response_length/mean": [10.0, 20.0 + seed],
        "eval/strategy/jump": [0.5, 0.1],
        "eval/truncated": [0.0, 0.0],
    }
    rest = {"changes": [], "stage": "rl", "steps": [0, 10], "minutes": 1.5, "commit": None}
    return {"arm": arm, "seed": seed, "curves": curves} | rest


def test_students_are_smaller_than_the_teacher_and_nobody_keeps_the_section():
    config = distillation.get_config()
    teacher = distill.make_config(config, "teacher", 2, {"rl.steps": 7})
    student = distill.make_config(config, "RL", 2, {"rl.start": "there:sft", "rl.algorithm": "grpo"})
    assert teacher.model.width == config.model.width > student.model.width == config.distillation.student.width
    assert (teacher.seed, teacher.rl.steps, student.rl.start, student.rl.algorithm) == (2, 7, "there:sft", "grpo")
    assert "distillation" not in teacher and "distillation" not in student and "distillation" in config


def test_the_table_has_the_student_before_and_a_row_for_each_way_of_learning():
    ways = {"teacher": 0.9, "RL": 0.5, "on-policy distillation": 0.8}
    results = [result(arm, seed, 0.2, end + 0.01 * seed) for arm, end in ways.items() for seed in range(3)]
    lines = distill.format_table(results).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["student before", *ways]
    assert "0.200 [0.200, 0.200]" in lines[2] and "0.810 [0.785, 0.835]" in lines[-1] and lines[-1].endswith("| 1.5 |")
    one = distill.format_table([r for r in results if r["seed"] == 0])
    assert "[" not in one and "| 0.800 |" in one


def test_a_config_without_the_section_and_no_seed_are_refused(tmp_path):
    with pytest.raises(UserError, match="no section `distillation`"):
        distill.run(shop.get_config("short"), tmp_path)
    with pytest.raises(UserError, match="--seeds=0"):
        distill.run(distillation.get_config("short"), tmp_path, seeds=0)


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("teacher_steps", 0, "distillation.teacher_steps=0: must be at least 1"),
        ("problems", 10**13, "distillation.problems=10000000000000: must be at least 1"),
        ("epochs", (1, 0), r"distillation.epochs=\(1, 0\): each item must be at least 1"),
        ("student", {"width": -1}, "distillation.student.width=-1: must be at least"),
        (
            "student",
            {"widht": 32},
            "distillation.student.widht: `model` has no such setting; did you mean distillation.student.width",
        ),
        ("student", {"width": "32"}, "distillation.student.width='32': must be a whole number"),
        ("student", 5, "distillation.student=5: must be a dict of settings"),
        ("student", {"lora": {"rank": 2}}, "distillation.student.lora.rank: `model` has no such setting"),
        ("epoch", 3, "distillation.epoch: there is no such setting; did you mean distillation.epochs"),
    ],
)
def test_a_number_that_a_later_model_could_not_use_is_refused_before_any_work(tmp_path, key, value, said):
    config = distillation.get_config()
    with config.unlocked(), config.distillation.ignore_type():
        config.distillation[key] = value
    with pytest.raises(UserError, match=said):
        distill.run(config, tmp_path)
    assert not list(tmp_path.iterdir())
