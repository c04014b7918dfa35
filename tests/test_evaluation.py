"""One look at a policy: protocol, parts, votes, and what is left behind."""

import json

import jax
import numpy as np
import pytest

from configs import common, gsm8k_tiny
from experiments import evaluate
from rljax import evaluation, tasks, transformer
from rljax.errors import UserError
from rljax.evaluation import estimates
from rljax.tasks import Attempt, mixture, responses
from rljax.tasks.datasets import library
from rljax.training import evaluation_report, initial_state


def test_levels_and_data_sets_are_reported_apart_with_errors_over_their_questions():
    records = [{"level": level, "dataset": "a" if n < 3 else "b"} for n, level in enumerate("11225")]
    out = estimates.pass_rates_by_field(np.array([1.0, 0.0, 0.5, 0.5, 0.25]), records)
    assert out["eval/level/1/pass@1"] == 0.5 and out["eval/level/1/pass@1/se"] == pytest.approx(0.5)
    assert out["eval/level/5/pass@1"] == 0.25 and np.isnan(out["eval/level/5/pass@1/se"])
    assert out["eval/dataset/a/pass@1"] == 0.5 and out["eval/dataset/b/questions"] == 2
    assert estimates.pass_rates_by_field(np.array([1.0, 0.0]), [{"level": "1"}, {"level": "1"}]) == {}, (
        "one part is the whole"
    )


def test_equal_answers_vote_together_however_they_are_written():
    row = [Attempt("steps", a) for a in ("x^2+1", "1+x^2", "7", "7", None)]
    votes, gold = evaluation.canonicalize_answers([row], np.zeros((1, 5)), responses.same_answer)
    assert votes == [["x^2+1", "x^2+1", "7", "7", None]] and gold == ["right"]
    alone, _ = evaluation.canonicalize_answers([row], np.zeros((1, 5)))
    assert alone[0][:2] == ["x^2+1", "1+x^2"]
    right, _ = evaluation.canonicalize_answers([row], np.array([[1.0, 0, 0, 0, 0]]), responses.same_answer)
    assert right[0] == ["right", "1+x^2", "7", "7", None], "what the verifier says is never overruled"


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A workdir whose policy has random weights, and a config of questions with levels."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    library.load_rows.cache_clear()
    rows = [{"question": f"What is {n} and one?", "answer": n + 1, "level": 1 + n % 2} for n in range(60)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    start = lambda s, stage, workdir: transformer.init(s.model, jax.random.key(0))
    monkeypatch.setattr(initial_state, "start_params", start)
    return tmp_path


def config_of(workdir):
    c = gsm8k_tiny.get_config("short")
    c.task.options.update(datasets=str(workdir / "own.jsonl"), decontaminate=0, prompt_slots=64, max_response=32)
    c.model.layers, c.model.width, c.model.ff_width, c.model.heads, c.model.kv_heads = 1, 32, 32, 1, 1
    c.sft.max_new_tokens, c.rl.max_new_tokens, c.workers = 32, 16, 0
    return c


def test_r1s_protocol_leaves_a_table_a_figure_and_pass_rates_to_train_by(workdir, capsys, monkeypatch):
    c = config_of(workdir)
    monkeypatch.setattr(evaluate, "KEEP", 20)
    evaluate.run(c, workdir, "rl", "train", 0, 2, 0, "r1")
    said = json.loads((workdir / "evaluation_rl_train.json").read_text())
    size = tasks.make_task("questions", **c.task.options.to_dict()).num_questions("train")
    assert said["eval"] | {"problems": size} == said["eval"] and size > 40
    assert (said["eval"]["temperature"], said["eval"]["top_p"], said["eval"]["attempts"]) == (0.6, 0.95, 2)
    assert said["template"]["prompt"] == "Question: {question}\nAnswer: " and "math-verify" in said["verifier"]
    assert {"eval/level/1/pass@1", "eval/cons@2", "eval/answers/none", "eval/truncated"} <= set(said["metrics"])
    assert len(said["samples"]) == 2 * min(size, evaluate.KEEP) and {s["level"] for s in said["samples"]} == {"1", "2"}
    assert (
        "temperature 0.6" in capsys.readouterr().out and (workdir / "evaluation_rl_train.png").stat().st_size > 10_000
    )
    rates = workdir / "evaluation_rl_train_questions.jsonl"
    known = mixture.read_pass_rates(str(rates))
    rows = mixture.load_splits(mixture.Options(**c.task.options.to_dict()))["train"].sets[0]
    assert set(known) == {mixture.content_hash(r) for r in rows} and set(known.values()) == {0.0}
    c.task.options.update(pass_rates=str(rates), max_pass_rate=0.5)
    assert tasks.make_task("questions", **c.task.options.to_dict()).num_questions("train") == size


def test_the_configs_own_protocol_is_there_too_and_asks_no_question_twice(workdir):
    c = config_of(workdir)
    c.eval.problems = 500
    evaluate.run(c, workdir, "rl", "", -1, 0, 0, "config")
    said = json.loads((workdir / "evaluation_rl_test.json").read_text())
    assert said["eval"]["temperature"] == 1.0 and said["eval"]["attempts"] == 4
    assert (
        said["eval"]["problems"] == tasks.make_task("questions", **c.task.options.to_dict()).num_questions("test") < 60
    )
    assert "eval/greedy" in said["metrics"]


def test_r1s_number_of_attempts_goes_by_the_data_set():
    c = gsm8k_tiny.get_config()
    assert evaluation_report.protocol_attempts(c.task.options.to_dict()) == 16
    c.task.options.test = "math500 + aime24"
    assert evaluation_report.protocol_attempts(c.task.options.to_dict()) == 64
    assert evaluation_report.protocol_attempts(common.base().task.options.to_dict()) == 16


def test_what_is_said_explicitly_wins_over_the_protocol(workdir, monkeypatch):
    c = config_of(workdir)
    c.eval.update(dict(temperature=0.3, top_k=5))
    monkeypatch.setattr("sys.argv", ["evaluate", "--config.eval.temperature=0.3"])
    evaluate.run(c, workdir, "rl", "", 4, 2, 0, "r1", top_p=0.8)
    said = json.loads((workdir / "evaluation_rl_test.json").read_text())["eval"]
    assert (said["temperature"], said["top_p"], said["top_k"], said["attempts"]) == (0.3, 0.8, 0, 2)


def test_an_unknown_protocol_is_refused(workdir):
    with pytest.raises(UserError, match="r1 and config"):
        evaluate.run(config_of(workdir), workdir, "rl", "", -1, 0, 0, "greedy")


def test_the_table_widens_the_interval_of_a_level_with_few_questions():
    metrics = {"eval/pass@1/se": 0.1, "eval/level/5/pass@1/se": 0.1, "eval/level/5/questions": 5.0}
    assert evaluation_report.format_interval(metrics, "eval/pass@1", 100) == " ± 0.1984"
    assert evaluation_report.format_interval(metrics, "eval/level/5/pass@1", 100) == " ± 0.2776"
    assert evaluation_report.format_interval(metrics, "eval/truncated", 100) == ""
