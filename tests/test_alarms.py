"""Alarms: each is told when it begins, once, with what to try, and an ordinary run has none."""

import json
import math

import pytest

from rljax.metrics.alarms import FIRST_RULES, RULES, find_alarms
from rljax.report.run_report import render_alarms
from rljax.training.journal import Journal, read_records

CALM = {
    "train/reward": 0.4, "train/truncated": 0.02, "train/groups/all_wrong": 0.3, "train/groups/mixed": 0.6,
    "train/groups/all_right": 0.1, "train/entropy": 1.1, "train/response_length/mean": 100.0, "train/ratio/max": 1.5,
    "train/kl": 0.01, "train/sampler_gap": 0.005, "train/verifier_error": 0.0, "train/verifier_unscored": 0.0,
    "train/grad_norm": 0.1, "train/skipped_steps": 0.0,
}  # fmt: skip
ROUNDS = 12


def history(change, begin=8, end=None):
    """Records that are calm, and changed from step ``begin`` to ``end``. ``change(n)`` of records since it began."""
    out = []
    for step in range(1, begin + ROUNDS + 1):
        bad = begin <= step < (end or math.inf)
        out.append({"stage": "rl", "step": step} | CALM | (change(step - begin) if bad else {}))
    return out


WRONG = {  # {rule: what its records hold}
    "all cut off": lambda n: {"train/truncated": 1.0},
    "nothing readable": lambda n: {"train/answers/none": 1.0},
    "no entropy": lambda n: {"train/entropy": 0.001},
    "all groups equal": lambda n: {
        "train/groups/all_wrong": 0.8,
        "train/groups/mixed": 0.0,
        "train/groups/all_right": 0.2,
    },
    "entropy collapse": lambda n: {"train/entropy": 1.1 * 0.7**n},
    "length explosion": lambda n: {"train/response_length/mean": 100.0 + 50 * n, "train/truncated": 0.5},
    "ratio out of range": lambda n: {"train/ratio/max": 1e4},
    "KL blow-up": lambda n: {"train/kl": 9.0},
    "sampler-trainer gap": lambda n: {"train/sampler_gap": 0.5},
    "verifier errors": lambda n: {"train/verifier_error": 0.3},
    "verifier failures": lambda n: {"train/verifier_unscored": 0.1},
    "zero gradient": lambda n: {"train/grad_norm": 0.0},
    "skipped updates": lambda n: {"train/skipped_steps": n + 1.0},
    "accuracy falls while reward rises": lambda n: {"train/reward": 0.4 + 0.05 * n, "eval/pass@1": 0.6 - 0.1 * n},
}


BEGIN = {"no entropy": 1}  # 8 for the others: after a calm start
FIRST = {  # {rule of the evaluation before training: what its record holds}
    "most cut off": {"eval/truncated": 0.84},
    "few answers readable": {"eval/answers/none": 1.0},
    "entropy near zero": {"eval/entropy": 0.001},
    "all groups fail": {"eval/pass@1": 0.001, "eval/pass@2": 0.002, "eval/pass@16": 0.01},
    "all groups succeed": {"eval/pass@1": 0.99, "eval/pass@16": 1.0},
    "few groups mixed": {"eval/groups/mixed": 0.01},
    "constant reward": {"eval/groups/equal_reward": 1.0},
}
FAIR = {
    "eval/pass@1": 0.2, "eval/pass@2": 0.3, "eval/pass@16": 0.7, "eval/truncated": 0.1, "eval/answers/none": 0.3,
    "eval/entropy": 0.4, "eval/groups/mixed": 0.6, "eval/groups/equal_reward": 0.4,
}  # fmt: skip


def first_record(**changes):
    return {"stage": "rl", "step": 0} | FAIR | changes


def test_every_rule_has_a_history_that_breaks_it():
    assert set(WRONG) == {rule.name for rule in RULES} and set(FIRST) == {rule.name for rule in FIRST_RULES}


@pytest.mark.parametrize("name", WRONG)
def test_an_alarm_is_told_once_however_long_it_lasts_and_says_what_to_try(name):
    begin = BEGIN.get(name, 8)
    found = find_alarms(history(WRONG[name], begin))
    assert [alarm.name for alarm in found] == [name]
    assert found[0].step >= begin and "\n" not in found[0].text and "{" not in found[0].text and ":" in found[0].text


@pytest.mark.parametrize("name", FIRST)
def test_what_rl_cannot_work_with_is_told_of_the_evaluation_before_training_alone(name):
    found = find_alarms([first_record(**FIRST[name]), *history(lambda n: {})])
    assert [(alarm.step, alarm.name) for alarm in found] == [(0, name)]
    assert "\n" not in found[0].text and "{" not in found[0].text and ":" in found[0].text
    later = first_record(**FIRST[name]) | {"step": 10}
    of_sft = first_record(**FIRST[name]) | {"stage": "sft"}
    assert find_alarms([first_record(), later]) == [] and find_alarms([of_sft], stage="sft") == []


def test_a_fair_start_has_no_alarm_nor_has_one_of_which_little_is_known():
    assert find_alarms([first_record()]) == []
    assert find_alarms([{"stage": "rl", "step": 0, "eval/loss": 9.0}]) == []
    assert find_alarms([first_record(**dict.fromkeys(FAIR))]) == [], "null: the number was not finite"
    one_attempt = {"stage": "rl", "step": 0, "eval/pass@1": 0.02}
    assert find_alarms([one_attempt]) == [], "one attempt a problem says little of a group"
    assert [a.name for a in find_alarms([one_attempt | {"eval/pass@1": 0.0}])] == ["all groups fail"]
    assert find_alarms([first_record(**{"eval/entropy": 0.001, "eval/pass@1": 0.9})]) == [], "learned, so certain"
    equal = {"eval/groups/mixed": 0.0, "eval/groups/equal_reward": 1.0}
    assert [a.name for a in find_alarms([first_record(**FIRST["all groups fail"], **equal)])] == ["all groups fail"]


def test_the_first_evaluation_of_a_run_is_told_as_it_is_written_and_the_report_lists_it(tmp_path, capsys):
    journal = Journal(tmp_path, "rl", -1, 30, bar=False, loggers=())
    record = first_record(**FIRST["most cut off"])
    journal.write_metrics(0, {k: v for k, v in record.items() if k not in ("stage", "step")}, evaluation=True)
    journal.close()
    assert (
        "rl 0: ALARM, most cut off: 84% of the responses are cut off: raise rl.max_new_tokens"
        in capsys.readouterr().out
    )
    html = render_alarms(find_alarms(read_records(tmp_path / "metrics.jsonl")))
    assert html.count("<li>") == 1 and "step 0, most cut off" in html


def test_what_to_try_with_equal_groups_goes_by_their_outcome():
    def text(wrong, right):
        shares = {"train/groups/all_wrong": wrong, "train/groups/mixed": 0.0, "train/groups/all_right": right}
        (alarm,) = find_alarms(history(lambda n: shares))
        return alarm.text

    assert "easier problems" in text(1.0, 0.0) and "harder problems" in text(0.0, 1.0)
    assert "neither too easy nor too hard" in text(0.5, 0.5)


def test_a_calm_run_has_no_alarm_and_other_stages_are_not_looked_at():
    assert find_alarms(history(lambda n: {})) == []
    assert find_alarms([r | {"stage": "sft"} for r in history(WRONG["all cut off"])]) == []


@pytest.mark.parametrize("name", ["all cut off", "KL blow-up", "verifier failures"])
def test_a_single_bad_record_is_no_alarm_and_one_that_comes_back_is_told_again(name):
    change, patience = WRONG[name], next(rule.patience for rule in RULES if rule.name == name)
    assert find_alarms(history(change, end=8 + patience - 1)) == []
    twice = history(change, end=12) + [r | {"step": r["step"] + 20} for r in history(change, end=12)]
    assert [alarm.name for alarm in find_alarms(twice)] == [name, name]
    wavering = history(lambda n: change(n) if n % 2 == 0 or n < patience else {}, end=20)
    assert len(find_alarms(wavering)) == 1, "a value that wavers around the threshold is one alarm"


def test_a_number_that_was_not_finite_is_out_of_range():
    assert [a.name for a in find_alarms(history(lambda n: {"train/ratio/max": None}))] == ["ratio out of range"]
    assert [a.name for a in find_alarms(history(lambda n: {"train/kl": None}))] == ["KL blow-up"]


def test_entropy_may_fall_where_the_task_is_solved_and_accuracy_where_the_reward_falls_too():
    assert find_alarms(history(lambda n: {"train/entropy": 0.01, "train/reward": 0.95})) == []
    falling = lambda n: {"train/reward": 0.4 - 0.02 * n, "eval/pass@1": 0.6 - 0.05 * n}
    assert find_alarms(history(falling)) == []
    noisy = lambda n: {"train/reward": 0.4 + 0.05 * n, "eval/pass@1": 0.6 - 0.1 * (n > 3), "eval/pass@1/se": 0.08}
    assert find_alarms(history(noisy)) == [], "less than two standard errors"


def test_alarms_of_metrics_that_a_run_does_not_have_are_not_found():
    assert find_alarms([{"stage": "rl", "step": n, "train/loss": 1.0} for n in range(20)]) == []


def write(journal, records):
    for record in records:
        journal.write_metrics(record["step"], {k: v for k, v in record.items() if k not in ("stage", "step")})
    journal.close()


def test_alarms_are_printed_while_a_run_trains_once_also_where_it_is_resumed(tmp_path, capsys):
    records = history(WRONG["all cut off"])
    write(Journal(tmp_path, "rl", -1, 30, bar=False, loggers=()), records[:12])
    said = capsys.readouterr().out
    assert said.count("ALARM") == 1 and "rl 10: ALARM, all cut off: 100% of the responses" in said
    write(Journal(tmp_path, "rl", 12, 30, bar=False, loggers=()), records[12:])
    assert "ALARM" not in capsys.readouterr().out
    assert find_alarms(read_records(tmp_path / "metrics.jsonl")) == find_alarms(records)
    assert "ALARM" not in (tmp_path / "metrics.jsonl").read_text()


def test_the_report_lists_the_alarms_and_has_no_list_where_there_is_none():
    found = find_alarms(history(WRONG["entropy collapse"]))
    html = render_alarms(found)
    assert html.count("<li>") == 1 and "entropy collapse" in html and "1.1" in html
    assert render_alarms([]) == ""


def test_what_is_kept_of_a_run_does_not_grow_with_it():
    from rljax.metrics.alarms import Watch, see

    sizes, watch = [], Watch()
    for step in range(300):
        watch, _ = see(watch, {"stage": "rl", "step": step, "eval/pass@1": 0.5} | CALM)
        sizes.append(len(json.dumps(watch, default=list)))
    assert max(sizes[100:]) - min(sizes[100:]) < 100


def test_entropy_may_fall_where_no_reward_is_measured():
    """Pretraining and fine-tuning lower it: that is what they are for."""
    falling = [{"stage": "pretrain", "step": n, "train/entropy": 5.0 * 0.5**n} for n in range(1, 16)]
    assert find_alarms(falling, stage="pretrain") == []
    assert find_alarms([r | {"train/reward": 0.1} for r in falling], stage="pretrain") != []
