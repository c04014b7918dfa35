"""Dynamic sampling: refilled until every group has something to compare, compiled and hosted alike, and its cost logged."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import shop
from experiments import rl
from rljax import transformer
from rljax.structs import Rollout
from rljax.training import initial_state, settings
from rljax.training.dynamic_sampling import refill

B, G, T = 3, 2, 4
MIXED = [[True, False, False], [False, False, True], [False, True, True], [False, False, False]]  # by round


def attempt(number):
    """Round r asks for prompts 10 r + 0, 1, 2; the tokens of a response say which prompt and which attempt it is."""
    prompt = 10 * number + jnp.arange(B)
    tokens = (prompt[:, None] * 2 + jnp.arange(G)).reshape(-1, 1) * jnp.ones((1, T), jnp.int32)
    none = jnp.zeros((B * G, 0), jnp.int32)
    mask = jnp.ones((B * G, T), bool)
    rollout = Rollout(none, none > 0, tokens, mask, 0.0 * mask, mask[:, 0])
    reward = jnp.stack([jnp.ones(B), 1.0 - jnp.asarray(MIXED)[number]], -1)
    return rollout, reward, {"prompt": prompt, "each": prompt[:, None] * jnp.ones(G)}


@pytest.mark.parametrize("compiled", [False, True])
def test_mixed_groups_of_later_rounds_take_the_places_of_groups_that_agree(compiled):
    run = lambda: refill(attempt, 4, compiled)
    (rollout, reward, info), keep, first, rounds, cost = jax.jit(run)() if compiled else run()
    assert keep.all() and int(rounds) == 3
    np.testing.assert_array_equal(info["prompt"], [0, 12, 21])
    np.testing.assert_array_equal(info["each"], [[0, 0], [12, 12], [21, 21]])
    np.testing.assert_array_equal(rollout.response[:, 0], [0, 1, 24, 25, 42, 43])  # groups stay whole
    np.testing.assert_array_equal(reward, [[1, 0]] * 3)
    np.testing.assert_array_equal(first[2]["prompt"], [0, 1, 2])
    assert int(cost["refill/prompts"]) == 9 and int(cost["tokens"]) == 3 * B * G * T
    assert float(cost["refill/mixed"]) == pytest.approx(4 / 9) and float(cost["refill/filled"]) == 1


@pytest.mark.parametrize("compiled", [False, True])
def test_when_the_rounds_are_used_up_what_is_there_is_kept_and_marked(compiled):
    (_, _, info), keep, _, rounds, cost = refill(attempt, 2, compiled)
    np.testing.assert_array_equal(keep, [True, True, False])
    np.testing.assert_array_equal(info["prompt"][:2], [0, 12])
    assert int(rounds) == 2 and float(cost["refill/filled"]) == pytest.approx(2 / 3)


def test_without_refilling_there_is_one_round_and_all_of_it_is_kept():
    (_, _, info), keep, _, rounds, cost = refill(attempt, 0, False)
    assert keep is None and int(rounds) == 1 and cost == {}
    np.testing.assert_array_equal(info["prompt"], [0, 1, 2])


# ---------------------------------------------------------------------------------------------------------------------
# In a whole turn.


@pytest.fixture(scope="module")
def easy():
    """A tiny policy, and a verifier that rewards any response that begins with a small number."""
    config = shop.get_config("short")
    config.model.layers, config.model.width = 1, 32
    config.rl.max_new_tokens, config.rl.widths, config.rl.micro_batch, config.workers = 8, (), 0, 0
    s = settings.resolve(config)
    zero = s.task.tokenizer.zero
    number = lambda token: (token >= zero) & (token < zero + 12)
    score = lambda response, mask, finished, facts: (number(response[..., 0]) & mask[..., 0]).astype(jnp.float32)
    verify = lambda text, record: (m := re.match(r"\d+", text)) is not None and int(m[0]) < 12
    return dataclasses.replace(s, task=dataclasses.replace(s.task, verify_on_device=score, verify=verify))


def turns(s, count=2, hosted=False):
    """The states and metrics of some turns."""
    if hosted:
        task = s.task
        problems = lambda *a: (x := task.problems(*a)).replace(facts=tuple(task.records(x.facts)))
        s = dataclasses.replace(
            s, task=dataclasses.replace(task, verify_on_device=None, problems=problems, records=list)
        )
    params = transformer.init(s.model, jax.random.key(3))
    state = initial_state.new_state(s, s.config.rl, params, settings.algorithm(s.config.rl))
    iteration, seen = rl.make_iteration(s), []
    for _ in range(count):
        state, metrics = iteration(state)
        seen.append(jax.device_get(metrics))
    return state, seen


def configured(s, **changes):
    config = s.config.copy_and_resolve_references()
    config.rl.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return dataclasses.replace(s, config=config)


def test_a_turn_with_dynamic_sampling_asks_for_more_and_moves_the_cursor_past_all_it_asked(easy):
    state, seen = turns(configured(easy, algorithm="dapo"))
    prompts = easy.config.rl.prompts
    assert int(state.cursor) == prompts * sum(int(m["refill/rounds"]) for m in seen)
    assert any(m["refill/rounds"] > 1 for m in seen) and all(0 < m["refill/filled"] <= 1 for m in seen)
    hosted, same = turns(configured(easy, algorithm="dapo"), hosted=True)
    assert int(hosted.cursor) == int(state.cursor)
    for a, b in zip(seen, same, strict=True):
        for key in ("reward", "refill/mixed", "tokens", "loss", "overlong"):
            assert a[key] == pytest.approx(float(b[key]), abs=1e-6)


def test_remax_subtracts_the_reward_of_the_greedy_response(easy):
    s = configured(easy, algorithm="reinforce", row__advantage="remax")
    _, seen = turns(s)
    assert all(m["greedy"] in (0, 0.25, 0.5, 0.75, 1) for m in seen)  # of four prompts
    verbs = rl.make_verbs(s)
    state = initial_state.new_state(s, s.config.rl, transformer.init(s.model, jax.random.key(3)))
    problems = verbs.ask(state.cursor)
    rollout, greedy = verbs.sample(state.params, problems, state.step_key())
    assert greedy.response.shape[0] == s.config.rl.prompts
    reward, _, info = verbs.verify(rollout, greedy, problems)
    batch, _ = verbs.compare(state, rollout, reward, greedy=info["greedy"])
    np.testing.assert_allclose(batch["advantage"], (reward - info["greedy"][:, None]).reshape(-1))


def test_pitfall_05_a_truncated_distribution_is_learned_from_with_the_samplers_own_log_probabilities(easy):
    s = configured(easy, algorithm="reinforce", top_k=5, row__correction="token_truncate(hi=2.0)")
    _, seen = turns(s, 1)
    assert seen[0]["sampler_gap"] > 0.1  # the truncated and the whole distribution differ
    assert seen[0]["correction/mean"] < 0.99 and seen[0]["sampler/ess"] < 1
