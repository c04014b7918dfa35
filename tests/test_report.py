"""Thinking against imitation, and the first aha, on a run's page."""

import json

import pytest

from configs import common
from experiments import plot
from rljax import report, tasks
from rljax.errors import UserError
from rljax.metrics import behaviours
from rljax.training import initial_state, journal, launch, settings

PROMPT = "<bos> Ben pays 14 for two of 6 3 11?"


def sample(think: str, final: str, reward: float, problem: int = 0, old: bool = False) -> dict:
    text = f"{think} {final}".strip()
    out = {"problem": problem, "prompt": PROMPT, "response": f"{text} <eos>", "reward": reward, "strategy": "retry",
           "tokens": list(range(len(text.split()) + 1)), "pieces": [*text.split(), "<eos>"]}  # fmt: skip
    where = {"final": len(text) - len(final), "think_tokens": len(think.split())}
    return out if old else out | where


JUMP = sample("", "answer 6 3", 0.0)
SEARCH = sample("try 6 + 3 = 9 vs 14 less wait 3 + 11 = 14 vs 14 same", "answer 3 11", 1.0)


def test_the_same_question_is_answered_by_both_models_with_thought_and_answer_apart():
    page = report.side_by_side([("SFT model", [JUMP, JUMP, SEARCH]), ("RL model", [SEARCH, SEARCH])], "Chosen so.")
    assert page.count("<article") == 2 and page.count("Ben pays 14 for two of 6 3 11?") == 1
    sft, rl = page.split("<article")[1:]
    assert "SFT model <span>1 of 3 right" in sft and "RL model <span>2 of 2 right" in rl
    assert '<p class="think" tabindex="0">nothing</p>' in sft and "thinks <span>0 tokens" in sft
    assert '<p class="final">answer 6 3</p>' in sft and "✗ wrong" in sft and "reward 0" in sft
    assert "wait 3 + 11 = 14 vs 14 same</p>" in rl and "thinks <span>18 tokens" in rl
    assert '<p class="final">answer 3 11</p>' in rl and "✓ right" in rl and "reward 1" in rl
    assert "Chosen so. Of its attempts each model shows the middle one" in page and "&lt;bos" not in page


def test_any_models_may_stand_side_by_side_also_three_and_asked_in_other_words():
    other = SEARCH | {"prompt": "Ben: two of 6 3 11, 14 in all?"}
    page = report.side_by_side([("a", [JUMP]), ("b", [SEARCH]), ("c", [other])])
    assert page.count("<article") == 3 and page.count("two of 6 3 11?") == 2 and page.count("14 in all?") == 1


def test_samples_of_older_runs_that_do_not_say_where_the_answer_begins_are_drawn_too():
    old = sample("try 6 + 3 = 9 wait", "answer 3 11", 1.0, old=True)
    assert report.parts(old) == ("try 6 + 3 = 9 wait", "answer 3 11")
    assert report.parts(old | {"response": "<think> so </think> <answer> 7 </answer><eos>"})[0] == "so"
    assert report.parts(old | {"response": "so it is 7"}) == ("", "so it is 7")
    bare = {k: old[k] for k in ("prompt", "response", "reward")}
    page = report.side_by_side([("one", [bare]), ("other", [SEARCH])])
    assert "thinks <span>7 words" in page and "thinks <span>18 tokens" in page


def test_what_a_policy_a_prompt_and_a_name_say_is_escaped():
    evil = sample("<script>1</script> wait <b>", "answer <img src=x>", 0.0) | {"prompt": '<i>"p"'}
    page = report.side_by_side([('<u>"a"', [evil]), ("b", [SEARCH])])
    page += report.example("<s>", evil, behaviours.patterns(["wait"])["wait"], "<q>")
    for tag in ("<script", "<b>", "<img", "<i>", "<u>", "<s>", "<q>"):
        assert tag not in page, tag
    assert 'aria-label="&lt;u&gt;&quot;a&quot;"' in page and "<mark>wait</mark>" in page


def test_a_thought_that_was_cut_off_has_no_final_answer():
    cut = {"prompt": PROMPT, "response": "try 6 + 3", "final": 9, "think_tokens": 4, "reward": 0.0}
    page = report.side_by_side([("a", [cut]), ("b", [SEARCH])])
    assert '<p class="final">no final answer</p>' in page and "reward 0, cut off" in page


def test_the_middle_attempt_by_reward_and_length_is_shown():
    long, short = sample("try " * 9, "answer 3 11", 1.0), sample("try", "answer 3 11", 1.0)
    middle = sample("try " * 4, "answer 3 11", 1.0)
    assert report.typical([long, short, middle]) is middle
    assert report.typical([JUMP, long, JUMP]) is JUMP, "right only where more than half are"
    assert report.typical([long, JUMP, short]) is short
    assert report.typical([long, JUMP]) is JUMP, "the lower one of two"
    with pytest.raises(UserError, match="without attempts"):
        report.typical([])


def test_the_question_whose_pass_rate_rose_most_comes_first():
    before = {0: [JUMP, JUMP], 1: [JUMP, SEARCH], 2: [JUMP], 3: [JUMP]}
    after = {2: [SEARCH], 1: [SEARCH, SEARCH], 0: [SEARCH, SEARCH], 4: [SEARCH]}
    assert report.improved(before, after) == [0, 2, 1]


def test_a_list_of_attempts_sets_the_final_answer_apart(tmp_path):
    report.write(tmp_path / "r.html", "t", [], [], [([JUMP], [SEARCH])], [], {}, [("One <more>", "<p>here</p>")])
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
    assert "<b>step 20</b><span>first aha</span>" in page and "38% at the evaluation before" in page
    assert "step 20, with 62% after 38% at the evaluation before." in page and "<mark>wait</mark>" in page
    assert "<h2>Thinking against imitation</h2>" in page and "SFT model <span>1 of 2 right" in page
    assert "RL model, step 30 <span>1 of 2 right" in page
    assert "<td>wait</td><td>0.3</td><td>0.8</td><td>0.6</td><td>1.6</td><td>30</td><td>33</td>" in page


def test_a_run_without_a_first_aha_says_so_plainly(config, tmp_path):
    plot.run(config, run_of(tmp_path, [0.3, 0.6, 0.4], [JUMP]))
    page = (tmp_path / "report.html").read_text()
    assert "<b>none</b><span>first aha</span>" in page and "<mark>" not in page
    assert "There was no first aha: at no step was “wait” in 50% of the responses or more" in page


def test_an_aha_before_rl_is_no_work_of_rl(config, tmp_path):
    plot.run(config, run_of(tmp_path, [0.7, 0.6, 0.4], [JUMP]))
    page = (tmp_path / "report.html").read_text()
    assert "there before RL" in page and "None of the attempts that were written down shows it." in page


def test_a_run_that_did_not_count_the_behaviour_has_no_first_aha_in_its_report(config):
    rows = [{k: v for k, v in r.items() if "behaviour" not in k} for r in records(0.3, 0.6, 0.7)]
    assert plot.first_aha(config, rows) is None
    assert plot.first_aha(config, records(0.3, 0.6, 0.7)) == plot.Aha("wait", 0.5, 10, 0.3, 0.6)


def test_a_behaviour_that_the_task_does_not_count_or_a_share_that_is_none_is_refused(config):
    task = tasks.make("shop")
    settings.check_report(config, task)
    config.report.aha.behaviour = "wiat"
    with pytest.raises(UserError, match="report.aha.behaviour='wiat' is not counted in task shop"):
        settings.check_report(config, task)
    config.report.aha.update(dict(behaviour="try", share=1.5))
    with pytest.raises(UserError, match="report.aha.share=1.5"):
        settings.check_report(config, task)


def test_a_run_of_before_is_drawn_and_started_from_though_it_knows_no_aha(tmp_path):
    config = launch.load_config("configs/shop.py:short")
    s = settings.resolve(config)
    old = run_of(tmp_path, [0.3, 0.6, 0.7], [sample("try 1 wait", "answer 6 3", 0.0, old=True)])
    rows = [{k: v for k, v in r.items() if "per_response" not in k} | {"stage": "sft"} for r in records(0.3)]
    with (old / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(rows[0]) + "\n")
    (old / "samples" / "sft_step_000000.jsonl").write_text(json.dumps(JUMP) + "\n")
    before = journal.to_plain(config.to_dict())
    del before["report"]
    (old / "config.json").write_text(json.dumps({"config": before}))
    known = initial_state.evaluated_before(s, f"{old}:sft", tmp_path)
    assert known is not None and known[0]["eval/pass@1"] == 0.3 and len(known[1]) == 1
    plot.run(config, old)
    assert "thinks <span>3 words" in (old / "report.html").read_text()
