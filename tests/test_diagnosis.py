"""Diagnosis before training: attempts as RL would sample them, the numbers of a count by hand, and each obstacle with its name."""

import dataclasses
import json
import re

import coins
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_folder
from test_train_step import generous, state_of, tiny_config

from experiments import check
from rljax import tasks
from rljax.__main__ import find_commands
from rljax.errors import UserError
from rljax.sampler import LengthLimit
from rljax.tasks import Attempt
from rljax.tasks.datasets import library
from rljax.training import diagnosis, initial_state
from rljax.training.diagnosis_report import describe_seconds, format_measures
from rljax.training.rl_steps import make_steps
from rljax.training.run import resolve

LONG = 100  # tokens in which most responses of a random policy end
GROUP = 4


def config_of(**changes):
    return tiny_config(**{"rl.start": "", "rl.max_new_tokens": LONG} | changes)


def run_of(verify=None, **changes):
    """A run whose answers can all be read; ``verify(response [B, G, T], facts)`` in place of the task's verifier."""
    run = resolve(config_of(**changes), "rl")
    first_word = lambda text, record: Attempt("jump", text.partition(" ")[0])
    task = dataclasses.replace(generous(run.task), describe=first_word)
    if verify:
        score = lambda response, mask, finished, facts: verify(response, facts).astype(jnp.float32)
        task = dataclasses.replace(task, verify_on_device=score)
    return dataclasses.replace(run, task=task)


def measure(run, problems=16, split="validation"):
    attempts = diagnosis.sample_attempts(run, state_of(run), problems, split)
    return attempts, diagnosis.measures(run, attempts)


def names_of(run, **asked):
    return [alarm.name for alarm in diagnosis.find_obstacles(run, measure(run, **asked)[1])]


@pytest.fixture(scope="module")
def fair():
    return run_of()


@pytest.fixture(scope="module")
def measured(fair):
    return measure(fair)


def test_nothing_is_found_where_groups_are_mixed_and_answers_end_and_can_be_read(fair, measured):
    assert diagnosis.find_obstacles(fair, measured[1]) == []


def test_the_numbers_are_those_of_a_count_by_hand(fair, measured):
    attempts, numbers = measured
    right, rollout = attempts.correct > 0, attempts.rollout
    assert right.shape == (16, GROUP) and 0 < right.mean() < 1
    assert numbers["eval/pass@1"] == pytest.approx(right.mean())
    assert numbers[f"eval/pass@{GROUP}"] == pytest.approx(right.any(1).mean())
    assert numbers["eval/groups/mixed"] == pytest.approx((right.any(1) & ~right.all(1)).mean())
    assert numbers["eval/groups/equal_reward"] == pytest.approx(1 - numbers["eval/groups/mixed"])
    assert numbers["eval/truncated"] == pytest.approx(1 - rollout.finished.mean())
    assert numbers["eval/entropy"] == pytest.approx(-rollout.logprobs[rollout.mask].mean(), rel=1e-4)
    lengths = rollout.mask.sum(1).reshape(right.shape)
    assert numbers["eval/response_length/correct"] == pytest.approx(lengths[right].mean())
    assert numbers["eval/response_length/wrong"] == pytest.approx(lengths[~right].mean())
    verdicts = [[fair.task.verify(text, None) for text in row] for row in attempts.texts]
    np.testing.assert_array_equal(right, verdicts)


def test_the_prompts_are_those_of_rls_first_steps_where_its_split_is_asked(fair):
    attempts, _ = measure(fair, problems=8, split="train")
    steps, state = make_steps(fair), state_of(fair)
    for number in range(2):
        asked = steps.ask(state.replace(cursor=jnp.int32(number * 4)), jnp.int32(0))
        rows = slice(number * 4 * GROUP, (number + 1) * 4 * GROUP)
        np.testing.assert_array_equal(attempts.rollout.prompt[rows], np.repeat(asked.prompt, GROUP, 0))


def test_the_limit_of_the_first_steps_holds(fair):
    limit = dataclasses.replace(fair.rl.sampling, limit=LengthLimit(tokens=1, until=50))
    short = dataclasses.replace(fair, rl=dataclasses.replace(fair.rl, sampling=limit))
    attempts, numbers = measure(short)
    assert numbers["eval/response_length/max"] == 1
    assert "at most 1 tokens" in format_measures(short, "validation", attempts, numbers)


def test_a_random_policy_fails_in_every_group_and_says_no_answer():
    run = resolve(config_of(), "rl")
    assert names_of(run) == ["few answers readable", "all groups fail"]


def test_a_limit_of_two_tokens_cuts_most_responses_off_and_the_settings_that_mend_it_are_named():
    run = run_of(**{"rl.max_new_tokens": 2})
    (found,) = diagnosis.find_obstacles(run, measure(run)[1])
    assert found.name == "most cut off" and "rl.max_new_tokens" in found.text and "stop_strings" in found.text


VERIFIERS = {
    "all groups fail": lambda response, facts: jnp.zeros(response.shape[:2]),
    "all groups succeed": lambda response, facts: jnp.ones(response.shape[:2]),
    "few groups mixed": lambda response, facts: jnp.broadcast_to(facts["total"][:, None] % 2, response.shape[:2]),
}


@pytest.mark.parametrize("name", VERIFIERS)
def test_groups_of_one_outcome_are_told_by_their_outcome(name):
    assert names_of(run_of(VERIFIERS[name])) == [name]


def test_a_policy_that_says_one_thing_alone_has_no_entropy_and_no_mixed_group():
    run = run_of(VERIFIERS["few groups mixed"], **{"rl.temperature": 1e-4})
    assert names_of(run) == ["entropy near zero", "few groups mixed"]


def test_a_reward_that_does_not_tell_right_from_wrong_is_constant():
    run = run_of(**{"rl.reward": "0.5*format(tags=think)"})
    assert names_of(run) == ["constant reward"]


def test_a_group_of_one_attempt_is_never_mixed_and_that_is_no_finding():
    run = run_of(**{"rl.group_size": 1, "rl.row.advantage": "raw"})
    _, numbers = measure(run)
    assert diagnosis.find_obstacles(run, numbers) == [] and "eval/groups/mixed" not in numbers


def test_groups_of_one_outcome_are_no_finding_where_attempts_are_not_compared_within_groups():
    run = run_of(VERIFIERS["few groups mixed"], **{"rl.row.advantage": "raw"})
    attempts, numbers = measure(run)
    assert diagnosis.find_obstacles(run, numbers) == [] and numbers["eval/groups/mixed"] == 0
    assert "no gradient" not in format_measures(run, "validation", attempts, numbers)


def test_attempts_that_could_not_be_scored_are_left_out(measured, fair):
    attempts, _ = measured
    unknown = np.zeros_like(attempts.correct, bool)
    unknown[:, 0] = True
    lost = attempts._replace(
        correct=np.where(unknown, np.nan, attempts.correct),
        terms=np.where(unknown[..., None], np.nan, attempts.terms),
    )
    numbers = diagnosis.measures(fair, lost)
    assert numbers["eval/pass@1"] == pytest.approx(attempts.correct[:, 1:].mean())
    assert numbers["eval/groups/all_wrong"] == pytest.approx((attempts.correct[:, 1:] == 0).all(1).mean())


def test_three_attempts_are_shown_one_of_each_kind_at_different_problems(fair, measured):
    attempts, numbers = measured
    chosen = diagnosis.choose_attempts(attempts)
    assert len({q for q, _ in chosen}) == 3
    kinds = [(attempts.correct[q, n] > 0, attempts.columns()["finished"][q, n]) for q, n in chosen]
    assert kinds[0][0] and kinds[1] == (False, True) and not kinds[2][1]
    said = format_measures(fair, "validation", attempts, numbers)
    for number, (q, n) in enumerate(chosen, 1):
        assert f"attempt {number} of 3: " in said and attempts.texts[q][n] in said
    few = attempts._replace(correct=attempts.correct[:1, :2])
    one = few._replace(rollout=type(few.rollout)(**{k: v[:2] for k, v in vars(few.rollout).items() if v is not None}))
    assert sorted(diagnosis.choose_attempts(one)) == [(0, 0), (0, 1)]


def test_the_cost_is_the_first_step_and_the_median_of_the_others():
    ticks, seen = iter([0, 30, 30, 32, 32, 37, 37, 40]), []
    step = lambda state: (seen.append(state) or state + 1, {})
    cost = diagnosis.time_train_step(step, 0, 3, clock=lambda: next(ticks))
    assert (cost.first_seconds, cost.seconds, seen) == (30, 3, [0, 1, 2, 3])
    assert cost.memory > 1e7 and cost.memory_of == "the process"
    assert [describe_seconds(x) for x in (90.0, 150.0, 9000.0)] == ["90.0 s", "2.5 min", "2.5 h"]


# The script


def test_the_script_measures_a_step_tells_what_is_wrong_and_writes_the_numbers(tmp_path, capsys):
    file = tmp_path / "check.json"
    config = tiny_config(**{"rl.start": ""})
    check.run(config, tmp_path / "none", problems=8, steps=1, json=str(file))
    said, written = capsys.readouterr().out, json.loads(file.read_text())
    assert "shop, from random weights: 8 validation problems x 4 attempts, temperature 1, at most 12 tokens" in said
    for row in (
        "pass@1  ",
        "pass@4  ",
        "groups of mixed",
        "cut off at",
        "no answer could",
        "mean length",
        "a train step",
    ):
        assert f"\n  {row}" in said
    assert re.search(r"a train step +\d+\.\d\d s, the first \d+\.\d s with compilation", said)
    names = [found["name"] for found in written["findings"]]
    assert names == ["most cut off", "few answers readable", "all groups fail"] and all(
        f"\n  {n}: " in said for n in names
    )
    assert written["metrics"]["eval/pass@1"] == 0 and written["step"]["seconds"] > 0 and len(written["attempts"]) == 3
    assert list(tmp_path.iterdir()) == [file], "nothing else is written"


def test_a_world_whose_verifier_reads_text_is_diagnosed_too(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS, coins=coins))
    config = tiny_config(**{"rl.start": ""})
    config.task.name, config.task.options = "coins", {"largest": 12}
    check.run(config, tmp_path, problems=4, steps=0)
    said = capsys.readouterr().out
    assert "coins, from random weights: 4 validation problems" in said and "all groups fail: " in said
    assert "a train step" not in said


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model folder, and a file of questions beside it."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    library.load_rows.cache_clear()
    rows = [{"question": f"What is {n} and one?", "answer": n + 1} for n in range(60)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tiny_folder.make(tmp_path / "model")


def test_a_model_folder_needs_no_workdir_and_its_data_is_prepared_outside_the_home_folder(
    folder, tmp_path, monkeypatch, capsys
):
    plugin = tmp_path / "small.py"
    plugin.write_text(
        "from configs import qwen25\n\n\ndef get_config(arg=None):\n"
        f"    c = qwen25.get_config('weights={folder},data={tmp_path / 'own.jsonl'},short')\n"
        "    c.task.options.decontaminate, c.rl.max_new_tokens, c.workers, c.model.max_length = 0, 8, 0, 256\n"
        "    c.rl.widths = ()\n    return c\n"
    )
    monkeypatch.setattr("sys.argv", ["rljax check", "--config", str(plugin), "--problems=4", "--steps=0"])
    check.main()
    said = capsys.readouterr().out
    assert "questions, from weights: " in said and "most cut off: 100%" in said and "few answers readable" in said
    assert not (tmp_path / "tfds").exists()


def test_without_a_run_a_start_in_one_is_refused_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["rljax check", "--config", "shop"])
    with pytest.raises(SystemExit):
        check.main()
    assert "error: rl.start=sft is a stage of a run: name its --workdir=DIR" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [{"problems": 0}, {"steps": -1}, {"split": "exam"}, {"json": "."}])
def test_a_flag_that_cannot_be_is_refused_before_anything_is_made(flags, monkeypatch, tmp_path):
    monkeypatch.setattr(initial_state, "start_params", None)
    with pytest.raises(UserError, match=f"--{next(iter(flags))}="):
        check.run(config_of(), tmp_path, **flags)


def test_a_split_without_a_problem_is_refused(fair):
    empty = dataclasses.replace(fair, task=dataclasses.replace(fair.task, num_questions=lambda split: 0))
    with pytest.raises(UserError, match="--split=validation: task shop has no problem there"):
        diagnosis.sample_attempts(empty, state_of(fair), 4)


def test_a_split_of_few_problems_is_asked_once(fair):
    few = dataclasses.replace(fair, task=dataclasses.replace(fair.task, num_questions=lambda split: 6))
    attempts, _ = measure(few)
    assert attempts.correct.shape == (6, GROUP) and len(attempts.records) == len(attempts.texts) == 6


def test_the_help_keeps_the_two_checks_apart():
    said = find_commands()
    assert said["check"].startswith("Can RL work as set?") and said["check-task"].startswith("Check a world")
