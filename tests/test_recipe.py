"""The parts of the recipe without training: the config of each stage, the table, and the verdict on the numbers."""

import re

import pytest

from configs import recipe as recipe_config
from configs import shop
from experiments import recipe
from rljax import report
from rljax.ablation import recipe_report
from rljax.errors import UserError
from rljax.report import figures


def model_result(rates, language=1.0):
    """The result of a model with these pass rates, one for each problem."""
    mean = sum(rates) / len(rates)
    measured = {"eval/pass@1": mean, "eval/pass@1/se": 0.05, "eval/cons@16": 1.0, "eval/cons@16/se": 0.0}
    measured |= {"eval/response_length/mean": 20.0, "eval/truncated": 0.0, "eval/strategy/jump": 0.5}
    return {"metrics": measured, "language": language, "rates": list(rates), "samples": []}


def all_results(distilled, small_rl, dev2, free):
    results = {name: model_result([0.5, 0.4] * 20) for name in recipe_report.MODELS}
    results |= {"small_distilled": model_result(distilled), "small_rl": model_result(small_rl)}
    return results | {"dev2": model_result(dev2, 0.99), "dev2_free": model_result(free, 0.7)}


def test_every_stage_has_its_own_start_size_and_steps_and_is_evaluated_on_validation_problems():
    config = recipe_config.get_config()
    config.recipe.steps.small_rl = 7
    small = recipe.make_stage_config(
        config, "small_rl", "rl", "there:pretrain", {"rl.reward": "correct", "rl.temperature": 0.7}
    )
    assert small.stages == ("rl",) and small.rl.start == "there:pretrain" and small.rl.steps == 7
    assert small.rl.temperature == 0.7 and small.model.width == config.recipe.small.width < config.model.width
    assert small.eval.split == "validation" and config.eval.split == "test"
    full_size = recipe.make_stage_config(config, "zero", "rl", "there:pretrain", {})
    assert full_size.model.to_dict() == config.model.to_dict() and full_size.rl.reward == "correct"


def test_a_config_without_a_recipe_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="no section `recipe`: use --config recipe"):
        recipe.run(shop.get_config("short"), tmp_path)


def test_an_evaluation_is_summarized_by_problem_with_the_share_of_its_language():
    attempt = {"prompt": "p", "strategy": "jump", "tokens": [1], "logprobs": [0.0]}
    samples = [
        attempt | {"problem": 0, "response": "try wait <eos>", "reward": 1.0},
        attempt | {"problem": 0, "response": "try 等 <eos>", "reward": 0.0},
        attempt | {"problem": 1, "response": "试 等", "reward": 0.0},
    ]
    result = recipe_report.summarize_model({"eval/pass@1": 0.25}, samples, "en", num_shown=1)
    assert result["rates"] == [0.5, 0.0] and result["language"] == pytest.approx(0.5)
    assert [a["response"] for a in result["samples"]] == ["try wait <eos>", "try 等 <eos>"]


def test_the_verdict_says_which_model_is_better_only_if_the_interval_excludes_zero():
    low, high = [0.1, 0.3] * 20, [0.8, 0.9] * 20
    assert "distilling beat RL (0.850 against 0.200" in recipe_report.recipe_verdict(all_results(high, low, high, high))
    assert "distilling lost to RL" in recipe_report.recipe_verdict(all_results(low, high, high, high))
    assert "did no better and no worse than RL" in recipe_report.recipe_verdict(all_results(low, low, high, high))
    verdict = recipe_report.recipe_verdict(all_results(high, low, low, high))
    assert "from 0.700 to 0.990" in verdict and "cost 0.650 of pass@1" in verdict
    assert "cost nothing that can be told" in recipe_report.recipe_verdict(all_results(high, low, high, high))


def test_the_table_the_figure_and_the_page_hold_every_model(tmp_path, capsys):
    config = recipe_config.get_config()
    (tmp_path / "config.json").write_text("{}")
    low, high = [0.1, 0.3] * 20, [0.8, 0.9] * 20
    recipe_report.write_recipe_report(config, tmp_path, all_results(high, low, high, high))
    table = (tmp_path / "table.md").read_text()
    page = (tmp_path / "report.html").read_text()
    for name in recipe_report.MODELS.values():
        assert name in table and name in page
    assert (
        recipe_report.recipe_verdict(all_results(high, low, high, high)) in table
        and "distilling beat" in capsys.readouterr().out
    )
    assert (tmp_path / "figures" / "models.png").stat().st_size > 8000
    assert len((tmp_path / "table.jsonl").read_text().splitlines()) == len(recipe_report.MODELS)


def test_a_figure_without_models_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no model"):
        figures.draw_models([], tmp_path / "a.png")


def test_attempts_of_any_two_models_are_shown_side_by_side(tmp_path):
    attempt = {"prompt": "Ben pays?", "response": "answer 3 4", "reward": 1.0, "strategy": "jump", "tokens": [1]}
    report.write_page(
        tmp_path / "r.html", "t", [], [], [([attempt], [attempt])], [], {}, column_titles=("of one", "of another")
    )
    page = (tmp_path / "r.html").read_text()
    assert "of one and of another" in page and "before RL" not in page


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"recipe.cold.epochs": 0}, "recipe.cold.epochs=0: must be above 0"),
        ({"recipe.distil.general": 1.0}, "recipe.distil.general=1.0: must be at least 0 and at most 0.99"),
        ({"recipe.reject.filter.problems": -1}, "recipe.reject.filter: --problems=-1"),
        ({"recipe.cooler": -0.5}, "rl.temperature=-0.5: must be above 0"),
        ({"recipe.reward": "0*correct"}, "rl.reward"),
        ({"recipe.steps.small_rl": -1}, "rl.steps=-1"),
        ({"recipe.target": "xx"}, "--target=xx"),
        (
            {"recipe.small.widht": 32},
            "recipe.small.widht: `model` has no such setting; did you mean recipe.small.width?",
        ),
        (
            {"recipe.watch.problem": 3},
            "recipe.watch.problem: `eval` has no such setting; did you mean recipe.watch.problems?",
        ),
        ({"recipe.watch.problems": "3"}, "recipe.watch.problems='3': must be a whole number"),
        ({"recipe.steps.zeroo": 3}, "recipe.steps.zeroo: there is no such setting; did you mean recipe.steps.zero?"),
        ({"recipe.cold.filter.problms": 3}, "recipe.cold.filter.problms: there is no such setting; did you mean"),
        ({"recipe.cold.filter.language": 2.0}, "recipe.cold.filter.language=2.0: must be"),
        ({"recipe.cold.epoch": 3}, "recipe.cold.epoch: there is no such setting; did you mean recipe.cold.epochs?"),
        ({"recipe.coolr": 0.5}, "recipe.coolr: there is no such setting; did you mean recipe.cooler?"),
    ],
)
def test_a_number_that_a_later_stage_could_not_use_is_refused_before_any_work(tmp_path, changes, said):
    config = recipe_config.get_config()
    for key, value in changes.items():
        *groups, name = key.split(".")
        section = config
        for group in groups:
            section = section[group]
        with section.unlocked(), section.ignore_type():
            section[name] = value
    with pytest.raises(UserError, match=re.escape(said)):
        recipe.run(config, tmp_path)
    assert not list(tmp_path.iterdir())
