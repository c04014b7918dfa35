"""Files of the user's own: worlds, advantages, surrogates, algorithms and reward terms, by plain dict entries."""

import dataclasses
import gc
import multiprocessing
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import shop
from experiments import rl
from rljax import options, policy_gradient, rewards, tasks, transformer
from rljax.errors import UserError
from rljax.structs import Problems, Rollout
from rljax.text import ByteTokenizer, pad_batch
from rljax.training import initial_state
from rljax.training.rl_steps import compile_train_step
from rljax.training.run import resolve

PLUGIN = '''
from typing import Literal

from rljax import tasks
from rljax.policy_gradient import ADVANTAGE, ALGORITHMS, SURROGATE, Algorithm
from rljax.rewards import TEXT_TERMS


def ranked(rewards, *, power: int = 1, tie: Literal["low", "high"] = "low", scale: float = 1.0):
    """An advantage with a whole number, a word and a number."""
    centered = rewards - rewards.mean(-1, keepdims=True)
    return scale * centered**power if tie == "low" else -centered


def plain(logp, advantage, *, rounds: int = 2):
    return -rounds * advantage[..., None] * logp


ADVANTAGE["ranked"] = ranked
SURROGATE["plain"] = plain
ALGORITHMS["mine"] = Algorithm("ranked(power=3)", "plain(rounds=1)", "token_mean")
TEXT_TERMS["shouting"] = lambda text: float(text.isupper())
tasks.TASKS["my_shop"] = "rljax.tasks.shop"
'''
TERMS = """
def brevity(text):
    if "bomb" in text:
        raise ValueError("provoked")
    return 1.0 / (1 + len(text))


def counted(texts, *, word: str = "a"):
    return [float(text.count(word)) for text in texts]


counted.batched = True
"""


@pytest.fixture
def plugin(tmp_path):
    """The plug-in's file; what it registers is gone after the test."""
    (tmp_path / "my_plugin.py").write_text(PLUGIN)
    (tmp_path / "my_rewards.py").write_text(TERMS)
    tables = (policy_gradient.ADVANTAGE, policy_gradient.losses.SURROGATE, policy_gradient.ALGORITHMS)
    tables += (rewards.TEXT_TERMS, tasks.TASKS)
    before = [dict(table) for table in tables]
    yield tmp_path
    for table, kept in zip(tables, before, strict=True):
        table.clear()
        table.update(kept)
    for name in [n for n in sys.modules if n.startswith(options.PLUGIN_PACKAGE)]:
        del sys.modules[name]


def config_of(folder, **changes):
    config = shop.get_config("short")
    config.plugins = (str(folder / "my_plugin.py"),)
    config.model.layers, config.model.width, config.workers = 1, 32, 0
    config.rl.update(dict(max_new_tokens=8, widths=(), algorithm="mine"))
    config.task.name = "my_shop"
    config.update_from_flattened_dict(changes)
    return config


def test_a_plugin_adds_a_world_an_advantage_a_surrogate_and_an_algorithm_and_the_run_learns_with_them(plugin):
    run = resolve(config_of(plugin), "rl")
    assert str(run.rl.algorithm.advantage) == "ranked(power=3)" and run.task.name == "shop"
    number = lambda response, mask, finished, facts: (response[..., 0] % 2 == 0).astype(jnp.float32)
    run = dataclasses.replace(run, task=dataclasses.replace(run.task, verify_on_device=number))
    state = initial_state.new_state(run, run.rl, transformer.init(run.model, jax.random.key(3)))
    _, metrics = compile_train_step(rl.make_train_step, run)(state)
    assert float(metrics["grad_norm"]) > 0


def test_only_numbers_of_an_own_choice_may_differ_between_runs_of_one_program(plugin):
    run = resolve(config_of(plugin), "rl")
    paths = [path for path in run.numbers() if path.startswith("rl.row.")]
    assert paths == ["rl.row.advantage.scale"]
    other = run.with_numbers({"rl.row.advantage.scale": 2.0, "seed": 5})
    assert other.rl.algorithm.option("advantage", "scale") == 2.0 and other.seed == 5


def test_an_option_that_is_a_word_knows_its_words(plugin):
    with pytest.raises(UserError, match="tie must be one of \\('low', 'high'\\)"):
        resolve(config_of(plugin, **{"rl.row.advantage": "ranked(tie=middle)"}), "rl")


def test_a_plugin_that_is_not_there_or_fails_is_one_line(plugin):
    with pytest.raises(UserError, match="plug-in .*nowhere.py: there is no such Python file"):
        resolve(config_of(plugin, plugins=(str(plugin / "nowhere.py"),)), "rl")
    (plugin / "broken.py").write_text("1 / 0")
    with pytest.raises(UserError, match="plug-in .*broken.py: ZeroDivisionError"):
        resolve(config_of(plugin, plugins=(str(plugin / "broken.py"),)), "rl")


@pytest.mark.parametrize("part", ["advantage", "surrogate"])
def test_an_own_function_that_reads_unknown_data_is_refused_before_the_run(plugin, part):
    (plugin / "my_plugin.py").write_text(
        f"{PLUGIN}\n\ndef strange(scores, power=2):\n    return scores\n\n\n{part.upper()}['strange'] = strange\n"
    )
    with pytest.raises(UserError, match=f"{part} 'strange' reads 'scores', which does not exist: .* mask"):
        resolve(config_of(plugin, **{f"rl.row.{part}": "strange"}), "rl")


def test_an_own_function_that_returns_another_shape_is_one_line(plugin):
    (plugin / "my_plugin.py").write_text(
        f"{PLUGIN}\nADVANTAGE['total'] = lambda rewards: rewards.sum()\nSURROGATE['mean'] = lambda logp: logp.mean(-1)\n"
    )
    ones = jnp.ones((2, 3))
    run = resolve(config_of(plugin, **{"rl.row.advantage": "total", "rl.row.surrogate": "mean"}), "rl")
    with pytest.raises(
        UserError, match=r"advantage 'total' returned an array of shape \(\), but must return \(2, 3\) or"
    ):
        policy_gradient.compute_advantages(
            run.rl.algorithm, policy_gradient.Attempts(rewards=ones, mask=jnp.ones((2, 3, 4)))
        )
    with pytest.raises(
        UserError, match=r"surrogate 'mean' returned an array of shape \(2,\), but must return \(2, 3\)"
    ):
        policy_gradient.token_loss(run.rl.algorithm, ones, ones, ones[:, 0], ones)


def says_yes(text, record):
    return "yes" in text


def scored(reward, texts, workers):
    task = dataclasses.replace(
        tasks.make_task("shop"), tokenizer=ByteTokenizer(), verify_on_device=None, verify=says_yes, records=list
    )
    terms = rewards.parse_reward(reward)
    rows = [[*task.tokenizer.encode(t), task.tokenizer.eos] for t in texts]
    response, mask = pad_batch(rows, 60, 0)
    blank = np.zeros((len(texts), 1), np.int32)
    rollout = Rollout(blank, blank > 0, jnp.asarray(response), jnp.asarray(mask), 0.0 * mask, np.ones(len(texts), bool))
    problems = Problems(prompt=blank, prompt_mask=blank > 0, facts=({},) * len(texts))
    return rewards.make_reward_fn(task, 1, workers, terms, 60)(rollout, problems)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_reward_may_name_a_function_of_a_file_also_in_worker_processes(plugin, workers, capfd):
    file = plugin / "my_rewards.py"
    text = f"correct + 0.5*{file}:brevity + 2*{file}:counted(word=e) - 0.1*length(per=10)"
    found = scored(text, ["yes", "see me", "bomb"], workers)
    np.testing.assert_allclose(found.terms[:, 0, 0], [1, 0, 0])
    np.testing.assert_allclose(found.terms[:, 0, 1], [0.5 / 4, 0.5 / 7, 0], rtol=1e-6)  # what raises earns nothing
    np.testing.assert_allclose(found.terms[:, 0, 2], [2, 6, 0])
    np.testing.assert_allclose(found.terms[:, 0, 3], [-0.04, -0.07, -0.05], rtol=1e-5)  # stop token included
    np.testing.assert_array_equal(found.info["verifier_error"][:, 0], [0, 0, 1])
    assert capfd.readouterr().err.count("the reward term 'brevity' raised ValueError: provoked") == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_term_that_raises_for_the_whole_first_batch_ends_the_run_with_its_exception_and_no_process_is_left(
    plugin, workers
):
    said = "the reward term 'brevity' raised an exception for all 2 responses of the first batch: ValueError: provoked"
    with pytest.raises(UserError, match=said) as caught:
        scored(f"correct + {plugin / 'my_rewards.py'}:brevity", ["bomb", "bomb"], workers)
    caught = None  # noqa: F841  its traceback holds the workers
    gc.collect()
    watching = [t for t in threading.enumerate() if "ExecutorManager" in type(t).__name__]
    assert not watching and not multiprocessing.active_children()  # Python's exit would collide with them


@pytest.mark.parametrize("lines", ["def f(text, record):", "def f():", "def f(text, record, *, n=1):"])
def test_a_term_that_cannot_be_called_as_terms_are_is_refused_before_the_run(plugin, lines):
    (plugin / "own.py").write_text(f"{lines}\n    return 1.0\n")
    with pytest.raises(UserError, match=r"rl.reward: the term 'f' is called as f\(text\) .* but its function takes"):
        resolve(config_of(plugin, **{"rl.reward": f"correct + {plugin / 'own.py'}:f"}), "rl")


def test_a_term_of_the_reward_that_gives_nan_is_counted_and_a_batch_of_such_ends_the_run(plugin):
    file = plugin / "nan_rewards.py"
    file.write_text("def doubt(text):\n    return float('nan') if 'hm' in text else 1.0\n")
    found = scored(f"correct + {file}:doubt", ["yes", "hm", "no", "yes", "yes", *["no"] * 45], 0)
    np.testing.assert_array_equal(found.info["verifier_unscored"][:3, 0], [0, 1, 0])
    with pytest.raises(UserError, match="could not be scored, because the verifier or a term of the reward gave NaN"):
        scored(f"correct + {file}:doubt", ["hm", "hm yes"], 0)


def test_a_file_without_that_function_is_one_line(plugin):
    with pytest.raises(UserError, match="has no function 'nothing'"):
        rewards.parse_reward(f"correct + {plugin / 'my_rewards.py'}:nothing")
