"""On-policy distillation: the gradient is that of the reverse KL, the teacher may be another model, and it never moves."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_train_step import tiny_config

from experiments import pretrain, rl
from rljax import policy_gradient as pg
from rljax import transformer
from rljax.errors import UserError
from rljax.training import initial_state, teacher
from rljax.training.run import resolve
from rljax.training.workdir import hold_workdir

ROW = pg.ALGORITHMS["on_policy_distillation"]


def test_the_advantage_is_how_much_likelier_the_teacher_finds_each_token():
    mask = jnp.array([[[1, 1, 1], [1, 1, 0]]])
    student = jnp.array([[[-1.0, -2.0, -0.5], [-1.0, -0.1, jnp.nan]]])
    teacher = jnp.array([[[-0.5, -3.0, -0.25], [-1.0, -0.6, -7.0]]])
    attempts = pg.Attempts(rewards=jnp.array([[1.0, 0.0]]), mask=mask, logprobs=student, ref_logprobs=teacher)
    advantage = lambda gamma: pg.compute_advantages(
        dataclasses.replace(ROW, advantage=f"reverse_kl(gamma={gamma})"), attempts
    )[0]
    np.testing.assert_allclose(advantage(0.0), [[[0.5, -1.0, 0.25], [0.0, -0.5, 0.0]]], atol=1e-6)
    np.testing.assert_allclose(advantage(0.5), [[[0.0625, -0.875, 0.25], [-0.25, -0.5, 0.0]]], atol=1e-6)
    np.testing.assert_array_equal(
        pg.compute_advantages(ROW, attempts)[0], advantage(0.0)
    )  # by itself, each for its own
    unscored = attempts._replace(rewards=jnp.array([[jnp.nan, 0.0]]))
    np.testing.assert_array_equal(pg.compute_advantages(ROW, unscored)[0][0, 0], 0.0)


def test_the_gradient_of_one_rollout_is_the_one_computed_by_hand():
    logits = jnp.array([[0.2, -0.3, 0.9], [0.0, 0.4, -1.0]])  # one response of two tokens, 2 and 0
    tokens, taught = np.array([2, 0]), np.array([-1.2, -0.1])

    def loss(x):
        logp = jnp.take_along_axis(jax.nn.log_softmax(x), tokens[:, None], 1)[:, 0][None]
        old = pg.stop_gradient(logp)
        attempts = pg.Attempts(
            jnp.zeros((1, 1)), jnp.ones((1, 1, 2)), logprobs=old[None], ref_logprobs=taught[None, None]
        )
        advantage = pg.compute_advantages(ROW, attempts)[0][0]
        mask = jnp.ones((1, 2))
        return jnp.sum(
            pg.token_weights(ROW, mask, group_size=1, const=2) * pg.token_loss(ROW, logp, old, advantage, mask)
        )

    expected = np.zeros((2, 3))
    for t in range(2):
        p = np.exp(np.asarray(logits[t], np.float64))
        p /= p.sum()
        ahead = taught[t] - np.log(p[tokens[t]])
        expected[t] = -ahead * (np.eye(3)[tokens[t]] - p) / 2  # mean over two tokens
    np.testing.assert_allclose(jax.grad(loss)(logits), expected, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_the_expected_gradient_is_that_of_the_reverse_kl(gamma):
    """Over all 27 responses of three tokens of a policy that looks at the token before, weighed by their probability."""
    student, taught = np.random.default_rng(0).normal(size=(2, 4, 3))  # [the token before, or 3 at the start; token]
    responses = np.array(list(itertools.product(range(3), repeat=3)))
    before = np.concatenate([np.full((27, 1), 3), responses[:, :-1]], 1)
    of_tokens = lambda table: jax.nn.log_softmax(table)[before, responses]  # [27, 3]
    row = dataclasses.replace(ROW, advantage=f"reverse_kl(gamma={gamma})")

    def surrogate(x):
        logp = of_tokens(x)
        old, mask = pg.stop_gradient(logp), jnp.ones((27, 3))
        attempts = pg.Attempts(
            jnp.zeros((27, 1)), mask[:, None], logprobs=old[:, None], ref_logprobs=of_tokens(taught)[:, None]
        )
        advantage = pg.compute_advantages(row, attempts)[0][:, 0]
        return jnp.sum(jnp.exp(old.sum(-1, keepdims=True)) * pg.token_loss(row, logp, old, advantage, mask))

    def divergence(x):
        weight = jnp.exp(of_tokens(x).sum(-1))
        if gamma:  # of whole responses
            return jnp.sum(weight * (of_tokens(x) - of_tokens(taught)).sum(-1))
        here = jax.nn.log_softmax(x)[before]  # of each token, at states that are held fixed
        each = jnp.sum(jnp.exp(here) * (here - jax.nn.log_softmax(taught)[before]), -1)
        return jnp.sum(pg.stop_gradient(weight) * each.sum(-1))

    with jax.enable_x64(True):
        student, taught = jnp.asarray(student, jnp.float64), jnp.asarray(taught, jnp.float64)
        np.testing.assert_allclose(jax.grad(surrogate)(student), jax.grad(divergence)(student), atol=1e-9)


# A run with a teacher

SMALL = {"rl.start": "", "rl.steps": 24, "rl.eval_every": 12, "rl.prompts": 4, "rl.group_size": 8, "eval.problems": 2}
SMALL |= {"eval.attempts": 2, "eval.greedy": False, "rl.algorithm": "on_policy_distillation", "rl.packing": 0}


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """The folder of a run of a wider model than the students."""
    folder = tmp_path_factory.mktemp("teacher")
    config = tiny_config(**{"model.width": 48, "pretrain.steps": 20, "pretrain.eval_every": 20})
    with hold_workdir(folder, config):
        pretrain.run(config, folder)
    return folder


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.exhaustive
def test_a_student_comes_nearer_to_a_wider_teacher_and_goes_on_with_it_bit_for_bit(taught, tmp_path):
    config = lambda: tiny_config(**SMALL | {"rl.teacher": f"{taught}:pretrain"})
    run = resolve(config(), "rl")
    assert run.rl.teacher_model.width == 48 and run.model.width == 32
    rl.run(config(), tmp_path / "once")
    kl = [row["train/kl/k1"] for row in lines(tmp_path / "once") if "train/kl/k1" in row]
    assert np.mean(kl[-3:]) < 0.7 * np.mean(kl[:3])
    rl.run(config(), tmp_path / "twice", stop=12)
    rl.run(config(), tmp_path / "twice")
    read = lambda name: (tmp_path / name / "metrics.jsonl").read_text()
    assert read("once") == read("twice")


def test_a_kl_term_may_be_measured_from_a_teacher(taught):
    changes = {"rl.algorithm": "grpo", "rl.teacher": f"{taught}:pretrain@20"}
    run = resolve(tiny_config(**SMALL | changes), "rl")
    taught_params = initial_state.teacher_params(run)
    state = initial_state.new_state(run, run.rl, transformer.init(run.model, jax.random.key(1)), taught_params)
    jax.tree.map(np.testing.assert_array_equal, state.reference, taught_params)
    assert state.reference_is_fixed


REFUSED = {
    "no teacher": ({}, "follows a teacher, and none is named"),
    "no stage": ({"rl.teacher": "rl"}, "name the workdir of another run before the stage"),
    "no run": ({"rl.teacher": "nowhere:rl"}, "nowhere is not the workdir of a run"),
    "no folder": ({"rl.teacher": "./nowhere"}, "nowhere"),
    "nobody asks": ({"rl.algorithm": "dr_grpo", "rl.teacher": "TAUGHT:pretrain"}, "nobody would ask the teacher"),
    "it would move": ({"rl.teacher": "TAUGHT:pretrain", "rl.refresh_reference": 3}, "would replace the teacher"),
    "other words": (
        {"rl.teacher": "TAUGHT:pretrain", "task.options.max_price": 9},
        "its vocabulary is not that of task shop",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_teacher_that_cannot_teach_is_refused_with_the_reason(case, taught):
    changes, reason = REFUSED[case]
    changes = {k: x.replace("TAUGHT", str(taught)) if isinstance(x, str) else x for k, x in changes.items()}
    with pytest.raises(UserError) as e:
        resolve(tiny_config(**SMALL | changes), "rl")
    assert reason in str(e.value)


def test_vocabularies_of_one_size_with_other_words_differ(taught):
    task = resolve(tiny_config()).task
    other = dataclasses.replace(task.tokenizer, words=(*task.tokenizer.words[:-1], "else"))
    assert teacher.same_vocabulary(task.tokenizer, task.tokenizer)
    assert not teacher.same_vocabulary(task.tokenizer, other)
