"""The recipe's pure parts: what each stage is made from, the table, and the sentence that the numbers allow."""

import pytest

from configs import recipe as config_of
from experiments import recipe
from rljax import report
from rljax.ablation import recipe_report
from rljax.errors import UserError
from rljax.report import figures


def numbers(rates, language=1.0):
    """A model with these pass rates, as an evaluation leaves it."""
    mean = sum(rates) / len(rates)
    measured = {"eval/pass@1": mean, "eval/pass@1/se": 0.05, "eval/cons@16": 1.0, "eval/cons@16/se": 0.0}
    measured |= {"eval/response_length/mean": 20.0, "eval/truncated": 0.0, "eval/strategy/jump": 0.5}
    return {"metrics": measured, "language": language, "rates": list(rates), "samples": []}


def found(distilled, small_rl, dev2, free):
    out = {name: numbers([0.5, 0.4] * 20) for name in recipe_report.MODELS}
    out |= {"small_distilled": numbers(distilled), "small_rl": numbers(small_rl)}
    return out | {"dev2": numbers(dev2, 0.99), "dev2_free": numbers(free, 0.7)}


def test_every_stage_has_its_own_start_size_and_steps_and_is_looked_at_on_validation_problems():
    config = config_of.get_config()
    config.recipe.steps.small_rl = 7
    arm = recipe.arm_of(config, "small_rl", "rl", "there:pretrain", {"rl.reward": "correct", "rl.temperature": 0.7})
    assert arm.stages == ("rl",) and arm.rl.start == "there:pretrain" and arm.rl.steps == 7
    assert arm.rl.temperature == 0.7 and arm.model.width == config.recipe.small.width < config.model.width
    assert arm.eval.split == "validation" and config.eval.split == "test"
    big = recipe.arm_of(config, "zero", "rl", "there:pretrain", {})
    assert big.model.to_dict() == config.model.to_dict() and big.rl.reward == "correct"


def test_an_evaluation_is_summed_up_by_problem_and_its_language_is_counted():
    attempt = {"prompt": "p", "strategy": "jump", "tokens": [1], "logprobs": [0.0]}
    said = [
        attempt | {"problem": 0, "response": "try wait <eos>", "reward": 1.0},
        attempt | {"problem": 0, "response": "try 等 <eos>", "reward": 0.0},
        attempt | {"problem": 1, "response": "试 等", "reward": 0.0},
    ]
    out = recipe_report.summarize_model({"eval/pass@1": 0.25}, said, "en", keep=1)
    assert out["rates"] == [0.5, 0.0] and out["language"] == pytest.approx(0.5)
    assert [a["response"] for a in out["samples"]] == ["try wait <eos>", "try 等 <eos>"]


def test_the_verdict_says_who_won_only_where_the_problems_tell():
    low, high = [0.1, 0.3] * 20, [0.8, 0.9] * 20
    assert "distilling beat RL (0.850 against 0.200" in recipe_report.recipe_verdict(found(high, low, high, high))
    assert "distilling lost to RL" in recipe_report.recipe_verdict(found(low, high, high, high))
    assert "did no better and no worse than RL" in recipe_report.recipe_verdict(found(low, low, high, high))
    said = recipe_report.recipe_verdict(found(high, low, low, high))
    assert "from 0.700 to 0.990" in said and "cost 0.650 of pass@1" in said
    assert "cost nothing that can be told" in recipe_report.recipe_verdict(found(high, low, high, high))


def test_the_table_the_figure_and_the_page_hold_every_model(tmp_path, capsys):
    config = config_of.get_config()
    (tmp_path / "config.json").write_text("{}")
    low, high = [0.1, 0.3] * 20, [0.8, 0.9] * 20
    recipe_report.write_recipe_report(config, tmp_path, found(high, low, high, high))
    table = (tmp_path / "table.md").read_text()
    page = (tmp_path / "report.html").read_text()
    for name in recipe_report.MODELS.values():
        assert name in table and name in page
    assert (
        recipe_report.recipe_verdict(found(high, low, high, high)) in table
        and "distilling beat" in capsys.readouterr().out
    )
    assert (tmp_path / "figures" / "models.png").stat().st_size > 8000
    assert len((tmp_path / "table.jsonl").read_text().splitlines()) == len(recipe_report.MODELS)


def test_a_figure_without_models_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no model"):
        figures.draw_models([], tmp_path / "a.png")


def test_attempts_of_any_two_models_stand_side_by_side(tmp_path):
    attempt = {"prompt": "Ben pays?", "response": "answer 3 4", "reward": 1.0, "strategy": "jump", "tokens": [1]}
    report.write_page(
        tmp_path / "r.html", "t", [], [], [([attempt], [attempt])], [], {}, column_titles=("of one", "of another")
    )
    page = (tmp_path / "r.html").read_text()
    assert "of one and of another" in page and "before RL" not in page
