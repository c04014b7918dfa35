"""Dynamic sampling: rounds until every group is mixed, compiled and hosted alike, and the cost is logged."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import shop
from experiments import rl
from rljax import transformer
from rljax.structs import Experience, Rewards, Rollout
from rljax.training import initial_state
from rljax.training.dynamic_sampling import one_round, sample_until_mixed
from rljax.training.rl_steps import compile_train_step, make_steps
from rljax.training.run import resolve

B, G, T = 3, 2, 4
MIXED = [[True, False, False], [False, False, True], [False, True, True], [False, False, False]]  # by round


def sample_round(number):
    """Round r asks for prompts 10 r + 0, 1, 2; the tokens of a response say which prompt and which attempt it is."""
    prompt = 10 * number + jnp.arange(B)
    tokens = (prompt[:, None] * 2 + jnp.arange(G)).reshape(-1, 1) * jnp.ones((1, T), jnp.int32)
    none = jnp.zeros((B * G, 0), jnp.int32)
    mask = jnp.ones((B * G, T), bool)
    rollout = Rollout(none, none > 0, tokens, mask, 0.0 * mask, mask[:, 0])
    reward = jnp.stack([jnp.ones(B), 1.0 - jnp.asarray(MIXED)[number]], -1)
    info = {"prompt": prompt, "each": prompt[:, None] * jnp.ones(G)}
    return Experience(rollout, Rewards(reward, reward[..., None], info))


@pytest.mark.parametrize("compiled", [False, True])
def test_mixed_groups_of_later_rounds_take_the_places_of_groups_that_agree(compiled):
    run = lambda: sample_until_mixed(sample_round, 4, compiled)
    found, keep, first, rounds, cost = jax.jit(run)() if compiled else run()
    rollout, reward, info = found.rollout, found.rewards.correct, found.rewards.info
    assert keep.all() and int(rounds) == 3
    np.testing.assert_array_equal(info["prompt"], [0, 12, 21])
    np.testing.assert_array_equal(info["each"], [[0, 0], [12, 12], [21, 21]])
    np.testing.assert_array_equal(rollout.response[:, 0], [0, 1, 24, 25, 42, 43])  # groups stay whole
    np.testing.assert_array_equal(reward, [[1, 0]] * 3)
    np.testing.assert_array_equal(first.rewards.info["prompt"], [0, 1, 2])
    assert int(cost["refill/prompts"]) == 9 and int(cost["tokens"]) == 3 * B * G * T
    assert float(cost["refill/mixed"]) == pytest.approx(4 / 9) and float(cost["refill/filled"]) == 1


@pytest.mark.parametrize("compiled", [False, True])
def test_when_the_rounds_are_used_up_what_is_there_is_kept_and_marked(compiled):
    found, keep, _, rounds, cost = sample_until_mixed(sample_round, 2, compiled)
    info = found.rewards.info
    np.testing.assert_array_equal(keep, [True, True, False])
    np.testing.assert_array_equal(info["prompt"][:2], [0, 12])
    assert int(rounds) == 2 and float(cost["refill/filled"]) == pytest.approx(2 / 3)


def test_without_dynamic_sampling_there_is_one_round_and_all_of_it_is_kept():
    found, keep, _, rounds, cost = one_round(sample_round)
    info = found.rewards.info
    assert keep is None and int(rounds) == 1 and cost == {}
    np.testing.assert_array_equal(info["prompt"], [0, 1, 2])


# In a whole train step.


def easy(hosted=False, **changes):
    """A run of a tiny policy, with a verifier that rewards any response that begins with a small number."""
    config = shop.get_config("short")
    config.model.layers, config.model.width = 1, 32
    config.rl.updates, config.rl.max_new_tokens, config.rl.widths, config.workers = 1, 8, (), 0
    config.rl.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    run = resolve(config)
    zero = run.task.tokenizer.zero
    number = lambda token: (token >= zero) & (token < zero + 12)
    score = lambda response, mask, finished, facts: (number(response[..., 0]) & mask[..., 0]).astype(jnp.float32)
    verify = lambda text, record: (m := re.match(r"\d+", text)) is not None and int(m[0]) < 12
    task = dataclasses.replace(run.task, verify_on_device=score, verify=verify)
    if hosted:
        problems = lambda *a: (x := run.task.problems(*a)).replace(facts=tuple(run.task.records(x.facts)))
        task = dataclasses.replace(task, verify_on_device=None, problems=problems, records=list)
    return dataclasses.replace(run, task=task)


def train_steps(run, count=2):
    """The state after some train steps, and the metrics of each."""
    state = initial_state.new_state(run, run.rl, transformer.init(run.model, jax.random.key(3)))
    train_step, seen = compile_train_step(rl.make_train_step, run), []
    for _ in range(count):
        state, metrics = train_step(state)
        seen.append(jax.device_get(metrics))
    return state, seen


def test_a_train_step_with_dynamic_sampling_asks_for_more_and_moves_the_cursor_past_all_it_asked():
    run = easy(algorithm="dapo")
    state, seen = train_steps(run)
    assert int(state.cursor) == run.rl.problems.prompts * sum(int(m["refill/rounds"]) for m in seen)
    assert any(m["refill/rounds"] > 1 for m in seen) and all(0 < m["refill/filled"] <= 1 for m in seen)
    hosted, same = train_steps(easy(hosted=True, algorithm="dapo"))
    assert int(hosted.cursor) == int(state.cursor)
    for a, b in zip(seen, same, strict=True):
        for key in ("reward", "refill/mixed", "tokens", "loss", "overlong"):
            assert a[key] == pytest.approx(float(b[key]), abs=1e-6)


@pytest.mark.exhaustive  # test_advantages has the baseline by hand
def test_remax_subtracts_the_reward_of_the_greedy_response():
    run = easy(algorithm="reinforce", row__advantage="remax")
    _, seen = train_steps(run)
    assert all(m["greedy"] in (0, 0.25, 0.5, 0.75, 1) for m in seen)  # of four prompts
    steps = make_steps(run)
    state = initial_state.new_state(run, run.rl, transformer.init(run.model, jax.random.key(3)))
    problems = steps.ask(state, jnp.int32(0))
    rollout, ahead = steps.sample(state, problems, jnp.int32(0))
    assert rollout.greedy.response.shape[0] == run.rl.problems.prompts and ahead is None
    earned = steps.verify(rollout, problems)
    batch, _ = steps.compute_advantages(state, steps.collect(lambda number: Experience(rollout, earned)))
    np.testing.assert_allclose(batch["advantage"], (earned.correct - earned.greedy[:, None]).reshape(-1))


def test_a_truncated_distribution_is_learned_from_with_the_samplers_own_log_probabilities():
    corrected = dict(algorithm="reinforce", row__correction="token_truncate(hi=2.0)")
    _, seen = train_steps(easy(top_k=5, keep_sampling_mask=False, **corrected), 1)
    assert seen[0]["sampler_gap"] > 0.1  # the truncated and the whole distribution differ
    assert seen[0]["correction/mean"] < 0.99 and seen[0]["sampler/ess"] < 1


@pytest.mark.parametrize("compiled", [False, True])
def test_a_mixed_group_is_kept_although_one_of_its_attempts_could_not_be_scored(compiled):
    scores = jnp.array([[1, jnp.nan, 0], [1, jnp.nan, 1], [jnp.nan, jnp.nan, jnp.nan]])
    rows = jnp.ones((9, T), bool)
    none = jnp.zeros((9, 0), jnp.int32)

    def sample(number):
        rollout = Rollout(none, none > 0, jnp.zeros((9, T), jnp.int32), rows, 0.0 * rows, rows[:, 0])
        reward = jnp.where(number == 0, scores, jnp.array([0.0, 1.0, 1.0]))
        return Experience(rollout, Rewards(reward, reward[..., None], {"round": jnp.full((3, 1), number)}))

    found, keep, _, rounds, cost = sample_until_mixed(sample, 3, compiled)
    np.testing.assert_array_equal(found.rewards.info["round"][:, 0], [0, 1, 1])
    assert keep.all() and int(rounds) == 2 and float(cost["refill/mixed"]) == pytest.approx(4 / 6)
