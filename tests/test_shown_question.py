"""The question of the report: put to a model in the user's words, with the answer that the task knows."""

import json

import jax
import pytest
import tiny_folder

from configs import common, smollm2
from experiments import reproduce
from rljax import transformer
from rljax.errors import UserError
from rljax.training import initial_state, journal, shown_question
from rljax.training.run import resolve


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tiny_folder.make(tmp_path_factory.mktemp("model"), max_length=1024)
    found = smollm2.get_config(f"weights={folder},level=1,examples=1,short")
    found.rl.max_new_tokens, found.eval.attempts = 8, 3
    return found


def test_the_lectures_question_is_put_before_and_after_rl_and_not_twice(config, tmp_path, monkeypatch):
    asked = []

    def start_params(run, start, workdir):
        asked.append(start)
        return transformer.init(run.model, jax.random.key(0))

    monkeypatch.setattr(initial_state, "start_params", start_params)
    for _ in range(2):
        reproduce.ask_before_and_after(config, tmp_path)
    assert asked == ["weights", "rl"]
    for step in (0, config.rl.steps):
        lines = journal.read_samples(tmp_path, shown_question.NAME, step)
        assert len(lines) == 3 and all(line["prompt"].endswith(f"Q: {common.LECTURE_QUESTION}\nA:") for line in lines)
        assert lines[0]["prompt"].count("Q:") == 2, "a worked example stands before it"
        assert {line["reward"] for line in lines} == {0.0} and all(1 <= len(line["tokens"]) <= 8 for line in lines)
    json.dumps(lines)


def test_right_attempts_at_the_question_are_known(config):
    task = resolve(config).task
    record = task.read_prompt(common.LECTURE_QUESTION)
    assert task.verify("The answer is 3.<eos>", record) and not task.verify("The answer is 4.<eos>", record)


def test_a_question_that_the_task_cannot_check_is_refused_at_the_start(config):
    config = config.copy_and_resolve_references()
    config.report.question = "Why is the sky blue?"
    with pytest.raises(
        UserError, match="report.question='Why is the sky blue.': the answer to it is not known to task"
    ):
        resolve(config)
