"""The train step: compiled, scanned, vmapped and hosted it is the same step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import shop
from experiments import rl
from rljax import evaluation, rewards, transformer
from rljax.sampler import Sampling, make_sampler
from rljax.structs import Problems, Rollout
from rljax.training import initial_state
from rljax.training.rl_steps import compile_train_step
from rljax.training.run import Run, resolve


@pytest.fixture(scope="module")
def tiny() -> Run:
    return resolve(tiny_config())


def tiny_config(**changes):
    config = shop.get_config("short")
    config.model.layers, config.model.width = 1, 32
    config.rl.max_new_tokens = 12
    config.rl.widths, config.rl.micro_batch = (), 16
    config.rl.optimizer.learning_rate, config.rl.optimizer.warmup = 1e-2, 0
    config.rl.updates, config.workers = 1, 0
    config.update_from_flattened_dict(changes)
    return config


def compiled(run):
    return compile_train_step(rl.make_train_step, run)


def state_of(run, seed=3):
    """A state whose policy already answers, right or wrong, so that rewards differ."""
    params = transformer.init(run.model, jax.random.key(seed))
    return initial_state.new_state(run, run.rl, params)


def same(a, b, atol=0.0):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_allclose(np.asarray(x, np.float64), np.asarray(y, np.float64), atol=atol, rtol=0)


def generous(task):
    """The task with a verifier that rewards any response with a number early on: rewards differ from the first step."""
    number = lambda token: (token >= task.tokenizer.zero) & (token < task.tokenizer.zero + 12)
    score = lambda response, mask, finished, facts: (number(response[..., 0]) & mask[..., 0]).astype(jnp.float32)
    verify = lambda text, record: text.split(" ")[0].isdigit() and int(text.split(" ")[0]) < 12
    return dataclasses.replace(task, verify_on_device=score, verify=verify)


@pytest.fixture(scope="module")
def easy(tiny):
    return dataclasses.replace(tiny, task=generous(tiny.task))


@pytest.fixture(scope="module")
def after_three(easy):
    train_step, state, seen = compiled(easy), state_of(easy), []
    for _ in range(3):
        state, metrics = train_step(state)
        seen.append(jax.device_get(metrics))
    return state, seen


def test_a_train_step_counts_steps_and_problems_and_changes_the_policy(easy, after_three):
    state, seen = after_three
    assert int(state.step) == 3 and int(state.cursor) == 3 * easy.rl.problems.prompts
    assert any(0 < m["reward"] < 1 for m in seen) and any(m["grad_norm"] > 0 for m in seen)
    assert not np.array_equal(state.params["embedding"], state_of(easy).params["embedding"])


def test_runs_that_differ_in_numbers_share_a_compiled_program(easy):
    def program(**changes):
        run = dataclasses.replace(resolve(tiny_config(**changes)), task=easy.task)
        train_step = compiled(run)
        return train_step.func.lower(*train_step.args, state_of(easy)).as_text()

    mine = program()
    rates = {"rl.temperature": 0.7, "rl.optimizer.learning_rate": 1e-4, "rl.row.surrogate": "ppo_clip(low=0.1)"}
    assert program(seed=7, **rates) == mine
    assert program(**{"rl.row.surrogate": "cispo"}) != mine


@pytest.mark.exhaustive  # three steps in turn are what other tests run
def test_the_compiled_train_step_can_be_scanned(easy, after_three):
    train_step = compiled(easy)
    scanned = jax.jit(lambda s: jax.lax.scan(lambda c, _: train_step(c), s, None, length=3))
    state, metrics = scanned(state_of(easy))
    same(state, after_three[0], atol=1e-6)
    np.testing.assert_allclose(metrics["reward"], [m["reward"] for m in after_three[1]], atol=1e-6)


@pytest.mark.exhaustive  # test_vmapped_runs compares whole runs
def test_the_compiled_train_step_can_be_vmapped_over_seeds(easy, after_three):
    states = [state_of(easy), state_of(easy, seed=5).replace(key=jax.random.key(11))]
    data = lambda s: s.replace(key=jax.random.key_data(s.key))
    both = jax.tree.map(lambda *x: jnp.stack(x), *map(data, states))
    train_step = compiled(easy)
    many = jax.jit(jax.vmap(lambda s: data(train_step(s.replace(key=jax.random.wrap_key_data(s.key)))[0])))
    for _ in range(3):
        both = many(both)
    first = jax.tree.map(lambda x: x[0], both)
    same(first, data(after_three[0]), atol=1e-5)
    assert not np.array_equal(both.params["embedding"][0], both.params["embedding"][1])


def test_hosted_and_compiled_are_the_same_run_up_to_rounding(easy, after_three):
    def problems(seed, index, split):  # the facts of a text task are records, which no jit takes
        asked = easy.task.problems(seed, index, split)
        return asked.replace(facts=tuple(easy.task.records(asked.facts)))

    text = dataclasses.replace(easy.task, verify_on_device=None, problems=problems, records=list)
    hosted = dataclasses.replace(easy, task=text)
    train_step, state = compiled(hosted), state_of(hosted)
    for k in range(3):
        state, metrics = train_step(state)
        assert float(metrics["reward"]) == pytest.approx(float(after_three[1][k]["reward"]))
        assert float(metrics["verifier_error"]) == 0
    same(state, after_three[0], atol=1e-6)


def rows(task, texts):
    ids = [task.tokenizer.encode(t, specials=True) for t in texts]
    response = np.zeros((len(ids), 24), np.int32)
    mask = np.zeros((len(ids), 24), bool)
    for n, row in enumerate(ids):
        response[n, : len(row)], mask[n, : len(row)] = row, True
    none = jnp.zeros((len(ids), 1))
    finished = jnp.asarray([t.endswith("<eos>") for t in texts])
    return Rollout(
        prompt=none,
        prompt_mask=none,
        response=jnp.asarray(response),
        mask=jnp.asarray(mask),
        logprobs=none,
        finished=finished,
    )


def test_device_host_and_worker_process_rewards_agree(tiny):
    asked = tiny.task.problems(0, jnp.arange(2), "test")
    record = tiny.task.records(asked.facts)[0]
    a, b = next((x, y) for x in record["prices"] for y in record["prices"] if x < y and x + y == record["total"])
    rollout = rows(tiny.task, [f"answer {a} {b} <eos>", f"answer {a} {a} <eos>", "answer 1 2 <eos>", f"answer {a} {b}"])
    device, _ = rewards.device_verifier(tiny.task, 2)(rollout, asked)
    host, info = rewards.host_verifier(tiny.task, 2, workers=0)(rollout, asked)
    np.testing.assert_array_equal(device, host)
    assert device[0].tolist() == [1.0, 0.0] and device[1, 1] == 0 and not info["verifier_error"].any()


def raises_on_two(text, record):
    if "2" in text:
        raise ValueError("provoked")
    return True


def test_a_verifier_that_raises_scores_zero_and_is_counted(tiny):
    task = dataclasses.replace(tiny.task, verify=raises_on_two, verify_on_device=None)
    asked = Problems(
        prompt=jnp.zeros((1, 1)), prompt_mask=jnp.ones((1, 1)), facts=tiny.task.problems(0, jnp.arange(1), "test").facts
    )
    rollout = rows(task, ["answer 1 2 <eos>", "answer 1 3 <eos>"])
    for workers in (0, 1):
        reward, info = rewards.host_verifier(task, 2, workers=workers)(rollout, asked)
        assert reward.tolist() == [[0.0, 1.0]] and info["verifier_error"].tolist() == [[1.0, 0.0]]


@pytest.mark.exhaustive
@pytest.mark.parametrize("rows", [8, 1, 3])
def test_an_evaluation_and_a_sample_are_the_same_however_many_attempts_are_sampled_at_once(tiny, rows):
    params = state_of(tiny).params
    options = evaluation.EvaluationOptions(problems=5, attempts=4)
    make = lambda o: evaluation.make_evaluator(tiny.task, tiny.model, o, seed=0, max_new_tokens=12, workers=0)
    (whole, samples), (parts, found) = make(options)(params), make(dataclasses.replace(options, rows=rows))(params)
    assert [s["tokens"] for s in samples] == [s["tokens"] for s in found] and parts == pytest.approx(whole, abs=1e-6)

    sampling = Sampling(group_size=5, max_new_tokens=12, stop_ids=tiny.task.tokenizer.stop_ids)
    asked, key = tiny.task.problems(0, jnp.asarray([3]), "test"), jax.random.key(1)
    at_once = make_sampler(sampling, tiny.model)(params, asked, key)
    in_parts = evaluation.sample_in_parts(sampling, tiny.model, params, asked, key, rows)
    np.testing.assert_array_equal(in_parts.response, at_once.response)
    np.testing.assert_allclose(in_parts.logprobs, at_once.logprobs, atol=1e-5)


def test_calls_of_an_evaluation_have_at_most_the_rows_of_its_setting():
    options = evaluation.EvaluationOptions(problems=128, attempts=16)
    divide = lambda rows, attempts=16: evaluation.divide_attempts(
        dataclasses.replace(options, rows=rows), attempts, transformer.Layout()
    )
    assert divide(0) == (64, 64, 16) and divide(256) == (64, 16, 16) and divide(100) == (64, 6, 16)
    assert divide(10) == (64, 1, 8) and divide(1) == (64, 1, 1) and divide(256, 1) == (64, 64, 1)
    for rows in range(1, 300):
        parts = divide(rows)
        assert parts.problems * parts.attempts <= rows, rows


@pytest.mark.parametrize("prompt_slots, longest", [(512, 512), (512, 64), (13, 160), (4096, 1)])
def test_greedy_attempts_of_an_evaluation_hold_no_more_columns_than_the_others(prompt_slots, longest):
    options = evaluation.EvaluationOptions(problems=256, attempts=4)
    for rows in (0, 1, 3, 16, 100, 256, 1000):
        asked = dataclasses.replace(options, rows=rows)
        others = evaluation.divide_attempts(asked, 4, transformer.Layout())
        greedy = evaluation.divide_greedy(asked, prompt_slots, longest, transformer.Layout())
        held = others.problems * (prompt_slots + others.attempts * longest)
        assert greedy.attempts == 1 and greedy.block == others.block
        assert greedy.problems * (prompt_slots + longest) <= max(held, prompt_slots + longest)
    shop = evaluation.EvaluationOptions(
        problems=128, attempts=16, rows=256
    )  # in one call, as long as that holds no more
    assert evaluation.divide_greedy(shop, 13, 160, transformer.Layout()).problems == 64


def test_an_evaluation_is_the_same_twice_and_counts_what_it_says(tiny):
    params = state_of(tiny).params
    options = evaluation.EvaluationOptions(problems=6, attempts=4)
    evaluate = evaluation.make_evaluator(
        tiny.task, tiny.model, options, seed=0, max_new_tokens=12, full_problems=2, workers=0
    )
    (first, samples), (second, again) = evaluate(params), evaluate(params)
    assert first == second and samples == again
    assert len(samples) == 2 * 4 and {s["problem"] for s in samples} == {0, 1}
    shares = [first[f"eval/strategy/{s}"] for s in ("jump", "steps", "check", "retry")]
    assert sum(shares) == pytest.approx(1.0)
    assert first["eval/pass@1"] <= first["eval/pass@2"] <= first["eval/pass@4"]
    for s in samples:
        assert len(s["tokens"]) == len(s["logprobs"]) == len(s["pieces"])
