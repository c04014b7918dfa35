"""report.html: the figures and texts of a run, models side by side, and the first aha."""

import json

import pytest

from configs import common
from experiments import plot
from rljax import report
from rljax.errors import UserError
from rljax.metrics import behaviours
from rljax.report import aha, measures, texts
from rljax.training import config_files, initial_state, journal, shown_question
from rljax.training.run import resolve

PROMPT = "<bos> Ben pays 14 for two of 6 3 11?"


def sample(think: str, final: str, reward: float, problem: int = 0, old: bool = False) -> dict:
    text = f"{think} {final}".strip()
    out = {"problem": problem, "prompt": PROMPT, "response": f"{text} <eos>", "reward": reward, "strategy": "retry",
           "tokens": list(range(len(text.split()) + 1)), "pieces": [*text.split(), "<eos>"]}  # fmt: skip
    where = {"final": len(text) - len(final), "think_tokens": len(think.split())}
    return out if old else out | where


JUMP = sample("", "answer 6 3", 0.0)
SEARCH = sample("try 6 + 3 = 9 vs 14 less wait 3 + 11 = 14 vs 14 same", "answer 3 11", 1.0)


def test_models_side_by_side_show_one_question_with_think_part_and_answer_of_each():
    page = report.render_models([("SFT model", [JUMP, JUMP, SEARCH]), ("RL model", [SEARCH, SEARCH])], "Chosen so.")
    assert page.count("<article") == 2 and page.count("Ben pays 14 for two of 6 3 11?") == 1
    sft, rl = page.split("<article")[1:]
    assert "SFT model <span>1 of 3 right" in sft and "RL model <span>2 of 2 right" in rl
    assert '<p class="think" tabindex="0">nothing</p>' in sft and "thinks <span>0 tokens" in sft
    assert '<p class="final">answer 6 3</p>' in sft and "✗ wrong" in sft and "reward 0" in sft
    assert "wait 3 + 11 = 14 vs 14 same</p>" in rl and "thinks <span>18 tokens" in rl
    assert '<p class="final">answer 3 11</p>' in rl and "✓ right" in rl and "reward 1" in rl
    assert "Chosen so. For each model the median attempt is shown" in page and "&lt;bos" not in page


def test_three_models_are_shown_and_each_card_has_its_prompt_where_prompts_differ():
    other = SEARCH | {"prompt": "Ben: two of 6 3 11, 14 in all?"}
    page = report.render_models([("a", [JUMP]), ("b", [SEARCH]), ("c", [other])])
    assert page.count("<article") == 3 and page.count("two of 6 3 11?") == 2 and page.count("14 in all?") == 1


def test_samples_of_older_runs_without_the_start_of_the_answer_are_shown():
    old = sample("try 6 + 3 = 9 wait", "answer 3 11", 1.0, old=True)
    assert report.split_answer(old) == ("try 6 + 3 = 9 wait", "answer 3 11")
    assert report.split_answer(old | {"response": "<think> so </think> <answer> 7 </answer><eos>"})[0] == "so"
    assert report.split_answer(old | {"response": "so it is 7"}) == ("", "so it is 7")
    bare = {k: old[k] for k in ("prompt", "response", "reward")}
    page = report.render_models([("one", [bare]), ("other", [SEARCH])])
    assert "thinks <span>7 words" in page and "thinks <span>18 tokens" in page


def test_texts_of_policies_prompts_and_names_are_escaped():
    evil = sample("<script>1</script> wait <b>", "answer <img src=x>", 0.0) | {"prompt": '<i>"p"'}
    page = report.render_models([('<u>"a"', [evil]), ("b", [SEARCH])])
    page += report.render_example("<s>", evil, behaviours.compile_patterns(["wait"])["wait"], "<q>")
    for tag in ("<script", "<b>", "<img", "<i>", "<u>", "<s>", "<q>"):
        assert tag not in page, tag
    assert 'aria-label="&lt;u&gt;&quot;a&quot;"' in page and "<mark>wait</mark>" in page


def test_a_truncated_think_part_has_no_final_answer():
    cut = {"prompt": PROMPT, "response": "try 6 + 3", "final": 9, "think_tokens": 4, "reward": 0.0}
    page = report.render_models([("a", [cut]), ("b", [SEARCH])])
    assert '<p class="final">no final answer</p>' in page and "reward 0, cut off" in page


def test_the_median_attempt_by_reward_and_length_is_shown():
    long, short = sample("try " * 9, "answer 3 11", 1.0), sample("try", "answer 3 11", 1.0)
    middle = sample("try " * 4, "answer 3 11", 1.0)
    assert report.median_attempt([long, short, middle]) is middle
    assert report.median_attempt([JUMP, long, JUMP]) is JUMP, "right only where more than half are"
    assert report.median_attempt([long, JUMP, short]) is short
    assert report.median_attempt([long, JUMP]) is JUMP, "the lower one of two"
    with pytest.raises(UserError, match="no attempts"):
        report.median_attempt([])


def test_the_question_whose_pass_rate_rose_most_comes_first():
    before = {0: [JUMP, JUMP], 1: [JUMP, SEARCH], 2: [JUMP], 3: [JUMP]}
    after = {2: [SEARCH], 1: [SEARCH, SEARCH], 0: [SEARCH, SEARCH], 4: [SEARCH]}
    assert report.rank_by_improvement(before, after) == [0, 2, 1]


def test_a_list_of_attempts_shows_the_final_answer_in_bold(tmp_path):
    report.write_page(tmp_path / "r.html", "t", [], [], [([JUMP], [SEARCH])], [], {}, [("One <more>", "<p>here</p>")])
    page = (tmp_path / "r.html").read_text()
    assert '<p><b class="final">answer 6 3</b></p>' in page
    assert '14 vs 14 same</span> <b class="final">answer 3 11</b></p>' in page
    assert "<h2>One &lt;more&gt;</h2><p>here</p>" in page and "&lt;eos" not in page


@pytest.fixture
def config():
    return common.base()


def records(*shares: float) -> list[dict]:
    wait = "eval/behaviour/wait"
    each = lambda n, v: {wait: v, f"{wait}/per_response": 2 * v, f"{wait}/per_1k": 30 + n, "eval/pass@1": v}
    more = {"eval/pass@1/se": 0.1, "eval/cons@2": 0.5, "eval/response_length/mean": 9.0, "eval/strategy/jump": 0.5}
    return [{"stage": "rl", "step": 10 * n} | each(n, v) | more for n, v in enumerate(shares)]


def run_of(workdir, shares: list[float], samples: list[dict]):
    workdir.mkdir(exist_ok=True)
    write = lambda path, rows: path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    write(workdir / "metrics.jsonl", records(*shares))
    write(workdir / "timings.jsonl", [{"stage": "rl", "step": 1, "seconds": 60.0}])
    (workdir / "config.json").write_text("{}")
    (workdir / "samples").mkdir(exist_ok=True)
    for n in range(len(shares)):
        write(workdir / "samples" / f"rl_step_{10 * n:06d}.jsonl", samples)
    return workdir


def test_a_run_shows_its_first_aha_with_an_example(config, tmp_path):
    plot.run(config, run_of(tmp_path, [0.3, 0.38, 0.62, 0.8], [JUMP, SEARCH]))
    page = (tmp_path / "report.html").read_text()
    assert "<b>step 20</b><span>First aha</span>" in page and "38% at the evaluation before" in page
    assert "step 20, with 62% after 38% at the evaluation before." in page and "<mark>wait</mark>" in page
    assert "<h2>One question, before and after RL</h2>" in page and "SFT model <span>1 of 2 right" in page
    assert "RL model, step 30 <span>1 of 2 right" in page
    assert "<td>wait</td><td>0.3</td><td>0.8</td><td>0.6</td><td>1.6</td><td>30</td><td>33</td>" in page


def test_the_page_of_a_run_without_a_first_aha_says_so(config, tmp_path):
    plot.run(config, run_of(tmp_path, [0.3, 0.6, 0.4], [JUMP]))
    page = (tmp_path / "report.html").read_text()
    assert "<b>none</b><span>First aha</span>" in page and "<mark>" not in page
    assert "There was no first aha: at no step was “wait” in 50% of the responses or more" in page


def test_a_run_whose_attempts_never_reflect_has_no_aha_and_says_what_never_occurs(config, tmp_path):
    plot.run(config, run_of(tmp_path, [0.0, 0.004, 0.0], [JUMP]))
    page = (tmp_path / "report.html").read_text()
    assert "aha" not in page.partition("resolved config")[0].replace("report.aha", "")
    assert "None of the counted behaviours was in 1% of the responses at any evaluation" in page and ": wait." in page
    assert not (tmp_path / "figures" / "behaviours.png").exists()
    assert texts.describe_rare_behaviours(records(0.3, 0.6), 0.01) == ""


def test_worked_examples_are_folded_behind_the_question(tmp_path):
    prompt = "Q: Ben has 2 pens?\nA: 2.\n\nQ: Ada buys 3 figs?\nA:"
    assert report.split_examples(prompt) == ("Q: Ben has 2 pens?\nA: 2.", "Q: Ada buys 3 figs?\nA:")
    for whole in ("Q: Ada buys 3 figs?\nA:", "A story.\n\nQ: Ada?", "One.\n\nTwo.", "<bos>Q: Ada?\nA:"):
        assert report.split_examples(whole) == ("", whole.removeprefix("<bos>"))
    asked = [sample("3 * 2", "The answer is 6.", 1.0) | {"prompt": prompt}]
    report.write_page(tmp_path / "r.html", "t", [], [], [(asked, asked)], [], {})
    assert "<summary><code>Q: Ada buys 3 figs?\nA:</code></summary>" in (tmp_path / "r.html").read_text()
    card = report.render_models([("a", asked)])
    assert "<code>Q: Ada buys 3 figs?\nA:</code>" in card and "<pre>Q: Ben has 2 pens?\nA: 2.</pre>" in card


def test_a_question_of_its_own_is_shown_before_and_after(config, tmp_path):
    run_of(tmp_path, [0.3, 0.6], [JUMP])
    config.rl.steps = 10
    for step, one in ((0, JUMP), (10, SEARCH)):
        path = journal.samples_path(tmp_path, shown_question.NAME, step)
        path.write_text(json.dumps(one | {"prompt": "How many figs?"}) + "\n")
    plot.run(config, tmp_path)
    page = (tmp_path / "report.html").read_text()
    section = page.partition("<h2>A question of its own, before and after RL</h2>")[2].partition("<h2>")[0]
    assert "How many figs?" in section and "0 of 1 right" in section and "1 of 1 right" in section
    assert "<summary><code>all attempts</code></summary>" in section
    config.rl.steps = 20  # the run goes on: the attempts of its end are not there yet
    plot.run(config, tmp_path)
    assert "A question of its own" not in (tmp_path / "report.html").read_text()


def test_several_runs_are_drawn_into_one_picture(config, tmp_path):
    folders = [run_of(tmp_path / str(seed), [0.3, 0.5 + seed / 10], [JUMP]) for seed in range(3)]
    plot.run(config, folders[0], list(map(str, folders[1:])), to=str(tmp_path / "curves.png"), title="three")
    assert (tmp_path / "curves.png").stat().st_size > 10_000 and not (folders[0] / "report.html").exists()
    with pytest.raises(UserError, match="--to=: name the .png file"):
        plot.run(config, folders[0], [str(folders[1])])
    with pytest.raises(UserError, match="there is no run in .*nowhere"):
        plot.run(config, folders[0], [str(tmp_path / "nowhere")], to="a.png")


def test_a_first_aha_at_step_zero_is_reported_as_there_before_rl(config, tmp_path):
    plot.run(config, run_of(tmp_path, [0.7, 0.6, 0.4], [JUMP]))
    page = (tmp_path / "report.html").read_text()
    assert "there before RL" in page and "None of the recorded attempts shows it." in page


def test_a_run_that_did_not_count_the_behaviour_has_no_first_aha_in_its_report(config):
    rows = [{k: v for k, v in r.items() if "behaviour" not in k} for r in records(0.3, 0.6, 0.7)]
    options = config.report.aha
    assert aha.find_first_aha(options, rows) is None and aha.find_first_aha({}, rows) is None
    assert aha.find_first_aha(options, records(0.3, 0.6, 0.7)) == aha.FirstAha("wait", 0.5, 10, 0.3, 0.6)


def test_an_unknown_behaviour_or_a_share_above_one_is_refused(config):
    resolve(config)
    config.report.aha.behaviour = "wiat"
    with pytest.raises(UserError, match="report.aha.behaviour='wiat' is not counted in task shop"):
        resolve(config)
    config.report.aha.update(dict(behaviour="try", share=1.5))
    with pytest.raises(UserError, match="report.aha.share=1.5"):
        resolve(config)


def test_without_a_name_the_first_counted_behaviour_is_used_for_the_first_aha(config):
    rows = records(0.3, 0.6, 0.7)
    found = aha.find_first_aha({"behaviour": "", "share": 0.5}, rows)
    assert found == aha.find_first_aha({"behaviour": "wait", "share": 0.5}, rows)


def test_an_older_run_without_aha_settings_can_be_drawn_and_started_from(tmp_path):
    config = config_files.load_config("configs/shop.py:short")
    run = resolve(config)
    old = run_of(tmp_path, [0.3, 0.6, 0.7], [sample("try 1 wait", "answer 6 3", 0.0, old=True)])
    rows = [{k: v for k, v in r.items() if "per_response" not in k} | {"stage": "sft"} for r in records(0.3)]
    with (old / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(rows[0]) + "\n")
    (old / "samples" / "sft_step_000000.jsonl").write_text(json.dumps(JUMP) + "\n")
    before = journal.to_plain(config.to_dict())
    del before["report"]
    (old / "config.json").write_text(json.dumps({"config": before}))
    known = initial_state.read_evaluation(run, f"{old}:sft", tmp_path)
    assert known is not None and known[0]["eval/pass@1"] == 0.3 and len(known[1]) == 1
    plot.run(config, old)
    assert "thinks <span>3 words" in (old / "report.html").read_text()


# The page of a run has only what the run measured


def page_of(config, tmp_path, rows: list[dict], **about) -> str:
    report.write_report(rows, lambda step: [], config.to_dict(), tmp_path, **about)
    return (tmp_path / "report.html").read_text()


def bare_run(evaluations: int, **more: float) -> list[dict]:
    each = lambda n: {"stage": "rl", "step": 10 * n, "eval/pass@1": 0.1 * n, "eval/response_length/mean": 9.0 + n}
    return [each(n) | more for n in range(evaluations)]


def test_a_page_has_no_r1_zero_overlay_for_a_run_with_two_evaluations(config, tmp_path):
    assert "R1-Zero" not in page_of(config, tmp_path, bare_run(2))
    assert "beside R1-Zero" in page_of(config, tmp_path, bare_run(3))


def test_jumps_are_on_the_page_only_if_a_response_jumped(config, tmp_path):
    never = {"eval/strategy/jump": 0.0, "eval/strategy/steps": 1.0}
    page = page_of(config, tmp_path, bare_run(3, **never))
    assert "Jumps" not in page and "jump to an answer" not in page and "What the attempts do" not in page
    page = page_of(config, tmp_path, bare_run(3, **{"eval/strategy/jump": 0.4, "eval/strategy/steps": 0.6}))
    assert "<span>Jumps to an answer</span>" in page and "jump to an answer, take steps" in page


def test_an_older_figure_is_removed_if_the_run_has_no_data_for_it(config, tmp_path):
    page_of(config, tmp_path, bare_run(3, **{"eval/greedy": 0.5}))
    assert (tmp_path / "figures" / "other_measures.png").exists()
    page_of(config, tmp_path, bare_run(3))
    assert not (tmp_path / "figures" / "other_measures.png").exists()


def test_a_plain_run_shows_its_curves_and_nothing_that_it_did_not_measure(config, tmp_path):
    page = page_of(config, tmp_path, bare_run(2))
    assert page.count("<img") == 2 and "Attempts at" not in page and "aha" not in page and "Minutes" not in page
    assert "<b>10.0%</b><span>pass@1</span>" in page and "<td>pass@1 ↑</td><td>0.0%</td><td>10.0%</td>" in page


def test_training_batches_are_drawn_where_they_are_logged(config, tmp_path):
    steps = [{"stage": "rl", "step": n, "train/reward": n / 9, "train/ratio/max": 1.0} for n in range(1, 9)]
    page = page_of(config, tmp_path, bare_run(2) + steps)
    assert page.count("<img") == 3 and "The training batches, as logged at each step" in page
    assert "every update was on-policy" in page
    steps[3]["train/ratio/max"] = 1.3
    assert "on-policy" not in page_of(config, tmp_path, bare_run(2) + steps)


@pytest.mark.parametrize(
    "change, expected",
    [
        ({}, "No term of the reward reads the length: rl.reward is “correct”."),
        ({"reward": "correct + 0.5*format(tags=think)"}, "No term of the reward reads the length"),
        ({"reward": "correct + overlong(share=0.2)"}, "The reward reads the length"),
        ({"reward": "correct - 0.1*length(per=100)"}, "The reward reads the length"),
        ({"reward": "correct + 0.2*mine.py:brevity"}, "rl.reward is “correct + 0.2*mine.py:brevity”."),
        ({"algorithm": "shortest_correct"}, "The algorithm learns from the shortest correct attempts."),
    ],
)
def test_the_text_about_length_names_the_parts_of_reward_and_algorithm_that_read_it(config, change, expected):
    config.rl.update(change)
    text = texts.describe_length_reward(config.to_dict(), [])
    assert text.startswith(expected)
    assert ("No term" in text) == expected.startswith("No term")


def test_the_text_about_length_names_a_soft_overlong_punishment_that_was_logged(config):
    rows = [{"stage": "rl", "step": 1, "train/overlong": -0.1}]
    assert "soft overlong punishment" in texts.describe_length_reward(config.to_dict(), rows)


@pytest.mark.parametrize(
    "start, weights, name",
    [("sft", "", "SFT model"), ("pretrain", "", "pretrained model"), ("", "", "random weights"),
     ("runs/a:sft@20", "", "SFT model"), ("weights", "models/Qwen2.5-0.5B/", "Qwen2.5-0.5B")],
)  # fmt: skip
def test_the_model_before_rl_is_named_by_what_the_run_started_from(start, weights, name):
    assert texts.name_start_model({"rl": {"start": start}, "weights": weights}) == name


def test_the_headline_gives_a_95_percent_half_width_and_says_so():
    rows = [r | {"eval/pass@1/se": 0.02} for r in bare_run(3)]
    tiles = texts.headline_numbers(
        rows, [{"stage": "sft", "seconds": 60.0}, {"stage": "rl", "seconds": 90.0}], questions=5
    )
    assert tiles[0] == ("pass@1", "20.0%", "0.0% before RL, now ± 5.6% (95 %)"), "2.776 x 0.02"
    assert tiles[-1] == ("Minutes", "2.5", "20 RL steps; stages: sft, rl")


def test_an_accuracy_that_stayed_at_0_is_still_a_headline():
    rows = [r | {"eval/pass@1": 0.0, "eval/pass@1/se": 0.0} for r in bare_run(3)]
    assert texts.headline_numbers(rows, [], questions=5)[0][:2] == ("pass@1", "0.0%")


def test_a_question_whose_share_of_right_attempts_did_not_change_is_not_said_to_fall():
    assert "did not change" in texts.describe_question(0.0, 0.0)
    assert "fell least" in texts.describe_question(0.5, 0.25) and "rose most" in texts.describe_question(0.25, 0.5)


@pytest.mark.parametrize(
    ("key", "label"),
    [("eval/strategy/steps", "Strategy: steps"), ("eval/verdicts_right/try_2", "Verdicts right, try 2")],
)
def test_a_measure_without_a_row_has_a_label_in_words(key, label):
    assert measures.find_measure(key).label == label


def test_other_selection_rules_are_described_with_their_numbers(config, tmp_path):
    other = [r | {"eval/pass@1": 0.05} for r in bare_run(2)]
    page = page_of(config, tmp_path, bare_run(4), selection={"shortest_correct": other})
    assert "Imitate the shortest correct attempt: pass@1 5.0% → 5.0%, length 9.0 → 10.0." in page
    assert "This run (dr_grpo): pass@1 0.0% → 10.0%" in page, "over as many steps as the others have"


def test_a_run_with_one_evaluation_of_rl_cannot_be_drawn(config, tmp_path):
    with pytest.raises(UserError, match="there is no RL run to draw yet"):
        page_of(config, tmp_path, bare_run(1))
