"""A rollout that is verified in parts, while the rest of it is sampled: the numbers are those of one that is verified at the end."""

import dataclasses

import jax
import numpy as np
import pytest
from test_dynamic_sampling import easy, train_steps
from test_slots import MASK, PROMPT, STOP, B, G, T
from test_train_step import tiny_config

from configs import programs
from experiments import rl
from rljax import rewards, sampler, tasks, transformer
from rljax.errors import UserError
from rljax.sampler import slots as slots_module
from rljax.structs import EndedRows, Problems, Rollout
from rljax.training.checks import check_parts
from rljax.training.journal import read_records
from rljax.training.rl_steps import choose_parts
from rljax.training.run import resolve
from rljax.training.workdir import hold_workdir
from tests import exhaustive

MODEL = transformer.Config(vocab_size=11, width=16, heads=2, kv_heads=2, head_width=8, ff_width=24, layers=1)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(slots_module, "CHUNK", 16)


def draw(model, parts, slots, **changes):
    """A rollout of ``B`` prompts with ``G`` attempts at each."""
    settings = sampler.Sampling(group_size=G, max_new_tokens=T, stop_ids=(STOP,), slots=slots, **changes)
    params = jax.jit(transformer.init, static_argnums=0)(model, jax.random.key(0))
    make = lambda parts: sampler.make_sampler(settings, model, to_learn_from=True, parts=parts)
    return make(parts)(params, Problems(PROMPT, MASK, ()), jax.random.key(2))


CASES = {
    "all rows at once": (MODEL, 0, {}),
    "slots, a truncated distribution": (MODEL, 5, dict(top_k=8, temperature=0.9)),
    "slots, stacked layers": (dataclasses.replace(MODEL, layers=2, scan_layers=True), 5, {}),
}


@pytest.mark.parametrize("name", exhaustive.cases(CASES, lambda name: name != "slots, stacked layers"))
def test_the_rollout_is_the_same_bit_for_bit_in_any_number_of_parts(name):
    model, slots, changes = CASES[name]
    whole = draw(model, 1, slots or B * G, **changes)
    assert whole.earlier is None
    for parts in (2, 7):
        found = draw(model, parts, slots or B * G, **changes)
        jax.tree.map(np.testing.assert_array_equal, found.replace(earlier=None), whole)
        counts = [int(moment.ended.sum()) for moment in found.earlier]
        assert len(counts) == (parts if slots else min(parts, 3)) - 1
        assert counts == sorted(counts) and 0 < counts[0] and counts[-1] < B * G
        assert not slots or all(n * parts >= B * G * i for i, n in enumerate(counts, 1)), "equal shares of the rows"
        for moment in found.earlier:
            for field in ("response", "mask", "finished"):
                of_ended = np.asarray(getattr(moment, field))[moment.ended]
                np.testing.assert_array_equal(of_ended, np.asarray(getattr(whole, field))[moment.ended])


# What the verifier sees


def text_task(**changes):
    task = dataclasses.replace(tasks.make_task("shop"), verify_on_device=None, records=list)
    return dataclasses.replace(task, **changes)


def rollout_of(numbers, ended):
    """Rows of one token each, its number; ``ended`` are lists of those that had ended at each moment."""
    task, rows = tasks.make_task("shop"), len(numbers)
    response = np.asarray(numbers, np.int32)[:, None] + task.tokenizer.zero
    full = np.ones((rows, 1), bool)
    blank = np.zeros((rows, 1), np.int32)
    had = [np.isin(np.arange(rows), done) for done in ended]
    earlier = tuple(
        EndedRows(done, np.where(done[:, None], response, 0), full & done[:, None], ~full[:, 0]) for done in had
    )
    return Rollout(blank, blank > 0, response, full, 0.0 * full, ~full[:, 0], earlier=earlier)


def verified(judge, ended, max_unscored=0.5, workers=0):
    problems = Problems(np.zeros((3, 1)), np.ones((3, 1)), tuple({"problem": n} for n in range(3)))
    verify = rewards.host_verifier(text_task(verify_batch=judge), 2, workers, max_unscored=max_unscored)
    return verify(rollout_of([7, 0, 5, 1, 9, 3], ended), problems)


def test_each_response_is_verified_once_as_soon_as_it_has_ended_and_its_score_goes_to_its_row():
    seen = []

    def judge(pairs):
        seen.append([(text, record["problem"]) for text, record in pairs])
        return [{"correct": int(text) / 10} for text, _ in pairs]

    correct, info = verified(judge, [[], [3, 4], [3, 4], [0, 3, 4]])
    assert seen == [[("1", 1), ("9", 2)], [("7", 0)], [("0", 0), ("5", 1), ("3", 2)]]
    np.testing.assert_allclose(correct, [[0.7, 0.0], [0.5, 0.1], [0.9, 0.3]])
    np.testing.assert_array_equal(verified(judge, [])[0], correct)
    assert not info["verifier_error"].any()


def raises_on_one(pairs):
    if any(text == "1" for text, _ in pairs):
        raise ValueError("provoked")
    return [{"correct": float("nan") if text == "9" else 1.0} for text, _ in pairs]


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_what_is_raised_about_a_batch_is_about_all_of_its_parts(workers):
    """Of the first part every response provokes an exception, and of the second a whole share is unscored."""
    correct, info = verified(raises_on_one, [[3], [3, 4]], max_unscored=0.2, workers=workers)
    np.testing.assert_array_equal(correct, [[1, 1], [1, 0], [np.nan, 1]])
    np.testing.assert_array_equal(info["verifier_error"], [[0, 0], [0, 1], [0, 0]])
    with pytest.raises(UserError, match="1 of 6 responses could not be scored"):
        verified(raises_on_one, [[3], [3, 4]], max_unscored=0.1, workers=workers)


def test_the_host_reads_no_response_before_those_that_ended_earlier_are_verified():
    happened = []

    class Read:
        """An array on a device that notes when it is fetched."""

        def __init__(self, name, array):
            self.name, self.array, self.shape = name, np.asarray(array), array.shape

        def __array__(self, dtype=None, copy=None):
            happened.append(self.name)
            return self.array

    def judge(pairs):
        happened.append(f"verified {len(pairs)}")
        return [{"correct": 1.0} for _ in pairs]

    rollout = rollout_of([7, 0, 5, 1, 9, 3], [[3], [0, 1, 3]])
    first, second = (m.replace(response=Read(f"read {n}", m.response)) for n, m in enumerate(rollout.earlier))
    rollout = rollout.replace(earlier=(first, second), response=Read("read the rest", rollout.response))
    problems = Problems(np.zeros((3, 1)), np.ones((3, 1)), ({},) * 3)
    rewards.host_verifier(text_task(verify_batch=judge), 2, workers=0)(rollout, problems)
    assert happened == ["read 0", "verified 1", "read 1", "verified 2", "read the rest", "verified 3"]


def test_the_first_responses_are_verified_while_the_others_decode():
    """A busy machine may come too late to see it, but not every time."""
    model = dataclasses.replace(MODEL, width=64, layers=2, max_length=512)
    settings = sampler.Sampling(group_size=G, max_new_tokens=480, stop_ids=(STOP,))
    params = jax.jit(transformer.init, static_argnums=0)(model, jax.random.key(0))
    sample = sampler.make_sampler(settings, model, parts=3)
    complete = []

    def judge(pairs):
        complete[-1] += [rollout.response.is_ready()]
        return [{"correct": 1.0} for _ in pairs]

    verify = rewards.host_verifier(text_task(verify_batch=judge), G, workers=0)
    for seed in range(10):
        complete.append([])
        rollout = sample(params, Problems(PROMPT, MASK, ()), jax.random.key(seed))
        verify(rollout, Problems(PROMPT, MASK, ({},) * B))
    assert not all(ready for ready, *_ in complete), "when the first part was verified, all of the rollout was complete"


# In a run


def hosted(**changes):
    """A run whose reward reads text. Its policy is random, so that lengths vary."""
    settings = {
        "rl.start": "",
        "rl.steps": 4,
        "rl.eval_every": 2,
        "rl.log_every": 1,
        "rl.prompts": 4,
        "rl.group_size": 4,
    }
    settings |= {"rl.reward": "correct + 0.5*repetition(n=1)", "rl.max_new_tokens": 40, "rl.slots": 5, "log": ()}
    settings |= {"eval.problems": 2, "eval.attempts": 2, "eval.greedy": False}
    return tiny_config(**(settings | changes))


def train(folder, parts, stop=0):
    config = hosted(**{"rl.verify_parts": parts})
    with hold_workdir(folder, config):
        rl.run(config, folder, stop=stop)


def test_the_metrics_of_a_run_are_the_same_bytes_in_any_number_of_parts_also_where_it_continues(tmp_path):
    train(tmp_path / "whole", 1)
    train(tmp_path / "parts", 3, stop=2)
    train(tmp_path / "parts", 1)
    whole, parts = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "parts"))
    assert parts == whole and whole.count(b"train/reward/repetition") == 4
    lines = read_records(tmp_path / "whole" / "metrics.jsonl")
    assert all(line["train/grad_norm"] > 0 for line in lines if "train/reward" in line), "there was something to learn"


@pytest.mark.exhaustive
def test_each_round_of_dynamic_sampling_is_verified_in_parts():
    """The same state, bit for bit, and more than one round."""
    ends = []
    for parts in (1, 3):
        run = easy(hosted=True, algorithm="dapo", slots=5)
        sampling = dataclasses.replace(run.rl.sampling, verify_parts=parts)
        run = dataclasses.replace(run, rl=dataclasses.replace(run.rl, sampling=sampling))
        state, seen = train_steps(run)
        ends.append((state.replace(key=None), [{k: v for k, v in m.items()} for m in seen]))
    assert max(m["refill/rounds"] for m in ends[0][1]) > 1
    jax.tree.map(np.testing.assert_array_equal, *ends)


def test_parts_are_chosen_where_the_verifier_is_slow():
    chosen = lambda config: choose_parts(resolve(config, "rl"))
    assert chosen(hosted()) == 1 and chosen(hosted(**{"rl.verify_parts": 7})) == 7
    assert chosen(tiny_config()) == 1 and chosen(programs.get_config("short")) == 8


def test_parts_are_refused_where_nothing_waits_for_the_verifier():
    with pytest.raises(UserError, match="rl.verify_parts=2: attempts at task shop are verified on the device"):
        resolve(tiny_config(**{"rl.verify_parts": 2}), "rl")
    run = resolve(hosted(**{"rl.verify_parts": 2}), "rl")
    ahead = dataclasses.replace(run, mesh=dataclasses.replace(run.mesh, actors=1))
    with pytest.raises(
        UserError, match="rl.verify_parts=2: with mesh.actors attempts are verified while the next ones"
    ):
        check_parts(ahead)
    assert choose_parts(ahead) == 1
