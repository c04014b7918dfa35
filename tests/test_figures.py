"""Figures and the report, on synthetic records."""

import math
import re

import numpy as np
import pytest

from rljax import report
from rljax.ablation import results
from rljax.errors import UserError
from rljax.metrics import behaviours
from rljax.report import figures, measures, r1_zero_curves, records
from rljax.report.figures import training

CURVES = ["accuracy", "response_length", "overlay", "strategies", "behaviours", "skills", "training", "other_measures"]
KEY_OF = {
    "accuracy": "eval/pass@1",
    "response_length": "eval/response_length/mean",
    "overlay": "eval/pass@1",
    "strategies": "eval/strategy/jump",
    "behaviours": "eval/behaviour/wait",
    "skills": "eval/facts_right",
    "training": "train/reward",
    "other_measures": "eval/greedy",
}


def evaluation(step: int, seed: int) -> dict:
    f = 1 - math.exp(-step / 20)
    a, length = 0.28 + 0.55 * f + 0.01 * seed, 15 + 40 * f + seed
    return {
        "stage": "rl", "step": step, "eval/pass@1": a, "eval/pass@1/se": 0.02, "eval/pass@16": a + 0.1,
        "eval/cons@8": a + 0.05, "eval/cons@8/se": 0.02, "eval/response_length/mean": length,
        "eval/response_length/median": length * 0.9, "eval/response_length/p95": length * 1.8,
        "eval/strategy/jump": 0.5 * (1 - f), "eval/strategy/retry": 1 - 0.5 * (1 - f),
        "eval/behaviour/wait": 0.4 + 0.5 * f, "eval/behaviour/wait/per_1k": 40 + 60 * f,
        "eval/behaviour/wait/per_response": 1 + 2 * f,
        "eval/greedy": a, "eval/facts_right": 0.99, "eval/verdicts_right": 0.97, "eval/false_yes": 0.05,
        "eval/verdicts_right/try_1": 0.99, "eval/verdicts_right/try_2": 0.95,
    }  # fmt: skip


def run(seed: int = 0) -> list[dict]:
    train = [
        {"stage": "rl", "step": s, "train/response_length/mean": 15 + s + seed, "train/reward": s / 40}
        for s in range(1, 41)
    ]
    other = [{"stage": "sft", "step": 5, "eval/pass@1": 0.2, "train/loss": 1.0}]
    return other + train + [evaluation(s, seed) for s in range(0, 41, 10)]


def sample(response: str, reward: float) -> dict:
    words = response.split()
    return {"problem": 0, "prompt": "Ben pays 14 for two of 6 3 11 ?", "response": response, "reward": reward,
            "strategy": "retry", "tokens": list(range(len(words))), "pieces": words}  # fmt: skip


BEFORE = [sample("answer 6 3 <eos>", 0.0)] * 15
AFTER = [sample("try 6 + 3 = 9 vs 14 less wait 3 + 11 = 14 vs 14 same answer 3 11 <eos>", 1.0)] * 15


def is_picture(path) -> bool:
    """A PNG between 900 and 1300 pixels wide with something on it."""
    data = path.read_bytes()
    return data[:4] == b"\x89PNG" and 900 <= int.from_bytes(data[16:20], "big") <= 1300 and len(data) > 8000


@pytest.mark.parametrize("name", CURVES)
def test_a_figure_of_several_seeds_is_a_picture_of_readme_width(name, tmp_path):
    getattr(figures, f"draw_{name}")([run(0), run(1)], tmp_path / "new" / "a.png")
    assert is_picture(tmp_path / "new" / "a.png")


@pytest.mark.parametrize("name", CURVES)
def test_one_evaluation_with_one_key_is_enough_to_draw(name, tmp_path):
    key = KEY_OF[name]
    getattr(figures, f"draw_{name}")([[{"stage": "rl", "step": 0, key: 0.5}]], tmp_path / "a.png")
    assert is_picture(tmp_path / "a.png")


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("runs", [[], [[]], [[{"stage": "sft", "step": 0, "eval/pass@1": 0.5}]]])
def test_a_figure_without_data_raises_an_error_of_one_line(name, runs, tmp_path):
    with pytest.raises(UserError, match=f"^figure {name}: no record of stage 'rl' has '(eval|train)/") as e:
        getattr(figures, f"draw_{name}")(runs, tmp_path / "a.png")
    assert "\n" not in str(e.value) and not (tmp_path / "a.png").exists()


def test_the_training_figure_has_a_panel_for_each_measure_that_was_logged_and_none_for_what_never_changes():
    keys = ["train/reward", "train/kl", "train/kl/k1", "train/ratio/max", "train/my_metric", "train/reward/format"]
    panels = measures.training_panels(["eval/pass@1", *keys])
    assert [*panels] == [
        "Reward, mean",
        "KL to the reference policy",
        "Ratio π / π_old",
        "Reward terms, unweighted",
        "my_metric",
    ]
    assert [m.short_label for m in panels["KL to the reference policy"]] == ["k3", "k1"]
    runs = [[{"stage": "rl", "step": s, "train/ratio/max": 1.0, "train/clip_fraction": 0.0} for s in range(3)]]
    assert training.choose_measures(runs, panels["Ratio π / π_old"]) == []
    clip = measures.training_panels(["train/clip_fraction"])["Clip fraction"]
    assert training.choose_measures(runs, clip) == clip, "what is always shown is shown at zero too"


def test_a_moving_mean_keeps_a_straight_line_and_leaves_out_what_is_missing():
    line = np.arange(60.0)
    assert training.moving_mean(line)[2:-2].tolist() == line[2:-2].tolist()
    line[30] = np.nan
    assert not np.isnan(training.moving_mean(line)).any()


def test_a_new_metric_has_a_label_and_a_panel_from_one_row(monkeypatch):
    assert measures.find_measure("eval/doubt").label == "doubt", "without a row it goes by its key"
    monkeypatch.setitem(measures.EVALUATION, "doubt", measures.Measure("eval/doubt", "Doubts", "share", "lower"))
    assert measures.find_measure("doubt") is measures.find_measure("eval/doubt")
    assert [*measures.evaluation_panels(["eval/doubt", "eval/doubt/se"])] == ["Doubts"]
    assert measures.find_measure("length").header == "Response length, mean (tokens)"
    assert measures.find_measure("doubt").header == "Doubts ↓" and measures.find_measure("doubt").format(0.5) == "50.0%"
    line = {"arm": "a", "seed": 0, "curves": {"eval/doubt": [0.1, 0.2]}}
    assert results.values_by_seed([line], "a", "doubt") == {0: 0.2}


def test_names_of_measures_have_their_keys_and_units():
    for name, key, unit in (("pass@8", "eval/pass@8", "share"), ("level 3", "eval/level/3/pass@1", "share"),
                            ("length", "eval/response_length/mean", "tokens"), ("eval/odd", "eval/odd", "")):  # fmt: skip
        found = measures.find_measure(name)
        assert (found.key, found.unit) == (key, unit), name


def test_behaviours_in_sentences_get_a_legend_and_the_first_aha_a_line(tmp_path):
    names = [*behaviours.REFLECTION, *behaviours.SENTENCE_BEHAVIOURS]
    ends = ("", "/per_response", "/per_1k")
    records = [
        {"stage": "rl", "step": s} | {f"eval/behaviour/{n}{end}": 0.1 + s / 50 for n in names for end in ends}
        for s in (0, 10, 20)
    ]
    figures.draw_behaviours([records], tmp_path / "plain.png")
    figures.draw_behaviours([records], tmp_path / "marked.png", aha=10)
    assert is_picture(tmp_path / "plain.png") and is_picture(tmp_path / "marked.png")
    assert (tmp_path / "plain.png").read_bytes() != (tmp_path / "marked.png").read_bytes()


def test_selection_rules_are_drawn_side_by_side_and_need_a_record(tmp_path):
    figures.draw_selection({"shortest correct": [run(0)], "policy gradient": [run(1), run(2)]}, tmp_path / "a.png")
    assert is_picture(tmp_path / "a.png")
    with pytest.raises(UserError, match="figure selection"):
        figures.draw_selection({"all correct": [[]]}, tmp_path / "b.png")


def test_attempts_need_samples_on_both_sides_but_not_their_pieces(tmp_path):
    figures.draw_attempts(BEFORE, [{k: v for k, v in s.items() if k != "pieces"} for s in AFTER], tmp_path / "a.png")
    assert is_picture(tmp_path / "a.png")
    with pytest.raises(UserError, match="figure attempts"):
        figures.draw_attempts(BEFORE, [], tmp_path / "b.png")


def test_dollar_signs_and_line_breaks_of_a_policy_are_plain_text(tmp_path):
    wild = sample("$5 + $6 \n = $\\frac{1$ <eos>", 0.0) | {"prompt": "A pen costs $5,\n an ink $6. " * 9}
    figures.draw_attempts([wild], [wild, sample("", 0.0)], tmp_path / "a.png")
    assert is_picture(tmp_path / "a.png")


def test_the_later_record_of_a_step_counts_and_other_stages_do_not():
    rows = [
        *run(),
        {"stage": "rl", "step": 10, "eval/pass@1": 0.1},
        {"stage": "rl", "step": 20, "eval/pass@1": None},
    ]
    found = records.read_series(rows, "eval/pass@1")
    assert list(found) == [0, 10, 20, 30, 40]
    assert found[10] == 0.1 and found[20] == evaluation(20, 0)["eval/pass@1"]


def test_the_band_of_several_runs_is_over_seeds_and_that_of_one_run_over_its_questions():
    x, y = records.stack_runs([[{"stage": "rl", "step": 0, "a": v}] for v in (0.2, 0.3, 0.4)], "a")
    mean, half = records.mean_and_half_width(y)
    assert x.tolist() == [0] and mean[0] == pytest.approx(0.3)
    assert half[0] == pytest.approx(4.302653 * 0.1 / math.sqrt(3))  # t of 2 degrees of freedom at .975
    assert records.mean_and_half_width(y[:1], y[0] * 0.1)[1][0] == pytest.approx(1.96 * 0.02, rel=1e-4)
    assert records.mean_and_half_width(y[:1], y[0] * 0.1, 5)[1][0] == pytest.approx(2.7764 * 0.02, rel=1e-4)
    assert math.isnan(records.mean_and_half_width(y[:1])[1][0])


def test_labels_that_overlap_are_moved_and_keep_their_order():
    y = figures.spread_labels(np.array([0.98, 0.5, 0.97, 0.99]), 0.05)
    assert y[1] == 0.5 and y[2] < y[0] < y[3] <= 1 and min(np.diff(sorted(y))) > 0.049


def test_a_long_text_keeps_its_start_and_its_end():
    short = figures.shorten("try 6 + 3 = 9 vs 14 less wait 3 + 11 = 14 vs 14 same answer 3 11", 40)
    assert len(short) <= 40 and short.startswith("try 6") and " … " in short and short.endswith("3 11")
    assert figures.shorten("answer 3 11", 40) == "answer 3 11"


def test_r1_zeros_curves_have_the_published_ends():
    assert len(r1_zero_curves.STEPS) == len(r1_zero_curves.PASS_1) == len(r1_zero_curves.CONS_16) == 35
    assert len(r1_zero_curves.LENGTH_STEPS) == len(r1_zero_curves.LENGTH)
    assert r1_zero_curves.STEPS[-1] == r1_zero_curves.LENGTH_STEPS[-1] == 8400
    assert (r1_zero_curves.PASS_1[0], r1_zero_curves.PASS_1[-1], r1_zero_curves.CONS_16[-1]) == (0.1562, 0.7104, 0.8667)


@pytest.fixture
def page(tmp_path) -> str:
    figures.draw_accuracy([run()], tmp_path / "accuracy.png")
    evil = sample('<script src="http://a.b/c.js">alert(1)</script> answer 3 11', 0.0)
    report.write_page(
        tmp_path / "report.html",
        "shop & <b>search</b>",
        [("accuracy", 0.8765, "before RL .297"), ("seeds", 3, "")],
        [(tmp_path / "accuracy.png", 'pass@1 and "cons@16"')],
        [(BEFORE, [*AFTER, evil])],
        [("Skills", ["stage", "facts", "verdicts"], [["sft", 0.9987, None], ["rl", 0.9912, 0.5]])],
        {"seed": 1, "task": {"name": "<shop>"}, "versions": {"jax": "0.9.9"}, "commit": "abc1234"},
    )
    return (tmp_path / "report.html").read_text()


def test_the_report_loads_nothing_from_outside(page):
    assert re.findall(r'src="([^"]{22})', page) == ["data:image/png;base64,"]
    assert not re.search(r"<link|<script|@import|url\(|<[^>]+(src|href)=.?(http|/)", page)


def test_the_report_escapes_what_a_policy_or_a_user_wrote(page):
    assert "&lt;script src=&quot;http://a.b" in page and "<b>search" not in page
    assert "&lt;shop&gt;" in page and "&quot;cons@16&quot;" in page


def test_the_report_holds_the_numbers_the_attempts_and_the_versions(page):
    for text in (
        "0.876",
        "before RL .297",
        "0.999",
        "0.991",
        "15 of 16 right",
        "0 of 15 right",
        "jax 0.9.9",
        "abc1234",
    ):
        assert text in page, text
    assert page.count('<li class="right">') == 15 and page.count('<li class="wrong">') == 16
    assert "<td>–</td>" in page


def test_a_report_without_its_figure_says_which(tmp_path):
    with pytest.raises(UserError, match="cannot read the figure .*none.png"):
        report.write_page(tmp_path / "r.html", "t", [], [(tmp_path / "none.png", "c")], [], [], {})


def test_an_evaluation_is_drawn_with_its_levels_and_needs_a_pass_rate(tmp_path):
    metrics = {"eval/pass@1": 0.5, "eval/pass@1/se": 0.03, "eval/pass@2": 0.6, "eval/pass@4": 0.7, "eval/cons@4": 0.6}
    figures.draw_evaluation(metrics, tmp_path / "one.png")
    for level in "123":
        metrics |= {
            f"eval/level/{level}/{k}": v for k, v in (("pass@1", 0.5), ("pass@1/se", float("nan")), ("questions", 7))
        }
    figures.draw_evaluation(metrics, tmp_path / "levels.png")
    assert (tmp_path / "levels.png").read_bytes() != (tmp_path / "one.png").read_bytes()
    with pytest.raises(UserError, match="eval/pass@1"):
        figures.draw_evaluation({}, tmp_path / "none.png")


def test_learning_curves_of_seeds_and_of_libraries_are_drawn_together(tmp_path):
    runs = [run(seed) for seed in range(3)]
    figures.draw_learning({"": runs}, tmp_path / "seeds.png", "three seeds", questions=64)
    figures.draw_learning({"ours, 2 s a step": runs, "theirs": runs[:1]}, tmp_path / "both.png")
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("seeds.png", "both.png"))
    with pytest.raises(UserError, match="figure learning: no record of stage 'rl' has 'eval/pass@1'"):
        figures.draw_learning(
            {"": [[{"stage": "rl", "step": 0, "eval/response_length/mean": 3.0}]]}, tmp_path / "x.png"
        )


def test_behaviours_that_hardly_ever_occur_have_no_curve(tmp_path):
    rows = [r | {"eval/behaviour/check": 0.001 * i, "eval/behaviour/check/per_1k": 1.0} for i, r in enumerate(run())]
    figures.draw_behaviours([rows], tmp_path / "all.png")
    figures.draw_behaviours([rows], tmp_path / "common.png", rare=0.5)
    assert (tmp_path / "all.png").read_bytes() != (tmp_path / "common.png").read_bytes()
    with pytest.raises(UserError, match="behaviours"):
        figures.draw_behaviours([rows], tmp_path / "none.png", rare=1.1)
