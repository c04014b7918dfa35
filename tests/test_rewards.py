"""What is verified, and what it earns: the response alone, decoded from the sampled ids; correctness and nothing else."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future

import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from rljax import learner, rewards, tasks
from rljax.errors import UserError
from rljax.rewards import workers
from rljax.structs import Problems, Rewards, Rollout
from rljax.text import ByteTokenizer, pad_batch

TASKS = {"shop": {}, "fruit": {}, "cups": {}, "countdown": {}}


def rollout_of(task, asked, texts):
    """One attempt a prompt with these texts, ended by the stop token."""
    rows = [task.tokenizer.encode(text) + [task.tokenizer.eos] for text in texts]
    width = max(map(len, rows)) + 1
    response = np.full((len(rows), width), task.tokenizer.pad, np.int32)
    for row, ids in zip(response, rows, strict=True):
        row[: len(ids)] = ids
    mask = np.arange(width) < np.array([len(ids) for ids in rows])[:, None]
    return Rollout(asked.prompt, asked.prompt_mask, jnp.asarray(response), jnp.asarray(mask), 0.0 * mask, mask[:, 0])


@pytest.fixture(params=TASKS)
def world(request):
    task = tasks.make_task(request.param, **TASKS[request.param])
    asked = task.problems(0, jnp.arange(4), "train")
    records = task.records(asked.facts)
    right = [demonstration_that_verifies(task, record) for record in records]
    return task, asked, records, right


def demonstration_that_verifies(task, record):
    for seed in range(200):
        text = task.demonstration(record, np.random.default_rng(seed)).removesuffix("<eos>").strip()
        if task.verify(text + " <eos>", record):
            return text
    raise AssertionError(f"no right demonstration for {record}")


def earned(task, asked, texts):
    rollout = rollout_of(task, asked, texts)
    device = rewards.device_verifier(task, 1)(rollout, asked)[0]
    host = rewards.host_verifier(task, 1, workers=0)(rollout, asked)[0]
    np.testing.assert_array_equal(device, host)
    return np.asarray(host)[:, 0]


def test_a_right_response_earns_one_on_the_device_and_on_the_host(world):
    task, asked, _, right = world
    np.testing.assert_array_equal(earned(task, asked, right), 1)


@pytest.mark.filterwarnings("error")
def test_the_verifier_reads_the_sampled_ids_of_the_response_and_the_learner_learns_from_them(world):
    task, asked, _, right = world
    seen = []
    spy = dataclasses.replace(task, verify=lambda text, record: bool(seen.append(text)))
    rollout = rollout_of(task, asked, right)
    rewards.host_verifier(spy, 1, workers=0)(rollout, asked)
    for text, row, mask in zip(seen, rollout.response, rollout.mask, strict=True):
        assert text == task.tokenizer.decode(np.asarray(row)[np.asarray(mask)])
    batch = learner.make_policy_batch(rollout, rollout.mask)
    start = rollout.prompt.shape[1]
    np.testing.assert_array_equal(batch["tokens"][:, start:], rollout.response)  # never encoded again
    np.testing.assert_array_equal(batch["loss_mask"][:, start:], rollout.mask)
    assert not batch["loss_mask"][:, :start].any()


def test_every_prompt_begins_with_exactly_one_bos(world):
    task, asked, _, _ = world
    for row, mask in zip(np.asarray(asked.prompt), np.asarray(asked.prompt_mask), strict=True):
        ids = row[mask]
        assert ids[0] == task.tokenizer.bos and (ids == task.tokenizer.bos).sum() == 1


def test_an_answer_in_the_prompt_or_for_another_problem_earns_nothing(world):
    task, asked, _, right = world
    echo = [
        task.tokenizer.decode(row[mask]).removeprefix("<bos>")
        for row, mask in zip(*map(np.asarray, (asked.prompt, asked.prompt_mask)), strict=True)
    ]
    np.testing.assert_array_equal(earned(task, asked, echo), 0)
    other = right[1:] + right[:1]
    differs = np.array([a.split()[-1] != b.split()[-1] for a, b in zip(other, right, strict=True)])
    assert differs.any() and (earned(task, asked, other)[differs] == 0).all()


def test_the_form_of_an_answer_earns_nothing_without_the_answer(world):
    """The default reward has no term for form: a policy cannot park on it."""
    task, asked, _, right = world
    form = {"shop": "answer 0 0", "fruit": "answer 0", "cups": "answer 0", "countdown": "answer 0"}[task.name]
    np.testing.assert_array_equal(earned(task, asked, [form] * 4), 0)
    np.testing.assert_array_equal(earned(task, asked, [text.rpartition("answer")[0] + "answer" for text in right]), 0)


def test_a_response_that_was_cut_off_earns_nothing_though_its_answer_be_right(world):
    task, asked, _, right = world
    rollout = rollout_of(task, asked, right)
    last = jnp.arange(rollout.mask.shape[1]) == rollout.lengths[:, None] - 1
    cut = rollout.replace(mask=rollout.mask & ~last, finished=jnp.zeros(4, bool))
    assert (rewards.device_verifier(task, 1)(cut, asked)[0] == 0).all()
    assert (rewards.host_verifier(task, 1, workers=0)(cut, asked)[0] == 0).all()


def test_no_term_of_the_default_reward_sees_the_length(world):
    task, asked, _, right = world
    rollout = rollout_of(task, asked, right)
    wider = rollout.replace(
        response=jnp.pad(rollout.response, [(0, 0), (0, 7)]), mask=jnp.pad(rollout.mask, [(0, 0), (0, 7)])
    )
    np.testing.assert_array_equal(rewards.device_verifier(task, 1)(wider, asked)[0], 1)


def test_a_group_is_mixed_where_its_attempts_did_not_all_earn_the_same():
    reward = jnp.array([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.5, 0.0]])
    np.testing.assert_array_equal(rewards.mixed(reward), [False, False, True, True])


def test_soft_overlong_with_no_cache_punishes_only_the_limit_itself():
    np.testing.assert_allclose(rewards.soft_overlong(jnp.array([9.0, 10.0, 11.0]), 10, 0.0), [0, 0, -1])


# Sums of terms


def text_task(prefill=""):
    """A task of words whose verifier looks for "yes"."""
    task = tasks.make_task("shop")
    return dataclasses.replace(
        task, tokenizer=ByteTokenizer(), verify_on_device=None, verify=says_yes, records=list, prefill=prefill
    )


def says_yes(text, record):
    return "yes" in text and text.endswith("<eos>")


def rewarded(reward, texts, task, max_length=100, finished=True):
    terms = rewards.parse_reward(reward)
    rows = [task.tokenizer.encode(t) + ([task.tokenizer.eos] if finished else []) for t in texts]
    response, mask = pad_batch(rows, max_length, 0)
    blank = np.zeros((len(texts), 1), np.int32)
    rollout = Rollout(
        blank, blank > 0, jnp.asarray(response), jnp.asarray(mask), 0.0 * mask, np.full(len(texts), finished)
    )
    problems = Problems(prompt=blank, prompt_mask=blank > 0, facts=({},) * len(texts))
    correct, info = rewards.make_verifier(task, 1, 0, terms)(rollout, problems)
    parts = rewards.reward_values(terms, correct, info, rollout, max_length)
    return parts, info, rewards.summarize_rewards(rollout, Rewards(correct, parts, info))


def test_the_default_reward_is_correctness_and_sees_no_length():
    assert rewards.parse_reward(common.base().rl.reward) == rewards.CORRECT
    parts, info, _ = rewarded("correct", ["yes", "yes" + " so" * 30, "no"], text_task())
    np.testing.assert_array_equal(parts[:, 0, 0], [1, 1, 0])
    assert set(info) == {"verifier_error", "verifier_unscored"}


def test_a_reward_is_a_weighted_sum_and_each_term_is_logged_by_itself():
    good, bad = "<think> hm </think> <answer> yes </answer>", "yes " * 20
    text = "correct + 0.5*format - 0.1*language(target=zh) + repetition + 2*overlong(share=0.5)"
    parts, info, summary = rewarded(text, [good, bad], text_task())
    np.testing.assert_allclose(parts[0, 0, :4], [1, 0.5, 0, 0], atol=1e-6)
    np.testing.assert_allclose(parts[1, 0, :3], [1, 0, 0], atol=1e-6)
    assert -1 < parts[1, 0, 3] < -0.9 and parts[1, 0, 4] == pytest.approx(2 * (50 - 81) / 50)
    assert summary["reward/correct"] == 1 and summary["reward/format"] == 0.5
    assert summary["reward"] == pytest.approx(float(parts.sum(-1).mean()))
    assert {"reward/format", "reward/language", "reward/repetition"} <= set(info)


def test_a_prefilled_thought_belongs_to_the_form():
    rest = " hm </think> <answer> yes </answer>"
    formed = lambda task: float(rewarded("format", [rest], task)[0].sum())
    assert formed(text_task()) == 0 and formed(text_task(prefill="<think>")) == 1


def test_a_response_that_was_cut_off_does_not_end_by_spelling_the_stop_token():
    spelled, _, _ = rewarded("correct", ["yes<eos>"], text_task(), finished=False)
    ended, _, _ = rewarded("correct", ["yes"], text_task())
    assert spelled.sum() == 0 and ended.sum() == 1


def test_a_batch_with_one_response_that_breaks_the_verifier_keeps_the_others_scores():
    def judge(pairs):
        if any("bomb" in text for text, _ in pairs):
            raise RuntimeError("boom")
        return [{"correct": float("yes" in text), "noted": 1.0} for text, _ in pairs]

    parts, info, _ = rewarded(
        "correct",
        ["yes", "bomb yes", "no"],
        dataclasses.replace(text_task(), verify_batch=judge, verifier_metrics=("noted",)),
    )
    np.testing.assert_array_equal(parts[:, 0, 0], [1, 0, 0])
    np.testing.assert_array_equal(info["verifier_error"][:, 0], [0, 1, 0])
    np.testing.assert_array_equal(info["noted"][:, 0], [1, 0, 1])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_machine_that_cannot_verify_ends_the_run_instead_of_rewarding_nothing(workers):
    task = dataclasses.replace(text_task(), verify_batch=no_judge)
    rollout = Rollout(
        *[np.zeros((1, 1), np.int32)] * 2, np.zeros((1, 1), np.int32), *[np.ones((1, 1), bool)] * 2, np.ones(1, bool)
    )
    with pytest.raises(UserError, match="no jail"):
        rewards.host_verifier(task, 1, workers)(
            rollout, Problems(prompt=jnp.ones(1), prompt_mask=jnp.ones(1), facts=({},))
        )


# A verifier's process that dies or hangs


def dies_on_bomb(pairs):
    if any("bomb" in text for text, _ in pairs):
        os._exit(1)
    return [{"correct": float("yes" in text), "noted": 1.0} for text, _ in pairs]


def hangs_on_bomb(text, record):
    if "bomb" in text:
        time.sleep(1000)
    return "yes" in text


def verified_by_workers(texts, workers=1, timeout=60.0, reward="correct", max_unscored=0.5, **task):
    terms, task = rewards.parse_reward(reward), dataclasses.replace(text_task(), **task)
    response, mask = pad_batch([task.tokenizer.encode(t) + [task.tokenizer.eos] for t in texts], 30, 0)
    blank = np.zeros((len(texts), 1), np.int32)
    rollout = Rollout(blank, blank > 0, jnp.asarray(response), jnp.asarray(mask), 0.0 * mask, np.ones(len(texts), bool))
    problems = Problems(prompt=blank, prompt_mask=blank > 0, facts=({},) * len(texts))
    verify = rewards.host_verifier(task, 1, workers, timeout, terms, max_unscored)
    correct, info = verify(rollout, problems)
    parts = rewards.reward_values(terms, correct, info, rollout, 30)
    return Rewards(correct, parts, info), rewards.summarize_rewards(rollout, Rewards(correct, parts, info))


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.exhaustive), 2])
def test_a_response_that_kills_its_verifier_is_unscored_and_its_neighbours_keep_their_scores(workers, capfd):
    judge = dict(verify_batch=dies_on_bomb, verifier_metrics=("noted",))
    found, summary = verified_by_workers(["yes", "bomb", "no", "yes"], workers, reward="correct + 0.5*format", **judge)
    np.testing.assert_array_equal(found.correct[:, 0], [1, np.nan, 0, 1])
    np.testing.assert_array_equal(found.info["verifier_unscored"][:, 0], [0, 1, 0, 0])
    np.testing.assert_array_equal(found.info["noted"][:, 0], [1, np.nan, 1, 1])
    np.testing.assert_array_equal(found.terms.sum(-1)[:, 0], [1, np.nan, 0, 1])
    assert summary["verifier_unscored"] == 0.25 and summary["verifier_error"] == 0
    assert summary["reward"] == pytest.approx(2 / 3) and summary["reward/correct"] == pytest.approx(2 / 3)
    assert summary["groups/all_wrong"] == pytest.approx(1 / 3) and summary["groups/all_right"] == pytest.approx(2 / 3)
    assert "1 of 4 responses could not be scored" in capfd.readouterr().err


def test_a_response_on_which_the_verifier_hangs_is_unscored_and_its_neighbours_keep_their_scores():
    found, _ = verified_by_workers(["yes", "bomb", "no"], timeout=2.0, verify=hangs_on_bomb)
    np.testing.assert_array_equal(found.correct[:, 0], [1, np.nan, 0])
    np.testing.assert_array_equal(found.info["verifier_unscored"][:, 0], [0, 1, 0])


@pytest.mark.exhaustive
def test_a_run_stops_with_one_line_when_too_many_responses_are_unscored():
    texts = ["yes", "bomb", "bomb", "yes"]
    with pytest.raises(
        UserError, match=r"2 of 4 responses could not be scored.* max_unscored=0.25 .*continues"
    ) as said:
        verified_by_workers(texts, max_unscored=0.25, verify_batch=dies_on_bomb)
    assert "\n" not in str(said.value)
    found, _ = verified_by_workers(texts, max_unscored=0.5, verify_batch=dies_on_bomb)
    np.testing.assert_array_equal(found.correct[:, 0], [1, np.nan, np.nan, 1])


def test_a_verifier_process_leaves_signals_to_stop_to_the_main_process():
    """A scheduler signals every process: a verdict of the last step must not be lost by that."""
    found, _ = verified_by_workers(["yes", "no"], verify_batch=judges_after_signals)
    np.testing.assert_array_equal(found.correct[:, 0], [1, 0])
    assert not found.info["verifier_unscored"].any()


def judges_after_signals(pairs):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(os.getpid(), number)
    return [{"correct": float("yes" in text)} for text, _ in pairs]


@pytest.mark.exhaustive
@pytest.mark.parametrize("task", ["pass", "worker.submit(re.match, '(a+)+b', 'a' * 100); time.sleep(1)"])
def test_a_verifier_process_ends_with_a_main_process_that_was_killed_even_in_code_that_never_returns(task, tmp_path):
    script = tmp_path / "main.py"
    script.write_text(
        "import os, re, signal, time\n"
        "from rljax.rewards.workers import Worker\n"
        "if __name__ == '__main__':\n"
        "    worker = Worker(len)\n"
        "    worker.submit(os.getpid)\n"
        "    print(worker.submit(os.getpid).result(60), flush=True)\n"
        f"    {task}\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    # it waits until nobody holds stdout open, so until the worker has ended too
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, timeout=300)
    assert done.returncode == -signal.SIGKILL and int(done.stdout), done.stderr


def test_a_pause_of_the_main_process_is_no_time_of_the_verifier(monkeypatch):
    """The clock jumps by an hour at each look, as after SIGSTOP; the answer comes at the third."""
    now, future = iter(range(0, 10**9, 3600)), Future()
    looks = []

    def look(timeout):
        looks.append(timeout)
        if len(looks) < 3:
            raise TimeoutError
        return "scores"

    monkeypatch.setattr(workers.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(future, "result", look)
    assert workers.result_within(future, 60.0) == "scores" and len(looks) == 3
    with pytest.raises(TimeoutError):
        workers.result_within(Future(), 0.0)


def leaks(pairs):
    LEAKED.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(200))
    print("a verifier that prints", flush=True)
    return [{"correct": float(os.getpid())}]


LEAKED = []


def test_a_verifier_process_that_leaks_is_replaced_and_one_that_prints_does_not_reach_stdout(capfd):
    worker = workers.Worker(leaks)
    try:
        pids = [worker.ask([("x", {})], 60.0)[0]["correct"] for _ in range(4)]
    finally:
        worker.kill()
    assert len(set(pids)) == 2 and pids[0] == pids[2] != pids[3]
    said = capfd.readouterr()
    assert "prints" not in said.out and "prints" in said.err


def test_a_verifier_that_gives_too_few_scores_is_refused():
    with pytest.raises(UserError, match="returned 1 scores for 2 responses"):
        rewarded(
            "correct", ["yes", "no"], dataclasses.replace(text_task(), verify_batch=lambda pairs: [{"correct": 1.0}])
        )


def test_a_verifier_may_say_itself_that_it_cannot_score():
    judge = lambda pairs: [{"correct": float("nan") if "?" in text else 1.0} for text, _ in pairs]
    parts, info, summary = rewarded(
        "correct", ["a", "b", "?", "c"], dataclasses.replace(text_task(), verify_batch=judge)
    )
    np.testing.assert_array_equal(parts[:, 0, 0], [1, 1, np.nan, 1])
    assert info["verifier_unscored"].sum() == 1 and summary["reward"] == 1


def test_unscored_attempts_make_no_group_mixed_and_leave_a_mixed_one_mixed():
    nan = float("nan")
    reward = jnp.array([[nan, nan, nan], [1.0, nan, 1.0], [0.0, nan, 1.0], [nan, nan, 0.0]])
    np.testing.assert_array_equal(rewards.mixed(reward), [False, False, True, False])


def no_judge(pairs):
    raise UserError("no jail here")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "write a sum"),
        ("correct +", "write a sum"),
        ("correct * 2 * format", "write a sum"),
        ("[1] * format", "write a sum"),
        ("correct + accuracy", "unknown, choose from"),
        ("correct + format(tag=think)", "no option 'tag'"),
        ("correct + format(tags=box)", "choose from"),
        ("language(target=xx)", "choose from"),
        ("correct + 0.5*correct", "twice"),
        ("overlong(share=wide)", "a number"),
        ("__import__('os')", "is not of the form"),
    ],
)
def test_what_is_no_sum_of_known_terms_is_refused(text, said):
    with pytest.raises(UserError, match=said):
        rewards.parse_reward(text)


def test_terms_that_read_text_need_the_host_and_others_do_not():
    shop = tasks.make_task("shop")
    assert not rewards.needs_host(shop, rewards.parse_reward("correct + overlong"))
    assert rewards.needs_host(shop, rewards.parse_reward("correct + format"))
    assert rewards.needs_host(text_task())


def test_groups_are_chosen_by_correctness_whatever_else_is_rewarded():
    task = text_task()
    terms = rewards.parse_reward("correct + repetition")
    parts, info, summary = rewarded("correct + repetition", ["yes a b c d", "yes " * 20], task)
    assert len(terms) == 2 and parts.sum(-1)[0] != parts.sum(-1)[1]
    assert summary["groups/all_right"] == 1 and summary["groups/mixed"] == 0
