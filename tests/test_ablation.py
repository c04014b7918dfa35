"""Ablations: arms and their starts, intervals over seeds, claims, and the report."""

import types
from pathlib import Path

import numpy as np
import pytest

from configs.ablations import selection, small
from experiments import ablate
from rljax import ablation
from rljax.errors import UserError
from rljax.metrics import intervals
from rljax.training import config_files, journal
from rljax.training.run import resolve

CONFIGS = sorted(p for p in Path("configs/ablations").glob("*.py") if p.stem not in ("__init__", "small"))


def run_result(arm, seed, pass_rates, lengths):
    """A result with these values at each evaluation."""
    curves = {
        "eval/pass@1": pass_rates,
        "eval/response_length/mean": lengths,
        "eval/strategy/jump": [0.5] * len(pass_rates),
    }
    rest = {"changes": [], "stage": "rl", "minutes": 1.0, "commit": None}
    return {"arm": arm, "seed": seed, "steps": [0, 10, 20][: len(pass_rates)], "curves": curves} | rest


RESULTS = [
    run_result(arm, seed, [0.2, 0.3, end + 0.01 * seed], [10, 12, length + 5 * seed])
    for arm, end, length in (("good", 0.8, 40), ("same", 0.81, 41), ("bad", 0.5, 10))
    for seed in range(4)
]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_arm_of_every_ablation_has_a_config_that_resolves(path):
    module = config_files.load_config_module(str(path))
    spec = ablation.load_ablation(module, [])
    assert spec.question and spec.hypothesis and spec.claims
    for run in ablation.expand_runs(spec, module.get_config(), [0], Path("w"), Path("s")):
        resolve(run.config, spec.stage)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_the_committed_results_of_every_ablation_have_its_arms_and_three_seeds_or_more(path):
    spec = ablation.load_ablation(config_files.load_config_module(str(path)), [])
    results = ablation.read_results(Path("docs/ablations") / f"{path.stem}.jsonl")
    for arm, changes in spec.arms.items():
        of_arm = [result for result in results if result["arm"] == arm]
        assert {0, 1, 2} <= {result["seed"] for result in of_arm}
        assert all(result["changes"] == list(changes) for result in of_arm)
    assert all(ablation.check_claim(claim, results).difference.seeds >= 3 for claim in spec.claims), (
        "no claim is checked on fewer"
    )


def test_arms_share_a_start_unless_they_change_what_it_depends_on():
    module = types.SimpleNamespace(
        get_ablation=lambda: dict(
            arms=(
                ("a",),
                ("b", "rl.algorithm=grpo"),
                ("c", "sft.steps=9"),
                ("d", "rl.start=pretrain"),
                ("e", "rl.start=x:sft"),
            )
        )
    )
    config = small.get_config()
    spec = ablation.load_ablation(module, [])
    a, b, c, d, e, *_, f = ablation.expand_runs(spec, config, [0, 1], Path("w"), Path("s"))
    assert a.start == b.start and b.config.rl.algorithm == "grpo" and b.start_config.rl.algorithm == "dr_grpo"
    assert len({a.start, c.start, d.start}) == 3 and c.start_config.sft.steps == 9
    assert d.start_config.stages == ("pretrain",) and d.config.rl.start == f"{d.start}:pretrain"
    assert e.start == Path() and e.config.rl.start == "x:sft"
    assert f.seed == 1 and f.config.seed == 1 and config.seed == 0
    assert a.start != [r for r in ablation.expand_runs(spec, config, [0, 1], Path("w"), Path("s")) if r.seed][0].start


def test_varied_settings_are_combined_and_a_comma_in_parentheses_is_part_of_a_value():
    vary = ["rl.row.surrogate=ppo_clip(low=0.1, high=0.2),cispo", "rl.group_size=8,16"]
    spec = ablation.load_ablation(types.SimpleNamespace(), vary)
    assert len(spec.arms) == 4
    assert ("rl.row.surrogate=ppo_clip(low=0.1, high=0.2)", "rl.group_size=16") in spec.arms.values()
    with pytest.raises(UserError, match="write key=value,value"):
        ablation.load_ablation(types.SimpleNamespace(), ["rl.group_size"])


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(arms=()), "there are no arms"),
        (dict(arms=(("a",), ("a",))), "different names"),
        (dict(arms=(("a",),), stage="practice"), "unknown stage 'practice'"),
        (dict(arms=(("a",),), figures=("pie",)), "unknown figure 'pie'"),
        (dict(arms=(("a",),), claims=("pass@1: a < b",)), "there is no arm 'b'"),
        (dict(arms=(("a",),), claims=("a is better",)), "write MEASURE"),
        (dict(arms=(("a",),), claims=("pass@1: a ~ before",)), "write MEASURE"),
        (dict(arms=(("a",),), colour=1), "unknown key 'colour'"),
    ],
)
def test_an_ablation_that_is_not_valid_is_refused_with_a_clear_message(fields, message):
    with pytest.raises(UserError, match=message):
        ablation.load_ablation(types.SimpleNamespace(get_ablation=lambda: fields), [])


def test_an_ablation_without_a_seed_is_refused(tmp_path):
    with pytest.raises(UserError, match="--seeds=0: must be at least 1"):
        ablate.run(small.get_config(), tmp_path, 0, [], "", "auto", 0, 0, "")


def test_an_unknown_setting_of_an_arm_is_refused_before_anything_runs():
    module = types.SimpleNamespace(get_ablation=lambda: dict(arms=(("a", "rl.algoritm=grpo"),)))
    with pytest.raises(UserError, match="did you mean --config.rl.algorithm"):
        ablation.expand_runs(ablation.load_ablation(module, []), small.get_config(), [0], Path("w"), Path("s"))


def test_95_percent_intervals_cover_the_mean_95_percent_of_the_time():
    rng = np.random.default_rng(1)
    for seeds in (3, 4, 8, 20):
        estimates = [intervals.confidence_interval(rng.normal(size=seeds)) for _ in range(4000)]
        covered = np.mean([e.low <= 0 <= e.high for e in estimates])
        assert 0.938 <= covered <= 0.962, (seeds, covered)


def test_differences_are_paired_by_seed():
    a, b = {s: s + 0.1 for s in range(5)}, {s: float(s) for s in range(1, 6)}
    d = intervals.paired_difference(a, b)
    assert d.seeds == 4 and d.excludes_zero and d.mean == pytest.approx(0.1) and d.high - d.low < 1e-9


@pytest.mark.parametrize(
    "claim, outcome",
    [
        ("pass@1: bad < good", "holds"),
        ("pass@1: bad > good", "fails"),
        ("length: good > before", "holds"),
        ("length: bad ~ before [20]", "holds"),
        ("pass@1: good ~ same [0.02]", "holds"),
        ("pass@1: good ~ bad [0.02]", "fails"),
        ("jumps: good < bad", "not shown"),
    ],
)
def test_a_claim_holds_fails_or_is_not_shown(claim, outcome):
    assert ablation.check_claim(claim, RESULTS).outcome == outcome


def rising_result(seed, lengths):
    return run_result("long", seed, [0.1] * len(lengths), lengths) | {"steps": list(range(0, 10 * len(lengths), 10))}


def test_a_claim_may_ask_for_a_multiple_and_for_what_still_rises():
    flat = [10, 60, 90, 110, 120, 125, 120, 126, 121, 124, 122]
    rising = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110]
    outcome = lambda claim, curves: (
        ablation.check_claim(claim, [rising_result(n, c) for n, c in enumerate(curves)]).outcome
    )
    up = [rising, [x + n % 3 for n, x in enumerate(rising)], [1.1 * x for x in rising]]
    assert outcome("length: long > 10 x before", up) == "holds"
    assert outcome("length: long > 12 x before", up) == "fails"
    assert outcome("length: long > a fifth ago", up) == "holds"
    assert (
        outcome("length: long > a fifth ago", [flat, flat[:-3] + [122, 123, 121], flat[:-2] + [119, 125]])
        == "not shown"
    )
    assert outcome("length: long > a fifth ago", [x[::-1] for x in up]) == "fails"
    found = ablation.check_claim("length: long > a fifth ago", [rising_result(n, c) for n, c in enumerate(up)])
    assert found.left.mean - found.right.mean == pytest.approx(found.difference.mean) and found.difference.mean > 15
    few = [rising_result(n, c[:3]) for n, c in enumerate(up)]  # two evaluations in the last fifth
    assert ablation.check_claim("length: long > a fifth ago", few).difference.seeds == 0


def test_the_verdict_has_the_values_and_the_number_of_seeds():
    text = ablation.format_verdict([ablation.check_claim("pass@1: bad < good", RESULTS)], RESULTS)
    assert "4 seeds" in text and "pass@1: bad < good HOLDS (0.515" in text and "-0.300" in text


def test_a_verdict_on_arms_with_different_numbers_of_seeds_gives_both_numbers():
    fewer = [r for r in RESULTS if r["arm"] != "bad" or r["seed"] < 2]
    assert "2 to 4 seeds" in ablation.format_verdict([ablation.check_claim("pass@1: bad < good", fewer)], fewer)


def test_the_report_is_made_from_the_results_alone(tmp_path):
    spec = ablation.load_ablation(
        types.SimpleNamespace(get_ablation=lambda: selection.get_ablation() | dict(
            arms=(("good",), ("same",), ("bad",)), claims=("pass@1: bad < good",))),
        [],
    )  # fmt: skip
    ablation.write_results(tmp_path / "results.jsonl", RESULTS)
    ablation.write_report(spec, ablation.read_results(tmp_path / "results.jsonl"), tmp_path, "selection")
    page = (tmp_path / "report.html").read_text()
    assert "pass@1: bad &lt; good" in page and page.count("<img") == 2
    assert "HOLDS" in (tmp_path / "verdict.txt").read_text()
    journal.replace_text(tmp_path / "other.jsonl", '{"a": 1}\n')
    with pytest.raises(UserError, match="there are no results of an ablation"):
        ablation.read_results(tmp_path / "other.jsonl")
