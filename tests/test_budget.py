"""Budget forcing: an attempt that ends too early goes on, one that thinks too long is made to answer."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_tokenizers import made
from test_evaluation import config_of, workdir  # noqa: F401  (a fixture)
from test_sampler import table_model

from experiments import evaluate
from rljax import transformer
from rljax.errors import UserError
from rljax.evaluation import BudgetOptions, budget, make_budget, make_evaluators
from rljax.sampler import Sampling, make_sampler
from rljax.structs import Problems
from rljax.tasks import response_text
from rljax.text import SymbolTokenizer
from rljax.training.run import resolve

WORDS = SymbolTokenizer(("go", "think", "hm", "wait", "answer"), numbers=3)
GO, THINK, HM, WAIT, ANSWER = (WORDS.ids[word] for word in ("go", "think", "hm", "wait", "answer"))
TASK: "SimpleNamespace" = SimpleNamespace(tokenizer=WORDS, prompt_slots=2, stop_strings=(), stops=None)
B, G = 3, 8
NEXT = {  # the policy: what follows a word, and how likely it is
    "go": {"think": 0.6, "answer": 0.4},
    "think": {"think": 0.4, "hm": 0.3, "answer": 0.3},
    "hm": {"think": 0.5, "hm": 0.3, "answer": 0.2},
    "wait": {"think": 0.8, "answer": 0.2},
    "answer": {"1": 0.5, "2": 0.5},
    **{n: {"<eos>": 1.0} for n in "0123"},
    **{name: {"go": 1.0} for name in ("<pad>", "<bos>", "<eos>")},
}


@pytest.fixture(scope="module")
def policy():
    logits = np.full((WORDS.size, WORDS.size), -1e4)
    for word, following in NEXT.items():
        for after, chance in following.items():
            logits[WORDS.ids[word], WORDS.ids[after]] = np.log(chance)
    params, model = table_model(logits)
    return params, dataclasses.replace(model, max_length=64)


def draw(policy, options, numbers=None, **how):
    params, model = policy
    made = make_budget(options, TASK, model, 12)
    sampling = Sampling(group_size=G, stop_ids=WORDS.stop_ids, max_new_tokens=12)
    numbers = np.arange(B * G) if numbers is None else numbers
    prompt = jnp.full((len(numbers) // G, 2), GO).at[:, 0].set(WORDS.bos)
    sample = budget.make_budget_sampler(made, sampling, model, **how)
    return sample(params, Problems(prompt, prompt > 0, ()), jax.random.key(7), 0, jnp.asarray(numbers))


def words_of(rollout):
    return [[WORDS.table[i] for i in ids[live]] for ids, live in zip(rollout.response, rollout.mask, strict=True)]


def check_likelihoods(rollout, appended):
    """Every sampled token has the probability that the policy gives it after the token before it; what was appended has 0."""
    for said, logprobs, extra in zip(words_of(rollout), np.asarray(rollout.logprobs), appended, strict=True):
        for n, word in enumerate(said):
            before = said[n - 1] if n else "go"
            expected = 0.0 if n in extra else np.log(NEXT[before].get(word, 0.0))
            assert logprobs[n] == pytest.approx(expected, abs=1e-4), (said, n)
        assert not logprobs[len(said) :].any()


WITH_END = BudgetOptions(limit=8, minimum=6, waits=2, wait="wait", end="answer", answer="hm answer", answer_tokens=3)


@pytest.fixture(scope="module")
def drawn(policy):
    return draw(policy, WITH_END)


def test_an_attempt_thinks_at_least_the_minimum_where_it_may_wait_and_at_most_the_limit(drawn):
    rollout, measured = drawn
    tokens, waits, forced = (np.asarray(measured[f"budget/{name}"]) for name in budget.MEASURES)
    appended = []
    for said, thought, waited, was_forced in zip(words_of(rollout), tokens, waits, forced, strict=True):
        thinking, marks = int(thought), ["hm", "answer"] if was_forced else ["answer"]
        assert said[thinking : thinking + len(marks)] == marks and said[thinking + len(marks) :] in (
            ["1", "<eos>"],
            ["2", "<eos>"],
        )
        assert said[:thinking].count("wait") == waited <= 2 and "answer" not in said[:thinking]
        assert thinking == 8 if was_forced else thinking < 8
        assert thinking >= 6 or waited == 2
        appended.append(
            {n for n, word in enumerate(said) if word == "wait"} | ({thinking, thinking + 1} if was_forced else set())
        )
    assert np.asarray(rollout.finished).all() and set(waits) == {0, 1, 2} and set(forced) == {0, 1}
    assert (tokens < 6).any() and ((tokens >= 6) & (forced == 0)).any()
    check_likelihoods(rollout, appended)


def test_an_attempt_is_what_it_is_without_a_budget_up_to_where_its_thinking_ends_or_is_forced(policy, drawn):
    params, model = policy
    sampling = Sampling(group_size=G, stop_ids=WORDS.stop_ids, max_new_tokens=12)
    prompt = jnp.full((B, 2), GO).at[:, 0].set(WORDS.bos)
    free = make_sampler(sampling, model)(params, Problems(prompt, prompt > 0, ()), jax.random.key(7))
    for one, other in zip(words_of(free), words_of(drawn[0]), strict=True):
        until = next(n for n, word in enumerate([*other[:8], "wait"]) if word in ("wait", "answer"))
        assert one[:until] == other[:until]


@pytest.mark.exhaustive
def test_an_attempt_does_not_depend_on_those_beside_it(policy, drawn):
    whole = drawn[0]
    some, _ = draw(policy, WITH_END, np.arange(G, 2 * G))
    np.testing.assert_array_equal(some.response, whole.response[G : 2 * G])
    np.testing.assert_allclose(some.logprobs, whole.logprobs[G : 2 * G], atol=1e-5)


def test_without_a_text_that_ends_the_thinking_the_stop_token_is_taken_away_and_the_attempt_goes_on(policy):
    options = BudgetOptions(minimum=5, waits=1, wait="wait think")
    rollout, measured = draw(policy, options)
    waits, appended = np.asarray(measured["budget/waits"]), []
    for said, waited in zip(words_of(rollout), waits, strict=True):
        assert said.count("wait") == waited and said.count("<eos>") == int(said[-1] == "<eos>")
        at = said.index("wait") if waited else 99
        appended.append({at, at + 1} if waited else set())
        if waited:  # behind an answer
            assert said[at - 2] == "answer" and said[at + 1] == "think"
        assert waited or len(said) > 5
    assert 0 < waits.mean() < 1 and rollout.response.shape == (B * G, 12)
    cut = [len(said) == 12 and said[-1] != "<eos>" for said in words_of(rollout)]
    np.testing.assert_array_equal(np.asarray(rollout.finished), ~np.asarray(cut))
    check_likelihoods(rollout, appended)


def test_a_stop_string_that_ends_an_attempt_too_early_is_taken_away_with_no_more_than_itself():
    tokenizer, _ = made("byte level")
    task: SimpleNamespace = SimpleNamespace(tokenizer=tokenizer, prompt_slots=4, stop_strings=(), stops=None)
    model = transformer.Config(vocab_size=tokenizer.size, layers=1, max_length=128)
    options = BudgetOptions(limit=40, minimum=20, wait=" Wait", end="8 o", answer="\n#### ")
    made_budget = make_budget(options, task, model, 64)
    ids = tokenizer.encode("to 48 of")  # "8 o" begins inside one token and ends inside another
    ids = ids[: made_budget.thinking_stops.find_end(ids)]
    draft = budget.think(budget.Draft([1], 0), ids, [-1.0] * len(ids), made_budget)
    assert tokenizer.decode(draft.said) == "to 4 Wait" and draft.doing == "thinking" and draft.waits == 1
    sampled = len(tokenizer.encode("to "))
    assert draft.logprobs == [-1.0] * sampled + [0.0] * (len(draft.said) - sampled)
    enough = made_budget._replace(minimum=0)
    assert budget.think(budget.Draft([1], 0), ids, [-1.0] * len(ids), enough).doing == "answering"
    # a text that was appended may hold a stop string: the one that counts is in the last token
    stops = made_budget.thinking_stops
    ended = np.asarray([*tokenizer.encode("48 of 12"), *tokenizer.encode(" 48 of")])
    assert response_text(tokenizer, ended, True, stops) == "48 of 12 48 o<eos>"


@pytest.mark.parametrize(
    "changes, said",
    [
        (dict(limit=4, minimum=6), "eval.budget.minimum=6 is more than eval.budget.limit=4"),
        (dict(wait="Wait"), "eval.budget.wait='Wait': .* did you mean 'wait'"),
        (dict(wait=""), "eval.budget.wait is empty"),
        (dict(answer=""), "eval.budget.answer is empty"),
        (dict(end="so"), "eval.budget.end='so': .*'so' is not in this task's vocabulary"),
        (dict(limit=80), "the model's window is 64"),
    ],
    ids=str,
)
def test_a_budget_that_cannot_be_is_told_in_one_line(policy, changes, said):
    with pytest.raises(UserError, match=said) as e:
        make_budget(dataclasses.replace(WITH_END, **changes), TASK, policy[1], 12)
    assert "\n" not in str(e.value)


@pytest.mark.exhaustive
def test_evaluate_measures_each_budget_beside_the_policy_as_it_likes(workdir, capsys):  # noqa: F811
    c = config_of(workdir)
    c.eval.greedy = False
    c.eval.budget.update(dict(answer="\n#### ", answer_tokens=4, waits=1, limit=2))
    evaluate.run(c, workdir, "rl", "", 4, 2, 0, "config", budget="4")
    said = json.loads((workdir / "budget_rl_test.json").read_text())
    (row,) = said["budgets"]
    assert row["budget"] == row["metrics"]["eval/budget/thinking_tokens"] == 4
    assert row["metrics"]["eval/budget/forced"] == 1.0
    assert row["metrics"]["eval/response_length/max"] <= 4 + len("\n#### ") + 4
    assert said["as it likes"]["eval/response_length/max"] == 16 and said["eval"]["budget"]["limit"] == 0
    assert (workdir / "budget_rl_test.png").stat().st_size > 10_000
    assert "       4  pass@1 0.0000" in capsys.readouterr().out
    assert evaluate.parse_budgets("16, 4,16") == [4, 16]
    with pytest.raises(UserError, match="--budget 4,x: write numbers"):
        evaluate.run(c, workdir, "rl", "", 4, 2, 0, "config", budget="4,x")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (dict(budget="100000"), "^--budget=100000, eval.budget.answer_tokens=4: a prompt of .* the model's window is"),
        (dict(attempts=-3), "^--attempts=-3: must be at least 1"),
        (dict(temperature=-2.0), "^--temperature=-2.0: must be at least 0"),
        (dict(top_p=1.5), "^--top_p=1.5: must be"),
        (dict(tokens=10**7), r"--tokens=10000000"),
    ],
    ids=str,
)
def test_a_wrong_value_of_a_flag_is_told_of_the_flag(workdir, flags, said):  # noqa: F811
    c = config_of(workdir)
    c.eval.budget.update(dict(answer="\n#### ", answer_tokens=4, waits=1))
    asked = dict(stage="rl", split="", problems=4, attempts=2, tokens=0, protocol="config")
    with pytest.raises(UserError, match=said) as e:
        evaluate.run(c, workdir, **(asked | flags))
    assert "eval.budget.limit" not in str(e.value) and not any(f"eval.{name}=" in str(e.value) for name in flags)


def test_a_config_with_a_budget_is_checked_at_the_start_and_vmapped_runs_have_none(workdir):  # noqa: F811
    c = config_of(workdir)
    c.eval.budget.update(dict(limit=4, minimum=8))
    with pytest.raises(UserError, match="eval.budget.minimum=8"):
        resolve(c)
    c.eval.budget.update(dict(limit=8))
    run = resolve(c)
    with pytest.raises(UserError, match="computed together"):
        make_evaluators(run.task, run.model, run.evaluation, seeds=[0], vmap_runs=jax.vmap, max_new_tokens=16)
